//! What has changed of virtual addresses and aggregates, as routers hear of them.

use std::{collections::BTreeMap, mem::take, sync::Arc, time::Instant};

use vipd_control::{announcement::State, model::Vip};

use super::Found;
use crate::{
    announce::Standings,
    engine::Decision,
    hooks::subject::{Subject, UNKNOWN},
    status::WITHDRAWN,
    views::Sight,
};

/// What was seen of them at the last look.
#[derive(Default)]
pub struct SeenPrefixes {
    standings: Arc<Standings>,
    vips: States,
    aggregates: States,
}

/// In what state each prefix is.
type States = BTreeMap<Vip, &'static str>;

/// How a prefix stands now.
struct Now {
    prefix: Vip,
    /// The state in which routers hear of it, if they do.
    heard: Option<State>,
    /// Whether that may be otherwise a moment later, if they do not.
    is_soon: bool,
}

impl SeenPrefixes {
    /// Looks at how everything stands.
    pub fn look(
        &mut self,
        decision: &Decision,
        standings: &Arc<Standings>,
        now: Instant,
        found: &mut Found<'_>,
    ) {
        if Arc::ptr_eq(&self.standings, standings) {
            return;
        }
        self.standings = Arc::clone(standings);
        let sight = Sight::new(decision, standings, now);
        let vips = standings.vips.iter().map(|(vip, admission)| Now {
            prefix: *vip,
            heard: sight.heard(*vip),
            // What the data plane has not applied yet is announced when it has.
            is_soon: !standings.known || admission.is_pending(),
        });
        let stops =
            |vip| decision.desired.vips.contains_key(&vip) && !decision.leaving.contains(&vip);
        let reason = |vip| match standings.vips.contains_key(&vip) {
            true => sight.reason(vip),
            false if stops(vip) => "the agent stops".to_owned(),
            false => REMOVED.to_owned(),
        };
        compare(&mut self.vips, vips, reason, |vip, state, reason| {
            found.push(Subject::Vip(vip), state, reason);
        });
        let aggregates = standings.aggregates.iter().map(|aggregate| Now {
            prefix: aggregate.prefix,
            heard: sight.heard_of_aggregate(aggregate),
            is_soon: !standings.known,
        });
        let reason = |prefix| {
            let mut aggregates = standings.aggregates.iter();
            let aggregate = aggregates.find(|it| it.prefix == prefix);
            aggregate.map_or_else(
                || REMOVED.to_owned(),
                |aggregate| sight.reason_of_aggregate(aggregate),
            )
        };
        compare(
            &mut self.aggregates,
            aggregates,
            reason,
            |prefix, state, reason| {
                found.push(Subject::Aggregate(prefix), state, reason);
            },
        );
    }
}

/// Why a prefix is not there any more.
const REMOVED: &str = "it is not configured any more";

/// Tells what is otherwise than it was. Before the first state is known, a prefix that
/// is not announced may be a moment later; who was known once is withdrawn.
fn compare(
    states: &mut States,
    prefixes: impl Iterator<Item = Now>,
    reason: impl Fn(Vip) -> String,
    mut tell: impl FnMut(Vip, &'static str, &dyn Fn() -> String),
) {
    let mut before = take(states);
    for now in prefixes {
        let prefix = now.prefix;
        let old = before.remove(&prefix).unwrap_or(UNKNOWN);
        let state = match now.heard {
            Some(state) => state.label(),
            None if old == UNKNOWN && now.is_soon => UNKNOWN,
            None => WITHDRAWN,
        };
        if state != old {
            tell(prefix, state, &|| reason(prefix));
        }
        states.insert(prefix, state);
    }
    for (prefix, old) in before {
        if ![UNKNOWN, WITHDRAWN].contains(&old) {
            tell(prefix, WITHDRAWN, &|| reason(prefix));
        }
    }
}
