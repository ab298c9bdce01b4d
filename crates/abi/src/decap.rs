//! Why the decapsulator of a backend passed or dropped a packet.

/// UDP port of GUE (RFC 6335 registry: `gue`) unless another is chosen.
pub const GUE_PORT: u16 = 6080;

/// Counted once per packet; 8 places per processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DecapVerdict {
    /// The outer header was taken off.
    Decapsulated,
    /// Neither an IP-in-IP packet nor GUE: left to the kernel.
    NotTunnel,
    /// A tunnel packet from a source that is not listed: dropped.
    UnlistedSource,
    /// Headers or lengths contradict each other, or the tunnel packet is a
    /// fragment: dropped.
    Malformed,
    /// Congestion was signalled on a packet that cannot carry the signal
    /// (RFC 6040, section 4.2): dropped.
    Congested,
}

impl DecapVerdict {
    /// Every verdict in the order of its number.
    pub const ALL: [Self; 5] = [
        Self::Decapsulated,
        Self::NotTunnel,
        Self::UnlistedSource,
        Self::Malformed,
        Self::Congested,
    ];
    /// Counters per processor.
    pub const PLACES: u32 = 8;

    /// Its name for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Decapsulated => "decapsulated",
            Self::NotTunnel => "not_tunnel",
            Self::UnlistedSource => "unlisted_source",
            Self::Malformed => "malformed",
            Self::Congested => "congested",
        }
    }
}
