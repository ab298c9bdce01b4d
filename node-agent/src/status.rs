//! What `vipd status` shows, as it goes over the control socket: plain data,
//! the same for people and programs.

mod backend;
mod bfd;
mod bgp;
mod damping;
mod hook;
mod overrides;

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    backend::{BACKEND_STATES, Backend, Check, CheckPhases},
    bfd::{BFD_UNKNOWN, Bfd},
    bgp::{Messages, Peer, SESSION_FAILED, Sessions, SessionsState},
    damping::Damping,
    hook::Hook,
    overrides::{OVERRIDE_WILLS, Override},
};
use crate::events::Latency;

/// What [`Interface::mode`] can be.
pub const INTERFACE_MODES: [&str; 5] = ["native", "generic", "detached", "another program", "gone"];
/// What [`Vip::state`] and [`Aggregate::state`] can be besides the states of an
/// announcement.
pub const WITHDRAWN: &str = "withdrawn";

/// A node as a whole. The services may be anything that is written like them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status<S = Vec<Service>> {
    /// Name of the node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// How long the agent has been running.
    pub uptime_seconds: f64,
    /// When it started, in seconds since 1970.
    #[serde(default)]
    pub start_time_seconds: f64,
    /// The configuration file in force.
    pub config: PathBuf,
    /// Whether the node is in maintenance: announced worse, and about to leave.
    #[serde(default)]
    pub maintenance: bool,
    /// What comes to addresses that this host serves itself; counted in maintenance
    /// only.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// What the operator has ordered and is not configured.
    #[serde(default)]
    pub overrides: Vec<Override>,
    /// How long decisions took to become UPDATEs that the kernel has.
    #[serde(default)]
    pub decision_to_update: Vec<Latency>,
    /// The data plane.
    pub dataplane: Option<Dataplane>,
    /// How punctual the checks of backends are.
    #[serde(default)]
    pub checks: Checks,
    /// Virtual addresses.
    pub vips: Vec<Vip>,
    /// Prefixes that are announced for virtual addresses inside them.
    #[serde(default)]
    pub aggregates: Vec<Aggregate>,
    /// Services.
    pub services: S,
    /// How many of the BGP sessions are up, if there are any.
    #[serde(default)]
    pub sessions: Option<Sessions>,
    /// BGP sessions.
    pub peers: Vec<Peer>,
    /// Why the BFD process is not reached, if a peer has BFD, and what helps.
    #[serde(default)]
    pub bfd_unreachable: Option<String>,
    /// What was found at the start or the last reload.
    pub findings: Vec<String>,
    /// Programs that are run when something changes its state.
    #[serde(default)]
    pub hooks: Vec<Hook>,
}

/// Packets that have come from elsewhere to addresses that this host serves itself,
/// since maintenance began. Such as the kernel has merged are one (GRO).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrivals {
    /// So many were counted.
    pub packets: u64,
    /// Why they are not counted at present, if so.
    pub fault: Option<String>,
}

/// How punctual checks are, since the start of the agent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Checks {
    /// Checks that have ended.
    pub ended: u64,
    /// Those among them that had started more than 50 ms after they were due.
    pub late: u64,
}

/// The data plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dataplane {
    /// Where it is pinned.
    pub pin_path: PathBuf,
    /// Where the program is attached.
    pub interfaces: Vec<Interface>,
    /// Why it does not forward at all, if so.
    pub fault: Option<String>,
    /// What could not be applied, by what it concerns.
    pub faults: BTreeMap<String, String>,
    /// How full the maps are.
    pub maps: Vec<MapUse>,
    /// Packets by verdict.
    pub verdicts: BTreeMap<String, u64>,
}

/// An interface with the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// `native`, `generic`, or why the program is not there: `detached`,
    /// `another program`, `gone`.
    pub mode: String,
}

/// How full a map is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MapUse {
    /// Name of the map.
    pub map: String,
    /// Entries in use.
    pub used: u32,
    /// Entries there are.
    pub capacity: u32,
}

/// A virtual address or prefix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Vip {
    /// The address or prefix.
    pub address: String,
    /// Whether it is announced, or an aggregate around it in its stead.
    pub announced: bool,
    /// In what state: `up`, `degraded`, `maintenance`, `doubt`, `disabled` or
    /// `down` (it is announced all the same); or `withdrawn`.
    #[serde(default)]
    pub state: String,
    /// What routers that damp would have counted, and what waits for it; of an
    /// address that an aggregate stands for, nothing.
    #[serde(default)]
    pub damping: Damping,
    /// The aggregate that is announced in its stead, if any.
    #[serde(default)]
    pub suppressed_by: Option<String>,
    /// Why, or why not.
    pub reason: String,
    /// Where it is bound on this host, if this host is to serve it itself.
    #[serde(default)]
    pub bound: Option<Bound>,
}

/// How an address stands on this host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bound {
    /// The interface that has it, if one has.
    pub interface: Option<String>,
    /// Whether vipd has bound it there.
    pub by_vipd: bool,
    /// Why it does not count as bound, if so.
    pub fault: Option<String>,
}

/// A prefix that is announced for virtual addresses inside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Aggregate {
    /// The prefix.
    pub prefix: String,
    /// As of a virtual address.
    pub state: String,
    /// As of a virtual address.
    #[serde(default)]
    pub damping: Damping,
    /// Virtual addresses inside that are alive and forwarded.
    pub alive: u32,
    /// So many are wanted.
    pub wanted: u32,
    /// Why it is announced, or why not.
    #[serde(default)]
    pub reason: String,
}

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Whether it was taken out of the configuration, and lives on for a while
    /// under a name of its own for packets that still come.
    #[serde(default)]
    pub leaving: bool,
    /// Virtual addresses and prefixes.
    pub vips: Vec<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Port, range of ports, or `any`.
    pub port: String,
    /// `ipip`, `gue`, `l2-dsr` or `local`.
    pub mode: String,
    /// Whether enough backends are healthy, and it is not disabled.
    pub alive: bool,
    /// `up`, `degraded`, `doubt`, `disabled` or `down`.
    #[serde(default)]
    pub state: String,
    /// Why it is in that state.
    #[serde(default)]
    pub reason: String,
    /// Healthy active backends.
    pub healthy: u32,
    /// Active backends with a weight.
    pub configured: u32,
    /// Slots of the ring; 0 where nothing is forwarded.
    pub ring_size: u32,
    /// Who owns which slot, in one number; the same on every node that sees
    /// the same and has the same secret.
    pub ring_fingerprint: Option<String>,
    /// Whether packets meet what is decided, and on each of its addresses one
    /// service at least has a way to enough backends. False for a moment after a
    /// change, while something of it cannot be applied, and while no such service
    /// is up. Always true where nothing is forwarded.
    pub in_force: bool,
    /// How long a flow without packets is remembered across a change.
    pub idle_seconds: u64,
    /// Slots of the ring by phase, where there is a data plane.
    pub phases: Option<Phases>,
    /// Live flows that are recorded, all present backends together. Flows of
    /// slots that are stable need no record.
    pub flows: u64,
    /// Packets forwarded, all present backends together; falls when one leaves.
    pub packets: u64,
    /// Bytes forwarded, all present backends together; falls when one leaves.
    pub bytes: u64,
    /// Backends.
    pub backends: Vec<Backend>,
}

/// Slots of a ring by what they are going through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// All flows go to the owner.
    pub stable: u32,
    /// Has changed hands; what flows the owner before had is being learnt.
    pub learn: u32,
    /// Flows of owners before are known, and live on.
    pub track: u32,
}

impl Status {
    /// For people, in a terminal.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let uptime = ago(self.uptime_seconds);
        writeln!(
            out,
            "{} · vipd {} · up {uptime} · {}",
            self.node,
            self.version,
            self.config.display()
        )?;
        if let Some(dataplane) = &self.dataplane {
            let interfaces: Vec<_> = dataplane
                .interfaces
                .iter()
                .map(|i| format!("{} ({})", i.name, i.mode))
                .collect();
            writeln!(
                out,
                "XDP on {} · pinned at {}",
                interfaces.join(", "),
                dataplane.pin_path.display()
            )?;
            if let Some(fault) = &dataplane.fault {
                writeln!(out, "! the data plane does not forward: {fault}")?;
            }
            for (subject, fault) in &dataplane.faults {
                writeln!(out, "! {subject}: {fault}")?;
            }
        }
        if self.maintenance {
            writeln!(out, "! in maintenance: `vipd maint --end` goes back")?;
        }
        if let Some(line) = overrides::line(&self.overrides) {
            writeln!(out, "! {line}")?;
        }
        for trouble in self.bfd_unreachable.iter().chain(&self.findings) {
            writeln!(out, "! {trouble}")?;
        }
        if !self.vips.is_empty() {
            writeln!(out, "\n{:<40} ANNOUNCED    WHY", "VIRTUAL ADDRESS")?;
        }
        for vip in &self.vips {
            let words = announced_words(&vip.state);
            let instead = vip.suppressed_by.iter();
            let instead: String = instead.map(|prefix| format!("as {prefix}; ")).collect();
            let penalty = penalty_words(&vip.damping);
            let bound = vip.bound.as_ref().map_or_else(String::new, Bound::words);
            writeln!(
                out,
                "{:<40} {words:<11}  {instead}{}{penalty}{bound}",
                vip.address, vip.reason
            )?;
        }
        if !self.aggregates.is_empty() {
            writeln!(out, "\n{:<40} ANNOUNCED    WHY", "AGGREGATE")?;
        }
        for aggregate in &self.aggregates {
            let Aggregate {
                prefix,
                state,
                reason,
                damping,
                ..
            } = aggregate;
            let (words, penalty) = (announced_words(state), penalty_words(damping));
            writeln!(out, "{prefix:<40} {words:<11}  {reason}{penalty}")?;
        }
        for service in &self.services {
            service.write(out)?;
        }
        if !self.hooks.is_empty() {
            writeln!(out)?;
        }
        for hook in &self.hooks {
            writeln!(out, "{hook}")?;
        }
        let Some(sessions) = &self.sessions else {
            return Ok(());
        };
        writeln!(out, "\nrouters: {}", sessions.words())?;
        bgp::write(&self.peers, out)
    }
}

impl Bound {
    /// What is added to the reason of an announcement, which tells a fault.
    fn words(&self) -> String {
        let by = if self.by_vipd { "vipd" } else { "others" };
        let interface = self.interface.iter();
        interface
            .map(|name| format!("; bound on {name} by {by}"))
            .collect()
    }
}

impl Service {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        let alive = match self.state.as_str() {
            "up" => "alive",
            "" if self.alive => "alive",
            "down" | "" => "DEAD",
            state => state,
        };
        let ring = match (self.ring_size, &self.ring_fingerprint) {
            (0, _) => String::new(),
            (size, fingerprint) => {
                let fingerprint = fingerprint.as_deref().unwrap_or("empty");
                format!(" · ring {size} slots, {fingerprint}")
            }
        };
        writeln!(
            out,
            "\nservice {} · {}/{} · {} · {alive}, {} of {} healthy{ring}",
            self.name, self.protocol, self.port, self.mode, self.healthy, self.configured,
        )?;
        if let Some(phases) = &self.phases {
            writeln!(
                out,
                "  slots: {} stable, {} learn, {} track · flows recorded: {}",
                phases.stable, phases.learn, phases.track, self.flows
            )?;
        }
        writeln!(
            out,
            "  {:<16} {:<28} {:>6} {:<11} {:>8} {:>7} {:>7} {:>12}  LAST CHECK",
            "BACKEND", "ADDRESS", "WEIGHT", "STATE", "FOR", "SLOTS", "FLOWS", "PACKETS"
        )?;
        for backend in &self.backends {
            let check = backend
                .check
                .as_ref()
                .map_or_else(|| "none yet".to_owned(), Check::words);
            writeln!(
                out,
                "  {:<16} {:<28} {:>6} {:<11} {:>8} {:>7} {:>7} {:>12}  {check}{}",
                backend.name,
                backend.address.to_string(),
                backend.weight,
                backend.words(),
                ago(backend.since_seconds),
                backend.slots,
                backend.recorded(),
                backend.packets,
                backend.remarks()
            )?;
        }
        Ok(())
    }
}

/// What stands in the column "announced".
fn announced_words(state: &str) -> &str {
    match state {
        "up" => "yes",
        WITHDRAWN => "no",
        state => state,
    }
}

/// What is added to the reason of an announcement that has flapped.
fn penalty_words(damping: &Damping) -> String {
    let words = damping.words();
    words.map_or_else(String::new, |words| format!("; {words}"))
}

/// A duration with one or two units.
#[must_use]
pub fn ago(seconds: f64) -> String {
    let whole = Duration::from_secs_f64(seconds.max(0.0)).as_secs();
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86400 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d{:02}h", whole / 86400, whole % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::ago;

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [
            (-1.0, "0s"),
            (59.9, "59s"),
            (60.0, "1m00s"),
            (3599.0, "59m59s"),
            (3600.0, "1h00m"),
            (86_399.0, "23h59m"),
            (86_400.0, "1d00h"),
            (200_000.0, "2d07h"),
        ] {
            assert_eq!(ago(seconds), text);
        }
    }
}
