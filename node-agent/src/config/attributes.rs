//! What a peer is told of a prefix in a state: the peer's own attributes, as
//! the rules change them.

use std::net::IpAddr;

use vipd_control::{announcement::State, model::Vip};

use super::{
    bgp::{BgpPeer, Relation},
    community::{Community, GRACEFUL_SHUTDOWN},
    routing::{Asn, NextHop},
    rule::{Changes, Rule},
};

/// What decides on the attributes of a prefix. Prefixes that have this in common
/// are told of alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    state: State,
    ipv4: bool,
    /// The rules that match, by their places among the peer's, and what each adds
    /// to MULTI_EXIT_DISC of just this prefix.
    rules: Vec<(usize, Option<u32>)>,
}

/// The attributes of an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Where packets are to be sent.
    pub next_hop: NextHop<IpAddr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; `None` over eBGP.
    pub local_preference: Option<u32>,
    /// How many more times our AS stands in the AS path; 0 over iBGP.
    pub prepend: u8,
    /// ASes behind our own.
    pub as_path: Vec<Asn>,
    /// Sorted, without repetition.
    pub communities: Vec<Community>,
}

impl BgpPeer {
    /// What decides on the attributes of `prefix` in `state`.
    #[must_use]
    pub fn case(&self, prefix: Vip, state: State) -> Case {
        let rules = self.rules.iter().enumerate();
        let matching = rules.filter(|(_, rule)| rule.matches(prefix, state));
        Case {
            state,
            ipv4: prefix.is_ipv4(),
            rules: matching.map(|(i, rule)| (i, rule.rung(prefix))).collect(),
        }
    }

    /// What the peer is told in such a case; `None`: nothing.
    #[must_use]
    pub fn attributes(&self, case: &Case) -> Option<Attributes> {
        let mut draft = Draft::new(self, case.ipv4)?;
        for (i, rung) in &case.rules {
            draft.apply(self.rules.get(*i)?, *rung, case);
        }
        draft.finish(case.state)
    }

    /// Whether the peer is told of `prefix` in `state`.
    #[must_use]
    pub fn hears_of(&self, prefix: Vip, state: State) -> bool {
        self.attributes(&self.case(prefix, state)).is_some()
    }
}

/// Attributes while rules are applied.
struct Draft {
    attributes: Attributes,
    announce: bool,
    /// What rules that name the state have said.
    named: Named,
}

/// What the state itself has no say in any more.
#[derive(Default)]
struct Named {
    announce: bool,
    local_preference: bool,
    communities: bool,
}

impl Draft {
    fn new(peer: &BgpPeer, ipv4: bool) -> Option<Self> {
        let next_hop = match ipv4 {
            true => widen(peer.families.ipv4?),
            false => widen(peer.families.ipv6?),
        };
        let (local_preference, prepend) = match peer.relation {
            Relation::Internal { local_preference } => (Some(local_preference), 0),
            Relation::External { prepend } => (None, prepend),
        };
        Some(Self {
            attributes: Attributes {
                next_hop,
                med: peer.med,
                local_preference,
                prepend,
                as_path: Vec::new(),
                communities: peer.communities.clone(),
            },
            announce: true,
            named: Named::default(),
        })
    }

    fn apply(&mut self, rule: &Rule, rung: Option<u32>, case: &Case) {
        let Changes {
            announce,
            med,
            med_add,
            local_preference,
            prepend,
            as_path,
            communities_set,
            communities,
            next_hop_ipv4,
            next_hop_ipv6,
        } = &rule.changes;
        let named = rule.names(case.state);
        // What maintenance and doubt mean by themselves is for the rules that name
        // them to say, wherever they stand among the others.
        let is_said = |by_one: bool| case.state.is_leaving() && by_one && !named;
        let Self {
            attributes: now, ..
        } = self;
        if let Some(announce) = announce {
            self.announce = *announce;
            self.named.announce = if named {
                *announce
            } else {
                self.named.announce
            };
        }
        now.med = med.or(now.med);
        for add in [*med_add, rung].into_iter().flatten() {
            now.med = Some(now.med.unwrap_or(0).saturating_add(add));
        }
        match (&mut now.local_preference, local_preference, prepend) {
            (Some(now), Some(preference), _) if !is_said(self.named.local_preference) => {
                *now = *preference;
                self.named.local_preference |= named;
            }
            (None, _, Some(prepend)) => now.prepend = *prepend,
            (Some(_), ..) | (None, _, None) => (),
        }
        if let Some(path) = as_path {
            now.as_path.clone_from(path);
        }
        if let Some(set) = communities_set
            && !is_said(self.named.communities)
        {
            now.communities.clone_from(set);
            self.named.communities |= named;
        }
        now.communities.extend(communities);
        let next_hop = match case.ipv4 {
            true => next_hop_ipv4.map(widen),
            false => next_hop_ipv6.map(widen),
        };
        now.next_hop = next_hop.unwrap_or(now.next_hop);
    }

    /// Adds what the state means by itself.
    fn finish(mut self, state: State) -> Option<Attributes> {
        if state.is_withdrawn() {
            self.announce &= self.named.announce;
        }
        if state.is_leaving() {
            if let Some(preference) = &mut self.attributes.local_preference
                && !self.named.local_preference
            {
                *preference = 0;
            }
            if !self.named.communities {
                self.attributes.communities.push(GRACEFUL_SHUTDOWN);
            }
        }
        let communities = &mut self.attributes.communities;
        communities.sort_unstable();
        communities.dedup();
        self.announce.then_some(self.attributes)
    }
}

fn widen<A: Into<IpAddr>>(next_hop: NextHop<A>) -> NextHop<IpAddr> {
    match next_hop {
        NextHop::Own => NextHop::Own,
        NextHop::Given(address) => NextHop::Given(address.into()),
    }
}
