//! Doubt from the first check that nobody answers to the announcement after it.

use super::*;
use crate::model::{CheckKind, Exchange, Needs, OnDown};

const GATEWAY: Anchor = Anchor {
    address: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 254)),
    returned: false,
};

/// Three backends and two, each service on an address of its own; up after two
/// good checks, down after two bad ones.
fn farm() -> [Service; 2] {
    let mut dns = service("dns", &[("x", 8, 10), ("y", 9, 10)]);
    dns.vips = vec![vip(2)];
    let web = service("web", &[("a", 1, 10), ("b", 2, 10), ("c", 3, 10)]);
    [dns, web]
}

fn web() -> [Service; 1] {
    let [_, web] = farm();
    [web]
}

/// What is found in a second of the backends of each service: `+` good, `s` silent,
/// `r` refused, `n` a bad answer, `d` and `u` BFD down and up, `!` our own fault, `.`
/// nothing.
type Moment<'a> = (u64, &'a [&'a str]);

/// Plays the moments, and compares the states in which each address was announced
/// on the way, `-` for not at all.
#[track_caller]
fn check(sentence: &str, mut world: World, moments: &[Moment<'_>], expected: &[&str]) -> World {
    let vips: Vec<_> = world.model.services.iter().map(|s| s.vips[0]).collect();
    let mut trace = vec![Vec::<&str>::new(); vips.len()];
    let mut note = |world: &World| {
        for (trace, vip) in trace.iter_mut().zip(&vips) {
            let state = word(world.announced(*vip));
            let is_new = trace.last() != Some(&state);
            // It begins when it is announced.
            if is_new && !(trace.is_empty() && state == "-") {
                trace.push(state);
            }
        }
    };
    for (second, services) in moments {
        let then = world.start + Duration::from_secs(*second);
        while world.now < then {
            let next = then.min(world.now + Duration::from_secs(1));
            world.wait_until(next);
            note(&world);
        }
        for (i, letters) in services.iter().enumerate() {
            for (place, letter) in letters.chars().enumerate() {
                let found = match letter {
                    '+' => Found::Good,
                    's' => Found::Silent,
                    'r' => Found::Refused,
                    'n' => Found::SaysNo,
                    'd' => Found::BfdDown,
                    'u' => Found::BfdUp,
                    '!' => Found::OurFault,
                    _ => continue,
                };
                world.find(i, place, found);
                note(&world);
            }
        }
    }
    let found: Vec<_> = trace.iter().map(|states| states.join(" ")).collect();
    assert_eq!(found, expected, "{sentence}: {:#?}", world.doubt);
    world
}

const UP: Moment<'_> = (0, &["+++"]);
const FALL: [Moment<'_>; 2] = [(100, &["sss"]), (101, &["sss"])];

/// The farm of one service is up, falls silent, and then this.
fn after_the_fall<'a>(then: &[Moment<'a>]) -> Vec<Moment<'a>> {
    [&[UP], &FALL[..], then].concat()
}

#[test]
fn a_farm_that_falls_silent_and_comes_back_is_never_withdrawn() {
    let back: &[Moment<'_>] = &[
        (115, &["+.."]),
        (116, &["s+."]),
        (117, &["++s"]),
        (118, &["+.."]),
        (119, &["..+"]),
        (120, &[".++"]),
    ];
    let moments = after_the_fall(back);
    check(
        "one after the other",
        World::new(web()),
        &moments,
        &["up doubt up"],
    );

    let mut keeps = web();
    keeps[0].check.timing.on_down = OnDown::Keep;
    check(
        "flows are kept",
        World::new(keeps),
        &moments,
        &["up doubt up"],
    );

    let mut needs_two = web();
    needs_two[0].needs = Needs::count(2);
    // The second of them fell before anybody could know.
    check(
        "two are needed",
        World::new(needs_two),
        &moments,
        &["up - doubt up"],
    );

    let mut held = World::new(web());
    held.damping_terms.hold_down = Duration::from_secs(120);
    let until_it_is_over = [&moments[..], &[(230, &["+++"])]].concat();
    check(
        "the return waits, as any does",
        held,
        &until_it_is_over,
        &["up doubt up"],
    );
}

#[test]
fn what_ends_it_and_what_never_begins_it() {
    let doubted = |sentence, then: &[Moment<'_>], expected: &str| {
        check(
            sentence,
            World::new(web()),
            &after_the_fall(then),
            &[expected],
        )
    };
    doubted("nobody comes back", &[(162, &["..."])], "up doubt -");
    doubted("it is not over", &[(160, &["..."])], "up doubt");
    doubted("all refuse", &[(110, &["rrr"])], "up doubt -");
    doubted(
        "one refuses, the others are not heard within the window",
        &[(110, &["r.."]), (119, &["r.."])],
        "up doubt",
    );
    doubted(
        "and then they are not",
        &[(110, &["r.."]), (121, &["r.."])],
        "up doubt -",
    );
    doubted(
        "one was back for a moment",
        &[
            (110, &["+.."]),
            (111, &["+.."]),
            (112, &["s.."]),
            (113, &["s.."]),
            (125, &["..."]),
        ],
        "up doubt up doubt",
    );
    check(
        "they refuse",
        World::new(web()),
        &[UP, (100, &["rrr"]), (101, &["rrr"])],
        &["up -"],
    );
    check(
        "they answer badly",
        World::new(web()),
        &[UP, (100, &["nnn"]), (101, &["nnn"])],
        &["up -"],
    );
    check(
        "one refuses while the others fall silent",
        World::new(web()),
        &[UP, (100, &["ssr"]), (101, &["ssr"])],
        &["up -"],
    );
    check(
        "one has refused for days, and is asked rarely",
        World::new(web()),
        &[
            UP,
            (1, &["..r"]),
            (2, &["..r"]),
            (100, &["ss."]),
            (101, &["ss."]),
            (120, &["..r"]),
            (132, &["..r"]),
        ],
        &["up doubt -"],
    );
    check(
        "they have never been there",
        World::new(web()),
        &FALL,
        &[""],
    );
    check(
        "no check could be made here",
        World::new(web()),
        &[UP, (100, &["!!!"]), (101, &["!!!"])],
        &["up"],
    );
    let mut off = World::new(web());
    off.doubt_terms = None;
    check("it is turned off", off, &after_the_fall(&[]), &["up -"]);
    let mut anchored = World::new(web());
    anchored.anchor = Some(GATEWAY);
    check(
        "an anchor answers",
        anchored,
        &after_the_fall(&[(102, &["..."])]),
        &["up -"],
    );
    let mut back = World::new(web());
    back.anchor = Some(Anchor {
        returned: true,
        ..GATEWAY
    });
    check(
        "an anchor comes back, and the backends after it",
        back,
        &after_the_fall(&[(103, &["++."]), (105, &["++."])]),
        &["up doubt up"],
    );
}

#[test]
fn bfd_alone_puts_us_in_doubt_and_its_return_ends_nothing() {
    let mut by_bfd = web();
    by_bfd[0].bfd = true;
    let moments: &[Moment<'_>] = &[
        (0, &["+++"]),
        (1, &["uuu"]),
        (100, &["ddd"]),
        (101, &["sss"]),
        (110, &["uuu"]),
        (111, &["+++"]),
        (112, &["..+"]),
    ];
    check(
        "checks and BFD",
        World::new(by_bfd.clone()),
        moments,
        &["up doubt up"],
    );
    by_bfd[0].check.kind = CheckKind::Udp(Exchange::default());
    check(
        "a check that takes silence for an answer",
        World::new(by_bfd),
        &[
            (0, &["+++"]),
            (100, &["ddd"]),
            (101, &["+++"]),
            (110, &["uuu"]),
            (112, &["+++"]),
            (113, &["+++"]),
        ],
        &["up doubt up"],
    );
}

#[test]
fn services_are_in_doubt_together_and_each_comes_back_by_its_own_checks() {
    let moments: &[Moment<'_>] = &[
        (0, &["++", "+++"]),
        (100, &["ss", "sss"]),
        (101, &["ss", "sss"]),
        (110, &["..", "+.."]),
        (111, &["..", "+.."]),
        (119, &["+.", "..."]),
        (120, &["+.", "..."]),
    ];
    check(
        "the first one falls before anybody could know",
        World::new(farm()),
        moments,
        &["up - doubt up", "up doubt up"],
    );
    let gone = [&moments[..5], &[(125, &["..", "+.."])]].concat();
    check(
        "one of them is dead: after a window more",
        World::new(farm()),
        &gone,
        &["up - doubt -", "up doubt up"],
    );
    check(
        "one was dead long before, and stays withdrawn",
        World::new(farm()),
        &[
            (0, &["++", "+++"]),
            (10, &["ss", "..."]),
            (11, &["ss", "..."]),
            (100, &["ss", "sss"]),
            (101, &["ss", "sss"]),
        ],
        &["up -", "up doubt"],
    );
    let mut followers = farm();
    for backend in &mut followers[0].backends {
        backend.track = Some(Tracked::of(&web()[0], &web()[0].backends[0]));
    }
    check(
        "who follows others goes with them",
        World::new(followers),
        &[
            (0, &["..", "+++"]),
            (100, &["..", "sss"]),
            (101, &["..", ".ss"]),
            (102, &["..", "s.."]),
        ],
        &["up doubt", "up doubt"],
    );
}

#[test]
fn in_doubt_packets_go_where_they_went_until_the_checks_know() {
    let owners = |world: &World| -> Vec<bool> {
        let ring = world.desired.services[0].ring.as_ref().expect("a ring");
        ring.shares().into_iter().map(|share| share > 0).collect()
    };
    let flows = |world: &World| -> Vec<bool> {
        let plan = &world.desired.services[0];
        (0..3).map(|place| plan.keeps_flows(place)).collect()
    };
    let (yes, no) = (true, false);
    let check = |sentence, then: &[Moment<'_>], state: &str, slots: [bool; 3], keeps: [bool; 3]| {
        let moments = after_the_fall(then);
        let before = check(sentence, World::new(web()), &[UP], &["up"]);
        let world = check(sentence, World::new(web()), &moments, &[state]);
        assert_eq!(owners(&world), slots, "{sentence}");
        assert_eq!(flows(&world), keeps, "{sentence}");
        if slots == [yes; 3] {
            let rings = [&before, &world].map(|world| &world.desired.services[0].ring);
            assert_eq!(rings[0], rings[1], "{sentence}");
        }
    };
    check("all are silent", &[], "up doubt", [yes; 3], [yes; 3]);
    check(
        "one is reviving",
        &[(110, &["+.."])],
        "up doubt",
        [yes; 3],
        [yes; 3],
    );
    let first = &[(110, &["+.."][..]), (111, &["+.."])];
    check(
        "one is up: new flows go there",
        first,
        "up doubt up",
        [yes, no, no],
        [yes; 3],
    );
    let later = [&first[..], &[(122, &["+.."])]].concat();
    check(
        "the others are dead",
        &later,
        "up doubt up",
        [yes, no, no],
        [yes, no, no],
    );
    check(
        "all are dead, and nobody is left",
        &[(170, &["..."])],
        "up doubt -",
        [yes; 3],
        [yes; 3],
    );
    let refused = &[(110, &["rrs"][..])];
    check(
        "two refuse",
        refused,
        "up doubt",
        [no, no, yes],
        [no, no, yes],
    );

    let mut off = World::new(web());
    off.doubt_terms = None;
    let one_by_one: &[Moment<'_>] = &[
        UP,
        (100, &["s.."]),
        (101, &["sr."]),
        (102, &[".rn"]),
        (103, &["..n"]),
    ];
    let off = self::check(
        "nobody is left, and nobody doubts",
        off,
        one_by_one,
        &["up -"],
    );
    assert_eq!(owners(&off), [yes; 3], "not the last one alone");
    assert_eq!(flows(&off), [yes; 3]);
}
