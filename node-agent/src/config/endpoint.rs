//! Which packets the services want: that no two want the same ones, and that
//! the data plane has the means to tell them apart.

use std::collections::{BTreeMap, BTreeSet};

use vipd_abi::{MOST_LENGTHS, MOST_RANGES, PORT_RANGES};
use vipd_control::model::{Ports, Protocol, Vip};

use super::{
    report::{Report, Span},
    service::SHARE,
    table::At,
    text::Name,
    valid::check_unique,
    value::PORT_MIN,
    written::{self, Family},
};
use crate::dataplane::listing::is_ranged;

/// Checks the addresses, protocols and ports of all services together.
pub fn check_endpoints(written: &[At<written::Service>], report: &mut Report) {
    let mut claims = Claims::default();
    let mut lengths = [BTreeSet::new(), BTreeSet::new()];
    let mut ranges = Ranges::default();
    for service in written.iter().map(|at| &at.value) {
        let Some(vips) = &service.vips else { continue };
        check_unique(vips.value.iter(), "virtual address", report);
        for vip in &vips.value {
            if service.forwards() {
                check_length(vip, &mut lengths, report);
            }
            let (Some(protocol), Some(ports)) = (&service.protocol, &service.port) else {
                continue;
            };
            let claim = (vip.value, protocol.value, ports.value);
            claims.check(claim, service.name.as_ref(), &vip.span, report);
            if service.forwards() && is_ranged(vip.value, ports.value) {
                ranges.add(vip);
            }
        }
    }
    ranges.check(report);
}

/// Some ports of an address or prefix.
type Claim = (Vip, Protocol, Ports);

/// The name of a service, and where its claim is written.
type Whose<'a> = (Option<&'a At<Name>>, &'a Span);

/// What the file may have of what the table takes: what it no longer has is
/// still forwarded for a while.
const LENGTHS: usize = MOST_LENGTHS / SHARE;
const RANGES: usize = MOST_RANGES / SHARE;

/// Who wants what.
#[derive(Default)]
struct Claims<'a>(BTreeMap<Claim, Whose<'a>>);

impl<'a> Claims<'a> {
    /// Address, protocol and ports lead to one service only. A port within
    /// another's range does, since the narrower one is asked first.
    fn check(
        &mut self,
        claim: Claim,
        name: Option<&'a At<Name>>,
        span: &'a Span,
        report: &mut Report,
    ) {
        if let Some((other, (other_name, other_span))) = self.clash(claim)
            && other_name.map(|name| &name.value) != name.map(|name| &name.value)
        {
            let (vip, protocol, ports) = claim;
            let protocol = protocol.to_string().to_uppercase();
            let ports = common(ports, other);
            report
                .error(span, format!("two services for {vip}, {protocol} {ports}"))
                .related(other_span, "already served here")
                .help("give one of them another address, protocol or port");
        }
        self.0.insert(claim, (name, span));
    }

    /// A claim to some of the same ports, which is not narrower or wider by
    /// its kind.
    fn clash(&self, claim: Claim) -> Option<(Ports, Whose<'a>)> {
        let (vip, protocol, ports) = claim;
        if let Some(same) = self.0.get(&claim) {
            return Some((ports, *same));
        }
        let Ports::Range(first, last) = ports else {
            return None;
        };
        let all = (vip, protocol, Ports::Range(PORT_MIN, PORT_MIN))..(vip, protocol, Ports::Any);
        let mut ranges = self.0.range(all);
        ranges.find_map(|((_, _, other), whose)| {
            let (other_first, other_last) = other.bounds();
            let apart = last.get() < other_first || other_last < first.get();
            (!apart).then_some((*other, *whose))
        })
    }
}

/// The ports that are in both.
fn common(one: Ports, other: Ports) -> String {
    let (first, last) = one.bounds();
    let (other_first, other_last) = other.bounds();
    match (first.max(other_first), last.min(other_last)) {
        (0, _) => String::from("on any port"),
        (first, last) if first == last => format!("port {first}"),
        (first, last) => format!("ports {first}-{last}"),
    }
}

/// A packet is looked up once for each length there is.
fn check_length(vip: &At<Vip>, lengths: &mut [BTreeSet<u8>; 2], report: &mut Report) {
    if vip.value.is_single() {
        return;
    }
    let lengths = &mut lengths[usize::from(vip.value.is_ipv4())];
    let new = lengths.insert(vip.value.prefix().prefix_len());
    if new && lengths.len() == LENGTHS + 1 {
        let family = Family::of(vip.value.address()).name();
        report
            .error(
                &vip.span,
                format!("{family} prefixes of more than {LENGTHS} different lengths"),
            )
            .help("write a prefix as several longer ones, of a length that others have");
    }
}

/// How many services are found by port ranges, by their address or prefix, and
/// where the last of them is written.
#[derive(Default)]
struct Ranges<'a>(BTreeMap<Vip, (usize, &'a Span)>);

impl<'a> Ranges<'a> {
    fn add(&mut self, vip: &'a At<Vip>) {
        let (count, span) = self.0.entry(vip.value).or_insert((0, &vip.span));
        *count += 1;
        *span = &vip.span;
    }

    /// A packet is compared with the ranges of its address and of all prefixes
    /// around it, which the table has in one place for each.
    fn check(&self, report: &mut Report) {
        const ROOM: usize = PORT_RANGES as usize / SHARE;
        let mut total = 0;
        for (vip, (_, span)) in &self.0 {
            let around = self.0.iter().filter(|(other, _)| other.contains(*vip));
            let compared: usize = around.map(|(_, (count, _))| count).sum();
            if compared > RANGES {
                let title = format!(
                    "{vip} and the prefixes around it have {compared} port ranges; \
                     {RANGES} is the most",
                );
                report.error(span, title).help(
                    "join ranges, or give some services another address; a service on one port \
                     of one address does not count, one on a prefix does",
                );
            }
            let before = total;
            total += compared;
            if before <= ROOM && total > ROOM {
                report
                    .error(span, format!("all addresses up to this one have {total} port ranges: too many"))
                    .help(format!("the data plane has room for {ROOM}; each address counts its own and those of the prefixes around it"));
            }
        }
    }
}
