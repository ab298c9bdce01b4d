//! OPEN (RFC 4271 section 4.2): who the peer is and what it can do.

use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Capability, Code, Kind, Reader, RestartCapability, WireError, emit, with_len8, with_len16,
};

/// Stands in two-octet fields for an AS number that needs four (RFC 6793).
pub const AS_TRANS: u16 = 23456;

/// Whether nobody can have this AS number (RFC 7607, RFC 6793, RFC 7300).
#[must_use]
pub fn is_reserved(asn: u32) -> bool {
    [0, AS_TRANS.into(), 65535, u32::MAX].contains(&asn)
}

const VERSION: u8 = 4;
const PARAMETER_CAPABILITIES: u8 = 2;

/// In the place of the first parameter's type: lengths have two octets, and
/// the one before it means nothing (RFC 9072 section 2).
const EXTENDED: u8 = 255;

/// Capabilities that fit one optional parameter of the classic form.
const MAX_CLASSIC: usize = 253;

/// The first message of each side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The two-octet field "My Autonomous System"; see [`Open::asn`].
    pub my_as: u16,
    /// Proposed hold time in seconds; 0 for none.
    pub hold_time: u16,
    /// BGP identifier: unique within the AS, not 0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Capabilities in the order of the message.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// The sender's AS number: the one of the four-octet capability if there
    /// is one (RFC 6793 section 4.1).
    #[must_use]
    pub fn asn(&self) -> u32 {
        self.four_octet_as().unwrap_or_else(|| self.my_as.into())
    }

    /// The AS number of the four-octet capability.
    #[must_use]
    pub fn four_octet_as(&self) -> Option<u32> {
        self.capabilities
            .iter()
            .find_map(|capability| match capability {
                Capability::FourOctetAs(asn) => Some(*asn),
                _ => None,
            })
    }

    /// What the sender says of its restarts: the last instance counts
    /// (RFC 4724 section 3).
    #[must_use]
    pub fn graceful_restart(&self) -> Option<&RestartCapability> {
        let mut restarts = self.capabilities.iter().rev();
        restarts.find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    }

    /// The whole message. The capabilities must fit it, which is a matter of
    /// 4,000 octets; lengths of two octets (RFC 9072) are used if they must be.
    #[must_use]
    pub fn emit(&self) -> Bytes {
        let mut capabilities = BytesMut::new();
        for capability in &self.capabilities {
            capability.emit(&mut capabilities);
        }
        emit(Kind::Open, |out| {
            out.put_u8(VERSION);
            out.put_u16(self.my_as);
            out.put_u16(self.hold_time);
            out.put_slice(&self.router_id.octets());
            if capabilities.len() > MAX_CLASSIC {
                out.put_slice(&[EXTENDED, EXTENDED]);
                with_len16(out, |out| {
                    out.put_u8(PARAMETER_CAPABILITIES);
                    with_len16(out, |out| out.put_slice(&capabilities));
                });
                return;
            }
            with_len8(out, |out| {
                if !capabilities.is_empty() {
                    out.put_u8(PARAMETER_CAPABILITIES);
                    with_len8(out, |out| out.put_slice(&capabilities));
                }
            });
        })
    }

    /// Reads a message body. Only its form and version are judged here; what
    /// the session makes of its values is the session's affair.
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let version = reader.u8().ok_or_else(truncated)?;
        if version != VERSION {
            let words = format!("the peer speaks BGP version {version}, only 4 is supported");
            let highest = u16::from(VERSION).to_be_bytes();
            return Err(WireError::new(Code::UNSUPPORTED_VERSION, highest, words));
        }
        let my_as = reader.u16().ok_or_else(truncated)?;
        let hold_time = reader.u16().ok_or_else(truncated)?;
        let router_id = reader.array().map(Ipv4Addr::from).ok_or_else(truncated)?;
        let len = reader.u8().ok_or_else(truncated)?;
        let extended = len > 0 && reader.rest_starts_with(EXTENDED);
        let len = if extended {
            reader.u8();
            reader.u16().ok_or_else(truncated)?
        } else {
            len.into()
        };
        let parameters = reader.take(len.into()).ok_or_else(truncated)?;
        if !reader.is_empty() {
            let words = "octets follow the optional parameters of the OPEN";
            return Err(WireError::plain(Code::OPEN_UNSPECIFIC, words));
        }
        Ok(Self {
            my_as,
            hold_time,
            router_id,
            capabilities: parse_parameters(parameters, extended)?,
        })
    }
}

/// `extended`: each length has two octets (RFC 9072).
fn parse_parameters(parameters: &[u8], extended: bool) -> Result<Vec<Capability>, WireError> {
    let mut reader = Reader::new(parameters);
    let mut capabilities = Vec::new();
    while let Some(kind) = reader.u8() {
        let len = if extended {
            reader.u16()
        } else {
            reader.u8().map(u16::from)
        };
        let len = len.ok_or_else(truncated)?;
        let value = reader.take(len.into()).ok_or_else(truncated)?;
        if kind != PARAMETER_CAPABILITIES {
            let words = format!("optional parameter {kind} of the OPEN is not supported");
            return Err(WireError::plain(
                Code::UNSUPPORTED_OPTIONAL_PARAMETER,
                words,
            ));
        }
        capabilities.extend(Capability::parse_all(value).ok_or_else(truncated)?);
    }
    Ok(capabilities)
}

fn truncated() -> WireError {
    WireError::plain(Code::OPEN_UNSPECIFIC, "a field of the OPEN is cut off")
}
