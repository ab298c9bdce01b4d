//! Path attributes (RFC 4271 section 5, RFC 4760): written in full, read by
//! the rules of RFC 7606.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use ipnet::IpNet;

use super::{
    AsPath, Code, Community, Dialect, ExtendedCommunity, Family, LargeCommunity, Reader, WireError,
    prefix, saturating_u16,
};

/// The path attributes that this speaker writes or looks into. Others are
/// checked for their form when they are received, and dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Option<Origin>,
    /// AS_PATH.
    pub as_path: Option<AsPath>,
    /// AS4_PATH: the true path, towards a peer of two-octet AS numbers.
    pub as4_path: Option<AsPath>,
    /// NEXT_HOP of the IPv4 prefixes that stand outside the attributes.
    pub next_hop: Option<Ipv4Addr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// COMMUNITIES.
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY.
    pub large_communities: Vec<LargeCommunity>,
    /// MP_REACH_NLRI, if of a family this speaker knows.
    pub mp_reach: Option<MpReach>,
    /// MP_UNREACH_NLRI, if of a family this speaker knows.
    pub mp_unreach: Option<MpUnreach>,
    /// One of these two came for another family. It is not kept, and never
    /// written.
    pub other_family: bool,
}

/// How a route came into BGP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// From the inside of its AS.
    #[default]
    Igp = 0,
    /// From the EGP protocol.
    Egp = 1,
    /// By other means.
    Incomplete = 2,
}

/// Announced prefixes of any family (RFC 4760 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MpReach {
    /// Family of the prefixes.
    pub family: Family,
    /// Where to send the packets; a global address (RFC 2545).
    pub next_hop: IpAddr,
    /// The link-local address that may follow an IPv6 next hop.
    pub link_local: Option<Ipv6Addr>,
    /// What is reachable.
    pub prefixes: Vec<IpNet>,
}

/// Withdrawn prefixes of any family (RFC 4760 section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MpUnreach {
    /// Family of the prefixes.
    pub family: Family,
    /// What is no longer reachable.
    pub prefixes: Vec<IpNet>,
}

/// Something wrong in an UPDATE that the session survives (RFC 7606).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Type code of the attribute.
    pub attribute: u8,
    /// What becomes of the prefixes.
    pub handling: Handling,
    /// What was wrong, in plain words.
    pub words: String,
}

/// What RFC 7606 section 2 does with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handling {
    /// The attribute is ignored, the prefixes count.
    AttributeDiscard,
    /// The prefixes count as withdrawn.
    TreatAsWithdraw,
}

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MED: u8 = 4;
const LOCAL_PREF: u8 = 5;
const ATOMIC_AGGREGATE: u8 = 6;
const AGGREGATOR: u8 = 7;
const COMMUNITIES: u8 = 8;
const ORIGINATOR_ID: u8 = 9;
const CLUSTER_LIST: u8 = 10;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
const EXTENDED_COMMUNITIES: u8 = 16;
const AS4_PATH: u8 = 17;
const AS4_AGGREGATOR: u8 = 18;
const LARGE_COMMUNITY: u8 = 32;

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const EXTENDED_LENGTH: u8 = 0x10;

impl Attributes {
    /// Appends all attributes; the multiprotocol ones come first (RFC 7606
    /// section 5.1) and always with an extended length, so that the room they
    /// take does not depend on how many prefixes are in them.
    pub(super) fn emit(&self, out: &mut BytesMut, dialect: Dialect) {
        if let Some(MpReach {
            family,
            next_hop,
            link_local,
            prefixes,
        }) = &self.mp_reach
        {
            put(out, OPTIONAL | EXTENDED_LENGTH, MP_REACH, |out| {
                out.put_u16(family.afi());
                out.put_u8(family.safi());
                match (next_hop, link_local) {
                    (IpAddr::V4(address), _) => {
                        out.put_u8(4);
                        out.put_slice(&address.octets());
                    }
                    (IpAddr::V6(address), None) => {
                        out.put_u8(16);
                        out.put_slice(&address.octets());
                    }
                    (IpAddr::V6(address), Some(link_local)) => {
                        out.put_u8(32);
                        out.put_slice(&address.octets());
                        out.put_slice(&link_local.octets());
                    }
                }
                out.put_u8(0);
                prefix::emit_all(out, prefixes);
            });
        }
        if let Some(MpUnreach { family, prefixes }) = &self.mp_unreach {
            put(out, OPTIONAL | EXTENDED_LENGTH, MP_UNREACH, |out| {
                out.put_u16(family.afi());
                out.put_u8(family.safi());
                prefix::emit_all(out, prefixes);
            });
        }
        if let Some(origin) = self.origin {
            put(out, TRANSITIVE, ORIGIN, |out| out.put_u8(origin as u8));
        }
        if let Some(path) = &self.as_path {
            put(out, TRANSITIVE, AS_PATH, |out| {
                path.emit(out, dialect.four_octet_as);
            });
        }
        if let Some(next_hop) = self.next_hop {
            put(out, TRANSITIVE, NEXT_HOP, |out| {
                out.put_slice(&next_hop.octets());
            });
        }
        if let Some(med) = self.med {
            put(out, OPTIONAL, MED, |out| out.put_u32(med));
        }
        if let Some(local_pref) = self.local_pref {
            put(out, TRANSITIVE, LOCAL_PREF, |out| out.put_u32(local_pref));
        }
        if !self.communities.is_empty() {
            put(out, OPTIONAL | TRANSITIVE, COMMUNITIES, |out| {
                self.communities
                    .iter()
                    .for_each(|community| out.put_u32(community.0));
            });
        }
        if !self.extended_communities.is_empty() {
            put(out, OPTIONAL | TRANSITIVE, EXTENDED_COMMUNITIES, |out| {
                self.extended_communities
                    .iter()
                    .for_each(|community| out.put_u64(community.0));
            });
        }
        if let Some(path) = &self.as4_path {
            put(out, OPTIONAL | TRANSITIVE, AS4_PATH, |out| {
                path.emit(out, true);
            });
        }
        if !self.large_communities.is_empty() {
            put(out, OPTIONAL | TRANSITIVE, LARGE_COMMUNITY, |out| {
                for LargeCommunity {
                    global,
                    local1,
                    local2,
                } in &self.large_communities
                {
                    [global, local1, local2]
                        .into_iter()
                        .for_each(|part| out.put_u32(*part));
                }
            });
        }
    }

    /// Reads the attributes of an UPDATE.
    ///
    /// # Errors
    /// Only where RFC 7606 keeps the session reset: prefixes in a multiprotocol
    /// attribute that cannot be located, such an attribute twice, and a
    /// well-known attribute nobody knows.
    pub(super) fn parse(bytes: &[u8], dialect: Dialect) -> Result<(Self, Vec<Fault>), WireError> {
        let mut attributes = Self::default();
        let mut faults = Vec::new();
        let mut seen = [false; 256];
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let Some(Raw { flags, kind, value }) = Raw::take(&mut reader) else {
                let words = "an attribute is longer than the attributes together".to_owned();
                faults.push(Fault {
                    attribute: 0,
                    handling: Handling::TreatAsWithdraw,
                    words,
                });
                break;
            };
            if std::mem::replace(&mut seen[usize::from(kind)], true) {
                faults.push(duplicate(kind)?);
                continue;
            }
            let fault = match check_flags(flags, kind)? {
                Some(fault) if !matches!(kind, MP_REACH | MP_UNREACH) => Some(fault),
                flaw => attributes.set(kind, value, dialect)?.or(flaw),
            };
            faults.extend(fault);
        }
        Ok((attributes, faults))
    }

    /// Takes in the value of one attribute (RFC 7606 section 7).
    fn set(
        &mut self,
        kind: u8,
        value: &[u8],
        dialect: Dialect,
    ) -> Result<Option<Fault>, WireError> {
        use Handling::{AttributeDiscard, TreatAsWithdraw};

        let len = value.len();
        let mut reader = Reader::new(value);
        let wide = dialect.four_octet_as;
        // Of a peer in another AS these are dropped unread.
        if !dialect.internal && matches!(kind, LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST) {
            return Ok(Some(fault(
                kind,
                AttributeDiscard,
                "does not belong on an eBGP session",
            )));
        }
        let (good, handling) = match kind {
            ORIGIN => {
                self.origin = match value {
                    [0] => Some(Origin::Igp),
                    [1] => Some(Origin::Egp),
                    [2] => Some(Origin::Incomplete),
                    _ => None,
                };
                (self.origin.is_some(), TreatAsWithdraw)
            }
            AS_PATH => {
                self.as_path = AsPath::parse(value, wide);
                (self.as_path.is_some(), TreatAsWithdraw)
            }
            NEXT_HOP => {
                self.next_hop = exact(value).map(Ipv4Addr::from);
                (self.next_hop.is_some(), TreatAsWithdraw)
            }
            MED => {
                self.med = exact(value).map(u32::from_be_bytes);
                (self.med.is_some(), TreatAsWithdraw)
            }
            LOCAL_PREF => {
                self.local_pref = exact(value).map(u32::from_be_bytes);
                (self.local_pref.is_some(), TreatAsWithdraw)
            }
            ATOMIC_AGGREGATE => (len == 0, AttributeDiscard),
            AGGREGATOR => (len == if wide { 8 } else { 6 }, AttributeDiscard),
            COMMUNITIES => {
                self.communities = list(&mut reader, |r| r.u32().map(Community));
                (len > 0 && reader.is_empty(), TreatAsWithdraw)
            }
            ORIGINATOR_ID => (len == 4, TreatAsWithdraw),
            CLUSTER_LIST => (len > 0 && len.is_multiple_of(4), TreatAsWithdraw),
            EXTENDED_COMMUNITIES => {
                self.extended_communities = list(&mut reader, |r| {
                    r.array().map(u64::from_be_bytes).map(ExtendedCommunity)
                });
                (len > 0 && reader.is_empty(), TreatAsWithdraw)
            }
            // Between speakers of four-octet AS numbers these two have no
            // business (RFC 6793 section 6).
            AS4_PATH if wide => (false, AttributeDiscard),
            AS4_AGGREGATOR if wide => (false, AttributeDiscard),
            AS4_PATH => {
                self.as4_path = AsPath::parse(value, true);
                (self.as4_path.is_some(), AttributeDiscard)
            }
            AS4_AGGREGATOR => (len == 8, AttributeDiscard),
            LARGE_COMMUNITY => {
                self.large_communities = list(&mut reader, |r| {
                    let (global, local1, local2) = (r.u32()?, r.u32()?, r.u32()?);
                    Some(LargeCommunity {
                        global,
                        local1,
                        local2,
                    })
                });
                (len > 0 && len.is_multiple_of(12), TreatAsWithdraw)
            }
            MP_REACH => {
                self.mp_reach = MpReach::parse(&mut reader)?;
                self.other_family |= self.mp_reach.is_none();
                (true, TreatAsWithdraw)
            }
            MP_UNREACH => {
                self.mp_unreach = MpUnreach::parse(&mut reader)?;
                self.other_family |= self.mp_unreach.is_none();
                (true, TreatAsWithdraw)
            }
            _ => (true, AttributeDiscard),
        };
        Ok((!good).then(|| fault(kind, handling, "has a malformed value")))
    }
}

impl MpReach {
    /// `None` for a family we do not know.
    fn parse(reader: &mut Reader<'_>) -> Result<Option<Self>, WireError> {
        let cut_off = || multiprotocol_error("MP_REACH_NLRI is cut off");
        let family = family_of(reader).ok_or_else(cut_off)?;
        let len = reader.u8().ok_or_else(cut_off)?;
        let mut address = Reader::new(reader.take(len.into()).ok_or_else(cut_off)?);
        reader.u8().ok_or_else(cut_off)?;
        let Some(family) = family else {
            return Ok(None);
        };
        let (next_hop, link_local) = match len {
            4 if family == Family::Ipv4Unicast => {
                (address.array().map(|v4| Ipv4Addr::from(v4).into()), None)
            }
            16 => (v6(&mut address).map(IpAddr::V6), None),
            32 => (v6(&mut address).map(IpAddr::V6), v6(&mut address)),
            _ => (None, None),
        };
        let next_hop = next_hop.ok_or_else(|| {
            let words = format!("MP_REACH_NLRI has a next hop of {len} octets for {family}");
            multiprotocol_error(words)
        })?;
        let prefixes = prefix::parse_all(reader.rest(), family).map_err(multiprotocol_error)?;
        Ok(Some(Self {
            family,
            next_hop,
            link_local,
            prefixes,
        }))
    }
}

impl MpUnreach {
    /// `None` for a family we do not know.
    fn parse(reader: &mut Reader<'_>) -> Result<Option<Self>, WireError> {
        let family =
            family_of(reader).ok_or_else(|| multiprotocol_error("MP_UNREACH_NLRI is cut off"))?;
        let Some(family) = family else {
            return Ok(None);
        };
        let prefixes = prefix::parse_all(reader.rest(), family).map_err(multiprotocol_error)?;
        Ok(Some(Self { family, prefixes }))
    }
}

/// An attribute whose value has not been looked at.
struct Raw<'a> {
    flags: u8,
    kind: u8,
    value: &'a [u8],
}

impl<'a> Raw<'a> {
    fn take(reader: &mut Reader<'a>) -> Option<Self> {
        let (flags, kind) = (reader.u8()?, reader.u8()?);
        let len = if flags & EXTENDED_LENGTH == 0 {
            reader.u8()?.into()
        } else {
            reader.u16()?
        };
        Some(Self {
            flags,
            kind,
            value: reader.take(len.into())?,
        })
    }
}

/// The second of two: all but the first are ignored (RFC 7606 section 3 g).
fn duplicate(kind: u8) -> Result<Fault, WireError> {
    if matches!(kind, MP_REACH | MP_UNREACH) {
        let words = format!("{} occurs twice in one UPDATE", name(kind));
        return Err(WireError::plain(Code::MALFORMED_ATTRIBUTE_LIST, words));
    }
    Ok(fault(kind, Handling::AttributeDiscard, "occurs twice"))
}

/// Whether the attribute is as optional and as transitive as its type must be
/// (RFC 7606 section 3 c).
fn check_flags(flags: u8, kind: u8) -> Result<Option<Fault>, WireError> {
    let wanted = match kind {
        ORIGIN | AS_PATH | NEXT_HOP | LOCAL_PREF | ATOMIC_AGGREGATE => TRANSITIVE,
        MED | ORIGINATOR_ID | CLUSTER_LIST | MP_REACH | MP_UNREACH => OPTIONAL,
        AGGREGATOR | COMMUNITIES | EXTENDED_COMMUNITIES | AS4_PATH | AS4_AGGREGATOR
        | LARGE_COMMUNITY => OPTIONAL | TRANSITIVE,
        _ if flags & OPTIONAL != 0 => return Ok(None),
        _ => {
            let words = format!("well-known attribute {kind} is not known");
            return Err(WireError::plain(
                Code::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE,
                words,
            ));
        }
    };
    let good = flags & (OPTIONAL | TRANSITIVE) == wanted;
    Ok((!good).then(|| {
        fault(
            kind,
            Handling::TreatAsWithdraw,
            "has flags that its type forbids",
        )
    }))
}

fn put(out: &mut BytesMut, flags: u8, kind: u8, value: impl FnOnce(&mut BytesMut)) {
    let mut body = BytesMut::new();
    value(&mut body);
    match u8::try_from(body.len()) {
        Ok(len) if flags & EXTENDED_LENGTH == 0 => out.put_slice(&[flags, kind, len]),
        _ => {
            out.put_slice(&[flags | EXTENDED_LENGTH, kind]);
            out.put_u16(saturating_u16(body.len()));
        }
    }
    out.put_slice(&body);
}

/// The outer `Option` is `None` if the value is cut off, the inner one if the
/// family is unknown.
fn family_of(reader: &mut Reader<'_>) -> Option<Option<Family>> {
    let (afi, safi) = (reader.u16()?, reader.u8()?);
    Some(Family::from_numbers(afi, safi))
}

fn v6(reader: &mut Reader<'_>) -> Option<Ipv6Addr> {
    reader.array::<16>().map(Ipv6Addr::from)
}

fn exact<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn list<'a, T>(
    reader: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'a>) -> Option<T>,
) -> Vec<T> {
    std::iter::from_fn(|| item(reader)).collect()
}

fn multiprotocol_error(words: impl Into<String>) -> WireError {
    WireError::plain(Code::OPTIONAL_ATTRIBUTE_ERROR, words)
}

fn fault(attribute: u8, handling: Handling, what: &str) -> Fault {
    Fault {
        attribute,
        handling,
        words: format!("{} {what}", name(attribute)),
    }
}

fn name(kind: u8) -> String {
    let name = match kind {
        ORIGIN => "ORIGIN",
        AS_PATH => "AS_PATH",
        NEXT_HOP => "NEXT_HOP",
        MED => "MULTI_EXIT_DISC",
        LOCAL_PREF => "LOCAL_PREF",
        ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        AGGREGATOR => "AGGREGATOR",
        COMMUNITIES => "COMMUNITIES",
        ORIGINATOR_ID => "ORIGINATOR_ID",
        CLUSTER_LIST => "CLUSTER_LIST",
        MP_REACH => "MP_REACH_NLRI",
        MP_UNREACH => "MP_UNREACH_NLRI",
        EXTENDED_COMMUNITIES => "EXTENDED COMMUNITIES",
        AS4_PATH => "AS4_PATH",
        AS4_AGGREGATOR => "AS4_AGGREGATOR",
        LARGE_COMMUNITY => "LARGE_COMMUNITY",
        _ => return format!("attribute {kind}"),
    };
    name.to_owned()
}
