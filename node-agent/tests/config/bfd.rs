//! BFD for a peer: its forms, what it means, and what is refused.

use std::{net::IpAddr, time::Duration};

use vipd::config::{Config, PeerBfd, Severity};
use vipd_bfd::{Hops, Method};

use crate::{accept, edited};

/// The good file whose first peer has these lines more at its end.
fn with(lines: &str) -> String {
    let source = "next_hop_ipv6 = \"2001:db8::11\"";
    edited(&[(source, &format!("{source}\n{lines}"))])
}

/// What is understood of it.
fn bfd(lines: &str) -> Option<PeerBfd> {
    let (bfd, warnings) = bfd_with_warnings(lines);
    assert_eq!(warnings, [""; 0], "{lines}");
    bfd
}

/// What is understood of it, and what is warned of.
fn bfd_with_warnings(lines: &str) -> (Option<PeerBfd>, Vec<String>) {
    let (config, warnings) = accept(&with(lines));
    let warnings = warnings.iter().map(ToString::to_string);
    let bgp = config.bgp.expect("there is BGP");
    assert_eq!(bgp.peers[1].bfd, None, "the other peer has none");
    (bgp.peers[0].bfd.clone(), warnings.collect())
}

#[test]
fn without_a_word_or_with_false_there_is_no_bfd() {
    assert_eq!(bfd(""), None);
    assert_eq!(bfd("bfd = false"), None);
}

#[test]
fn true_and_an_empty_table_take_all_defaults() {
    let defaults = bfd("bfd = true").expect("there is BFD");
    assert_eq!(bfd("[bgp.peer.bfd]"), Some(defaults.clone()));
    let timing = defaults.session.timing;
    assert_eq!(timing.desired_min_tx(), Duration::from_millis(300));
    assert_eq!(timing.required_min_rx(), Duration::from_millis(300));
    assert_eq!(timing.multiplier().get(), 3);
    assert_eq!(defaults.session.key, None);
    assert_eq!(defaults.session.hops, Hops::Single);
    assert!(!defaults.strict && !defaults.passive);
}

#[test]
fn a_peer_over_several_hops_has_bfd_over_several_hops_unless_told_otherwise() {
    let table = [
        ("multihop = 1\nbfd = true", Hops::Single, 1),
        ("multihop = 2\nbfd = true", Hops::Multi, 1),
        (
            "multihop = 2\n[bgp.peer.bfd]\nmultihop = false",
            Hops::Single,
            1,
        ),
        ("[bgp.peer.bfd]\nmultihop = true", Hops::Multi, 1),
        ("ttl_security = 1\nbfd = true", Hops::Single, 1),
        ("ttl_security = 2\nbfd = true", Hops::Multi, 1),
        (
            "[bgp.peer.bfd]\nmultihop = true\nmin_ttl = 254",
            Hops::Multi,
            254,
        ),
    ];
    for (lines, hops, min_ttl) in table {
        let bfd = bfd_with_warnings(lines).0.expect("there is BFD");
        assert_eq!(
            (bfd.session.hops, bfd.session.min_ttl),
            (hops, min_ttl),
            "{lines}"
        );
    }
}

#[test]
fn what_anybody_in_the_internet_could_take_down_is_warned_of() {
    let auth = "auth = \"keyed-sha1\"\nkey_file = \"/etc/key\"";
    let table = [
        ("on the link", "bfd = true".to_owned(), false),
        ("several hops", "multihop = 3\nbfd = true".to_owned(), true),
        (
            "from 33 hops away",
            "multihop = 3\n[bgp.peer.bfd]\nmin_ttl = 222".to_owned(),
            true,
        ),
        (
            "from 32 hops away",
            "multihop = 3\n[bgp.peer.bfd]\nmin_ttl = 223".to_owned(),
            false,
        ),
        (
            "authenticated",
            format!("multihop = 3\n[bgp.peer.bfd]\n{auth}"),
            false,
        ),
    ];
    for (sentence, lines, warned) in table {
        let (_, warnings) = bfd_with_warnings(&lines);
        let found = warnings.iter().any(|it| it.contains("takes BGP down"));
        assert_eq!(found, warned, "{sentence}: {warnings:?}");
    }
}

#[test]
fn a_key_has_a_method_a_number_and_a_file() {
    let lines = "[bgp.peer.bfd]\nauth = \"keyed-sha1\"\nkey_id = 9\nkey_file = \"/etc/key\"";
    let key = bfd(lines)
        .and_then(|bfd| bfd.session.key)
        .expect("there is a key");
    assert_eq!((key.method, key.id), (Method::KeyedSha1, 9));
    assert_eq!(key.file.path().to_str(), Some("/etc/key"));
}

#[test]
fn the_socket_and_the_restart_time_have_defaults() {
    let (config, _) = accept(&with(""));
    assert_eq!(config.bfd_socket.to_str(), Some("/run/vipd/bfd.sock"));
    let bgp = config.bgp.expect("there is BGP");
    assert_eq!(bgp.restart_time, Duration::from_secs(120));
    assert_eq!(bgp.peers[0].address.ip(), IpAddr::from([192, 0, 2, 1]));
}

#[test]
fn what_bfd_cannot_do_is_refused() {
    let table = [
        (
            "[bgp.peer.bfd]\nmin_tx = \"9ms\"",
            "follow each other too closely",
        ),
        (
            "[bgp.peer.bfd]\nmin_rx = \"0s\"",
            "follow each other too closely",
        ),
        ("[bgp.peer.bfd]\nmin_tx = \"2h\"", "is no interval of BFD"),
        ("[bgp.peer.bfd]\nmultiplier = 0", "0 is out of range"),
        (
            "[bgp.peer.bfd]\nauth = \"keyed-sha1\"",
            "authenticated without a key",
        ),
        ("[bgp.peer.bfd]\nkey_file = \"k\"", "no `auth` that uses it"),
        (
            "[bgp.peer.bfd]\nauth = \"sha1\"",
            "`sha1` is not known here",
        ),
        ("[bgp.peer.bfd]\nmax_tx = \"1s\"", "unknown key `max_tx`"),
        ("bfd = 3", "expected a table"),
    ];
    for (lines, words) in table {
        let error = Config::parse(&with(lines), "vipd.toml").expect_err(lines);
        let mut errors = error.findings.iter();
        let found = errors.find(|finding| finding.to_string().contains(words));
        let found = found.unwrap_or_else(|| panic!("no {words:?} in {error}"));
        assert_eq!(found.severity, Severity::Error, "{lines}");
        assert!(
            found.position().is_some() && found.help.is_some(),
            "{lines}"
        );
    }
}
