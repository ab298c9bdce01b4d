//! Which packets the services want: that no two want the same ones, and that
//! the data plane has the means to tell them apart.

use std::collections::{BTreeMap, BTreeSet};

use vipd_abi::{MOST_LENGTHS, MOST_RANGES};
use vipd_control::model::{Ports, Protocol, Vip};

use super::{
    report::{Report, Span},
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
    let mut ranges = BTreeMap::new();
    for service in written.iter().map(|at| &at.value) {
        let Some(vips) = &service.vips else { continue };
        check_unique(vips.value.iter(), "virtual address", report);
        for vip in &vips.value {
            check_length(vip, &mut lengths, report);
            let (Some(protocol), Some(ports)) = (&service.protocol, &service.port) else {
                continue;
            };
            let claim = (vip.value, protocol.value, ports.value);
            claims.check(claim, service.name.as_ref(), &vip.span, report);
            if is_ranged(vip.value, ports.value) {
                check_ranges(vip, ranges.entry(vip.value).or_default(), report);
            }
        }
    }
}

/// Some ports of an address or prefix.
type Claim = (Vip, Protocol, Ports);

/// The name of a service, and where its claim is written.
type Whose<'a> = (Option<&'a At<Name>>, &'a Span);

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
    if new && lengths.len() == MOST_LENGTHS + 1 {
        let family = Family::of(vip.value.address()).name();
        report
            .error(
                &vip.span,
                format!("{family} prefixes of more than {MOST_LENGTHS} different lengths"),
            )
            .help("write a prefix as several longer ones, of a length that others have");
    }
}

/// A packet is compared with each range there is.
fn check_ranges(vip: &At<Vip>, ranges: &mut usize, report: &mut Report) {
    *ranges += 1;
    if *ranges == MOST_RANGES + 1 {
        let (title, help) = if vip.value.is_single() {
            (
                format!("more than {MOST_RANGES} port ranges on one address"),
                "join ranges, or give some services another address; a service on one port does \
                 not count",
            )
        } else {
            (
                format!("more than {MOST_RANGES} services on one prefix"),
                "give some of them addresses of their own",
            )
        };
        report.error(&vip.span, title).help(help);
    }
}
