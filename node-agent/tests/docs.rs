//! The tables of `docs/`: they name what the program has, in its own words.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use vipd::{
    events::Latency,
    metrics,
    status::{
        Aggregate, Backend, Bfd, Bound, Check, CheckPhases, Checks, Damping, Dataplane, Hook,
        Interface, MapUse, Peer, Phases, Service, Sessions, SessionsState, Status, Vip,
    },
};
use vipd_abi::{Action, DecapVerdict, LAYOUT, Verdict};

#[test]
fn every_verdict_is_explained_in_its_own_words() {
    let action = |verdict: &Verdict| match verdict.action() {
        Action::Pass => "pass",
        Action::Drop => "drop",
        Action::Transmit => "transmit",
        Action::Redirect => "redirect",
    };
    let wanted: Vec<Row> = Verdict::ALL
        .iter()
        .map(|verdict| {
            [
                format!("`{}`", verdict.label()),
                action(verdict).to_owned(),
                verdict.meaning().trim().to_owned(),
            ]
            .into()
        })
        .collect();
    check("verdicts.md", 0, 3, &wanted);
}

#[test]
fn every_verdict_of_the_decapsulator_is_explained() {
    let wanted: Vec<Row> = DecapVerdict::ALL
        .iter()
        .map(|verdict| vec![format!("`{}`", verdict.label())])
        .collect();
    check("verdicts.md", 1, 1, &wanted);
}

/// A session that was down once.
fn bfd() -> Bfd {
    Bfd {
        state: "Up".into(),
        why: String::new(),
        for_seconds: Some(9.0),
        transmit_interval_seconds: Some(0.1),
        detection_time_seconds: Some(0.3),
        transmit_gap_seconds: Some(0.104),
        downs: 1,
        last_down: None,
    }
}

#[test]
fn every_metric_is_explained_with_its_type_and_labels() {
    check(
        "metrics.md",
        0,
        4,
        &families(&metrics::render(status(), false)),
    );
}

#[test]
fn every_metric_is_in_the_openmetrics_text_too() {
    let page = metrics::render(status(), true);
    for row in families(&metrics::render(status(), false)) {
        let name = row[0].trim_matches('`');
        let has_it = page.lines().any(|line| {
            let name = match row[1].as_str() {
                "histogram" => format!("{name}_bucket"),
                _ => name.to_owned(),
            };
            line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{"))
        });
        assert!(has_it, "no {name} in {page}");
    }
}

#[test]
fn alerts_ask_for_metrics_that_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = fs::read_to_string(path).expect("it is there");
    let (_, alerts) = text.split_once("\n## Worth an alert\n").expect("its title");
    let alerts = tables(alerts).swap_remove(0);
    let page = metrics::render(status(), false);
    let series = series(&page);
    let names: BTreeSet<_> = series
        .iter()
        .map(|series| series.split('{').next().unwrap_or_default())
        .collect();
    for alert in &alerts {
        let words = alert[0].split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let asked: Vec<_> = words.filter(|word| word.starts_with("vipd_")).collect();
        assert!(!asked.is_empty(), "{alert:?} asks for nothing");
        for name in asked {
            assert!(names.contains(name), "there is no {name}: {alert:?}");
        }
    }
}

#[test]
fn the_place_of_the_pins_is_told() {
    let text = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/operations.md"
    ));
    let text = text.expect("it is there");
    let place = format!("/sys/fs/bpf/vipd/{LAYOUT}/");
    assert!(text.contains(&place), "docs/operations.md lacks {place}");
}

#[test]
fn whatever_happens_the_page_has_the_series_of_the_configuration() {
    type Change = fn(&mut Status);
    let changes: [(&str, Change); 13] = [
        ("an address is down and announced", |status| {
            status.vips[0].state = "down".into();
        }),
        ("an aggregate is withdrawn", |status| {
            status.aggregates[0].state = "withdrawn".into();
        }),
        ("a session was in trouble", |status| {
            let peer = &mut status.peers[0];
            (peer.last_error, peer.last_error_time_seconds) =
                (Some("no answer".into()), Some(1_800_000_001.0));
        }),
        ("a backend is down", |status| {
            let backend = &mut status.services[0].backends[0];
            (backend.state, backend.standing) = ("down".into(), "down".into());
        }),
        ("nobody owns a slot", |status| {
            status.services[0].ring_fingerprint = None;
        }),
        ("others own the slots", |status| {
            status.services[0].ring_fingerprint = Some("fedcba9876543210".into());
        }),
        ("a service leaves", |status| {
            let mut gone = status.services[0].clone();
            (gone.name, gone.leaving) = ("web (leaving 7)".into(), true);
            status.services.push(gone);
        }),
        ("a session is being opened", |status| {
            status.peers[0].state = "OpenSent".into();
        }),
        ("a session has failed", |status| {
            status.peers[0].state = "failed".into();
        }),
        ("BFD goes down", |status| {
            let bfd = status.peers[0].bfd.as_mut().expect("it has BFD");
            (bfd.state, bfd.downs) = ("Down".into(), 2);
        }),
        ("the BFD process is gone", |status| {
            status.bfd_unreachable = Some("connection refused".into());
        }),
        ("an interface is gone", |status| {
            let dataplane = status.dataplane.as_mut().expect("there is one");
            dataplane.interfaces[0].mode = "gone".into();
        }),
        ("it was started at another time", |status| {
            (status.uptime_seconds, status.start_time_seconds) = (0.0, 1_900_000_000.0);
        }),
    ];
    let before = metrics::render(status(), false);
    for (sentence, change) in changes {
        let mut status = status();
        change(&mut status);
        let page = metrics::render(status, false);
        let added = &series(&page) - &series(&before);
        let removed = &series(&before) - &series(&page);
        assert!(
            added.is_empty() && removed.is_empty(),
            "{sentence}: added {added:#?}, removed {removed:#?}"
        );
        assert!(
            page != before || sentence == "a service leaves",
            "{sentence}: and is not seen"
        );
    }
}

#[test]
fn a_state_is_1_and_all_others_are_0() {
    let page = metrics::render(status(), false);
    for line in [
        r#"vipd_backend_state{service="web",backend="b1",state="up"} 1"#,
        r#"vipd_backend_state{service="web",backend="b1",state="going down"} 0"#,
        r#"vipd_backend_standing{service="web",backend="b1",standing="up"} 1"#,
        r#"vipd_backend_standing{service="web",backend="b1",standing="failing"} 0"#,
        r#"vipd_bgp_sessions_state{state="healthy"} 1"#,
        r#"vipd_bgp_sessions_state{state="isolated"} 0"#,
        r#"vipd_bgp_session_last_error_time_seconds{peer="tor1"} 0"#,
        r#"vipd_bgp_session_state{peer="tor1",state="Established"} 1"#,
        r#"vipd_bgp_session_state{peer="tor1",state="failed"} 0"#,
        "vipd_bfd_process_reached 1",
        r#"vipd_bfd_session_state{peer="tor1",state="Up"} 1"#,
        r#"vipd_bfd_session_state{peer="tor1",state="unknown"} 0"#,
        r#"vipd_bfd_session_up{peer="tor1"} 1"#,
        r#"vipd_bfd_session_downs_total{peer="tor1"} 1"#,
        r#"vipd_bfd_transmit_gap_seconds{peer="tor1"} 0.104"#,
        r#"vipd_xdp_state{interface="eth0",state="native"} 1"#,
        r#"vipd_xdp_state{interface="eth0",state="another program"} 0"#,
        // 0x456789abcdef.
        r#"vipd_service_ring_fingerprint{service="web"} 76310993685999"#,
        "vipd_start_time_seconds 1800000000.25",
        r#"vipd_overrides{will="drained"} 0"#,
        r#"vipd_decision_to_update_seconds_bucket{le="0.001",change="worse"} 2"#,
        r#"vipd_decision_to_update_seconds_bucket{le="+Inf",change="worse"} 3"#,
    ] {
        let has_it = page
            .lines()
            .any(|found| found.trim_end_matches(".0") == line);
        assert!(has_it, "no {line} in\n{page}");
    }
}

#[test]
fn bfd_that_nobody_wants_is_not_on_the_page_and_unknown_is_not_up() {
    let mut nobody = status();
    nobody.peers[0].bfd = None;
    let page = metrics::render(nobody, false);
    assert!(!page.contains("vipd_bfd"), "{page}");

    let mut gone = status();
    gone.bfd_unreachable = Some("connection refused".into());
    gone.peers[0].bfd = Some(Bfd::unknown("the process is not reached".into(), 1));
    let page = metrics::render(gone, false);
    for line in [
        "vipd_bfd_process_reached 0",
        r#"vipd_bfd_session_state{peer="tor1",state="unknown"} 1"#,
        r#"vipd_bfd_session_up{peer="tor1"} 0"#,
        r#"vipd_bfd_session_downs_total{peer="tor1"} 1"#,
    ] {
        let has_it = page
            .lines()
            .any(|found| found.trim_end_matches(".0") == line);
        assert!(has_it, "no {line} in\n{page}");
    }
    assert!(!page.contains("vipd_bfd_transmit_gap_seconds{"), "{page}");
}

#[test]
fn the_status_has_a_column_for_bfd_where_a_peer_has_it_and_says_once_what_helps() {
    let shown = |change: &dyn Fn(&mut Status)| {
        let mut status = status();
        change(&mut status);
        let text = status.render();
        let mut lines = text.lines().map(str::to_owned);
        let peers: Vec<_> = lines
            .by_ref()
            .skip_while(|line| !line.starts_with("BGP PEER"))
            .collect();
        (text, peers)
    };
    let (text, peers) = shown(&|_| ());
    let column = |line: &str, word: &str| line.find(word).expect(word);
    assert_eq!(column(&peers[0], "BFD"), column(&peers[1], "Up"), "{text}");
    let routes = column(&peers[0], "ROUTES");
    assert_eq!(routes, column(&peers[1], "1 IPv4 unicast"), "{text}");

    let (text, peers) = shown(&|status| {
        let why = "the BFD process is not reached".to_owned();
        status.peers[0].bfd = Some(Bfd::unknown(why, 1));
        status.bfd_unreachable = Some("start it".into());
    });
    assert_eq!(column(&peers[0], "BFD"), column(&peers[1], "unknown"));
    let why = "  BFD is unknown: the BFD process is not reached";
    assert_eq!(peers[2], why, "{text}");
    assert_eq!(text.matches("\n! start it\n").count(), 1, "{text}");

    let (text, peers) = shown(&|status| {
        status.peers[0].bfd = None;
        status.services[0].backends[0].bfd = None;
    });
    assert!(!text.contains("BFD"), "{text}");
    let routes = column(&peers[0], "ROUTES");
    assert_eq!(routes, column(&peers[1], "1 IPv4 unicast"), "{text}");
}

#[test]
fn the_status_tells_the_penalty_of_what_has_flapped_and_of_nothing_else() {
    let rows = |change: &dyn Fn(&mut Status)| {
        let mut status = status();
        status.vips[0].reason = "web: 1 of 1 backends healthy".into();
        change(&mut status);
        let text = status.render();
        ["198.51.100.10 ", "198.51.100.0/24 "].map(|prefix| {
            let mut lines = text.lines();
            let row = lines.find(|line| line.starts_with(prefix));
            let row = row.unwrap_or_else(|| panic!("{prefix} has no row in\n{text}"));
            let words = row.split_whitespace().skip(2);
            words.collect::<Vec<_>>().join(" ")
        })
    };
    let (vip, aggregate) = ("web: 1 of 1 backends healthy", "1 alive inside, 1 wanted");
    assert_eq!(
        rows(&|_| ()),
        [format!("{vip}; bound on lo by vipd"), aggregate.to_owned()]
    );
    let flapped = |status: &mut Status| {
        status.vips[0].damping.penalty = 1640.4;
        let damping = &mut status.aggregates[0].damping;
        (damping.penalty, damping.suppressed) = (2400.0, true);
    };
    assert_eq!(
        rows(&flapped),
        [
            format!(
                "{vip}; flap penalty 1640: routers that damp ignore it from 2000 on; bound on lo \
                 by vipd"
            ),
            format!(
                "{aggregate}; flap penalty 2400: routers that damp ignore it until that is below \
                 750"
            ),
        ]
    );
}

/// What stands before the values.
fn series(page: &str) -> BTreeSet<&str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect()
}

type Row = Vec<String>;

/// Compares the first columns of a table of a document with what is wanted.
#[track_caller]
fn check(document: &str, table: usize, columns: usize, wanted: &[Row]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(document);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let found: Vec<Row> = tables(&text)
        .get(table)
        .unwrap_or_else(|| panic!("docs/{document} has no table {table}"))
        .iter()
        .map(|row| row.iter().take(columns).cloned().collect())
        .collect();
    let rows = |rows: &[Row]| -> BTreeSet<String> {
        rows.iter()
            .map(|row| format!("| {} |", row.join(" | ")))
            .collect()
    };
    let (wanted_rows, found_rows) = (rows(wanted), rows(&found));
    assert!(
        found == wanted,
        "docs/{document} lacks {:#?} and has too much {:#?}; if both are empty, the order is not \
         the program's",
        &wanted_rows - &found_rows,
        &found_rows - &wanted_rows,
    );
}

/// The tables of a document, each without its head.
fn tables(text: &str) -> Vec<Vec<Row>> {
    let mut tables = Vec::new();
    let mut before = "";
    for line in text.lines() {
        if line.starts_with('|') {
            if !before.starts_with('|') {
                tables.push(Vec::new());
            }
            if let Some(table) = tables.last_mut() {
                table.push(cells(line));
            }
        }
        before = line;
    }
    // The head and the line below it.
    tables.iter().map(|table| table[2..].to_vec()).collect()
}

fn cells(line: &str) -> Row {
    let inside = line.trim().trim_start_matches('|').trim_end_matches('|');
    inside
        .split(" |")
        .map(|cell| cell.trim().to_owned())
        .collect()
}

/// The families of a page in the text format 0.0.4: name, type, labels, help.
fn families(page: &str) -> Vec<Row> {
    let mut helps = BTreeMap::new();
    let mut families: Vec<(String, String)> = Vec::new();
    let mut labels: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in page.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                helps.insert(name.to_owned(), help.to_owned());
            }
            ["#", "TYPE", name, kind] => families.push((name.to_owned(), kind.to_owned())),
            _ => {
                let (name, rest) = line.split_once(['{', ' ']).unwrap_or((line, ""));
                // A histogram has no value of its own name.
                let name = name.strip_suffix("_count").unwrap_or(name);
                let names = rest.split_once('}').map_or("", |(labels, _)| labels);
                let names = names.split("\",").filter_map(|label| label.split_once('='));
                labels.insert(name, names.map(|(name, _)| format!("`{name}`")).collect());
            }
        }
    }
    let row = |(name, kind): (String, String)| {
        let labels = labels
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} has no value in {page}"));
        vec![
            format!("`{name}`"),
            kind,
            labels.join(", "),
            helps[&name].clone(),
        ]
    };
    families.into_iter().map(row).collect()
}

/// A node with one of everything, so that each family has a value.
fn status() -> Status {
    let address = |text: &str| text.parse().expect("an address");
    Status {
        node: "lb1".into(),
        version: "0.1.0".into(),
        uptime_seconds: 1.5,
        start_time_seconds: 1_800_000_000.25,
        config: "/etc/vipd/vipd.toml".into(),
        maintenance: true,
        arrivals: None,
        checks: Checks::default(),
        overrides: Vec::new(),
        decision_to_update: vec![Latency {
            change: "worse".into(),
            count: 3,
            sum_seconds: 2.5,
            buckets: vec![(0.001, 2)],
        }],
        dataplane: Some(Dataplane {
            pin_path: "/sys/fs/bpf/vipd".into(),
            interfaces: vec![Interface {
                name: "eth0".into(),
                mode: "native".into(),
            }],
            fault: None,
            faults: BTreeMap::new(),
            maps: vec![MapUse {
                map: "ring".into(),
                used: 256,
                capacity: 4096,
            }],
            verdicts: [("forwarded".into(), 7)].into(),
        }),
        vips: vec![Vip {
            address: "198.51.100.10".into(),
            announced: true,
            state: "up".into(),
            damping: Damping::default(),
            suppressed_by: None,
            reason: String::new(),
            bound: Some(Bound {
                interface: Some("lo".into()),
                by_vipd: true,
                fault: None,
            }),
        }],
        aggregates: vec![Aggregate {
            prefix: "198.51.100.0/24".into(),
            state: "up".into(),
            damping: Damping::default(),
            alive: 1,
            wanted: 1,
            reason: "1 alive inside, 1 wanted".into(),
        }],
        services: vec![Service {
            name: "web".into(),
            leaving: false,
            vips: vec!["198.51.100.10".into()],
            protocol: "tcp".into(),
            port: "80".into(),
            mode: "ipip".into(),
            alive: true,
            state: "up".into(),
            reason: "web: 1 of 1 backends healthy".into(),
            healthy: 1,
            configured: 1,
            ring_size: 256,
            ring_fingerprint: Some("0123456789abcdef".into()),
            in_force: true,
            idle_seconds: 300,
            phases: Some(Phases::default()),
            flows: 0,
            packets: 7,
            bytes: 700,
            backends: vec![Backend {
                name: "b1".into(),
                address: address("192.0.2.21"),
                weight: 1,
                role: "active".into(),
                state: "up".into(),
                standing: "up".into(),
                drained: false,
                disabled: false,
                available: true,
                share_percent: 100,
                since_seconds: 3.0,
                check: Some(Check {
                    code: "L4OK".into(),
                    status: None,
                    duration_seconds: 0.001,
                    phases: CheckPhases {
                        connect_seconds: Some(0.001),
                        tls_seconds: Some(0.002),
                        ..CheckPhases::default()
                    },
                    certificate_expiry: Some(1_800_086_400),
                    detail: String::new(),
                }),
                bfd: Some(bfd()),
                slots: 256,
                flows: 0,
                flows_closing: 0,
                packets: 7,
                bytes: 700,
            }],
        }],
        sessions: Some(Sessions {
            state: SessionsState::Healthy,
            established: 1,
            configured: 1,
        }),
        peers: vec![Peer {
            name: "tor1".into(),
            address: "192.0.2.1:179".into(),
            remote_as: 64501,
            state: "Established".into(),
            since_seconds: 10.0,
            uptime_seconds: Some(10.0),
            start_time_seconds: Some(1_800_000_000.5),
            established_count: 1,
            advertised: [("IPv4 unicast".into(), 1)].into(),
            wanted: 1,
            pending: 0,
            prefixes_received: 0,
            prefixes_withdrawn: 0,
            hold_time_seconds: Some(9),
            last_error: None,
            last_error_time_seconds: None,
            last_error_seconds_ago: None,
            hint: None,
            notification_received: None,
            notification_received_seconds_ago: None,
            notification_sent: None,
            notification_sent_seconds_ago: None,
            messages_sent: [("open".into(), 1)].into(),
            messages_received: [("open".into(), 1)].into(),
            unsent: Vec::new(),
            bfd: Some(bfd()),
        }],
        bfd_unreachable: None,
        findings: Vec::new(),
        hooks: vec![Hook {
            name: "page".into(),
            succeeded: 3,
            failed: 1,
            timed_out: 0,
            not_run: 0,
            superseded: 1,
            waiting: 0,
            running: 0,
            last_failure: None,
        }],
    }
}
