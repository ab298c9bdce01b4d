//! One backend of one service, ready to forward to.

use crate::Plain;

/// A cache line with all that forwarding to a backend takes. Never changed
/// once a slot names it: the agent writes a new one and moves the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct BackendRecord {
    /// Outer source address, IPv4 in its mapped form; unspecified for L2.
    pub source: [u8; 16],
    /// The backend's address, IPv4 in its mapped form: outer destination, or
    /// for L2 the neighbour.
    pub destination: [u8; 16],
    /// A [`BackendKind`].
    pub kind: u32,
    /// Index of the [`crate::NextHop`] that leads to the backend.
    pub next_hop: u32,
    /// Index of the [`crate::Counter`] within one processor's counters.
    pub counter: u32,
    /// Number of the service, as in [`crate::VipEntry`].
    pub service: u32,
    /// For outer IPv4: the one's complement sum, folded to 16 bits and in
    /// host order, of the outer header's words with TOS, total length and
    /// checksum zero.
    pub checksum: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

// SAFETY: repr(C), byte arrays and u32 only, 64 bytes without padding.
unsafe impl Plain for BackendRecord {}

const _: () = assert!(size_of::<BackendRecord>() == 64);

/// How a packet is carried to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BackendKind {
    /// The record is not in use.
    Unset = 0,
    /// Rewrite the Ethernet addresses.
    L2 = 1,
    /// Prepend an IPv4 header (RFC 2003).
    Ipip4 = 2,
    /// Prepend an IPv6 header (RFC 2473).
    Ipip6 = 3,
}

impl BackendKind {
    /// The kind a record's field names; an unknown one counts as unset.
    #[must_use]
    #[inline(always)]
    pub const fn of(raw: u32) -> Self {
        match raw {
            1 => Self::L2,
            2 => Self::Ipip4,
            3 => Self::Ipip6,
            _ => Self::Unset,
        }
    }
}
