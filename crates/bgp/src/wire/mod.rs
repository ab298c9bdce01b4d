//! The BGP messages as bytes: framing, and a typed form per message.
//!
//! Contract: nothing in here panics on bytes from the network, and nothing
//! allocates more than a small multiple of the bytes it was given. What cannot
//! be accepted becomes a [`WireError`], which holds the NOTIFICATION for the
//! peer and the words for our own log.

mod as_path;
mod attribute;
mod capability;
mod community;
mod family;
mod notification;
mod open;
mod prefix;
mod reader;
mod refresh;
mod update;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use self::as_path::{AsPath, Segment, SegmentKind};
pub use self::attribute::{Attributes, Fault, Handling, MpReach, MpUnreach, Origin};
pub use self::capability::{Capability, MAX_RESTART_TIME, RestartCapability, RestartFamily};
pub use self::community::{
    Administrator, Community, CommunityError, ExtendedCommunity, LargeCommunity,
};
pub use self::family::Family;
pub use self::notification::{Code, MAX_SHUTDOWN_TEXT, Notification};
pub use self::open::{AS_TRANS, Open, is_reserved};
pub use self::prefix::wire_len;
pub use self::refresh::RouteRefresh;
pub use self::update::Update;

use self::reader::Reader;

/// Octets of the header: marker, length, type (RFC 4271 section 4.1).
pub const HEADER_LEN: usize = 19;

/// Largest message in octets, header included (RFC 4271 section 4).
pub const MAX_MESSAGE_LEN: usize = 4096;

/// Largest message between speakers of extended messages (RFC 8654). OPEN and
/// KEEPALIVE stay within [`MAX_MESSAGE_LEN`].
pub const MAX_EXTENDED_LEN: usize = 65535;

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives singly on the stack; most are UPDATEs"
)]
pub enum Message {
    /// RFC 4271 section 4.2.
    Open(Open),
    /// RFC 4271 section 4.3, with what RFC 7606 lets us survive.
    Update(Update, Vec<Fault>),
    /// RFC 4271 section 4.5.
    Notification(Notification),
    /// RFC 4271 section 4.4.
    Keepalive,
    /// RFC 2918.
    RouteRefresh(RouteRefresh),
}

/// What both sides of a session agreed on that changes how messages are read
/// and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// AS numbers in AS_PATH are four octets wide (RFC 6793).
    pub four_octet_as: bool,
    /// The peer is in our own AS (iBGP).
    pub internal: bool,
    /// Messages may have up to [`MAX_EXTENDED_LEN`] octets (RFC 8654).
    pub extended_messages: bool,
}

impl Dialect {
    /// The largest message, in octets.
    #[must_use]
    pub fn max_message_len(self) -> usize {
        if self.extended_messages {
            MAX_EXTENDED_LEN
        } else {
            MAX_MESSAGE_LEN
        }
    }
}

/// Bytes that cannot be accepted: what the peer is told, and what we log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{words}")]
pub struct WireError {
    /// The NOTIFICATION that answers it.
    pub notification: Notification,
    /// What was wrong, in plain words.
    pub words: String,
}

impl Message {
    /// Takes the first whole message from `stream`, or `None` while it is
    /// still incomplete. After an error the stream is out of step and useless.
    ///
    /// # Errors
    /// Header, OPEN and UPDATE errors of RFC 4271 section 6, as far as
    /// RFC 7606 left them fatal.
    pub fn take(stream: &mut BytesMut, dialect: Dialect) -> Result<Option<Self>, WireError> {
        let Some((kind, len)) = peek_header(stream, dialect)? else {
            return Ok(None);
        };
        if stream.len() < len {
            return Ok(None);
        }
        let message = stream.split_to(len);
        let body = message.get(HEADER_LEN..).unwrap_or_default();
        Ok(Some(match kind {
            Kind::Open => Self::Open(Open::parse(body)?),
            Kind::Update => {
                let (update, faults) = Update::parse(body, dialect)?;
                Self::Update(update, faults)
            }
            Kind::Notification => Self::Notification(Notification::parse(body)),
            Kind::Keepalive => Self::Keepalive,
            Kind::RouteRefresh => Self::RouteRefresh(RouteRefresh::parse(body)?),
        }))
    }
}

/// The KEEPALIVE message: a header and nothing else.
#[must_use]
pub fn keepalive() -> Bytes {
    emit(Kind::Keepalive, |_| ())
}

impl WireError {
    fn new(code: Code, data: impl Into<Vec<u8>>, words: impl Into<String>) -> Self {
        Self {
            notification: Notification::new(code, data),
            words: words.into(),
        }
    }

    /// An error that is answered with `code` and no data.
    #[must_use]
    pub fn plain(code: Code, words: impl Into<String>) -> Self {
        Self::new(code, [], words)
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

/// Checks as much of the header as is there; `None` until all of it is.
fn peek_header(stream: &[u8], dialect: Dialect) -> Result<Option<(Kind, usize)>, WireError> {
    if stream.iter().take(16).any(|&octet| octet != 0xff) {
        return Err(WireError::plain(
            Code::NOT_SYNCHRONIZED,
            "the message does not begin with the marker of 16 octets 0xff; \
             the peer does not speak BGP, or its stream is out of step",
        ));
    }
    let mut reader = Reader::new(stream.get(16..).unwrap_or_default());
    let (Some(len), Some(kind)) = (reader.u16(), reader.u8()) else {
        return Ok(None);
    };
    let kind = match kind {
        1 => Kind::Open,
        2 => Kind::Update,
        3 => Kind::Notification,
        4 => Kind::Keepalive,
        5 => Kind::RouteRefresh,
        other => {
            let words = format!("message type {other} is not known");
            return Err(WireError::new(Code::BAD_MESSAGE_TYPE, [other], words));
        }
    };
    let (min, max) = kind.len_range(dialect.max_message_len());
    if (min..=max).contains(&usize::from(len)) {
        return Ok(Some((kind, usize::from(len))));
    }
    let words = format!("a message of type {kind:?} cannot be {len} octets long ({min} to {max})");
    Err(WireError::new(
        Code::BAD_MESSAGE_LENGTH,
        len.to_be_bytes(),
        words,
    ))
}

impl Kind {
    /// Smallest and largest length of a whole message of this type, where
    /// those that carry something may have `max` octets.
    fn len_range(self, max: usize) -> (usize, usize) {
        match self {
            Self::Open => (29, MAX_MESSAGE_LEN),
            Self::Update | Self::RouteRefresh => (23, max),
            Self::Notification => (21, max),
            Self::Keepalive => (HEADER_LEN, HEADER_LEN),
        }
    }
}

/// Writes a whole message around `body`.
fn framed(kind: Kind, body: &[u8]) -> Bytes {
    emit(kind, |out| out.put_slice(body))
}

/// Writes a whole message around the body that `body` appends. The caller
/// keeps it within what the peer takes.
fn emit(kind: Kind, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_bytes(0xff, 16);
    out.put_u16(0);
    out.put_u8(kind as u8);
    body(&mut out);
    debug_assert!(
        out.len() <= MAX_EXTENDED_LEN,
        "a message of {} octets",
        out.len()
    );
    let len = saturating_u16(out.len());
    if let Some(field) = out.get_mut(16..18) {
        field.copy_from_slice(&len.to_be_bytes());
    }
    out.freeze()
}

/// Appends what `body` writes, preceded by its length in two octets.
fn with_len16(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u16(0);
    body(out);
    let len = saturating_u16(out.len() - at - 2);
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// Appends what `body` writes, preceded by its length in one octet.
fn with_len8(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u8(0);
    body(out);
    let len = u8::try_from(out.len() - at - 1).unwrap_or(u8::MAX);
    if let Some(field) = out.get_mut(at) {
        *field = len;
    }
}

fn saturating_u16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
