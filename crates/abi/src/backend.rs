//! One backend of one service, ready to forward to.

use crate::Plain;

/// A cache line with all that forwarding to a backend takes. But for its state
/// it is never changed once a slot names it: the agent writes a new one and
/// moves the slots. Its index is the backend's id in slots and flow entries.
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
    /// [`BackendRecord::DEAD`] and [`BackendRecord::DRAINED`]: the one field
    /// that the agent changes in place, by an aligned store.
    pub state: u32,
    /// Bits of the outer source's last four bytes, as they lie in memory, that
    /// are filled from the flow's hash, so that the backend spreads tunnel
    /// packets over its queues.
    pub entropy: u32,
    /// For GUE: UDP destination port of the outer header, in network order.
    pub port: u32,
}

// SAFETY: repr(C), byte arrays and u32 only, 64 bytes without padding.
unsafe impl Plain for BackendRecord {}

const _: () = assert!(size_of::<BackendRecord>() == 64);

impl BackendRecord {
    /// In [`BackendRecord::state`]: it serves no flow any more. What is
    /// recorded for it has ended; when the backend returns it gets another
    /// record.
    pub const DEAD: u32 = 1;
    /// In [`BackendRecord::state`]: the operator has drained it. For the
    /// agent's own use, so that a restart remembers.
    pub const DRAINED: u32 = 2;
}

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
    /// Prepend IPv4 and UDP (GUE variant 1, draft-ietf-intarea-gue: the packet
    /// follows the UDP header directly).
    Gue4 = 4,
    /// Prepend IPv6 and UDP, as [`BackendKind::Gue4`]; the UDP checksum is zero
    /// (RFC 6936).
    Gue6 = 5,
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
            4 => Self::Gue4,
            5 => Self::Gue6,
            _ => Self::Unset,
        }
    }
}
