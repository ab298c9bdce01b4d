//! The gate in sentences.

mod property;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::*;
use crate::{
    condition::Condition,
    decide::ServicePlan,
    duty::{Duty, Line},
    model::{Mode, Share, tests::service},
    ring::RingBase,
};

/// What the gate is shown about one VIP.
#[derive(Clone, Copy, Debug)]
struct Shown {
    configured: bool,
    /// The state that its service is in.
    state: State,
    /// Whether its packets are sent to somebody.
    forwarded: bool,
    decided: u64,
    acknowledged: Option<u64>,
    /// Whether this host serves it itself.
    local: bool,
    /// Whether it is bound here, or why not.
    bound: Option<Result<(), &'static str>>,
}

fn address(i: u8) -> Vip {
    IpAddr::from([192, 0, 2, i]).into()
}

/// A plan in that state. What leads to it is not the gate's affair, and the words
/// are those of one healthy backend, or none.
fn plan(vip: &Shown) -> Arc<VipPlan> {
    let mut web = service("web", &[("a", 1, 1), ("b", 2, 1), ("c", 3, 1)]);
    web.ring_size = 4;
    if vip.local {
        web.mode = Mode::Local;
    }
    let up = vip.state.is_alive() || vip.state == State::Disabled;
    let why = |state| (vip.state == state).then(|| Arc::from("so it is"));
    if vip.state == State::Degraded {
        web.needs.good = Share::Count(2);
    }
    let condition = Condition {
        duty: Duty::new(&web, &[up, false, false], None),
        follows: None,
        disabled: why(State::Disabled),
        doubt: why(State::Doubt),
    };
    assert_eq!(condition.state(), vip.state);
    Arc::new(VipPlan {
        state: vip.state,
        services: vec![Arc::new(ServicePlan {
            condition,
            standing: Vec::new(),
            drained: Vec::new(),
            available: vec![up, false, false],
            presumed: Vec::new(),
            shares: vec![],
            base: Arc::new(RingBase::new(&web, Line::Active)),
            ring: None,
            ring_fingerprint: None,
            fingerprint: vip.decided,
            keyed: 0,
            service: Arc::new(web),
        })],
        fingerprint: vip.decided,
    })
}

/// What else it is shown; `None` of the fault is that there is none.
#[derive(Clone, Copy, Debug, Default)]
struct World {
    fault: Option<&'static str>,
    lacks: Option<&'static str>,
    maintenance: bool,
    fails_open: bool,
}

fn update(gate: &mut Gate, vips: &[Shown], world: World) -> Vec<GateChange> {
    let numbered = || (0..).map(address).zip(vips);
    let configured = numbered().filter(|(_, vip)| vip.configured);
    let desired = Desired {
        services: Vec::new(),
        vips: configured.map(|(a, vip)| (a, plan(vip))).collect(),
    };
    let acknowledged = numbered().filter_map(|(a, vip)| Some((a, vip.acknowledged?)));
    let terms = Terms {
        maintenance: world.maintenance,
        fails_open: |_, _| world.fails_open,
    };
    let forwarded = numbered().filter_map(|(a, vip)| vip.forwarded.then_some(a));
    let bound = numbered().filter_map(|(a, vip)| Some((a, vip.bound?.map_err(str::to_owned))));
    let plane = Plane {
        acknowledged: &acknowledged.collect(),
        forwarded: &forwarded.collect(),
        fault: world.fault,
        lacks: &world
            .lacks
            .map(|lack| ("web".into(), lack.to_owned()))
            .into_iter()
            .collect(),
        bound: &bound.collect(),
    };
    gate.update(&desired, &plane, &terms)
}

/// Shows one VIP's moments to a gate, and writes down the changes.
#[track_caller]
fn check(sentence: &str, moments: &[(Shown, World)], expected: &[&str]) {
    let mut gate = Gate::default();
    let mut found = Vec::new();
    for (vip, world) in moments {
        let changes = update(&mut gate, &[*vip], *world);
        found.extend(
            changes
                .iter()
                .map(|change| format!("{:?}: {}", change.kind, change.reason)),
        );
    }
    assert_eq!(found, expected, "{sentence}: {gate:#?}");
}

const NEW: Shown = Shown {
    configured: true,
    state: State::Up,
    forwarded: true,
    decided: 1,
    acknowledged: None,
    local: false,
    bound: None,
};
const APPLIED: Shown = Shown {
    acknowledged: Some(1),
    ..NEW
};
const DEAD: Shown = Shown {
    state: State::Down,
    ..APPLIED
};
const DISABLED: Shown = Shown {
    state: State::Disabled,
    ..APPLIED
};
const DOUBTED: Shown = Shown {
    state: State::Doubt,
    acknowledged: None,
    ..APPLIED
};
const FEW: Shown = Shown {
    state: State::Degraded,
    ..APPLIED
};
const CHANGED: Shown = Shown {
    decided: 2,
    ..APPLIED
};
const GONE: Shown = Shown {
    configured: false,
    ..APPLIED
};

const PLAIN: World = World {
    fault: None,
    lacks: None,
    maintenance: false,
    fails_open: false,
};
const BROKEN: World = World {
    fault: Some("detached"),
    ..PLAIN
};
const OPEN: World = World {
    fails_open: true,
    ..PLAIN
};
const LEAVING: World = World {
    maintenance: true,
    ..OPEN
};

const ENTERED: &str = "Entered: web: 1 of 3 backends healthy";
const ENTERED_ALIVE: &str = "Improved: web: 1 of 3 backends healthy";
const WAITING: &str = "Waiting: the data plane has not applied it yet";
const DIED: &str = "Withdrawn: web: 0 of 3 backends healthy, 1 wanted";

#[test]
fn rules_of_the_gate() {
    check(
        "waits, enters",
        &[(NEW, PLAIN), (APPLIED, PLAIN)],
        &[WAITING, ENTERED],
    );
    check(
        "an older acknowledgement does not count",
        &[(CHANGED, PLAIN)],
        &[WAITING],
    );
    check(
        "stays while the data plane lags",
        &[(APPLIED, PLAIN), (CHANGED, PLAIN)],
        &[ENTERED],
    );
    check(
        "dies",
        &[(APPLIED, PLAIN), (DEAD, PLAIN), (DEAD, PLAIN)],
        &[ENTERED, DIED],
    );
    check(
        "does not enter dead",
        &[(DEAD, PLAIN)],
        &["Waiting: web: 0 of 3 backends healthy, 1 wanted"],
    );
    check(
        "comes back only with an acknowledgement of what is decided then",
        &[
            (APPLIED, PLAIN),
            (DEAD, PLAIN),
            (CHANGED, PLAIN),
            (APPLIED, PLAIN),
        ],
        &[ENTERED, DIED, WAITING, ENTERED],
    );
    check(
        "is taken out",
        &[(APPLIED, PLAIN), (GONE, PLAIN), (GONE, PLAIN)],
        &[ENTERED, "Withdrawn: no service uses it any more"],
    );
    check(
        "nobody misses what never entered",
        &[(NEW, PLAIN), (GONE, PLAIN)],
        &[WAITING],
    );
    check(
        "a fault takes it out, its end lets it in",
        &[(APPLIED, PLAIN), (APPLIED, BROKEN), (APPLIED, PLAIN)],
        &[
            ENTERED,
            "Withdrawn: the data plane does not forward: detached",
            ENTERED,
        ],
    );
}

const WORSENED: &str = "Worsened: web: 0 of 3 backends healthy, 1 wanted";

#[test]
fn what_fails_open_gets_worse_instead_of_leaving() {
    check(
        "worse at once, better with an acknowledgement",
        &[
            (APPLIED, OPEN),
            (DEAD, OPEN),
            (CHANGED, OPEN),
            (
                Shown {
                    acknowledged: Some(2),
                    ..CHANGED
                },
                OPEN,
            ),
        ],
        &[ENTERED, WORSENED, "Improved: web: 1 of 3 backends healthy"],
    );
    check(
        "worse though the data plane lags",
        &[
            (APPLIED, OPEN),
            (
                Shown {
                    acknowledged: None,
                    ..DEAD
                },
                OPEN,
            ),
        ],
        &[ENTERED, WORSENED],
    );
    check(
        "an agent before has forwarded it",
        &[(
            Shown {
                acknowledged: None,
                ..DEAD
            },
            OPEN,
        )],
        &["Entered: web: 0 of 3 backends healthy, 1 wanted"],
    );
    check(
        "its packets would be dropped",
        &[
            (APPLIED, OPEN),
            (
                Shown {
                    forwarded: false,
                    ..DEAD
                },
                OPEN,
            ),
        ],
        &[ENTERED, DIED],
    );
    check(
        "the terms do not let it fail open any more",
        &[(APPLIED, OPEN), (DEAD, OPEN), (DEAD, PLAIN)],
        &[ENTERED, WORSENED, DIED],
    );
    check(
        "a fault takes out what is down, too",
        &[
            (APPLIED, OPEN),
            (DEAD, OPEN),
            (
                DEAD,
                World {
                    fault: Some("detached"),
                    ..OPEN
                },
            ),
        ],
        &[ENTERED, WORSENED, DIED],
    );
}

#[test]
fn maintenance_is_worse_than_up_and_better_than_down() {
    check(
        "there and back",
        &[(APPLIED, OPEN), (APPLIED, LEAVING), (APPLIED, OPEN)],
        &[
            ENTERED,
            "Worsened: the host is in maintenance; web: 1 of 3 backends healthy",
            "Improved: web: 1 of 3 backends healthy",
        ],
    );
    check(
        "back, though the data plane lags",
        &[(APPLIED, PLAIN), (CHANGED, LEAVING), (CHANGED, PLAIN)],
        &[
            ENTERED,
            "Worsened: the host is in maintenance; web: 1 of 3 backends healthy",
            "Improved: web: 1 of 3 backends healthy",
        ],
    );
    check(
        "it dies in maintenance",
        &[(APPLIED, LEAVING), (DEAD, LEAVING)],
        &[
            "Entered: the host is in maintenance; web: 1 of 3 backends healthy",
            WORSENED,
        ],
    );
}

#[test]
fn what_this_host_serves_itself_is_announced_while_it_is_bound() {
    const UNKNOWN: Shown = Shown { local: true, ..NEW };
    const BOUND: Shown = Shown {
        bound: Some(Ok(())),
        ..UNKNOWN
    };
    const UNBOUND: Shown = Shown {
        bound: Some(Err("lo is down")),
        ..UNKNOWN
    };
    const FAILING: Shown = Shown {
        state: State::Down,
        ..BOUND
    };
    check(
        "waits, enters, leaves with its address and comes back with it",
        &[
            (UNKNOWN, PLAIN),
            (BOUND, PLAIN),
            (UNBOUND, PLAIN),
            (BOUND, PLAIN),
        ],
        &[
            "Waiting: the address is about to be bound",
            ENTERED,
            "Withdrawn: lo is down",
            ENTERED,
        ],
    );
    check(
        "a data plane is nothing to it",
        &[(BOUND, BROKEN), (BOUND, PLAIN)],
        &[ENTERED],
    );
    check(
        "it dies",
        &[(BOUND, PLAIN), (FAILING, PLAIN)],
        &[ENTERED, DIED],
    );
    check(
        "it fails open only while it is bound",
        &[
            (BOUND, OPEN),
            (FAILING, OPEN),
            (
                Shown {
                    state: State::Down,
                    ..UNBOUND
                },
                OPEN,
            ),
        ],
        &[ENTERED, WORSENED, DIED],
    );
}

#[test]
fn doubt_is_announced_though_nothing_fails_open() {
    let doubt = "web: 0 of 3 backends healthy, 1 wanted; our own network is in doubt: so it is";
    check(
        "worse at once, back with an acknowledgement",
        &[
            (APPLIED, PLAIN),
            (DOUBTED, PLAIN),
            (CHANGED, PLAIN),
            (APPLIED, PLAIN),
        ],
        &[
            ENTERED,
            &format!("Worsened: {doubt}"),
            // The state stays, for another reason.
            ENTERED_ALIVE,
        ],
    );
    check(
        "nobody has ever served it",
        &[(
            Shown {
                forwarded: false,
                ..DOUBTED
            },
            PLAIN,
        )],
        &[&format!("Waiting: {doubt}")],
    );
    check(
        "in the end the farm is dead",
        &[(APPLIED, PLAIN), (DOUBTED, PLAIN), (DEAD, PLAIN)],
        &[ENTERED, &format!("Worsened: {doubt}"), DIED],
    );
}

#[test]
fn what_is_disabled_is_withdrawn_unless_it_fails_open() {
    let why = "web: disabled, so it is; 1 of 3 backends healthy";
    check(
        "withdrawn",
        &[(APPLIED, PLAIN), (DISABLED, PLAIN), (APPLIED, PLAIN)],
        &[ENTERED, &format!("Withdrawn: {why}"), ENTERED],
    );
    check(
        "announced worse, and worse still when it dies",
        &[(APPLIED, OPEN), (DISABLED, OPEN), (DEAD, OPEN)],
        &[ENTERED, &format!("Worsened: {why}"), WORSENED],
    );
}

#[test]
fn degraded_is_alive() {
    let few = "web: 1 of 3 backends healthy, degraded below 2";
    check(
        "there and back, though the data plane lags",
        &[
            (APPLIED, PLAIN),
            (Shown { decided: 2, ..FEW }, PLAIN),
            (CHANGED, PLAIN),
        ],
        &[ENTERED, &format!("Worsened: {few}"), ENTERED_ALIVE],
    );
    check(
        "maintenance is worse",
        &[(FEW, PLAIN), (FEW, LEAVING)],
        &[
            &format!("Entered: {few}"),
            &format!("Worsened: the host is in maintenance; {few}"),
        ],
    );
}

#[test]
fn what_depends_on_something_that_is_not_there_is_not_announced_in_any_state() {
    let dark = World {
        lacks: Some("eth1 has no carrier"),
        ..OPEN
    };
    let gone = "Withdrawn: eth1 has no carrier";
    check(
        "up",
        &[(APPLIED, OPEN), (APPLIED, dark), (APPLIED, OPEN)],
        &[ENTERED, gone, ENTERED],
    );
    check(
        "down, where it fails open",
        &[(APPLIED, OPEN), (DEAD, OPEN), (DEAD, dark)],
        &[ENTERED, WORSENED, gone],
    );
}

#[test]
fn withdrawals_come_first() {
    let mut gate = Gate::default();
    update(&mut gate, &[NEW, APPLIED, APPLIED], PLAIN);
    let changes = update(&mut gate, &[APPLIED, DEAD, GONE, NEW], PLAIN);
    let kinds: Vec<_> = changes.iter().map(|change| change.kind).collect();
    use GateChangeKind::{Entered, Waiting, Withdrawn};
    assert_eq!(
        kinds,
        [Withdrawn, Withdrawn, Entered, Waiting],
        "{changes:#?}"
    );
}
