//! Virtual addresses that services take from interfaces of this host: which of
//! those that are found there.
//!
//! They are put into the file as if they had been written in `vips`, so that all
//! rules on virtual addresses hold for them too. What could not stand there is
//! passed over.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use toml::de::DeValue;
use vipd_control::model::{Ports, Protocol, Vip};

use super::{
    address::{Vips, unreached},
    report::{Report, Span},
    table::{At, Value},
    text::InterfaceName,
    value::read_text,
    written::{File, Service, VipsFrom},
};

/// The most addresses that a service can take.
pub const MOST_TAKEN: usize = 1024;

/// An address that others have put on an interface of this host, for good.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The interface.
    pub interface: Arc<str>,
    /// The address.
    pub address: IpAddr,
    /// Its label; IPv4 only.
    pub label: Option<Arc<str>>,
}

/// Which addresses a service takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Those of this interface,
    pub interface: InterfaceName,
    /// with such a label,
    pub label: Option<Pattern>,
    /// inside one of these prefixes.
    pub within: Vec<Vip>,
}

/// A label in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Arc<str>);

/// What a service takes now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its name.
    pub service: Arc<str>,
    /// What it wants.
    pub wish: Wish,
    /// What it gets.
    pub vips: Vec<Vip>,
    /// What it does not get, and why.
    pub passed_over: Vec<(IpAddr, String)>,
}

/// A file whose virtual addresses depend on what is found on this host.
#[derive(Clone, PartialEq, Eq)]
pub struct Taking {
    /// What the file is called.
    pub(super) name: String,
    /// What it says.
    pub(super) text: String,
    /// What was found.
    pub found: Vec<Found>,
    /// What services take of it.
    pub services: Vec<Taken>,
}

impl Pattern {
    fn matches(&self, label: &str) -> bool {
        matches(&self.0, label)
    }
}

/// As the shell does it.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, behind)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(before) else {
        return false;
    };
    let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.any(|at| matches(behind, &text[at..]))
}

impl Value for Pattern {
    fn kind() -> String {
        String::from("label, or a part of it and `*`")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"lo:any*\"", |text| {
            let is_odd = |c: char| c.is_whitespace() || c.is_control();
            if text.is_empty() || text.len() > PATTERN_MAX || text.contains(is_odd) {
                return Err(format!(
                    "`{text}` is not a label: at most {PATTERN_MAX} characters without spaces"
                ));
            }
            Ok(Self(text.into()))
        })
    }
}

/// The kernel's IFNAMSIZ without the closing zero.
const PATTERN_MAX: usize = 15;

impl Wish {
    /// What is written there, as far as it is right.
    pub fn of(written: &At<VipsFrom>) -> Option<Self> {
        let from = &written.value;
        Some(Self {
            interface: from.interface.as_ref()?.value.clone(),
            label: from.label.as_ref().map(|at| at.value.clone()),
            within: from.within.value.iter().map(|at| at.value).collect(),
        })
    }

    /// Whether it is among what the service wants.
    #[must_use]
    pub fn wants(&self, found: &Found) -> bool {
        let vip = Vip::from(found.address);
        let label = self.label.as_ref().filter(|_| vip.is_ipv4());
        let of_family = |around: &&Vip| around.is_ipv4() == vip.is_ipv4();
        let within: Vec<_> = self.within.iter().filter(of_family).collect();
        let is_named = label.is_some() || !within.is_empty();
        let takes_all = self.label.is_none() && self.within.is_empty();
        let has = |pattern: &Pattern| {
            let label = found.label.as_deref();
            label.is_some_and(|label| pattern.matches(label))
        };
        *found.interface == *self.interface.as_str()
            && (is_named || takes_all)
            && label.is_none_or(has)
            && (within.is_empty() || within.iter().any(|around| around.contains(vip)))
    }
}

/// For example `lo (label lo:any*, within 2001:db8:30::/64)`.
impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self
            .label
            .as_ref()
            .map(|label| format!("label {}", label.0));
        let within: Vec<_> = self.within.iter().map(ToString::to_string).collect();
        let within = (!within.is_empty()).then(|| format!("within {}", within.join(", ")));
        let terms: Vec<_> = label.into_iter().chain(within).collect();
        match &*terms {
            [] => write!(f, "{}", self.interface),
            terms => write!(f, "{} ({})", self.interface, terms.join(", ")),
        }
    }
}

/// One line: how many, which, and what is passed over.
impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, wish, .. } = self;
        match &*self.vips {
            [] => write!(f, "{service} takes no address of {wish}: none is there")?,
            vips => {
                let list: Vec<_> = vips.iter().map(ToString::to_string).collect();
                write!(f, "{service} takes {} of {wish}: ", vips.len())?;
                f.write_str(&list.join(", "))?;
            }
        }
        for (address, why) in &self.passed_over {
            write!(f, "; not {address}, {why}")?;
        }
        Ok(())
    }
}

/// Whether any service of the file takes addresses.
pub fn takes(file: &File) -> bool {
    let mut services = file.service.value.iter();
    services.any(|at| at.value.vips_from.is_some())
}

/// Puts what services take of what is `found` into their `vips`, where their
/// `vips_from` stands. `vips` has what is written, and what is no virtual address.
pub fn take(file: &mut File, vips: &Vips, found: &[Found], report: &mut Report) -> Vec<Taken> {
    let mut claims = Claims::default();
    let services = file.service.value.iter_mut();
    services
        .filter_map(|at| of_service(&mut at.value, vips, found, &mut claims, report))
        .collect()
}

fn of_service(
    service: &mut Service,
    vips: &Vips,
    found: &[Found],
    claims: &mut Claims,
    report: &mut Report,
) -> Option<Taken> {
    let from = service.vips_from.as_ref()?;
    let name = Arc::clone(&service.name.as_ref()?.value.0);
    let wish = Wish::of(from)?;
    let span = from.span.clone();
    let wanted = found.iter().filter(|found| wish.wants(found));
    let addresses: BTreeSet<_> = wanted.map(|found| found.address).collect();
    let (mut taken, mut passed_over) = (Vec::new(), Vec::new());
    // Every host has some of these.
    let reached = |address: &IpAddr| {
        let on_link = matches!(address, IpAddr::V4(address) if address.is_link_local());
        !on_link && unreached((*address).into()).is_none()
    };
    for address in addresses.into_iter().filter(reached) {
        let claim = claims.of(service, address.into());
        match vips.other_use(address).or_else(|| claims.clash(&claim)) {
            Some(why) => passed_over.push((address, why)),
            None => {
                taken.push(Vip::from(address));
                claims
                    .0
                    .extend(claim.map(|claim| (claim, Arc::clone(&name))));
            }
        }
    }
    if taken.len() > MOST_TAKEN {
        let title = format!("{} addresses of {wish} are too many", taken.len());
        report.error(&span, title).help(format!(
            "a service can take {MOST_TAKEN}: narrow it by `label` or `within`"
        ));
        taken.clear();
    }
    let list = service.vips.get_or_insert_with(|| At {
        value: Vec::new(),
        span: span.clone(),
    });
    list.value.extend(taken.iter().map(|vip| At {
        value: *vip,
        span: span.clone(),
    }));
    Some(Taken {
        service: name,
        wish,
        vips: taken,
        passed_over,
    })
}

type Claim = (Vip, Protocol, Ports);

/// What services have taken so far: the one that stands first in the file has it.
#[derive(Default)]
struct Claims(Vec<(Claim, Arc<str>)>);

impl Claims {
    fn of(&self, service: &Service, vip: Vip) -> Option<Claim> {
        let protocol = service.protocol.as_ref()?.value;
        Some((vip, protocol, service.port.as_ref()?.value))
    }

    fn clash(&self, claim: &Option<Claim>) -> Option<String> {
        let (vip, protocol, ports) = claim.as_ref()?;
        let mut taken = self.0.iter();
        let (_, name) = taken.find(|((other, other_protocol, other_ports), _)| {
            other == vip && other_protocol == protocol && clash(*other_ports, *ports)
        })?;
        Some(format!("which {name} has taken for the same port"))
    }
}

/// Whether neither is narrower than the other by its kind.
fn clash(one: Ports, other: Ports) -> bool {
    let ((first, last), (other_first, other_last)) = (one.bounds(), other.bounds());
    match (one, other) {
        (Ports::Range(..), Ports::Range(..)) => first <= other_last && other_first <= last,
        _ => one == other,
    }
}

/// What cannot be right about what a service takes, whatever is found.
pub fn check(service: &Service, report: &mut Report) {
    let Some(from) = &service.vips_from else {
        return;
    };
    let (interface, label) = (&from.value.interface, &from.value.label);
    if let (Some(interface), Some(At { value, span })) = (interface, label) {
        let name = interface.value.as_str();
        let fixed = value.0.split('*').next().unwrap_or_default();
        let begins = if fixed.len() == value.0.len() {
            fixed.starts_with(name)
        } else {
            fixed.starts_with(name) || name.starts_with(fixed)
        };
        if !begins {
            report
                .error(span, format!("no label of {name} is like {}", value.0))
                .related(&interface.span, "labels begin with its name")
                .help(format!("for example \"{name}:{fixed}*\""));
        }
    }
}

impl Taking {
    /// Of a file with its name, what its services take, and what was found.
    pub(super) fn new((name, text): (&str, &str), services: Vec<Taken>, found: &[Found]) -> Self {
        let mut taking = Self {
            name: name.to_owned(),
            text: text.to_owned(),
            found: Vec::new(),
            services,
        };
        taking.found = taking.of_interest(found);
        taking
    }

    /// What matters of all that is found, in order.
    pub(super) fn of_interest(&self, found: &[Found]) -> Vec<Found> {
        let wanted = |found: &&Found| self.services.iter().any(|taken| taken.wish.wants(found));
        let wanted: BTreeSet<_> = found.iter().filter(wanted).cloned().collect();
        wanted.into_iter().collect()
    }
}

impl fmt::Debug for Taking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.services).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(interface: &str, address: &str, label: Option<&str>) -> Found {
        Found {
            interface: interface.into(),
            address: address.parse().expect("an address"),
            label: label.map(Into::into),
        }
    }

    #[test]
    fn a_label_with_stars_stands_for_what_the_shell_takes_it_for() {
        for (pattern, label, expected) in [
            ("lo:any", "lo:any", true),
            ("lo:any", "lo:anycast", false),
            ("lo:any*", "lo:anycast", true),
            ("lo:any*", "lo:any", true),
            ("lo:*", "lo", false),
            ("*", "lo", true),
            ("*:a*t", "lo:anycast", true),
            ("*:a*t", "lo:anycasts", false),
            ("lo*cast", "lo:any:cast", true),
            ("*ä", "lo:ä", true),
        ] {
            let found = matches(pattern, label);
            assert_eq!(found, expected, "{pattern} and {label}");
        }
    }

    #[test]
    fn what_a_service_wants_is_said_by_interface_label_and_prefix() {
        let four = |label| found("lo", "198.51.100.10", Some(label));
        let six = found("lo", "2001:db8:30::1", None);
        let wish = |label: Option<&str>, within: &[&str]| Wish {
            interface: "lo".parse().expect("a name"),
            label: label.map(|label| Pattern(label.into())),
            within: (within.iter())
                .map(|prefix| Vip::from(prefix.parse::<ipnet::IpNet>().expect("a prefix")))
                .collect(),
        };
        let check = |sentence: &str, wish: &Wish, expected: [bool; 3]| {
            let all = [four("lo:any"), four("lo"), six.clone()];
            let wanted = all.each_ref().map(|found| wish.wants(found));
            assert_eq!(wanted, expected, "{sentence}: {wish}");
        };
        check("all of it", &wish(None, &[]), [true, true, true]);
        check(
            "IPv6 has no label",
            &wish(Some("lo:any"), &[]),
            [true, false, false],
        );
        let both = wish(Some("lo:any"), &["2001:db8:30::/64"]);
        check("each family by what it has", &both, [true, false, true]);
        let neither = wish(Some("lo:any"), &["198.51.101.0/24", "2001:db8:31::/64"]);
        check("label and prefix", &neither, [false, false, false]);
        let only_four = wish(None, &["198.51.100.0/24"]);
        check(
            "no word of the other family",
            &only_four,
            [true, true, false],
        );
        let elsewhere = found("eth0", "198.51.100.10", Some("lo:any"));
        assert!(!wish(None, &[]).wants(&elsewhere), "another interface");
    }
}
