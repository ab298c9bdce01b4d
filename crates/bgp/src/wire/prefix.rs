//! Prefixes as they stand in NLRI fields (RFC 4271 section 4.3): the length in
//! bits, then as many octets as that needs.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Family, Reader};

/// Octets that `prefix` takes in an NLRI field.
#[must_use]
pub fn wire_len(prefix: &IpNet) -> usize {
    1 + octets(prefix.prefix_len())
}

pub(super) fn emit_all(out: &mut BytesMut, prefixes: &[IpNet]) {
    for prefix in prefixes {
        out.put_u8(prefix.prefix_len());
        let len = octets(prefix.prefix_len());
        match prefix.trunc() {
            IpNet::V4(net) => out.extend(net.addr().octets().into_iter().take(len)),
            IpNet::V6(net) => out.extend(net.addr().octets().into_iter().take(len)),
        }
    }
}

/// Reads prefixes to the end of `bytes`. Bits behind the prefix length are
/// without meaning and dropped.
///
/// # Errors
/// In words, if a prefix is longer than its family's addresses or than what is
/// left of the field.
pub(super) fn parse_all(bytes: &[u8], family: Family) -> Result<Vec<IpNet>, String> {
    let mut reader = Reader::new(bytes);
    let mut prefixes = Vec::new();
    while let Some(bits) = reader.u8() {
        let Some(value) = reader.take(octets(bits)) else {
            return Err(format!(
                "an {family} prefix of /{bits} is cut off by the end of its field"
            ));
        };
        let Some(prefix) = from_octets(value, bits, family) else {
            return Err(format!("/{bits} is too long for an {family} prefix"));
        };
        prefixes.push(prefix);
    }
    Ok(prefixes)
}

fn from_octets(value: &[u8], bits: u8, family: Family) -> Option<IpNet> {
    let net = match family {
        Family::Ipv4Unicast => {
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from(padded::<4>(value)?), bits).ok()?)
        }
        Family::Ipv6Unicast => {
            IpNet::V6(Ipv6Net::new(Ipv6Addr::from(padded::<16>(value)?), bits).ok()?)
        }
    };
    Some(net.trunc())
}

fn padded<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    let mut address = [0; N];
    address.get_mut(..value.len())?.copy_from_slice(value);
    Some(address)
}

fn octets(bits: u8) -> usize {
    usize::from(bits).div_ceil(8)
}
