//! Control packets (RFC 5880 section 4.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//! |                       My Discriminator                        |
//! |                      Your Discriminator                       |
//! |                    Desired Min TX Interval                    |
//! |                   Required Min RX Interval                    |
//! |                 Required Min Echo RX Interval                 |
//! |   Auth Type   |   Auth Len    |    Authentication Data...     |
//! ```

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use crate::words::{Diagnostic, Discard, State};

/// UDP port of control packets over a single hop (RFC 5881 section 4).
pub const PORT_SINGLE_HOP: u16 = 3784;
/// UDP port of control packets over several hops (RFC 5883 section 5).
pub const PORT_MULTIHOP: u16 = 4784;
/// The first UDP source port of control packets (RFC 5881 section 4); the last
/// is 65535.
pub const SOURCE_PORT_MIN: u16 = 49_152;
/// TTL or hop limit of the control packets that we send (RFC 5881 section 5).
pub const TTL: u8 = 255;

/// Length of a packet without authentication, in bytes.
pub const MIN_LEN: usize = 24;
/// Length of the longest packet that we send or understand, in bytes.
pub const MAX_LEN: usize = 52;

const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// A control packet without its authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender last went down.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// It wants an answer with [`Packet::answer`] at once.
    pub poll: bool,
    /// It is such an answer (the final bit).
    pub answer: bool,
    /// The sender's BFD outlives its control plane (the C bit).
    pub independent: bool,
    /// The sender wants no periodic packets while the session is up.
    pub demand: bool,
    /// So many intervals without a packet are too many.
    pub multiplier: NonZeroU8,
    /// Names the session at the sender.
    pub my_discriminator: NonZeroU32,
    /// Names the session at the receiver, as soon as the sender knows it.
    pub your_discriminator: Option<NonZeroU32>,
    /// The sender does not send faster than that; whole microseconds.
    pub desired_min_tx: Duration,
    /// The receiver shall not send faster than that; zero: not periodically
    /// at all.
    pub required_min_rx: Duration,
    /// The same for echo packets; zero: none are answered.
    pub required_min_echo_rx: Duration,
}

/// A packet as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// What it says.
    pub packet: Packet,
    /// The whole packet, without what may follow it in its datagram.
    pub bytes: &'a [u8],
    /// Whether it has an authentication section, from byte [`MIN_LEN`] on.
    pub authenticated: bool,
}

/// Reads a packet and checks all that can be checked without knowing sessions.
///
/// # Errors
/// The first rule of RFC 5880 section 6.8.6 that is broken.
pub fn parse(datagram: &[u8]) -> Result<Received<'_>, Discard> {
    let &[first, flags, multiplier, length, ..] = datagram else {
        return Err(Discard::Short);
    };
    if first >> 5 != VERSION {
        return Err(Discard::Version);
    }
    let authenticated = flags & AUTHENTICATED != 0;
    let length = usize::from(length);
    if length < MIN_LEN + if authenticated { 2 } else { 0 } {
        return Err(Discard::Short);
    }
    let bytes = datagram.get(..length).ok_or(Discard::Truncated)?;
    let multiplier = NonZeroU8::new(multiplier).ok_or(Discard::Multiplier)?;
    if flags & MULTIPOINT != 0 {
        return Err(Discard::Multipoint);
    }
    let my_discriminator = NonZeroU32::new(word(bytes, 4)?).ok_or(Discard::MyDiscriminator)?;
    let your_discriminator = NonZeroU32::new(word(bytes, 8)?);
    let state = State::from_bits(flags >> 6);
    if your_discriminator.is_none() && matches!(state, State::Init | State::Up) {
        return Err(Discard::YourDiscriminator);
    }
    let interval = |at| word(bytes, at).map(|micros| Duration::from_micros(micros.into()));
    Ok(Received {
        packet: Packet {
            diagnostic: Diagnostic::from_number(first),
            state,
            poll: flags & POLL != 0,
            answer: flags & FINAL != 0,
            independent: flags & INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            my_discriminator,
            your_discriminator,
            desired_min_tx: interval(12)?,
            required_min_rx: interval(16)?,
            required_min_echo_rx: interval(20)?,
        },
        bytes,
        authenticated,
    })
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Discard> {
    let rest = bytes.get(at..).ok_or(Discard::Short)?;
    let word = rest.first_chunk().ok_or(Discard::Short)?;
    Ok(u32::from_be_bytes(*word))
}

impl Packet {
    /// The packet as bytes; not authenticated.
    #[must_use]
    pub fn emit(&self) -> [u8; MIN_LEN] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = (self.state as u8) << 6
            | flag(self.poll, POLL)
            | flag(self.answer, FINAL)
            | flag(self.independent, INDEPENDENT)
            | flag(self.demand, DEMAND);
        let your_discriminator = self.your_discriminator.map_or(0, NonZeroU32::get);
        let words = [
            self.my_discriminator.get(),
            your_discriminator,
            micros(self.desired_min_tx),
            micros(self.required_min_rx),
            micros(self.required_min_echo_rx),
        ];
        let mut bytes = [0; MIN_LEN];
        bytes[0] = VERSION << 5 | self.diagnostic.number();
        bytes[1] = flags;
        bytes[2] = self.multiplier.get();
        bytes[3] = MIN_LEN as u8;
        for (slot, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// Turns a packet of [`Packet::emit`] into one of that length with a section for
/// its authentication behind it.
pub(crate) fn mark_authenticated(bytes: &mut [u8], length: u8) {
    if let [_, flags, _, field, ..] = bytes {
        *flags |= AUTHENTICATED;
        *field = length;
    }
}

/// An interval as it stands in a packet.
fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}
