//! UPDATE (RFC 4271 section 4.3): prefixes withdrawn and announced.

use bytes::Bytes;
use ipnet::IpNet;

use super::{
    Attributes, Code, Dialect, Family, Fault, Handling, Kind, MpUnreach, Reader, WireError, emit,
    prefix, with_len16,
};

/// Withdrawn prefixes, and announced prefixes with the attributes they share.
///
/// IPv4 prefixes stand in the two lists here, those of other families in the
/// multiprotocol attributes (RFC 4760).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// IPv4 prefixes that are no longer reachable.
    pub withdrawn: Vec<IpNet>,
    /// What the announced prefixes have in common.
    pub attributes: Attributes,
    /// IPv4 prefixes that are reachable.
    pub announced: Vec<IpNet>,
}

impl Update {
    /// All prefixes announced, of every family.
    pub fn reachable(&self) -> impl Iterator<Item = &IpNet> {
        let others = self
            .attributes
            .mp_reach
            .iter()
            .flat_map(|reach| &reach.prefixes);
        self.announced.iter().chain(others)
    }

    /// All prefixes withdrawn, of every family.
    pub fn unreachable(&self) -> impl Iterator<Item = &IpNet> {
        let others = self
            .attributes
            .mp_unreach
            .iter()
            .flat_map(|unreach| &unreach.prefixes);
        self.withdrawn.iter().chain(others)
    }

    /// The mark behind the first announcement of all routes of `family`
    /// (RFC 4724 section 2).
    #[must_use]
    pub fn end_of_rib(family: Family) -> Self {
        let mut update = Self::default();
        update.attributes.mp_unreach = match family {
            Family::Ipv4Unicast => None,
            Family::Ipv6Unicast => Some(MpUnreach {
                family,
                prefixes: Vec::new(),
            }),
        };
        update
    }

    /// The family whose End-of-RIB this is, if it is one.
    #[must_use]
    pub fn ended_family(&self) -> Option<Family> {
        let family = match &self.attributes.mp_unreach {
            Some(unreach) => unreach.family,
            None => Family::Ipv4Unicast,
        };
        (*self == Self::end_of_rib(family)).then_some(family)
    }

    /// The whole message. The caller keeps it within
    /// [`Dialect::max_message_len`].
    #[must_use]
    pub fn emit(&self, dialect: Dialect) -> Bytes {
        emit(Kind::Update, |out| {
            with_len16(out, |out| prefix::emit_all(out, &self.withdrawn));
            with_len16(out, |out| self.attributes.emit(out, dialect));
            prefix::emit_all(out, &self.announced);
        })
    }

    /// Reads a message body by the rules of RFC 7606: what leaves the prefixes
    /// readable is a [`Fault`], the rest resets the session.
    pub(super) fn parse(body: &[u8], dialect: Dialect) -> Result<(Self, Vec<Fault>), WireError> {
        let mut reader = Reader::new(body);
        let withdrawn = sized(&mut reader).ok_or_else(|| overrun("withdrawn routes"))?;
        let attributes = sized(&mut reader).ok_or_else(|| overrun("path attributes"))?;
        let withdrawn = ipv4_prefixes(withdrawn)?;
        let announced = ipv4_prefixes(reader.rest())?;
        let (attributes, mut faults) = Attributes::parse(attributes, dialect)?;
        let update = Self {
            withdrawn,
            attributes,
            announced,
        };
        faults.extend(update.missing());
        Ok((update, faults))
    }

    /// Well-known attributes that announced prefixes need but do not have
    /// (RFC 7606 section 3 d).
    fn missing(&self) -> impl Iterator<Item = Fault> {
        let Attributes {
            origin,
            as_path,
            next_hop,
            ..
        } = &self.attributes;
        let any = self.reachable().next().is_some();
        let classic = !self.announced.is_empty();
        [
            (1, "ORIGIN", any && origin.is_none()),
            (2, "AS_PATH", any && as_path.is_none()),
            (3, "NEXT_HOP", classic && next_hop.is_none()),
        ]
        .into_iter()
        .filter(|&(_, _, missing)| missing)
        .map(|(attribute, name, _)| Fault {
            attribute,
            handling: Handling::TreatAsWithdraw,
            words: format!("{name} is missing"),
        })
    }
}

fn sized<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = reader.u16()?;
    reader.take(len.into())
}

fn ipv4_prefixes(bytes: &[u8]) -> Result<Vec<IpNet>, WireError> {
    prefix::parse_all(bytes, Family::Ipv4Unicast)
        .map_err(|words| WireError::plain(Code::INVALID_NETWORK_FIELD, words))
}

fn overrun(field: &str) -> WireError {
    let words = format!("the {field} of an UPDATE are longer than the message");
    WireError::plain(Code::MALFORMED_ATTRIBUTE_LIST, words)
}
