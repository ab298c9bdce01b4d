//! What is shown of announcements: how each prefix stands, and why.

use std::time::Instant;

use vipd_control::{
    aggregate,
    announcement::State,
    damping::{Figures, Standing},
    model::Vip,
};

use crate::{
    announce::{Announced, Standings, wait_words},
    engine::Decision,
    local::{Bound, Local},
    status::{self, WITHDRAWN},
};

/// What is known of announcements at one moment.
pub struct Sight<'a> {
    decision: &'a Decision,
    standings: &'a Standings,
    /// The aggregates that stand for what is inside them.
    suppressing: Vec<Vip>,
    now: Instant,
}

impl<'a> Sight<'a> {
    /// By a decision, and how everything stands.
    #[must_use]
    pub fn new(decision: &'a Decision, standings: &'a Standings, now: Instant) -> Self {
        let aggregates = decision.bgp.iter().flat_map(|bgp| &bgp.aggregates);
        let suppressing = aggregates.filter(|aggregate| aggregate.suppress);
        Self {
            decision,
            standings,
            suppressing: suppressing.map(|aggregate| aggregate.prefix).collect(),
            now,
        }
    }

    /// The state in which routers hear of an address, if they do.
    #[must_use]
    pub fn heard(&self, vip: Vip) -> Option<State> {
        let heard = self.damped(vip).and_then(|damped| damped.announced);
        match self.instead(vip) {
            // What can be heard of it is the aggregate.
            Some(_) => self.standings.vips.get(&vip)?.state().and(heard),
            None => heard,
        }
    }

    /// Why that is so.
    #[must_use]
    pub fn reason(&self, vip: Vip) -> String {
        let admission = self.standings.vips.get(&vip);
        let plan = self.decision.desired.vips.get(&vip);
        let reason = match admission.zip(plan) {
            Some((admission, plan)) => admission.reason(plan),
            None if self.decision.leaving.contains(&vip) => {
                "taken out of the configuration; forwarded a little longer".to_owned()
            }
            None => "not judged yet".to_owned(),
        };
        reason + &waiting(self.damped(vip), self.now)
    }

    /// The state in which routers hear of an aggregate, if they do.
    #[must_use]
    pub fn heard_of_aggregate(&self, aggregate: &aggregate::Standing) -> Option<State> {
        self.standings.damping.get(&aggregate.prefix)?.announced
    }

    /// Why that is so.
    #[must_use]
    pub fn reason_of_aggregate(&self, aggregate: &aggregate::Standing) -> String {
        let damped = self.standings.damping.get(&aggregate.prefix);
        aggregate.reason() + &waiting(damped, self.now)
    }

    /// What routers that damp would have counted of a prefix by itself.
    fn damping(&self, prefix: Vip) -> status::Damping {
        let bgp = self.decision.bgp.as_ref();
        let figures = bgp.map_or(Figures::USUAL, |bgp| bgp.damping.figures);
        let limits = status::Damping {
            suppress: figures.suppress,
            reuse: figures.reuse,
            ..status::Damping::default()
        };
        let Some(damped) = self.standings.damping.get(&prefix) else {
            return limits;
        };
        let left = |until: Instant| until.saturating_duration_since(self.now).as_secs_f64();
        status::Damping {
            penalty: damped.penalty.value(self.now),
            suppressed: damped.penalty.is_suppressed(self.now),
            wait_seconds: damped.wait.map_or(0.0, |wait| left(wait.until)),
            ..limits
        }
    }

    /// What is counted of an address, or of what stands for it.
    fn damped(&self, vip: Vip) -> Option<&Standing> {
        let heard_of = self.instead(vip).unwrap_or(vip);
        self.standings.damping.get(&heard_of)
    }

    /// The aggregate that stands for an address.
    fn instead(&self, vip: Vip) -> Option<Vip> {
        let mut around = self.suppressing.iter().copied();
        around.find(|prefix| prefix.contains(vip))
    }
}

/// How each virtual address stands.
pub fn vips(
    decision: &Decision,
    standings: &Standings,
    announced: &Announced,
    local: &Local,
    now: Instant,
) -> Vec<status::Vip> {
    let sight = Sight::new(decision, standings, now);
    let vips = decision.desired.vips.keys();
    vips.map(|address| {
        let (state, mut reason) = (sight.heard(*address), sight.reason(*address));
        let instead = sight.instead(*address);
        reason += &taken_from(local.standings.get(address));
        if is_untold(announced, instead.unwrap_or(*address)) {
            reason += UNTOLD;
        }
        status::Vip {
            address: address.to_string(),
            announced: state.is_some(),
            state: label(state).to_owned(),
            damping: sight.damping(*address),
            suppressed_by: instead.map(|prefix| prefix.to_string()),
            reason,
            bound: local.standings.get(address).map(bound),
        }
    })
    .collect()
}

/// Where an address is bound on this host, or why it is not.
fn bound(standing: &Result<Bound, String>) -> status::Bound {
    let bound = standing.as_ref().ok();
    status::Bound {
        interface: bound.map(|bound| bound.interface.to_string()),
        by_vipd: bound.is_some_and(|bound| bound.ours),
        fault: standing.as_ref().err().cloned(),
    }
}

/// Which interface it was taken from, if it was.
fn taken_from(standing: Option<&Result<Bound, String>>) -> String {
    let bound = standing.and_then(|standing| standing.as_ref().ok());
    let wish = bound.and_then(|bound| bound.taken_from.as_ref());
    wish.map_or_else(String::new, |wish| format!("; taken from {wish}"))
}

/// How each aggregate stands.
pub fn aggregates(
    decision: &Decision,
    standings: &Standings,
    announced: &Announced,
    now: Instant,
) -> Vec<status::Aggregate> {
    let sight = Sight::new(decision, standings, now);
    let aggregates = standings.aggregates.iter();
    aggregates
        .map(|aggregate| {
            let state = sight.heard_of_aggregate(aggregate);
            let mut reason = sight.reason_of_aggregate(aggregate);
            if is_untold(announced, aggregate.prefix) {
                reason += UNTOLD;
            }
            status::Aggregate {
                prefix: aggregate.prefix.to_string(),
                state: label(state).to_owned(),
                damping: sight.damping(aggregate.prefix),
                alive: aggregate.alive,
                wanted: aggregate.wanted,
                reason,
            }
        })
        .collect()
}

/// What is said of what is announced and never sent.
const UNTOLD: &str = "; no peer is told of it";

/// Whether it is announced, and no peer is told of it: by rules, or since no
/// session carries its family.
fn is_untold(announced: &Announced, prefix: Vip) -> bool {
    let Some(state) = announced.states.get(&prefix) else {
        return false;
    };
    let mut peers = announced.bgp.iter().flat_map(|bgp| &bgp.peers);
    !peers.any(|peer| peer.hears_of(prefix, *state))
}

/// What keeps it from being announced better, if anything.
fn waiting(damped: Option<&Standing>, now: Instant) -> String {
    let wait = damped.and_then(|damped| damped.wait);
    wait.map_or_else(String::new, |wait| format!("; {}", wait_words(&wait, now)))
}

fn label(state: Option<State>) -> &'static str {
    state.map_or(WITHDRAWN, State::label)
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use vipd_control::{
        damping::{Damping, Heard, Terms},
        decide::{Decider, Desired},
        gate::Admission,
        model::{Backend, Service},
    };

    use super::*;
    use crate::config::Config;

    #[test]
    fn what_nobody_is_told_of_is_known() {
        let text = r#"
            [dataplane]
            interfaces = ["eth0"]

            [bgp]
            local_as = 64500
            router_id = "192.0.2.11"

            [[bgp.peer]]
            address = "192.0.2.1"
            as = 64501

            [[bgp.rule]]
            prefixes = ["198.51.100.11"]
            announce = false

            [[service]]
            name = "web"
            vips = ["198.51.100.10", "198.51.100.11", "2001:db8:100::10"]
            protocol = "tcp"
            port = 80
            mode = "gue"

            [[service.backend]]
            name = "b1"
            address = "192.0.2.21"
        "#;
        let (config, _) = Config::parse(text, "vipd.toml").expect("a good file");
        let vips = &config.model.services[0].vips;
        let announced = Announced {
            states: vips.iter().map(|vip| (*vip, State::Up)).collect(),
            bgp: config.bgp.map(Arc::new),
            complete: true,
            ..Announced::default()
        };
        let untold = vips.iter().filter(|vip| is_untold(&announced, **vip));
        let untold: Vec<_> = untold.map(ToString::to_string).collect();
        assert_eq!(untold, ["198.51.100.11", "2001:db8:100::10"]);
        let elsewhere = IpAddr::from([203, 0, 113, 1]).into();
        assert!(!is_untold(&announced, elsewhere), "it is not announced");
    }

    #[test]
    fn an_aggregate_that_nobody_is_told_of_is_shown_so_with_what_it_stands_for() {
        let text = r#"
            [dataplane]
            interfaces = ["eth0"]

            [bgp]
            local_as = 64500
            router_id = "192.0.2.11"

            [[bgp.peer]]
            address = "192.0.2.1"
            as = 64501

            [[bgp.aggregate]]
            prefix = "198.51.100.0/24"
            suppress = true

            [[bgp.rule]]
            aggregate = true
            announce = false

            [[service]]
            name = "web"
            vips = ["198.51.100.10"]
            protocol = "tcp"
            port = 80
            mode = "ipip"

            [[service.backend]]
            name = "b1"
            address = "192.0.2.21"
        "#;
        let (config, _) = Config::parse(text, "vipd.toml").expect("a good file");
        let up = |_: &Service, _: &Backend| true;
        let desired = Decider::new([0; 16]).decide(&config.model, &up, &Desired::default());
        let bgp = config.bgp.map(Arc::new);
        let around = bgp.as_ref().expect("a speaker").aggregates[0].prefix;
        let vips = desired.vips.keys();
        let now = Instant::now();
        let mut damping = Damping::default();
        let states = [(around, State::Up)].into();
        damping.update(&states, &Terms::OFF, |_, _, _| Heard::Nothing, now);
        let standings = Standings {
            damping: damping.standings().clone(),
            vips: vips
                .map(|vip| (*vip, Admission::Announced(State::Up)))
                .collect(),
            aggregates: vec![aggregate::Standing {
                prefix: around,
                state: Some(State::Up),
                alive: 1,
                wanted: 1,
            }],
            known: true,
        };
        let announced = Announced {
            states: [(around, State::Up)].into(),
            bgp: bgp.clone(),
            complete: true,
            ..Announced::default()
        };
        let decision = Decision {
            desired: Arc::new(desired),
            bgp,
            ..Decision::default()
        };
        let vips = super::vips(&decision, &standings, &announced, &Local::default(), now);
        let vips = vips.into_iter().map(|vip| vip.reason);
        let aggregates = aggregates(&decision, &standings, &announced, now);
        let aggregates = aggregates.into_iter().map(|aggregate| aggregate.reason);
        let reasons: Vec<_> = vips.chain(aggregates).collect();
        assert_eq!(
            reasons,
            [
                "web: 1 of 1 backends healthy; no peer is told of it",
                "1 alive inside, 1 wanted; no peer is told of it",
            ]
        );
    }

    #[test]
    fn what_has_flapped_is_shown_with_the_configured_limits() {
        let text = r#"
            [bgp]
            local_as = 64500
            router_id = "192.0.2.11"

            [bgp.damping]
            suppress = 3000
            reuse = 900

            [[bgp.peer]]
            address = "192.0.2.1"
            as = 64501

            [[service]]
            name = "web"
            vips = ["198.51.100.10"]
            protocol = "tcp"
            port = 80
            mode = "local"
        "#;
        let (config, _) = Config::parse(text, "vipd.toml").expect("a good file");
        let bgp = config.bgp.map(Arc::new);
        let terms = bgp.as_ref().expect("a speaker").damping;
        let vip = config.model.services[0].vips[0];
        let decision = Decision {
            bgp,
            ..Decision::default()
        };
        let now = Instant::now();
        let mut damping = Damping::default();
        let mut shown = |states: &[Option<State>]| {
            for state in states {
                let wanted = state.iter().map(|state| (vip, *state)).collect();
                let heard = |_, _, to: Option<State>| match to {
                    Some(_) => Heard::Announcement,
                    None => Heard::Withdrawal,
                };
                let terms = Terms {
                    budget: false,
                    ..terms
                };
                damping.update(&wanted, &terms, heard, now);
            }
            let standings = Standings {
                damping: damping.standings().clone(),
                ..Standings::default()
            };
            Sight::new(&decision, &standings, now).damping(vip).words()
        };
        let (up, gone) = (Some(State::Up), None);
        assert_eq!(shown(&[up]), None, "it has not flapped");
        assert_eq!(
            shown(&[gone, up, gone]).as_deref(),
            Some("flap penalty 2000: routers that damp ignore it from 3000 on")
        );
        assert_eq!(
            shown(&[up, gone]).as_deref(),
            Some("flap penalty 3000: routers that damp ignore it until that is below 900")
        );
    }
}
