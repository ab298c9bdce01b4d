//! Authentication of control packets (RFC 5880 sections 4.2 to 4.4 and 6.7).
//!
//! With a simple password whoever sees a packet knows the password. The digests
//! keep the key secret; MD5 and SHA-1 are what the RFC has. Plain keyed digests
//! let a packet be repeated, the meticulous ones do not.

use std::fmt;

use md5::{Digest as _, Md5};
use sha1_smol::Sha1;

use crate::packet::{MAX_LEN, MIN_LEN, Packet, mark_authenticated};
use crate::words::Discard;

/// How packets are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The password is in each packet.
    Simple,
    /// A digest by MD5.
    KeyedMd5,
    /// And no packet is taken twice.
    MeticulousKeyedMd5,
    /// A digest by SHA-1.
    KeyedSha1,
    /// And no packet is taken twice.
    MeticulousKeyedSha1,
}

/// A method and a key. The key is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Authentication {
    method: Method,
    key_id: u8,
    /// Filled up with zeros.
    key: [u8; Method::KEY_MAX],
    key_len: usize,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is nothing in it.
    #[error("a key of no bytes protects nothing")]
    Empty,
    /// More than the method takes.
    #[error("the key has {len} bytes, and the method takes at most {max}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// What is possible.
        max: usize,
    },
}

/// What a receiver remembers of the sender's sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The last number accepted; `None` accepts any.
    pub last: Option<u32>,
    /// The sender's detection multiplier, three times of which it may be ahead.
    pub multiplier: u8,
}

/// Where the sequence number stands in a packet with a digest.
const SEQUENCE: usize = MIN_LEN + 4;
/// Where the digest stands.
const DIGEST: usize = MIN_LEN + 8;

impl Method {
    /// Every method.
    pub const ALL: [Self; 5] = [
        Self::Simple,
        Self::KeyedMd5,
        Self::MeticulousKeyedMd5,
        Self::KeyedSha1,
        Self::MeticulousKeyedSha1,
    ];

    const KEY_MAX: usize = 20;

    /// The longest key, in bytes.
    #[must_use]
    pub const fn key_max(self) -> usize {
        match self {
            Self::Simple | Self::KeyedMd5 | Self::MeticulousKeyedMd5 => 16,
            Self::KeyedSha1 | Self::MeticulousKeyedSha1 => Self::KEY_MAX,
        }
    }

    /// Auth Type (RFC 5880 section 4.1).
    const fn number(self) -> u8 {
        match self {
            Self::Simple => 1,
            Self::KeyedMd5 => 2,
            Self::MeticulousKeyedMd5 => 3,
            Self::KeyedSha1 => 4,
            Self::MeticulousKeyedSha1 => 5,
        }
    }

    const fn is_meticulous(self) -> bool {
        matches!(self, Self::MeticulousKeyedMd5 | Self::MeticulousKeyedSha1)
    }
}

impl Authentication {
    /// Packets are authenticated by `method` with `key`, whose number is `key_id`.
    ///
    /// # Errors
    /// The key is empty, or longer than [`Method::key_max`].
    pub fn new(method: Method, key_id: u8, key: &[u8]) -> Result<Self, KeyError> {
        let (len, max) = (key.len(), method.key_max());
        if len == 0 {
            return Err(KeyError::Empty);
        }
        if len > max {
            return Err(KeyError::TooLong { len, max });
        }
        let mut padded = [0; Method::KEY_MAX];
        padded[..len].copy_from_slice(key);
        Ok(Self {
            method,
            key_id,
            key: padded,
            key_len: len,
        })
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Writes `packet` with its authentication into `buffer`; its length.
    pub(crate) fn emit(&self, packet: &Packet, sequence: u32, buffer: &mut [u8; MAX_LEN]) -> usize {
        let len = self.len();
        buffer[..MIN_LEN].copy_from_slice(&packet.emit());
        mark_authenticated(buffer, len as u8);
        let section = &mut buffer[MIN_LEN..len];
        section.fill(0);
        section[0] = self.method.number();
        section[1] = (len - MIN_LEN) as u8;
        section[2] = self.key_id;
        match self.method {
            Method::Simple => section[3..].copy_from_slice(&self.key[..self.key_len]),
            Method::KeyedMd5
            | Method::MeticulousKeyedMd5
            | Method::KeyedSha1
            | Method::MeticulousKeyedSha1 => {
                buffer[SEQUENCE..DIGEST].copy_from_slice(&sequence.to_be_bytes());
                let digest = self.digest(buffer);
                buffer[DIGEST..len].copy_from_slice(&digest[..len - DIGEST]);
            }
        }
        len
    }

    /// Checks a received packet with an authentication section. Gives back its
    /// sequence number, where the method has one.
    pub(crate) fn verify(&self, bytes: &[u8], seen: Seen) -> Result<Option<u32>, Discard> {
        let section = bytes.get(MIN_LEN..).ok_or(Discard::Short)?;
        let &[number, len, key_id, ref rest @ ..] = section else {
            return Err(Discard::OtherKey);
        };
        let fits = number == self.method.number() && key_id == self.key_id;
        if !fits || usize::from(len) != section.len() {
            return Err(Discard::OtherKey);
        }
        if self.method == Method::Simple {
            let right = same(rest, &self.key[..self.key_len]);
            return right.then_some(None).ok_or(Discard::WrongKey);
        }
        if bytes.len() != self.len() {
            return Err(Discard::OtherKey);
        }
        let mut copy = [0; MAX_LEN];
        copy[..bytes.len()].copy_from_slice(bytes);
        if !same(&bytes[DIGEST..], &self.digest(&copy)[..self.len() - DIGEST]) {
            return Err(Discard::WrongKey);
        }
        let sequence = *bytes[SEQUENCE..].first_chunk().ok_or(Discard::Short)?;
        let sequence = u32::from_be_bytes(sequence);
        if seen.admits(sequence, self.method.is_meticulous()) {
            Ok(Some(sequence))
        } else {
            Err(Discard::Sequence)
        }
    }

    /// The length of our packets.
    fn len(&self) -> usize {
        match self.method {
            Method::Simple => MIN_LEN + 3 + self.key_len,
            Method::KeyedMd5 | Method::MeticulousKeyedMd5 => DIGEST + 16,
            Method::KeyedSha1 | Method::MeticulousKeyedSha1 => DIGEST + 20,
        }
    }

    /// The digest of a packet, taken with the key in the digest's place; MD5
    /// leaves the last bytes zero.
    fn digest(&self, packet: &[u8; MAX_LEN]) -> [u8; 20] {
        let len = self.len();
        let mut keyed = *packet;
        keyed[DIGEST..len].copy_from_slice(&self.key[..len - DIGEST]);
        let mut digest = [0; 20];
        match self.method {
            Method::Simple => (),
            Method::KeyedMd5 | Method::MeticulousKeyedMd5 => {
                digest[..16].copy_from_slice(&Md5::digest(&keyed[..len]));
            }
            Method::KeyedSha1 | Method::MeticulousKeyedSha1 => {
                digest = Sha1::from(&keyed[..len]).digest().bytes();
            }
        }
        digest
    }
}

impl Seen {
    /// Whether a sequence number may come now (RFC 5880 sections 6.7.3, 6.7.4).
    fn admits(self, sequence: u32, meticulous: bool) -> bool {
        let Some(last) = self.last else {
            return true;
        };
        let ahead = sequence.wrapping_sub(last);
        u32::from(meticulous) <= ahead && ahead <= 3 * u32::from(self.multiplier)
    }
}

/// Compares in a time that tells nothing about where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && differ == 0
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication")
            .field("method", &self.method)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}
