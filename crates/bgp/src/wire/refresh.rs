//! ROUTE-REFRESH (RFC 2918): the peer asks for all routes of a family again;
//! with RFC 7313 the answer's begin and end are marked by the same message.

use bytes::{BufMut, Bytes};

use super::{Code, Family, Kind, Reader, WireError, emit, framed};

/// A request to send the Adj-RIB-Out of one family anew, or a mark in the
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Address family identifier; may be one we do not know.
    pub afi: u16,
    /// What the message is; may be something we do not know.
    pub subtype: u8,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl RouteRefresh {
    /// Subtype of a request (RFC 2918).
    pub const REQUEST: u8 = 0;
    /// Subtype of BoRR: all routes of the family follow (RFC 7313 section 3.2).
    pub const BEGIN: u8 = 1;
    /// Subtype of EoRR: that was all of them.
    pub const END: u8 = 2;

    /// A plain request for `family`.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            afi: family.afi(),
            subtype: Self::REQUEST,
            safi: family.safi(),
        }
    }

    /// The mark before all routes of `family`.
    #[must_use]
    pub fn begin(family: Family) -> Self {
        Self {
            subtype: Self::BEGIN,
            ..Self::new(family)
        }
    }

    /// The mark behind all routes of `family`.
    #[must_use]
    pub fn end(family: Family) -> Self {
        Self {
            subtype: Self::END,
            ..Self::new(family)
        }
    }

    /// The family meant, if this speaker carries it.
    #[must_use]
    pub fn family(self) -> Option<Family> {
        Family::from_numbers(self.afi, self.safi)
    }

    /// The whole message.
    #[must_use]
    pub fn emit(self) -> Bytes {
        emit(Kind::RouteRefresh, |out| {
            out.put_u16(self.afi);
            out.put_u8(self.subtype);
            out.put_u8(self.safi);
        })
    }

    /// Reads a message body. Octets that follow a request (outbound route
    /// filters, RFC 5291, which are not offered) are ignored; a mark must have
    /// its exact length (RFC 7313 section 5).
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let (Some(afi), Some(subtype), Some(safi)) = (reader.u16(), reader.u8(), reader.u8())
        else {
            return Err(WireError::plain(
                Code::BAD_MESSAGE_LENGTH,
                "a ROUTE-REFRESH is too short for its address family",
            ));
        };
        if matches!(subtype, Self::BEGIN | Self::END) && !reader.is_empty() {
            let whole = framed(Kind::RouteRefresh, body);
            let words = "a mark of a route refresh is longer than it must be";
            return Err(WireError::new(
                Code::INVALID_REFRESH_LENGTH,
                whole.to_vec(),
                words,
            ));
        }
        Ok(Self { afi, subtype, safi })
    }
}
