//! ROUTE-REFRESH (RFC 2918): the peer asks for all routes of a family again.

use bytes::{BufMut, Bytes};

use super::{Code, Family, Kind, Reader, WireError, emit};

/// A request to send the Adj-RIB-Out of one family anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Address family identifier; may be one we do not know.
    pub afi: u16,
    /// Message subtype of RFC 7313, which is 0 for a plain request.
    pub subtype: u8,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl RouteRefresh {
    /// A plain request for `family`.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            afi: family.afi(),
            subtype: 0,
            safi: family.safi(),
        }
    }

    /// The family asked for, if this speaker carries it.
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

    /// Reads a message body. Octets that follow (outbound route filters,
    /// RFC 5291, which are not offered) are ignored.
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let (Some(afi), Some(subtype), Some(safi)) = (reader.u16(), reader.u8(), reader.u8())
        else {
            return Err(WireError::plain(
                Code::BAD_MESSAGE_LENGTH,
                "a ROUTE-REFRESH is too short for its address family",
            ));
        };
        Ok(Self { afi, subtype, safi })
    }
}
