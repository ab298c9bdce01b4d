//! The two hash functions of this crate, fixed for ever: nodes of different
//! builds and architectures compare what is made with them.

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a cheap bijection
/// in which each input bit changes each output bit about half of the time.
#[must_use]
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Number `index` of the SplitMix64 sequence that starts at `seed`.
#[must_use]
pub(crate) const fn nth(seed: u64, index: u32) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    // Lossless: `u64::from` is not const.
    mix(seed.wrapping_add((index as u64 + 1).wrapping_mul(GOLDEN)))
}

/// SipHash-2-4 (Aumasson, Bernstein 2012): short, and tells nothing about its
/// key, so a value made under the cluster secret may be shown to anybody.
#[must_use]
pub(crate) fn siphash(key: &[u8; 16], bytes: &[u8]) -> u64 {
    let (low, high) = key.split_at(8);
    let (k0, k1) = (little_endian(low), little_endian(high));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let words = bytes.chunks_exact(8);
    // The last word: what is left over, and the length in the top byte.
    let last = little_endian(words.remainder()) | (bytes.len() as u64) << 56;
    for word in words.map(little_endian).chain([last]) {
        v[3] ^= word;
        sip_round(&mut v);
        sip_round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// Up to eight bytes as a number, the first byte the lowest.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Collects fields for one [`siphash`], each with its length, so that no two
/// different lists of fields give the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    pub(crate) fn bytes(mut self, field: &[u8]) -> Self {
        self.0.extend((field.len() as u64).to_le_bytes());
        self.0.extend(field);
        self
    }

    pub(crate) fn number(self, field: u64) -> Self {
        self.bytes(&field.to_le_bytes())
    }

    pub(crate) fn hash(&self, key: &[u8; 16]) -> u64 {
        siphash(key, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siphash_gives_the_reference_vectors() {
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        let input: Vec<u8> = (0..15).collect();
        assert_eq!(siphash(&key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash(&key, &input[..8]), 0x93f5_f579_9a93_2462);
        assert_eq!(siphash(&key, &input), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        // First outputs of the reference generator for seed 1234567.
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([nth(1_234_567, 0), nth(1_234_567, 1)], expected);
    }

    #[test]
    fn fields_cut_differently_hash_differently() {
        let key = [0; 16];
        let a = Fields::default().bytes(b"ab").bytes(b"c").hash(&key);
        let b = Fields::default().bytes(b"a").bytes(b"bc").hash(&key);
        assert_ne!(a, b);
    }
}
