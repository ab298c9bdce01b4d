//! NOTIFICATION (RFC 4271 section 4.5): why a session ends, with the names of
//! all codes and the operator's text of RFC 9003.

use std::fmt;

use bytes::{BufMut, Bytes};

use super::{Capability, Family, HEADER_LEN, Kind, MAX_MESSAGE_LEN, Reader, emit};

/// Longest shutdown text in octets (RFC 9003 section 2).
pub const MAX_SHUTDOWN_TEXT: usize = 255;

/// Error code and subcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    /// Error code: the kind of message or event that failed.
    pub code: u8,
    /// Error subcode; 0 where none fits.
    pub subcode: u8,
}

/// A NOTIFICATION message: the sender closes the connection behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What went wrong.
    pub code: Code,
    /// Diagnostic data, whose meaning depends on the code.
    pub data: Vec<u8>,
}

impl Notification {
    /// A message with diagnostic data; data too long for a message is cut.
    #[must_use]
    pub fn new(code: Code, data: impl Into<Vec<u8>>) -> Self {
        let mut data = data.into();
        data.truncate(MAX_MESSAGE_LEN - HEADER_LEN - 2);
        Self { code, data }
    }

    /// A Cease with the operator's words for the peer's log (RFC 9003). The
    /// text is cut at [`MAX_SHUTDOWN_TEXT`] octets, between characters. Codes
    /// other than administrative shutdown and reset carry no text.
    #[must_use]
    pub fn with_text(code: Code, text: Option<&str>) -> Self {
        let Some(text) = text.filter(|_| code.carries_text()) else {
            return Self::new(code, []);
        };
        let text = &text.as_bytes()[..text.floor_char_boundary(MAX_SHUTDOWN_TEXT)];
        let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
        Self::new(code, [&[len], text].concat())
    }

    /// A Cease that tells a peer of graceful restart to keep nothing: `reason`
    /// in full, in a Hard Reset (RFC 8538 section 3.1).
    #[must_use]
    pub fn hard_reset(reason: &Self) -> Self {
        let Code { code, subcode } = reason.code;
        Self::new(Code::HARD_RESET, [&[code, subcode], &*reason.data].concat())
    }

    /// A Cease of a family whose prefixes exceed `limit` (RFC 4486 section 4).
    #[must_use]
    pub fn maximum_prefixes(family: Family, limit: u32) -> Self {
        let [high, low] = family.afi().to_be_bytes();
        let head = [high, low, family.safi()];
        Self::new(
            Code::MAXIMUM_PREFIXES,
            [head.as_slice(), &limit.to_be_bytes()].concat(),
        )
    }

    /// The family, by name, and the limit of a
    /// [`Code::MAXIMUM_PREFIXES`], if it carries them (RFC 4486 section 4).
    #[must_use]
    pub fn limit(&self) -> Option<(String, u32)> {
        let mut reader = Reader::new(&self.data);
        let (afi, safi, limit) = (reader.u16()?, reader.u8()?, reader.u32()?);
        let says = self.code == Code::MAXIMUM_PREFIXES;
        says.then(|| (Family::name(afi, safi), limit))
    }

    /// The reason inside a Hard Reset, if it carries one.
    #[must_use]
    pub fn reset(&self) -> Option<Self> {
        let mut reader = Reader::new(&self.data);
        let reset = self.code == Code::HARD_RESET;
        let (code, subcode) = (reader.u8().filter(|_| reset)?, reader.u8()?);
        Some(Self::new(Code { code, subcode }, reader.rest()))
    }

    /// The operator's words of RFC 9003, if the message carries any.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let mut reader = Reader::new(&self.data);
        let len = reader
            .u8()
            .filter(|&len| len > 0 && self.code.carries_text())?;
        Some(String::from_utf8_lossy(reader.take(len.into())?).into_owned())
    }

    /// The whole message.
    #[must_use]
    pub fn emit(&self) -> Bytes {
        emit(Kind::Notification, |out| {
            out.put_u8(self.code.code);
            out.put_u8(self.code.subcode);
            out.put_slice(&self.data);
        })
    }

    /// Reads a message body. There is no answer to a bad NOTIFICATION
    /// (RFC 4271 section 6.4), so nothing is an error.
    pub(super) fn parse(body: &[u8]) -> Self {
        let mut reader = Reader::new(body);
        let code = reader.u8().unwrap_or_default();
        let subcode = reader.u8().unwrap_or_default();
        Self::new(Code { code, subcode }, reader.rest())
    }

    /// The diagnostic data in words, as far as they have a known layout.
    fn detail(&self) -> Option<String> {
        let mut reader = Reader::new(&self.data);
        match self.code {
            Code::MAXIMUM_PREFIXES => {
                let (family, limit) = self.limit()?;
                Some(format!("the limit for {family} is {limit}"))
            }
            Code::UNSUPPORTED_CAPABILITY => {
                let quoted = Capability::parse_all(&self.data).filter(|list| !list.is_empty())?;
                let names: Vec<String> = quoted.iter().map(Capability::to_string).collect();
                Some(names.join(", "))
            }
            // One level deep: what a peer nests must not cost us our stack.
            Code::HARD_RESET => match self.reset()? {
                inner if inner.code == Code::HARD_RESET => None,
                inner => Some(inner.to_string()),
            },
            Code::UNSUPPORTED_VERSION => Some(format!(
                "the highest version supported is {}",
                reader.u16()?
            )),
            // Quoted and escaped: the peer's words must not forge log lines.
            _ => self.text().map(|text| format!("{text:?}")),
        }
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        match self.detail() {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal / $subcode:literal, $words:literal;)*) => {
        impl Code {
            $($(#[$doc])* #[doc = $words]
            pub const $name: Self = Self { code: $code, subcode: $subcode };)*

            /// The registered name of the subcode, or of the code where the
            /// subcode is 0; `None` if it is not known.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match (self.code, self.subcode) {
                    $(($code, $subcode) => Some($words),)*
                    _ => None,
                }
            }
        }
    };
}

// RFC 4271 section 4.5; Cease: RFC 4486, 8538, 9384; FSM: RFC 6608;
// ROUTE-REFRESH: RFC 7313; Send Hold Timer: RFC 9687; Role: RFC 9234.
codes! {
    NOT_SYNCHRONIZED = 1/1, "Connection Not Synchronized";
    BAD_MESSAGE_LENGTH = 1/2, "Bad Message Length";
    BAD_MESSAGE_TYPE = 1/3, "Bad Message Type";
    OPEN_UNSPECIFIC = 2/0, "Unspecific";
    UNSUPPORTED_VERSION = 2/1, "Unsupported Version Number";
    BAD_PEER_AS = 2/2, "Bad Peer AS";
    BAD_BGP_IDENTIFIER = 2/3, "Bad BGP Identifier";
    UNSUPPORTED_OPTIONAL_PARAMETER = 2/4, "Unsupported Optional Parameter";
    AUTHENTICATION_FAILURE = 2/5, "Authentication Failure";
    UNACCEPTABLE_HOLD_TIME = 2/6, "Unacceptable Hold Time";
    UNSUPPORTED_CAPABILITY = 2/7, "Unsupported Capability";
    ROLE_MISMATCH = 2/11, "Role Mismatch";
    MALFORMED_ATTRIBUTE_LIST = 3/1, "Malformed Attribute List";
    UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE = 3/2, "Unrecognized Well-known Attribute";
    MISSING_WELL_KNOWN_ATTRIBUTE = 3/3, "Missing Well-known Attribute";
    ATTRIBUTE_FLAGS_ERROR = 3/4, "Attribute Flags Error";
    ATTRIBUTE_LENGTH_ERROR = 3/5, "Attribute Length Error";
    INVALID_ORIGIN = 3/6, "Invalid ORIGIN Attribute";
    AS_ROUTING_LOOP = 3/7, "AS Routing Loop";
    INVALID_NEXT_HOP = 3/8, "Invalid NEXT_HOP Attribute";
    OPTIONAL_ATTRIBUTE_ERROR = 3/9, "Optional Attribute Error";
    INVALID_NETWORK_FIELD = 3/10, "Invalid Network Field";
    MALFORMED_AS_PATH = 3/11, "Malformed AS_PATH";
    HOLD_TIMER_EXPIRED = 4/0, "Hold Timer Expired";
    FSM_ERROR = 5/0, "Unspecified Error";
    UNEXPECTED_IN_OPEN_SENT = 5/1, "Receive Unexpected Message in OpenSent State";
    UNEXPECTED_IN_OPEN_CONFIRM = 5/2, "Receive Unexpected Message in OpenConfirm State";
    UNEXPECTED_IN_ESTABLISHED = 5/3, "Receive Unexpected Message in Established State";
    MAXIMUM_PREFIXES = 6/1, "Maximum Number of Prefixes Reached";
    ADMIN_SHUTDOWN = 6/2, "Administrative Shutdown";
    PEER_DECONFIGURED = 6/3, "Peer De-configured";
    ADMIN_RESET = 6/4, "Administrative Reset";
    CONNECTION_REJECTED = 6/5, "Connection Rejected";
    CONFIGURATION_CHANGE = 6/6, "Other Configuration Change";
    COLLISION = 6/7, "Connection Collision Resolution";
    OUT_OF_RESOURCES = 6/8, "Out of Resources";
    HARD_RESET = 6/9, "Hard Reset";
    BFD_DOWN = 6/10, "BFD Down";
    INVALID_REFRESH_LENGTH = 7/1, "Invalid Message Length";
    SEND_HOLD_TIMER_EXPIRED = 8/0, "Send Hold Timer Expired";
}

impl Code {
    fn carries_text(self) -> bool {
        matches!(self, Self::ADMIN_SHUTDOWN | Self::ADMIN_RESET)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.code {
            1 => "Message Header Error",
            2 => "OPEN Message Error",
            3 => "UPDATE Message Error",
            4 => "Hold Timer Expired",
            5 => "Finite State Machine Error",
            6 => "Cease",
            7 => "ROUTE-REFRESH Message Error",
            8 => "Send Hold Timer Expired",
            _ => "unknown error",
        };
        f.write_str(class)?;
        if let Some(name) = self.name().filter(|&name| name != class) {
            write!(f, " / {name}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)
    }
}
