//! What the log is told of announcements, when it has become true: what enters is
//! announced only once it is held.

use std::collections::BTreeMap;

use tracing::{info, warn};
use vipd_control::{
    gate::{GateChange, GateChangeKind},
    model::Vip,
};

/// What has not been told yet.
#[derive(Debug, Default)]
pub struct News {
    entering: BTreeMap<Vip, GateChange>,
}

impl News {
    /// Takes in what has changed, and says what is to be told now. What enters
    /// waits as long as `waits` says so of it.
    #[must_use]
    pub fn take(
        &mut self,
        changes: Vec<GateChange>,
        waits: impl Fn(Vip) -> bool,
    ) -> Vec<GateChange> {
        use GateChangeKind::{Entered, Held, Improved, Waiting, Withdrawn, Worsened};
        let mut told = Vec::new();
        for mut change in changes {
            let entering = self.entering.remove(&change.vip).is_some();
            match change.kind {
                // Nobody has heard of it yet.
                Withdrawn if entering => change.kind = Waiting,
                Improved | Worsened | Held(_) if entering => change.kind = Entered,
                _ => {}
            }
            if change.kind == Entered {
                self.entering.insert(change.vip, change);
            } else {
                told.push(change);
            }
        }
        self.entering.retain(|vip, change| {
            let waits = waits(*vip);
            if !waits {
                told.push(change.clone());
            }
            waits
        });
        told
    }
}

/// Writes a change to the log.
pub fn log(change: &GateChange) {
    let GateChange { vip, kind, reason } = change;
    match kind {
        GateChangeKind::Entered => info!("{vip} is announced: {reason}"),
        GateChangeKind::Improved => info!("{vip} is announced better: {reason}"),
        GateChangeKind::Worsened => warn!("{vip} is announced worse: {reason}"),
        GateChangeKind::Withdrawn => warn!("{vip} is withdrawn: {reason}"),
        GateChangeKind::Waiting => info!("{vip} is not announced: {reason}"),
        GateChangeKind::Held(state) => {
            info!(
                "{vip} stays announced in the state {}: {reason}",
                state.label()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use vipd_control::announcement::State;

    use super::*;

    /// Each moment: what happens, whether it waits to be held, what is told.
    #[track_caller]
    fn check(sentence: &str, moments: &[(Option<GateChangeKind>, bool, Option<GateChangeKind>)]) {
        let vip = IpAddr::from([192, 0, 2, 1]).into();
        let mut news = News::default();
        for (i, (kind, waits, expected)) in moments.iter().enumerate() {
            let change = kind.map(|kind| GateChange {
                vip,
                kind,
                reason: format!("reason {i}"),
            });
            let told = news.take(change.into_iter().collect(), |_| *waits);
            let kinds: Vec<_> = told.iter().map(|change| change.kind).collect();
            let expected: Vec<_> = expected.iter().copied().collect();
            assert_eq!(kinds, expected, "{sentence}, moment {i}: {news:#?}");
        }
    }

    #[test]
    fn what_enters_is_told_when_it_is_held() {
        use GateChangeKind::{Entered, Held, Improved, Waiting, Withdrawn, Worsened};
        check("nothing waits", &[(Some(Entered), false, Some(Entered))]);
        check(
            "held a moment later",
            &[
                (Some(Entered), true, None),
                (None, true, None),
                (None, false, Some(Entered)),
                (None, false, None),
            ],
        );
        check(
            "withdrawn before anybody has heard of it",
            &[
                (Some(Entered), true, None),
                (Some(Withdrawn), false, Some(Waiting)),
                (None, false, None),
            ],
        );
        check(
            "worse and better before it is held",
            &[
                (Some(Entered), true, None),
                (Some(Worsened), true, None),
                (Some(Improved), false, Some(Entered)),
            ],
        );
        check(
            "it waits to be better before it is held",
            &[
                (Some(Entered), true, None),
                (Some(Held(State::Doubt)), true, None),
                (None, false, Some(Entered)),
            ],
        );
        check(
            "later changes wait for nothing",
            &[
                (Some(Entered), false, Some(Entered)),
                (Some(Worsened), false, Some(Worsened)),
                (Some(Withdrawn), false, Some(Withdrawn)),
                (Some(Waiting), false, Some(Waiting)),
                (Some(Held(State::Down)), false, Some(Held(State::Down))),
            ],
        );
    }
}
