//! What peers are told by rules: attributes per peer, prefix and state.

use ipnet::IpNet;
use vipd::config::{Attributes, NextHop};
use vipd_control::{announcement::State, model::Vip};

use crate::{accept, edited};

use State::{Degraded, Disabled, Doubt, Down, Maintenance, Up};

/// An aggregate for the rules, and an eBGP peer with attributes of its own.
const BEFORE: &str = r#"
[[bgp.aggregate]]
prefix = "198.51.100.0/24"

"#;

const WEB: &str = "198.51.100.10/32";
const DNS: &str = "198.51.100.53/32";
const DNS6: &str = "2001:db8:100::53/128";
const AGGREGATE: &str = "198.51.100.0/24";

/// Each line: a peer, a prefix, its state, and what the peer is told. `ext` is
/// in another AS; `int` in ours, takes IPv4 only, has local preference 200.
#[track_caller]
fn check(sentence: &str, rules: &str, expected: &[(&str, &str, State, &str)]) {
    let rules = format!("{BEFORE}{rules}\n[[service]]\nname = \"web\"");
    let (config, _) = accept(&edited(&[("[[service]]\nname = \"web\"", &rules)]));
    let bgp = config.bgp.expect("there is BGP");
    for (peer, prefix, state, wanted) in expected {
        let told = bgp.peer(peer).expect("there is such a peer");
        let prefix: IpNet = prefix.parse().expect("a prefix");
        let attributes = told.attributes(&told.case(Vip::from(prefix), *state));
        let found = attributes.map_or_else(|| "nothing".to_owned(), |told| words(&told));
        assert_eq!(&found, wanted, "{sentence}: {peer}, {prefix}, {state:?}");
    }
}

/// Only what is there.
fn words(told: &Attributes) -> String {
    let mut words = Vec::new();
    words.extend(told.med.map(|med| format!("med {med}")));
    words.extend(told.local_preference.map(|p| format!("pref {p}")));
    words.extend((told.prepend > 0).then(|| format!("prepend {}", told.prepend)));
    words.extend(told.as_path.iter().map(|asn| format!("behind {asn}")));
    words.extend(told.communities.iter().map(ToString::to_string));
    if let NextHop::Given(address) = told.next_hop {
        words.push(format!("via {address}"));
    }
    words.join(", ")
}

#[test]
fn without_rules_a_peer_is_told_its_own_attributes() {
    check(
        "up",
        "",
        &[
            ("ext", WEB, Up, ""),
            ("ext", AGGREGATE, Up, ""),
            ("ext", DNS6, Up, "via 2001:db8::11"),
            ("int", WEB, Up, "pref 200"),
            ("int", DNS6, Up, "nothing"),
        ],
    );
    check(
        "maintenance is a graceful shutdown",
        "",
        &[
            ("ext", WEB, Maintenance, "graceful-shutdown"),
            ("int", WEB, Maintenance, "pref 0, graceful-shutdown"),
        ],
    );
    check(
        "down is withdrawn",
        "",
        &[
            ("ext", WEB, Down, "nothing"),
            ("int", AGGREGATE, Down, "nothing"),
        ],
    );
}

#[test]
fn a_rule_is_for_what_it_names() {
    check(
        "a peer",
        "[[bgp.rule]]\npeers = [\"ext\"]\nmed = 7",
        &[("ext", WEB, Up, "med 7"), ("int", WEB, Up, "pref 200")],
    );
    check(
        "a prefix, equal or around it",
        "[[bgp.rule]]\nprefixes = [\"198.51.100.0/27\", \"2001:db8:100::53\"]\nmed = 7",
        &[
            ("ext", WEB, Up, "med 7"),
            ("ext", DNS, Up, ""),
            ("ext", AGGREGATE, Up, ""),
            ("ext", DNS6, Up, "med 7, via 2001:db8::11"),
        ],
    );
    check(
        "a service",
        "[[bgp.rule]]\nservices = [\"dns\"]\nmed = 7",
        &[
            ("ext", WEB, Up, ""),
            ("ext", DNS, Up, "med 7"),
            ("ext", DNS6, Up, "med 7, via 2001:db8::11"),
            ("ext", AGGREGATE, Up, ""),
        ],
    );
    check(
        "aggregates, or none of them",
        "[[bgp.rule]]\naggregate = true\nmed = 7\n\
         [[bgp.rule]]\naggregate = false\nmed = 8",
        &[("ext", WEB, Up, "med 8"), ("ext", AGGREGATE, Up, "med 7")],
    );
    check(
        "a state",
        "[[bgp.rule]]\nstates = [\"up\"]\nmed = 7",
        &[
            ("ext", WEB, Up, "med 7"),
            ("ext", WEB, Maintenance, "graceful-shutdown"),
        ],
    );
    check(
        "all of it together",
        "[[bgp.rule]]\nprefixes = [\"198.51.100.0/24\"]\nservices = [\"dns\"]\nmed = 7",
        &[
            ("ext", WEB, Up, ""),
            ("ext", DNS, Up, "med 7"),
            ("ext", DNS6, Up, "via 2001:db8::11"),
        ],
    );
}

#[test]
fn a_rule_changes_what_it_names_and_later_ones_win() {
    check(
        "everything",
        "[[bgp.rule]]\nmed = 7\nprepend = 2\nlocal_preference = 300\nas_path = [64510, 64511]\n\
         communities = [\"soo:64500:1\", \"64500:1:2\", \"64500:5\", \"64500:5\"]\n\
         next_hop_ipv4 = \"192.0.2.99\"",
        &[
            (
                "ext",
                WEB,
                Up,
                "med 7, prepend 2, behind 64510, behind 64511, 64500:5, soo:64500:1, 64500:1:2, \
                 via 192.0.2.99",
            ),
            (
                "int",
                WEB,
                Up,
                "med 7, pref 300, behind 64510, behind 64511, 64500:5, soo:64500:1, 64500:1:2, \
                 via 192.0.2.99",
            ),
        ],
    );
    check(
        "the later one wins, what it does not name stays",
        "[[bgp.rule]]\nmed = 7\nprepend = 2\n[[bgp.rule]]\nmed = 8\n[[bgp.rule]]\nmed_add = 100",
        &[("ext", WEB, Up, "med 108, prepend 2")],
    );
    check(
        "a metric never wraps",
        "[[bgp.rule]]\nmed = 4294967295\n[[bgp.rule]]\nmed_add = 900",
        &[("ext", WEB, Up, "med 4294967295")],
    );
    check(
        "communities are added or replaced",
        "[[bgp.rule]]\ncommunities = [\"64500:1\"]\n\
         [[bgp.rule]]\nservices = [\"dns\"]\ncommunities_set = [\"64500:2\"]\n\
         [[bgp.rule]]\ncommunities = [\"64500:3\"]",
        &[
            ("ext", WEB, Up, "64500:1, 64500:3"),
            ("ext", DNS, Up, "64500:2, 64500:3"),
        ],
    );
    check(
        "only one service for a peer",
        "[[bgp.rule]]\npeers = [\"int\"]\nannounce = false\n\
         [[bgp.rule]]\npeers = [\"int\"]\nservices = [\"web\"]\nannounce = true",
        &[
            ("int", WEB, Up, "pref 200"),
            ("int", DNS, Up, "nothing"),
            ("ext", DNS, Up, ""),
            ("int", WEB, Maintenance, "pref 0, graceful-shutdown"),
            ("int", WEB, Down, "nothing"),
        ],
    );
}

#[test]
fn only_a_rule_that_names_a_state_stands_against_what_it_means() {
    let fails_open = "[[bgp.rule]]\nmed = 100\n\
         [[bgp.rule]]\nstates = [\"down\"]\nannounce = true\nmed_add = 900\n";
    check(
        "worse instead of withdrawn",
        fails_open,
        &[
            ("ext", WEB, Up, "med 100"),
            ("ext", WEB, Down, "med 1000"),
            ("int", WEB, Down, "med 1000, pref 200"),
        ],
    );
    check(
        "a later rule takes it away from one, and gives it back",
        &format!(
            "{fails_open}[[bgp.rule]]\npeers = [\"int\"]\nannounce = false\n\
             [[bgp.rule]]\nservices = [\"web\"]\nannounce = true"
        ),
        &[
            ("ext", DNS, Down, "med 1000"),
            ("int", DNS, Down, "nothing"),
            ("int", WEB, Down, "med 1000, pref 200"),
        ],
    );
    check(
        "what is said of all states does not end a graceful shutdown",
        "[[bgp.rule]]\nlocal_preference = 300\ncommunities_set = [\"64500:1\"]",
        &[
            ("int", WEB, Up, "pref 300, 64500:1"),
            (
                "int",
                WEB,
                Maintenance,
                "pref 0, 64500:1, graceful-shutdown",
            ),
        ],
    );
    check(
        "what is said of maintenance does",
        "[[bgp.rule]]\nstates = [\"maintenance\"]\nlocal_preference = 50\n\
         communities_set = [\"64500:1\"]",
        &[("int", WEB, Maintenance, "pref 50, 64500:1")],
    );
    let named = "[[bgp.rule]]\nstates = [\"maintenance\"]\nlocal_preference = 50\n\
         communities_set = [\"64500:1\"]\n";
    let others = "[[bgp.rule]]\nlocal_preference = 300\ncommunities_set = [\"64500:2\"]\n\
         communities = [\"64500:3\"]\n";
    check(
        "and is not undone by a later rule that does not name it",
        &format!("{named}{others}"),
        &[
            ("int", WEB, Up, "pref 300, 64500:2, 64500:3"),
            ("int", WEB, Maintenance, "pref 50, 64500:1, 64500:3"),
            ("ext", WEB, Maintenance, "64500:1, 64500:3"),
        ],
    );
    check(
        "nor by an earlier one",
        &format!("{others}{named}"),
        &[("int", WEB, Maintenance, "pref 50, 64500:1")],
    );
    check(
        "a later rule that names it wins",
        &format!("{named}{others}{}", named.replace("= 50", "= 60")),
        &[("int", WEB, Maintenance, "pref 60, 64500:1")],
    );
    check(
        "each is named by itself",
        "[[bgp.rule]]\nstates = [\"maintenance\"]\nlocal_preference = 50\n\
         [[bgp.rule]]\ncommunities_set = [\"64500:2\"]",
        &[(
            "int",
            WEB,
            Maintenance,
            "pref 50, 64500:2, graceful-shutdown",
        )],
    );
    check(
        "nothing at all is announced in maintenance",
        "[[bgp.rule]]\nstates = [\"maintenance\"]\nannounce = false",
        &[("ext", WEB, Up, ""), ("ext", WEB, Maintenance, "nothing")],
    );
}

/// The first block of TOML in `docs/bgp.md`, in a configuration that it fits.
fn documented() -> String {
    let text = include_str!("../../../docs/bgp.md");
    let (_, rules) = text.split_once("```toml\n").expect("a block of TOML");
    let (rules, _) = rules.split_once("```").expect("its end");
    let rules = format!("{BEFORE}{rules}\n[[service]]\nname = \"one\"");
    edited(&[
        ("[[service]]\nname = \"web\"", &rules),
        ("name = \"dns\"", "name = \"two\""),
        ("name = \"ext\"", "name = \"provider\""),
    ])
}

#[test]
fn the_documented_rules_do_what_is_said_of_them() {
    let (config, findings) = accept(&documented());
    assert!(findings.is_empty(), "{findings:?}");
    let bgp = config.bgp.expect("there is BGP");
    let told = |peer: &str, prefix: &str, state| {
        let peer = bgp.peer(peer).expect("there is such a peer");
        let prefix: IpNet = prefix.parse().expect("a prefix");
        peer.attributes(&peer.case(Vip::from(prefix), state))
    };
    for state in [Up, Maintenance, Down] {
        for prefix in [WEB, DNS, DNS6] {
            assert_eq!(
                told("provider", prefix, state),
                None,
                "{prefix} in {state:?}"
            );
        }
        let aggregate = told("provider", AGGREGATE, state).expect("the provider takes it");
        let words = words(&aggregate);
        for community in ["64501:120", "rt:64500:100"] {
            assert!(words.contains(community), "{state:?}: {words}");
        }
    }
    let med = |prefix, state| told("int", prefix, state).expect("it is announced").med;
    assert_eq!((med(WEB, Up), med(WEB, Down)), (Some(100), Some(1000)));
    assert_eq!((med(DNS, Up), med(DNS, Down)), (Some(101), Some(1001)));
}

#[test]
fn steps_rotate_over_the_listed_prefixes() {
    let rules = |start: u32| {
        format!(
            "[[bgp.rule]]\nprefixes = [\"2001:db8:100::53\", \"198.51.100.53\", \
             \"198.51.100.10\"]\nmed = 100\nmed_step = 1\nmed_start = {start}\n\
             [[bgp.rule]]\nstates = [\"down\"]\nannounce = true\nmed_add = 900\n\
             [[bgp.rule]]\nstates = [\"disabled\"]\nannounce = true\nmed_add = 400"
        )
    };
    for (start, [dns6, dns, web]) in [
        (0, [100, 101, 102]),
        (1, [102, 100, 101]),
        (2, [101, 102, 100]),
    ] {
        let med = |med: u32| format!("med {med}");
        check(
            "the first of them has none, the next one step, and so on",
            &rules(start),
            &[
                ("ext", DNS6, Up, &format!("med {dns6}, via 2001:db8::11")),
                ("ext", DNS, Up, &med(dns)),
                ("ext", WEB, Up, &med(web)),
                ("ext", WEB, Down, &med(web + 900)),
                ("ext", WEB, Disabled, &med(web + 400)),
                ("ext", AGGREGATE, Up, ""),
            ],
        );
    }
}

#[test]
fn each_state_means_something_by_itself() {
    check(
        "without rules",
        "",
        &[
            ("int", WEB, Degraded, "pref 200"),
            ("int", WEB, Doubt, "pref 0, graceful-shutdown"),
            ("int", WEB, Disabled, "nothing"),
        ],
    );
    check(
        "rules that name it have the last word, and those that do not have none",
        "[[bgp.rule]]\nstates = [\"degraded\"]\nmed = 50\n\
         [[bgp.rule]]\nstates = [\"doubt\"]\nlocal_preference = 20\n\
         [[bgp.rule]]\nstates = [\"disabled\"]\nannounce = true\n\
         [[bgp.rule]]\npeers = [\"int\"]\nlocal_preference = 70",
        &[
            ("int", WEB, Degraded, "med 50, pref 70"),
            ("int", WEB, Doubt, "pref 20, graceful-shutdown"),
            ("int", WEB, Disabled, "pref 70"),
            ("ext", WEB, Down, "nothing"),
        ],
    );
}
