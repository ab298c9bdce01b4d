//! `vipd why`: why something is as it is, in a sentence, and by what has happened.
//! Pure.

use std::{fmt::Write as _, net::IpAddr};

use anyhow::bail;
use ipnet::IpNet;
use vipd_control::model::Vip;

use super::timeline;
use crate::{
    events::{EventView, Step},
    overrides::Will,
    status::{self, Backend, Damping, Peer, Service, Status, ago},
};

/// An event in a line.
#[must_use]
pub fn line(event: &EventView) -> String {
    let (day, clock) = (event.day(), event.clock());
    format!("{day} {clock}  {}", timeline::words(event))
}

/// Tells why a subject is as it is: by the status, and by the last changes that
/// concern it, of those that are remembered.
///
/// # Errors
///
/// When there is no such subject.
pub fn tell(
    status: &Status,
    events: &[EventView],
    subject: &str,
    last: usize,
) -> anyhow::Result<String> {
    let Some(subject) = Subject::find(status, subject) else {
        bail!(
            "there is no virtual address, service, backend (SERVICE/BACKEND) or BGP peer {subject}; \
             `vipd status` lists all of them"
        );
    };
    let mut out = subject.sentence(status);
    let changes = timeline::write(events, |event| subject.concerns(event), last);
    if changes.is_empty() {
        out.push_str("\nno change of it is remembered\n");
    }
    Ok(out + &changes)
}

/// What is asked about.
enum Subject<'a> {
    /// A virtual address, and the services on it.
    Vip(&'a status::Vip, Vec<&'a Service>),
    Aggregate(&'a status::Aggregate),
    Service(&'a Service),
    Backend(&'a Service, &'a Backend),
    Peer(&'a Peer),
}

impl<'a> Subject<'a> {
    fn find(status: &'a Status, text: &str) -> Option<Self> {
        let written = prefix(text);
        let is_meant = |shown: &str| shown == written;
        if let Some(vip) = status.vips.iter().find(|vip| is_meant(&vip.address)) {
            let services = status.services.iter();
            let on_it = services.filter(|service| service.vips.iter().any(|vip| is_meant(vip)));
            return Some(Self::Vip(vip, on_it.collect()));
        }
        let mut aggregates = status.aggregates.iter();
        if let Some(aggregate) = aggregates.find(|aggregate| is_meant(&aggregate.prefix)) {
            return Some(Self::Aggregate(aggregate));
        }
        let service = |name: &str| status.services.iter().find(|service| service.name == name);
        if let Some((name, backend)) = text.split_once('/')
            && let Some(service) = service(name)
        {
            let mut backends = service.backends.iter();
            let found = backends.find(|found| found.name == backend)?;
            return Some(Self::Backend(service, found));
        }
        if let Some(service) = service(text) {
            return Some(Self::Service(service));
        }
        let is_meant = |peer: &&Peer| {
            let address = peer.address.rsplit_once(':').map(|(address, _)| address);
            let address = address.map(|address| address.trim_matches(['[', ']']));
            peer.name == text || peer.address == text || address == Some(&*written)
        };
        status.peers.iter().find(is_meant).map(Self::Peer)
    }

    /// Whether an event is about it, or decides about it.
    fn concerns(&self, event: &EventView) -> bool {
        let about = &event.about;
        let of = |name: &str| about.service.as_deref() == Some(name);
        match self {
            Self::Vip(vip, services) => {
                about.prefix.as_ref() == Some(&vip.address)
                    || (event.step == Step::Decision && services.iter().any(|it| of(&it.name)))
            }
            Self::Aggregate(aggregate) => about.prefix.as_ref() == Some(&aggregate.prefix),
            Self::Service(service) => of(&service.name),
            Self::Backend(service, backend) => {
                of(&service.name) && about.backend.as_ref() == Some(&backend.name)
            }
            Self::Peer(peer) => about.peer.as_ref() == Some(&peer.name),
        }
    }

    fn sentence(&self, status: &Status) -> String {
        match self {
            Self::Vip(vip, services) => of_vip(vip, services, status),
            Self::Aggregate(aggregate) => {
                let state = announced(&aggregate.state);
                let penalty = penalty(&aggregate.damping);
                format!(
                    "{} is {state}: {}\n{penalty}",
                    aggregate.prefix, aggregate.reason
                )
            }
            Self::Service(service) => {
                let (name, alive) = (&service.name, if service.alive { "alive" } else { "dead" });
                let (why, remedy) = (own_words(service), remedy(service, status));
                let mut out = format!("{name} is {alive}: {why}{remedy}\n");
                for words in missing(service) {
                    let _ = writeln!(out, "  {words}");
                }
                out
            }
            Self::Backend(service, backend) => of_backend(service, backend),
            Self::Peer(peer) => of_peer(peer),
        }
    }
}

/// An address or prefix as it is shown, however it is written; anything else as
/// it is.
fn prefix(text: &str) -> String {
    let address = || text.parse::<IpAddr>().map(Vip::from);
    let prefix = text.parse::<IpNet>().map(Vip::from);
    let vip = prefix.or_else(|_| address());
    vip.map_or_else(|_| text.to_owned(), |vip| vip.to_string())
}

/// What stands after "is".
fn announced(state: &str) -> String {
    match state {
        "up" => "announced".to_owned(),
        status::WITHDRAWN => "not announced".to_owned(),
        state => format!("announced in state {state}"),
    }
}

/// A line about how often it has flapped, if it has.
fn penalty(damping: &Damping) -> String {
    let words = damping.words();
    words.map_or_else(String::new, |words| words + "\n")
}

fn of_vip(vip: &status::Vip, services: &[&Service], status: &Status) -> String {
    let instead = vip.suppressed_by.iter();
    let instead: String = instead.map(|prefix| format!(" as {prefix}")).collect();
    let mut out = format!(
        "{} is {}{instead}: {}\n{}",
        vip.address,
        announced(&vip.state),
        vip.reason,
        penalty(&vip.damping)
    );
    let mut needs = Vec::new();
    if let Some(fault) = status.dataplane.as_ref().and_then(|it| it.fault.as_ref()) {
        needs.push(format!("the data plane must forward: {fault}"));
    }
    if status.maintenance {
        needs.push("`vipd maint --end` ends the maintenance".to_owned());
    }
    let is_alive = services.iter().any(|service| service.alive);
    for service in services.iter().filter(|_| !is_alive) {
        let name = &service.name;
        let why = own_words(service);
        let remedy = remedy(service, status);
        needs.push(format!("{name} must be alive: {why}{remedy}"));
        needs.extend(missing(service).map(|words| format!("  {words}")));
    }
    let waits = |service: &&&Service| service.alive && !service.in_force;
    for service in services.iter().filter(waits).filter(|_| !vip.announced) {
        let faults = status.dataplane.iter().flat_map(|plane| &plane.faults);
        let about = faults.filter(|(subject, _)| {
            let by_address = |it: &Backend| **subject == format!("backend {}", it.address);
            **subject == format!("service {}", service.name)
                || **subject == "VIP table"
                || service.backends.iter().any(by_address)
        });
        let faults: Vec<_> = about
            .map(|(subject, fault)| format!("; {subject}: {fault}"))
            .collect();
        let name = &service.name;
        needs.push(format!(
            "the data plane must apply {name}{}",
            faults.concat()
        ));
    }
    if vip.damping.wait_seconds > 0.0 {
        let seconds = vip.damping.wait_seconds.ceil();
        needs.push(format!(
            "{seconds} s must pass: then it is announced better by itself"
        ));
    }
    if !vip.announced && needs.is_empty() {
        needs.push(format!("this must end: {}", vip.reason));
    }
    let is_up = |peer: &&Peer| peer.uptime_seconds.is_some();
    let up = status.peers.iter().filter(is_up).count();
    if vip.announced && up < status.peers.len() {
        let _ = writeln!(out, "{up} of {} peers can hear of it", status.peers.len());
    }
    for peer in status.peers.iter().filter(|peer| !is_up(peer)) {
        let why = peer
            .last_error
            .as_deref()
            .unwrap_or("nothing has gone wrong yet");
        needs.push(format!(
            "the session with {} must come up: it is {}, {why}",
            peer.name, peer.state
        ));
    }
    if !needs.is_empty() {
        out.push_str("what would have to happen for all to be well:\n");
    }
    for need in needs {
        let _ = writeln!(out, "  {need}");
    }
    out
}

/// Why a service is in its state, without its name in front.
fn own_words(service: &Service) -> &str {
    let words = service.reason.strip_prefix(&*service.name);
    let words = words.and_then(|words| words.strip_prefix(": "));
    words.unwrap_or(&service.reason)
}

/// What ends it that a service is disabled, if it is.
fn remedy(service: &Service, status: &Status) -> String {
    let mut overrides = status.overrides.iter();
    let name = &service.name;
    if overrides.any(|over| over.target == *name && over.will == Will::Disable.label()) {
        return format!("; `vipd enable {name}`");
    }
    match service.state.as_str() {
        "disabled" => "; remove that file".to_owned(),
        _ => String::new(),
    }
}

/// Each backend of a service that takes no new flows, and what would mend it.
fn missing(service: &Service) -> impl Iterator<Item = String> + '_ {
    let away = service.backends.iter().filter(|backend| !backend.available);
    away.map(|backend| {
        let target = format!("{}/{}", service.name, backend.name);
        let remedy = match (backend.disabled, backend.drained) {
            (_, true) => format!("; `vipd undrain {target}`"),
            (true, false) => format!("; `vipd enable {target}`"),
            (false, false) => String::new(),
        };
        format!("{target} is {}: {}{remedy}", state(backend), check(backend))
    })
}

fn state(backend: &Backend) -> String {
    let ordered = match (backend.drained, backend.disabled) {
        (true, true) => " and drained, its deadline over",
        (true, false) => " and drained",
        (false, true) => " and disabled",
        (false, false) => "",
    };
    format!("{}{ordered}", backend.state)
}

fn check(backend: &Backend) -> String {
    let Some(check) = &backend.check else {
        return "no check yet".to_owned();
    };
    let status = check
        .status
        .map(|status| format!(" {status}"))
        .unwrap_or_default();
    let took = check.duration_seconds * 1000.0;
    let detail = match check.detail.as_str() {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    format!("{}{status} in {took:.1} ms{detail}", check.code)
}

fn of_backend(service: &Service, backend: &Backend) -> String {
    let flows = match backend.standing.as_str() {
        "up" => "it takes new flows",
        "draining" | "failing" => "it gets no new flows and keeps those it has",
        _ => "it gets no new flows, and its old ones have ended",
    };
    let mut out = format!(
        "{}/{} is {} for {}: {}; {flows}\n",
        service.name,
        backend.name,
        state(backend),
        ago(backend.since_seconds),
        check(backend),
    );
    if backend.drained || backend.disabled {
        let undo = if backend.drained { "undrain" } else { "enable" };
        let _ = writeln!(
            out,
            "`vipd {undo} {}/{}` ends that",
            service.name, backend.name
        );
    }
    if service.healthy == 0 && backend.slots > 0 {
        out.push_str("nobody else is there, so packets that come are still sent to it\n");
    }
    out
}

fn of_peer(peer: &Peer) -> String {
    let told: usize = peer.advertised.values().sum();
    let mut out = format!(
        "the session with {} ({}) is {} for {}; it has been told {told} of {} prefixes\n",
        peer.name,
        peer.address,
        peer.state,
        ago(peer.since_seconds),
        peer.wanted,
    );
    if peer.uptime_seconds.is_none() {
        for words in peer.last_error.iter().chain(&peer.hint) {
            let _ = writeln!(out, "  {words}");
        }
    }
    for words in &peer.unsent {
        let _ = writeln!(out, "  not sent: {words}");
    }
    out
}

#[cfg(test)]
mod tests;
