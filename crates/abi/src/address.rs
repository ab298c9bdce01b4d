//! Addresses as words of memory on a little-endian machine, IPv4 in its mapped
//! form (RFC 4291, section 2.5.5.2).

/// What stands before an IPv4 address in its mapped form.
const MARK: u32 = 0xffff_u32.to_be();

/// An IPv4 address, its four bytes as read from memory.
#[must_use]
#[inline(always)]
pub const fn mapped(address: u32) -> [u32; 4] {
    [0, 0, MARK, address]
}

/// Whether it is an IPv4 address in its mapped form.
#[must_use]
#[inline(always)]
pub const fn is_mapped([a, b]: [u64; 2]) -> bool {
    a == 0 && b as u32 == MARK
}

/// The words of both halves.
#[must_use]
#[inline(always)]
pub const fn words([a, b]: [u64; 2]) -> [u32; 4] {
    [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
}

/// The halves that have these words.
#[must_use]
#[inline(always)]
pub const fn halves([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    [(a as u64) | (b as u64) << 32, (c as u64) | (d as u64) << 32]
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn words_and_halves_are_the_same_memory() {
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        let words_v4 = mapped(u32::from_ne_bytes(v4.octets()));
        let bytes = words_v4.map(u32::to_le_bytes).concat();
        assert_eq!(bytes, v4.to_ipv6_mapped().octets());
        assert!(is_mapped(halves(words_v4)));

        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6).octets();
        let half = |at: usize| u64::from_le_bytes(v6[at..at + 8].try_into().expect("eight"));
        let both = [half(0), half(8)];
        assert_eq!(words(both).map(u32::to_le_bytes).concat(), v6);
        assert_eq!(halves(words(both)), both);
        assert!(!is_mapped(both));
    }
}
