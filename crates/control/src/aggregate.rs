//! Aggregates: prefixes that are announced for the virtual addresses inside
//! them, since what is longer is not accepted everywhere.

use std::collections::BTreeMap;

use crate::{
    announcement::State,
    gate::{GateChange, GateChangeKind},
    model::Vip,
};

/// A prefix that is announced while enough inside it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// The prefix; no virtual prefix is the same.
    pub prefix: Vip,
    /// So many virtual addresses inside it must be announced; at least 1.
    pub min_alive: u32,
    /// Whether those inside are not announced one by one.
    pub suppress: bool,
}

/// How an aggregate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The prefix.
    pub prefix: Vip,
    /// The state it is announced in, if it is.
    pub state: Option<State>,
    /// Virtual addresses inside it that are alive and can be forwarded.
    pub alive: u32,
    /// So many are wanted.
    pub wanted: u32,
}

/// Adds aggregates to the virtual addresses that are `announced`, and takes out
/// those that an aggregate stands for. An aggregate is in the best state that
/// enough of those inside it have reached; where that one
/// [is withdrawn](State::is_withdrawn) it is announced only if `fails_open` says
/// so.
pub fn aggregate(
    announced: &mut BTreeMap<Vip, State>,
    aggregates: &[Aggregate],
    fails_open: impl Fn(Vip, State) -> bool,
) -> Vec<Standing> {
    let standings: Vec<_> = aggregates
        .iter()
        .map(|aggregate| aggregate.judge(announced, &fails_open))
        .collect();
    let suppressed = |vip: &Vip| {
        let mut suppressing = aggregates.iter().filter(|aggregate| aggregate.suppress);
        suppressing.any(|aggregate| aggregate.prefix.contains(*vip))
    };
    announced.retain(|vip, _| !suppressed(vip));
    let states = standings.iter();
    announced.extend(states.filter_map(|standing| Some((standing.prefix, standing.state?))));
    standings
}

/// What has changed between two moments.
#[must_use]
pub fn changes(before: &[Standing], now: &[Standing]) -> Vec<GateChange> {
    let state = |standings: &[Standing], prefix| {
        let mut standings = standings.iter();
        standings.find(|standing| standing.prefix == prefix)?.state
    };
    let gone = before.iter().filter(|old| {
        let mut now = now.iter();
        !now.any(|standing| standing.prefix == old.prefix)
    });
    let gone = gone.map(|old| (old.prefix, "it is not configured any more".to_owned()));
    let reasons = now.iter().map(|new| (new.prefix, new.reason()));
    let all = gone.chain(reasons).filter_map(|(prefix, reason)| {
        let (before, now) = (state(before, prefix), state(now, prefix));
        (before != now).then(|| GateChange {
            vip: prefix,
            kind: GateChangeKind::between(before, now),
            reason,
        })
    });
    all.collect()
}

impl Aggregate {
    fn judge(
        &self,
        announced: &BTreeMap<Vip, State>,
        fails_open: impl Fn(Vip, State) -> bool,
    ) -> Standing {
        let reached = |state: State| {
            let inside = announced
                .iter()
                .filter(|(vip, at)| **at >= state && self.prefix.contains(**vip));
            inside.fold(0, |count, _| count + 1)
        };
        let may = |state: &State| !state.is_withdrawn() || fails_open(self.prefix, *state);
        let enough = |state: &State| reached(*state) >= self.min_alive;
        Standing {
            prefix: self.prefix,
            state: State::ALL.into_iter().find(enough).filter(may),
            alive: reached(State::Maintenance),
            wanted: self.min_alive,
        }
    }
}

impl Standing {
    /// Why it is announced or not, in plain words.
    #[must_use]
    pub fn reason(&self) -> String {
        let counts = format!("{} alive inside, {} wanted", self.alive, self.wanted);
        match self.state {
            Some(State::Maintenance) => format!("the host is in maintenance; {counts}"),
            Some(State::Doubt) => format!("our own network is in doubt; {counts}"),
            Some(state @ (State::Degraded | State::Disabled)) => {
                format!("{} inside; {counts}", state.label())
            }
            Some(State::Up | State::Down) | None => counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    fn vip(text: &str) -> Vip {
        let address = text
            .parse()
            .map(IpNet::from as fn(std::net::IpAddr) -> IpNet);
        address.unwrap_or_else(|_| text.parse().unwrap()).into()
    }

    use State::{Degraded, Disabled, Doubt, Down, Maintenance, Up};

    /// One aggregate, 203.0.113.0/24: how many it wants, whether it suppresses
    /// and fails open; what is announced, and what of it together with the
    /// aggregate then.
    #[track_caller]
    fn check(
        sentence: &str,
        (min_alive, suppress, fails_open): (u32, bool, bool),
        announced: &[(&str, State)],
        expected: &[(&str, State)],
    ) {
        let prefix = vip("203.0.113.0/24");
        let aggregate = Aggregate {
            prefix,
            min_alive,
            suppress,
        };
        let set = |list: &[(&str, State)]| -> BTreeMap<Vip, State> {
            list.iter()
                .map(|(text, state)| (vip(text), *state))
                .collect()
        };
        let mut found = set(announced);
        let standings = super::aggregate(&mut found, &[aggregate], |vip, _| {
            fails_open && vip == prefix
        });
        assert_eq!(found, set(expected), "{sentence}: {standings:#?}");
    }

    #[test]
    fn an_aggregate_lives_by_what_is_inside() {
        let one = (1, false, false);
        check("nothing inside", one, &[], &[]);
        check(
            "something elsewhere",
            one,
            &[("198.51.100.1", Up)],
            &[("198.51.100.1", Up)],
        );
        check(
            "an address inside",
            one,
            &[("203.0.113.1", Up)],
            &[("203.0.113.0/24", Up), ("203.0.113.1", Up)],
        );
        check(
            "a prefix inside",
            one,
            &[("203.0.113.16/28", Up)],
            &[("203.0.113.0/24", Up), ("203.0.113.16/28", Up)],
        );
        check(
            "a prefix around it is not inside",
            one,
            &[("203.0.112.0/23", Up)],
            &[("203.0.112.0/23", Up)],
        );
        check(
            "fewer than wanted",
            (2, false, false),
            &[("203.0.113.1", Up)],
            &[("203.0.113.1", Up)],
        );
        check(
            "as many as wanted",
            (2, false, false),
            &[("203.0.113.1", Up), ("203.0.113.2", Up)],
            &[
                ("203.0.113.0/24", Up),
                ("203.0.113.1", Up),
                ("203.0.113.2", Up),
            ],
        );
        check(
            "instead of those inside, and of no others",
            (1, true, false),
            &[("198.51.100.1", Up), ("203.0.113.1", Up)],
            &[("198.51.100.1", Up), ("203.0.113.0/24", Up)],
        );
        check(
            "those inside are too few, and not announced by themselves",
            (2, true, false),
            &[("203.0.113.1", Up)],
            &[],
        );
    }

    #[test]
    fn an_aggregate_is_in_the_best_state_that_enough_have_reached() {
        check(
            "maintenance",
            (1, true, false),
            &[("203.0.113.1", Maintenance), ("203.0.113.2", Down)],
            &[("203.0.113.0/24", Maintenance)],
        );
        check(
            "one is up, and one is enough",
            (1, true, true),
            &[("203.0.113.1", Down), ("203.0.113.2", Up)],
            &[("203.0.113.0/24", Up)],
        );
        check(
            "one is up, two are wanted",
            (2, true, true),
            &[("203.0.113.1", Down), ("203.0.113.2", Up)],
            &[("203.0.113.0/24", Down)],
        );
        check(
            "one is degraded, two are wanted",
            (2, true, false),
            &[("203.0.113.1", Degraded), ("203.0.113.2", Up)],
            &[("203.0.113.0/24", Degraded)],
        );
        check(
            "in doubt it is announced though it does not fail open",
            (1, true, false),
            &[("203.0.113.1", Doubt), ("203.0.113.2", Down)],
            &[("203.0.113.0/24", Doubt)],
        );
        check(
            "disabled, and it does not fail open",
            (1, true, false),
            &[("203.0.113.1", Disabled)],
            &[],
        );
        check(
            "down, and it does not fail open",
            (1, true, false),
            &[("203.0.113.1", Down)],
            &[],
        );
    }

    #[test]
    fn changes_are_told_in_the_words_of_the_gate() {
        let standing = |text, state, alive| Standing {
            prefix: vip(text),
            state,
            alive,
            wanted: 1,
        };
        let (kept, gone) = ("203.0.113.0/24", "198.51.100.0/24");
        let moments = [
            vec![],
            vec![standing(kept, Some(Up), 2), standing(gone, None, 0)],
            vec![standing(kept, Some(Up), 1), standing(gone, Some(Up), 1)],
            vec![standing(kept, Some(Maintenance), 1)],
            vec![standing(kept, None, 0)],
        ];
        let expected: [&[&str]; 4] = [
            &["Entered 203.0.113.0/24: 2 alive inside, 1 wanted"],
            &["Entered 198.51.100.0/24: 1 alive inside, 1 wanted"],
            &[
                "Withdrawn 198.51.100.0/24: it is not configured any more",
                "Worsened 203.0.113.0/24: the host is in maintenance; 1 alive inside, 1 wanted",
            ],
            &["Withdrawn 203.0.113.0/24: 0 alive inside, 1 wanted"],
        ];
        for (moment, expected) in moments.windows(2).zip(expected) {
            let found: Vec<_> = changes(&moment[0], &moment[1])
                .iter()
                .map(|change| format!("{:?} {}: {}", change.kind, change.vip, change.reason))
                .collect();
            assert_eq!(found, expected);
        }
    }
}
