//! Rules as validated: which prefixes in which states they are for, and what
//! they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use vipd_control::{announcement::State, model::Vip};

use super::{
    address::Vips,
    bgp::given,
    community::Community,
    report::{Report, Span},
    routing::{Asn, NextHop},
    table::{At, nearest},
    text::Name,
    written,
};

/// The most ASes that can stand behind our own.
const AS_PATH_MAX: usize = 16;

/// What some peers are told of some prefixes in some states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The prefixes it is for; `None`: all.
    prefixes: Option<BTreeSet<Vip>>,
    /// The states it names; `None`: it is for all and names none.
    states: Option<Vec<State>>,
    /// What it changes.
    pub changes: Changes,
    /// What it adds to MULTI_EXIT_DISC by prefix.
    ladder: BTreeMap<Vip, u32>,
}

/// What a rule changes; `None` leaves it as before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether the prefix is announced.
    pub announce: Option<bool>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Added to MULTI_EXIT_DISC.
    pub med_add: Option<u32>,
    /// LOCAL_PREF; of no effect over eBGP.
    pub local_preference: Option<u32>,
    /// How many more times our AS stands in the AS path; of no effect over
    /// iBGP.
    pub prepend: Option<u8>,
    /// ASes behind our own.
    pub as_path: Option<Vec<Asn>>,
    /// Instead of all communities.
    pub communities_set: Option<Vec<Community>>,
    /// More communities.
    pub communities: Vec<Community>,
    /// Next hop of IPv4 routes.
    pub next_hop_ipv4: Option<NextHop<Ipv4Addr>>,
    /// Next hop of IPv6 routes.
    pub next_hop_ipv6: Option<NextHop<Ipv6Addr>>,
}

/// A peer as rules know it, whatever else is wrong with it.
pub struct Known {
    pub name: Arc<str>,
    /// `None` when it is missing or wrong, which has been said.
    pub remote_as: Option<Asn>,
}

/// What rules can be about.
pub struct World<'a> {
    pub local_as: Asn,
    pub peers: &'a [Known],
    pub vips: &'a Vips,
    /// The prefixes of the aggregates.
    pub aggregates: &'a BTreeSet<Vip>,
}

impl Rule {
    /// Whether it is for this prefix in this state.
    #[must_use]
    pub fn matches(&self, prefix: Vip, state: State) -> bool {
        let prefixes = self.prefixes.as_ref();
        let states = self.states.as_ref();
        prefixes.is_none_or(|prefixes| prefixes.contains(&prefix))
            && states.is_none_or(|states| states.contains(&state))
    }

    /// What it adds to MULTI_EXIT_DISC of this prefix besides.
    #[must_use]
    pub fn rung(&self, prefix: Vip) -> Option<u32> {
        self.ladder.get(&prefix).copied()
    }

    /// Whether its words for the state stand against what the state means by
    /// itself.
    #[must_use]
    pub fn names(&self, state: State) -> bool {
        self.states
            .as_ref()
            .is_some_and(|states| states.contains(&state))
    }
}

/// All rules in the order of the file, each with the names of its peers.
pub fn rules(
    written: &[At<written::Rule>],
    world: &World<'_>,
    report: &mut Report,
) -> Vec<(Vec<Arc<str>>, Arc<Rule>)> {
    let rules: Vec<_> = written
        .iter()
        .map(|rule| world.rule(rule, report))
        .collect();
    let fails_open = |state: State| {
        let mut all = rules.iter().map(|(_, rule)| rule);
        all.any(|rule| rule.names(state) && rule.changes.announce == Some(true))
    };
    for at in written {
        let Some(states) = &at.value.states else {
            continue;
        };
        let mut named = states.value.iter().map(|state| state.value);
        if let Some(first) = named.clone().next()
            && named.all(|state| state.is_withdrawn() && !fails_open(state))
            && at.value.announce.is_none()
        {
            let title = format!(
                "what is {} is withdrawn, and this never matters",
                first.label()
            );
            report
                .warning(&states.span, title)
                .help("add `announce = true` to announce it all the same, only worse");
        }
    }
    rules
}

impl World<'_> {
    fn rule(&self, written: &At<written::Rule>, report: &mut Report) -> (Vec<Arc<str>>, Arc<Rule>) {
        let rule = &written.value;
        refuse_empty(rule, report);
        let peers = self.peers(rule, report);
        self.check_relations(rule, &peers, report);
        self.check_as_path(rule, &peers, report);
        let next_hops = [
            rule.next_hop_ipv4.as_ref().and_then(given),
            rule.next_hop_ipv6.as_ref().and_then(given),
        ];
        for next_hop in next_hops.into_iter().flatten() {
            self.vips.check_host(&next_hop, "the next hop", report);
        }
        let changes = changes(rule);
        let ladder = self.ladder(rule, report);
        if changes == Changes::default() && rule.med_step.is_none() {
            report
                .error(&written.span, "a rule that changes nothing")
                .help("add what it is to change, for example `announce = false` or `med = 100`");
        }
        let states = rule.states.as_ref().map(|states| values(&states.value));
        let names = peers.iter().map(|peer| Arc::clone(&peer.name)).collect();
        let rule = Rule {
            prefixes: self.prefixes(written, report),
            states,
            changes,
            ladder,
        };
        (names, Arc::new(rule))
    }

    /// The peers it is for.
    fn peers(&self, rule: &written::Rule, report: &mut Report) -> Vec<&Known> {
        let Some(list) = &rule.peers else {
            return self.peers.iter().collect();
        };
        let names: Vec<&str> = self.peers.iter().map(|peer| &*peer.name).collect();
        let mut found = Vec::new();
        for at in &list.value {
            match self.peers.iter().find(|peer| peer.name == at.value.0) {
                Some(peer) => found.push(peer),
                None => unknown("peer", at, &names, report),
            }
        }
        found
    }

    /// The prefixes it is for, or `None` when it is for all.
    fn prefixes(&self, at: &At<written::Rule>, report: &mut Report) -> Option<BTreeSet<Vip>> {
        let rule = &at.value;
        if rule.prefixes.is_none() && rule.services.is_none() && rule.aggregate.is_none() {
            return None;
        }
        // Addresses that come later may be what it is for.
        let mut errors = self.vips.grows();
        let vips = self.vips.iter().map(|(vip, _)| *vip);
        let mut chosen: BTreeSet<Vip> = vips.chain(self.aggregates.iter().copied()).collect();
        if let Some(list) = &rule.prefixes {
            for at in &list.value {
                let is_inside = |vip| at.value.contains(vip);
                if !chosen.iter().any(|vip| is_inside(*vip)) && !self.vips.grows() {
                    errors = true;
                    report
                        .warning(
                            &at.span,
                            format!("nothing inside {} is announced", at.value),
                        )
                        .help("a virtual address, a prefix around some, or an aggregate");
                }
            }
            chosen.retain(|vip| list.value.iter().any(|at| at.value.contains(*vip)));
        }
        if let Some(list) = &rule.services {
            let names: Vec<&str> = self.vips.services().collect();
            let mut of_services = BTreeSet::<Vip>::new();
            for at in &list.value {
                match self.vips.of_service(&at.value.0) {
                    Some(vips) => of_services.extend(vips),
                    None => {
                        errors = true;
                        unknown("service", at, &names, report);
                    }
                }
            }
            chosen.retain(|vip| of_services.contains(vip));
        }
        if let Some(aggregate) = &rule.aggregate {
            chosen.retain(|vip| self.aggregates.contains(vip) == aggregate.value);
        }
        if chosen.is_empty() && !errors {
            report
                .error(
                    &at.span,
                    "a rule that never matches: nothing fits all its keys",
                )
                .help("`prefixes`, `services` and `aggregate` must have something in common");
        }
        Some(chosen)
    }

    /// What `med_step` adds to each prefix: the listed ones in their order, of each
    /// what is inside it, beginning with that at `med_start`.
    fn ladder(&self, rule: &written::Rule, report: &mut Report) -> BTreeMap<Vip, u32> {
        let start = rule.med_start.as_ref();
        let Some(step) = &rule.med_step else {
            if let Some(start) = start {
                report
                    .error(&start.span, "`med_start` without `med_step`")
                    .help("add med_step = 1");
            }
            return BTreeMap::new();
        };
        let Some(listed) = &rule.prefixes else {
            report
                .error(&step.span, "`med_step` without `prefixes`")
                .help("list the prefixes in the order in which they get steps");
            return BTreeMap::new();
        };
        let vips = || self.vips.iter().map(|(vip, _)| *vip);
        let mut order: Vec<Vip> = Vec::new();
        for at in &listed.value {
            let all = vips().chain(self.aggregates.iter().copied());
            let inside = all.filter(|vip| at.value.contains(*vip));
            let new: Vec<_> = inside.filter(|vip| !order.contains(vip)).collect();
            order.extend(new);
        }
        let first = start.map_or(0, |start| start.value.0 as usize);
        if let Some(start) = start
            && first >= order.len()
        {
            if self.vips.grows() {
                return BTreeMap::new();
            }
            report
                .error(&start.span, format!("there is no place {first}"))
                .help(format!("{} prefixes have places from 0", order.len()));
            return BTreeMap::new();
        }
        let steps = (0..).map(|i: u32| i.saturating_mul(step.value.0));
        let rotated = order.iter().cycle().skip(first).take(order.len());
        rotated.copied().zip(steps).collect()
    }

    /// Checks that what only one kind of peers has is for such peers.
    fn check_relations(&self, rule: &written::Rule, peers: &[&Known], report: &mut Report) {
        let internal = |peer: &&Known| peer.remote_as.is_none_or(|asn| asn == self.local_as);
        let external = |peer: &&Known| peer.remote_as.is_none_or(|asn| asn != self.local_as);
        // For all peers it is for those that have it.
        let wrong = |fits: &dyn Fn(&&Known) -> bool| match &rule.peers {
            Some(_) => !peers.iter().all(fits),
            None => !peers.iter().any(fits),
        };
        if let Some(preference) = &rule.local_preference
            && wrong(&internal)
        {
            related(
                report.error(
                    &preference.span,
                    "a local preference for a peer in another AS",
                ),
                rule,
            )
            .help("it is never sent over eBGP; use med or prepend");
        }
        if let Some(prepend) = &rule.prepend
            && wrong(&external)
        {
            related(
                report.error(&prepend.span, "AS path prepends to a peer in our own AS"),
                rule,
            )
            .help("an iBGP peer takes our own AS in the path for a loop; use local_preference");
        }
    }

    /// Says so when a router will take the path for a loop.
    fn check_as_path(&self, rule: &written::Rule, peers: &[&Known], report: &mut Report) {
        if let Some(path) = &rule.as_path
            && path.value.len() > AS_PATH_MAX
        {
            let title = format!("{} ASes are too many", path.value.len());
            report
                .error(&path.span, title)
                .help(format!("at most {AS_PATH_MAX}"));
        }
        for asn in rule.as_path.iter().flat_map(|path| &path.value) {
            if let Some(peer) = peers.iter().find(|peer| peer.remote_as == Some(asn.value)) {
                let title = format!("{} is in AS {} itself", peer.name, asn.value);
                report
                    .warning(&asn.span, title)
                    .help("it will take the path for a loop and drop the route");
            }
        }
    }
}

fn related<'r>(
    finding: &'r mut super::report::Finding,
    rule: &written::Rule,
) -> &'r mut super::report::Finding {
    match &rule.peers {
        Some(peers) => finding.related(&peers.span, "for these peers"),
        None => finding,
    }
}

fn unknown(what: &str, name: &At<Name>, known: &[&str], report: &mut Report) {
    let help = match nearest(&name.value.0, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if known.is_empty() => format!("there is no {what}"),
        None => format!("there are: {}", known.join(", ")),
    };
    report
        .error(&name.span, format!("there is no {what} `{}`", name.value))
        .help(help);
}

fn refuse_empty(rule: &written::Rule, report: &mut Report) {
    fn is_empty<T>(list: &Option<At<Vec<T>>>) -> Option<&Span> {
        let list = list.as_ref().filter(|list| list.value.is_empty())?;
        Some(&list.span)
    }
    let lists = [
        ("peers", is_empty(&rule.peers)),
        ("prefixes", is_empty(&rule.prefixes)),
        ("services", is_empty(&rule.services)),
        ("states", is_empty(&rule.states)),
    ];
    for (key, span) in lists {
        if let Some(span) = span {
            report
                .error(span, "a rule that never matches: the list is empty")
                .help(format!("name some, or leave `{key}` out for all"));
        }
    }
}

fn changes(rule: &written::Rule) -> Changes {
    Changes {
        announce: rule.announce.as_ref().map(|at| at.value),
        med: rule.med.as_ref().map(|at| at.value.0),
        med_add: rule.med_add.as_ref().map(|at| at.value.0),
        local_preference: rule.local_preference.as_ref().map(|at| at.value.0),
        prepend: rule.prepend.as_ref().map(|at| at.value.0),
        as_path: rule.as_path.as_ref().map(|path| values(&path.value)),
        communities_set: rule.communities_set.as_ref().map(|set| values(&set.value)),
        communities: values(&rule.communities.value),
        next_hop_ipv4: rule.next_hop_ipv4.as_ref().map(|at| at.value),
        next_hop_ipv6: rule.next_hop_ipv6.as_ref().map(|at| at.value),
    }
}

fn values<T: Copy>(list: &[At<T>]) -> Vec<T> {
    list.iter().map(|at| at.value).collect()
}
