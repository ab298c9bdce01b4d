//! Address families: what a session can carry routes for.

use std::fmt;

use ipnet::IpNet;

/// An address family of RFC 4760 that this speaker announces routes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl Family {
    /// Every family, in the order in which they are offered.
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// The family that `prefix` belongs to.
    #[must_use]
    pub fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::Ipv4Unicast,
            IpNet::V6(_) => Self::Ipv6Unicast,
        }
    }

    /// The family of these numbers, or `None` if this speaker does not carry it.
    #[must_use]
    pub fn from_numbers(afi: u16, safi: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|family| (family.afi(), family.safi()) == (afi, safi))
    }

    /// These numbers in words, whether or not this speaker carries the family.
    pub(super) fn name(afi: u16, safi: u8) -> String {
        match Self::from_numbers(afi, safi) {
            Some(family) => family.to_string(),
            None => format!("AFI {afi} SAFI {safi}"),
        }
    }

    /// Address family identifier (IANA "Address Family Numbers").
    #[must_use]
    pub fn afi(self) -> u16 {
        match self {
            Self::Ipv4Unicast => 1,
            Self::Ipv6Unicast => 2,
        }
    }

    /// Subsequent address family identifier (RFC 4760 section 6).
    #[must_use]
    pub fn safi(self) -> u8 {
        1
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Unicast => "IPv4 unicast",
            Self::Ipv6Unicast => "IPv6 unicast",
        })
    }
}
