//! What takes a session down from here: the decision, without I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use vipd_bfd::{Diagnostic, Hold};

use super::links::Link;

/// All that a decision depends on.
#[derive(Debug)]
pub struct Facts {
    /// Interfaces of the host by index; `None` before the first look.
    pub links: Option<BTreeMap<u32, Link>>,
    /// Interfaces that have come with a reload and have had no XDP program yet.
    /// The agent attaches it, before or after we read the configuration.
    pub awaited: BTreeSet<String>,
    /// Since when no agent has been connected; `None` while one is.
    pub agent_away: Option<Instant>,
    /// What the agent wants to be down.
    pub orders: Orders,
    /// We are about to end.
    pub stopping: bool,
}

/// Sessions that the agent wants to be administratively down.
#[derive(Debug, Default)]
pub struct Orders {
    /// All of them.
    pub all: bool,
    /// Those with these peers.
    pub peers: BTreeSet<IpAddr>,
}

/// What is held down, or not.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The peer.
    pub remote: IpAddr,
    /// The interface by which the peer was last heard, of a peer on our link.
    pub interface: Option<u32>,
    /// Whether it is to be forgotten as soon as the peer knows.
    pub leaving: bool,
    /// Interfaces that must have an XDP program.
    pub dataplane: &'a [String],
    /// How long the agent may be away.
    pub restart_time: Duration,
}

impl Orders {
    /// Takes an order in; `None`: it is about all sessions.
    pub fn take(&mut self, peers: Option<Vec<IpAddr>>, down: bool) {
        match (peers, down) {
            (None, true) => self.all = true,
            (None, false) => *self = Self::default(),
            (Some(peers), true) => self.peers.extend(peers),
            (Some(peers), false) => self.peers.retain(|peer| !peers.contains(peer)),
        }
    }
}

impl Facts {
    /// Takes in which interfaces must have a program now; those that had to before
    /// are missed at once when they have none, the others when they have had one.
    pub fn require(&mut self, before: &[String], now: &[String]) {
        let new = now.iter().filter(|name| !before.contains(name)).cloned();
        self.awaited.extend(new);
        self.awaited.retain(|name| now.contains(name));
        self.see();
    }

    /// Takes in how the interfaces are.
    pub fn links(&mut self, links: BTreeMap<u32, Link>) {
        self.links = Some(links);
        self.see();
    }

    /// What has a program is awaited no more.
    fn see(&mut self) {
        let links = self.links.iter().flat_map(BTreeMap::values);
        for link in links.filter(|link| link.xdp) {
            self.awaited.remove(&link.name);
        }
    }

    /// What keeps a session down, if anything does.
    ///
    /// An operator's wish comes first. Of failures the peer is told in the words
    /// that BFD has: a link that is gone is `Path Down`; without its program the
    /// host forwards nothing, a `Forwarding Plane Reset`; without an agent nobody
    /// knows whether what lies behind us lives, `Concatenated Path Down`.
    pub fn hold(&self, subject: &Subject<'_>, now: Instant) -> Option<Hold> {
        let ordered = self.orders.all || self.orders.peers.contains(&subject.remote);
        if self.stopping || subject.leaving || ordered {
            return Some(Hold::Admin);
        }
        let (diagnostic, why) = self
            .dead_link(subject.interface)
            .map(|why| (Diagnostic::PATH_DOWN, why))
            .or_else(|| {
                Some((
                    Diagnostic::FORWARDING_PLANE_RESET,
                    self.detached(subject.dataplane)?,
                ))
            })
            .or_else(|| {
                Some((
                    Diagnostic::CONCATENATED_PATH_DOWN,
                    self.alone(subject, now)?,
                ))
            })?;
        let why = why.into();
        Some(Hold::Down { diagnostic, why })
    }

    /// When the agent will have been away for too long.
    pub fn deadline(&self, restart_time: Duration) -> Option<Instant> {
        self.agent_away?.checked_add(restart_time)
    }

    fn dead_link(&self, interface: Option<u32>) -> Option<String> {
        let (links, index) = (self.links.as_ref()?, interface?);
        match links.get(&index) {
            None => Some(String::from("the interface it went by is gone")),
            Some(link) if !link.sends => Some(format!("{} has no carrier", link.name)),
            Some(_) => None,
        }
    }

    fn detached(&self, dataplane: &[String]) -> Option<String> {
        let links = self.links.as_ref()?;
        let has_program =
            |name: &&String| links.values().any(|link| link.name == **name && link.xdp);
        let mut required = dataplane
            .iter()
            .filter(|name| !self.awaited.contains(*name));
        let without = required.find(|name| !has_program(name))?;
        Some(format!("no XDP program is attached to {without}"))
    }

    fn alone(&self, subject: &Subject<'_>, now: Instant) -> Option<String> {
        let deadline = self.deadline(subject.restart_time)?;
        (deadline <= now).then(|| {
            let limit = subject.restart_time.as_secs_f64();
            format!("the agent has been away for longer than {limit} s")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let eth0 = Link {
            name: "eth0".into(),
            sends: true,
            xdp: true,
        };
        Facts {
            links: Some([(2, eth0)].into()),
            awaited: BTreeSet::new(),
            agent_away: None,
            orders: Orders::default(),
            stopping: false,
        }
    }

    fn check(sentence: &str, change: impl FnOnce(&mut Facts, &mut Subject<'_>), expected: &str) {
        let dataplane = [String::from("eth0")];
        let mut facts = facts();
        let mut subject = Subject {
            remote: [192, 0, 2, 1].into(),
            interface: Some(2),
            leaving: false,
            dataplane: &dataplane,
            restart_time: Duration::from_secs(120),
        };
        change(&mut facts, &mut subject);
        let now = Instant::now() + Duration::from_secs(1000);
        let told = match facts.hold(&subject, now) {
            None => String::from("nothing"),
            Some(Hold::Admin) => String::from("admin"),
            Some(Hold::Down { diagnostic, why }) => format!("{diagnostic}: {why}"),
        };
        assert_eq!(told, expected, "{sentence}");
    }

    fn eth0(facts: &mut Facts) -> &mut Link {
        facts
            .links
            .as_mut()
            .and_then(|links| links.get_mut(&2))
            .expect("eth0")
    }

    #[test]
    fn what_keeps_a_session_down_is_told_with_its_reason() {
        check("all is well", |_, _| (), "nothing");
        check(
            "nothing is known of links yet",
            |facts, _| facts.links = None,
            "nothing",
        );
        check(
            "the cable is pulled",
            |facts, _| eth0(facts).sends = false,
            "Path Down: eth0 has no carrier",
        );
        check(
            "a peer whose way is not known has no link",
            |facts, subject| {
                eth0(facts).sends = false;
                subject.interface = None;
            },
            "nothing",
        );
        check(
            "the interface is removed",
            |_, subject| subject.interface = Some(3),
            "Path Down: the interface it went by is gone",
        );
        check(
            "the program is detached",
            |facts, _| eth0(facts).xdp = false,
            "Forwarding Plane Reset: no XDP program is attached to eth0",
        );
        check(
            "an interface that must have a program does not exist",
            |facts, subject| {
                facts.links = Some(BTreeMap::new());
                subject.interface = None;
            },
            "Forwarding Plane Reset: no XDP program is attached to eth0",
        );
        check(
            "without a data plane no program is missed",
            |facts, subject| {
                eth0(facts).xdp = false;
                subject.dataplane = &[];
            },
            "nothing",
        );
        let now = || Instant::now() + Duration::from_secs(1000);
        check(
            "the agent has been away for a while",
            |facts, _| facts.agent_away = Some(now() - Duration::from_secs(100)),
            "nothing",
        );
        check(
            "the agent has been away for too long",
            |facts, _| facts.agent_away = Some(now() - Duration::from_secs(121)),
            "Concatenated Path Down: the agent has been away for longer than 120 s",
        );
    }

    #[test]
    fn a_program_is_missed_on_a_new_interface_only_after_it_was_there() {
        let eth = |index: u32, xdp| {
            let name = format!("eth{index}");
            let sends = true;
            (index, Link { name, sends, xdp })
        };
        let names = |numbers: &[u32]| -> Vec<String> {
            numbers.iter().map(|index| format!("eth{index}")).collect()
        };
        let mut facts = facts();
        let mut before = names(&[0]);
        for (sentence, wanted, links, missed) in [
            (
                "before the agent has attached it",
                &[0, 1][..],
                [true, false],
                None,
            ),
            ("read again", &[0, 1], [true, false], None),
            (
                "the old one is watched all the time",
                &[0, 1],
                [false, false],
                Some("eth0"),
            ),
            ("both have one", &[0, 1], [true, true], None),
            (
                "the new one is watched too from now on",
                &[0, 1],
                [true, false],
                Some("eth1"),
            ),
            ("it is not wanted any more", &[0], [true, false], None),
            ("it comes again", &[0, 1], [true, false], None),
        ] {
            let now = names(wanted);
            facts.require(&before, &now);
            let links = [eth(0, links[0]), eth(1, links[1])];
            facts.links(links.into());
            let expected = missed.map(|name| format!("no XDP program is attached to {name}"));
            assert_eq!(facts.detached(&now), expected, "{sentence}");
            before = now;
        }
        facts.require(&names(&[]), &names(&[0]));
        assert!(facts.awaited.is_empty(), "it was seen before it was wanted");
    }

    #[test]
    fn what_an_operator_wants_comes_first() {
        let dead = |facts: &mut Facts| eth0(facts).sends = false;
        check(
            "all sessions",
            |facts, _| {
                dead(facts);
                facts.orders.all = true;
            },
            "admin",
        );
        let peer = |last| IpAddr::from([192, 0, 2, last]);
        check(
            "this session",
            |facts, _| facts.orders.peers = [peer(1)].into(),
            "admin",
        );
        check(
            "another session",
            |facts, _| facts.orders.peers = [peer(2)].into(),
            "nothing",
        );
        check(
            "the process ends",
            |facts, _| facts.stopping = true,
            "admin",
        );
        check(
            "the session is removed",
            |_, subject| subject.leaving = true,
            "admin",
        );
    }
}
