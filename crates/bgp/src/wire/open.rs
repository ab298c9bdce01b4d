//! OPEN (RFC 4271 section 4.2): who the peer is and what it can do.

use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes};

use super::{Capability, Code, Kind, Reader, WireError, emit, with_len8};

/// Stands in two-octet fields for an AS number that needs four (RFC 6793).
pub const AS_TRANS: u16 = 23456;

const VERSION: u8 = 4;
const PARAMETER_CAPABILITIES: u8 = 2;

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
                Capability::Multiprotocol { .. }
                | Capability::RouteRefresh
                | Capability::Other { .. } => None,
            })
    }

    /// The whole message. The capabilities must fit 253 octets together.
    #[must_use]
    pub fn emit(&self) -> Bytes {
        emit(Kind::Open, |out| {
            out.put_u8(VERSION);
            out.put_u16(self.my_as);
            out.put_u16(self.hold_time);
            out.put_slice(&self.router_id.octets());
            with_len8(out, |out| {
                if self.capabilities.is_empty() {
                    return;
                }
                out.put_u8(PARAMETER_CAPABILITIES);
                with_len8(out, |out| {
                    for capability in &self.capabilities {
                        capability.emit(out);
                    }
                });
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
        let parameters = reader.take(len.into()).ok_or_else(truncated)?;
        if !reader.is_empty() {
            let words = "octets follow the optional parameters of the OPEN";
            return Err(WireError::plain(Code::OPEN_UNSPECIFIC, words));
        }
        Ok(Self {
            my_as,
            hold_time,
            router_id,
            capabilities: parse_parameters(parameters)?,
        })
    }
}

fn parse_parameters(parameters: &[u8]) -> Result<Vec<Capability>, WireError> {
    let mut reader = Reader::new(parameters);
    let mut capabilities = Vec::new();
    while let Some(kind) = reader.u8() {
        let len = reader.u8().ok_or_else(truncated)?;
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
