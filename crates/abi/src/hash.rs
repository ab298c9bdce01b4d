//! The keyed hash of a flow.

/// The cluster's secret, the same on every node that announces a VIP, so that
/// all of them choose the same slot for a flow and nobody outside can aim
/// flows at one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowKey(pub [u64; 2]);

const MIX_1: u64 = 0xff51_afd7_ed55_8ccd;
const MIX_2: u64 = 0xc4ce_b9fe_1a85_ec53;

/// One round of multiplication and xor-shift (the constants are those of
/// MurmurHash3's finalizer). A bijection of 64 bits.
#[inline(always)]
pub(crate) const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(MIX_1);
    x ^= x >> 29;
    x
}

/// The last round: the lower bits come to depend on all of the word.
#[inline(always)]
pub(crate) const fn finish(mut x: u64) -> u64 {
    x ^= x >> 32;
    x = x.wrapping_mul(MIX_2);
    x ^= x >> 32;
    x
}

/// Hash of a flow; its low bits are the ring slot.
///
/// `source` and `destination` are the addresses as two words each, in the
/// byte order of memory as read on a little-endian machine; IPv4 addresses
/// come as `[address, 0]`. `ports` holds the source port in the low and the
/// destination port in the high half, both in network order.
///
/// Fast, keyed, well spread; not cryptographic: an observer who sees both
/// sides of many flows could learn the key.
#[must_use]
#[inline(always)]
pub const fn flow_hash(
    key: FlowKey,
    source: [u64; 2],
    destination: [u64; 2],
    ports: u32,
    protocol: u8,
) -> u64 {
    let [k0, k1] = key.0;
    let ports = (ports as u64) << 32;
    let protocol = (protocol as u64) << 32;
    // The products are under way at the same time. Half a turn between two of
    // them, so that the highest bits of their factors do not meet.
    let h = if source[1] | destination[1] == 0 {
        let x = (source[0] ^ ports ^ k0).wrapping_mul(k1 | 1);
        let y = (destination[0] ^ protocol ^ k1).wrapping_mul(MIX_1);
        x ^ y.rotate_left(32)
    } else {
        let x = (source[0] ^ k0).wrapping_mul(k1 | 1);
        let y = (source[1] ^ k1).wrapping_mul(k0 | 1);
        let z = (destination[0] ^ ports ^ k0).wrapping_mul(MIX_1);
        let w = (destination[1] ^ protocol ^ k1).wrapping_mul(MIX_2);
        (x ^ y.rotate_left(32)).wrapping_add(z.rotate_left(16) ^ w.rotate_left(48))
    };
    finish(h)
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;

    const KEY: FlowKey = FlowKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);

    /// Largest deviation from the mean over 256 slots, in standard deviations.
    fn worst(flows: impl Iterator<Item = u64>) -> f64 {
        let mut slots = vec![0u32; 256];
        let mut n = 0u32;
        for hash in flows {
            slots[(hash & 255) as usize] += 1;
            n += 1;
        }
        let mean = f64::from(n) / 256.0;
        slots
            .iter()
            .map(|c| (f64::from(*c) - mean).abs() / mean.sqrt())
            .fold(0.0, f64::max)
    }

    #[test]
    fn flows_that_differ_in_one_field_only_spread_evenly() {
        let port = |p: u32| u64::from(p.to_be()) >> 16;
        let cases: Vec<(&str, Vec<u64>)> = vec![
            (
                "source port",
                (1024..61024u32)
                    .map(|p| flow_hash(KEY, [0x0100_00cb, 0], [0x0a64_33c6, 0], port(p) as u32, 6))
                    .collect(),
            ),
            (
                "IPv4 source",
                (0..60000u32)
                    .map(|a| flow_hash(KEY, [a.to_be().into(), 0], [7, 0], 0x5000_0404, 6))
                    .collect(),
            ),
            (
                "IPv6 interface identifier",
                (0..60000u64)
                    .map(|a| flow_hash(KEY, [1, a.to_be()], [1, 2], 0x5000_0404, 17))
                    .collect(),
            ),
            (
                "destination",
                (0..60000u64)
                    .map(|a| flow_hash(KEY, [1, 2], [1, a.to_be()], 0x5000_0404, 17))
                    .collect(),
            ),
        ];
        for (field, hashes) in cases {
            let deviation = worst(hashes.into_iter());
            assert!(deviation < 5.0, "{field}: {deviation} standard deviations");
        }
    }

    #[test]
    fn another_key_gives_another_spread() {
        let other = FlowKey([KEY.0[0] ^ 1, KEY.0[1]]);
        let same = (0..4096u32)
            .filter(|p| {
                let slot = |k| flow_hash(k, [5, 0], [6, 0], *p, 6) & 255;
                slot(KEY) == slot(other)
            })
            .count();
        assert!(same < 64, "{same} of 4096 flows kept their slot of 256");
    }
}
