//! Where a frame goes next: a neighbour's address and the interface to it.

use crate::Plain;

/// One aligned word `uplink:16 | mac:48`, so that a gateway's new address is
/// one store. 0 is not resolved. The first byte of the MAC address on the
/// wire is the lowest byte of the word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct NextHop(pub u64);

// SAFETY: a transparent u64.
unsafe impl Plain for NextHop {}

/// A MAC address as the lower 48 bits of a word, its first byte on the wire
/// the lowest.
#[must_use]
pub const fn mac_bits(mac: [u8; 6]) -> u64 {
    NextHop::new(mac, 0).0
}

impl NextHop {
    /// No neighbour known.
    pub const UNRESOLVED: Self = Self(0);

    /// The neighbour `mac`, reached by the uplink of that index (not 0).
    #[must_use]
    pub const fn new(mac: [u8; 6], uplink: u16) -> Self {
        let [a, b, c, d, e, f] = mac;
        let [g, h] = uplink.to_le_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Index of the uplink; 0 when not resolved.
    #[must_use]
    #[inline(always)]
    pub const fn uplink(self) -> u32 {
        (self.0 >> 48) as u32
    }

    /// The neighbour's address as the lower 48 bits.
    #[must_use]
    #[inline(always)]
    pub const fn mac_bits(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }

    /// The neighbour's address in the order of the wire.
    #[must_use]
    pub const fn mac(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }
}

/// An interface packets leave by: 16 bytes, never changed in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Uplink {
    /// Its own MAC address in the lower 48 bits, laid out as in [`NextHop`].
    pub mac_bits: u64,
    /// Interface index in the kernel; 0 is unused.
    pub ifindex: u32,
    /// Largest IP packet that fits, in bytes.
    pub mtu: u32,
}

// SAFETY: repr(C), 8 + 4 + 4 bytes without padding, integers only.
unsafe impl Plain for Uplink {}

const _: () = assert!(size_of::<Uplink>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_gives_back_its_address_and_uplink() {
        let hop = NextHop::new([2, 0, 0x5e, 0x10, 0x20, 0x30], 257);
        assert_eq!(hop.mac(), [2, 0, 0x5e, 0x10, 0x20, 0x30]);
        assert_eq!(hop.uplink(), 257);
        assert_eq!(hop.mac_bits().to_le_bytes()[..6], hop.mac());
    }
}
