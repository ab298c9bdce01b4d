//! Services that this host serves itself: what their tables mean, and what does
//! not go with them.

use std::fmt::Write as _;

use vipd::config::{Binding, Config};
use vipd_control::model::Mode;

use crate::accept;

/// A floating address that a web server on this host answers for.
const FILE: &str = r#"
[bgp]
local_as = 64500
router_id = "192.0.2.11"

[[bgp.peer]]
address = "192.0.2.1"
as = 64500
families = ["ipv4", "ipv6"]
next_hop_ipv6 = "2001:db8::11"

[[service]]
name = "web"
vips = ["198.51.100.10", "2001:db8:100::10"]
protocol = "tcp"
port = 80
mode = "local"
"#;

/// A service whose packets are forwarded.
const FORWARDED: &str = r#"
[[service]]
name = "far"
vips = ["198.51.100.0/24"]
protocol = "tcp"
port = 80
mode = "ipip"

[[service.backend]]
name = "b1"
address = "192.0.2.21"
"#;

/// A second local one on the first's address.
const SECOND: &str = r#"
[[service]]
name = "mail"
vips = ["198.51.100.10"]
protocol = "tcp"
port = 25
mode = "local"
"#;

#[test]
fn a_local_service_needs_no_data_plane_and_stands_for_itself() {
    let (config, warnings) = accept(FILE);
    assert_eq!(warnings, []);
    let [service] = &*config.model.services else {
        panic!("one service: {config:#?}");
    };
    assert_eq!(service.mode, Mode::Local);
    let [backend] = &*service.backends else {
        panic!("one backend: {service:#?}");
    };
    let first = "198.51.100.10".parse().expect("an address");
    assert_eq!((&*backend.name, backend.address), ("local", first));
    // Or another host that has the address could answer for this one.
    assert_eq!(service.check.source, Some(first));
    let bound: Vec<_> = config.bindings.values().collect();
    assert_eq!(bound, [&Binding::At(Default::default()); 2]);
}

#[test]
fn a_local_service_may_depend_on_programs_anywhere_on_this_host() {
    let text = FILE.to_owned()
        + "[[service.backend]]\nname = \"nginx\"\naddress = \"127.0.0.1\"\n\
           [[service.backend]]\nname = \"app\"\naddress = \"198.51.100.10\"\n";
    let (config, _) = accept(&text);
    let service = &config.model.services[0];
    let names: Vec<_> = service.backends.iter().map(|b| &*b.name).collect();
    assert_eq!(names, ["app", "nginx"]);
    assert_eq!(service.check.source, None);
}

#[test]
fn addresses_are_bound_as_the_file_says() {
    for (bind, expected) in [
        ("bind = false", "ByOthers"),
        ("bind = true", "None, None"),
        ("[service.bind]\ninterface = \"web0\"", "web0, None"),
        (
            "bind = { interface = \"lo\", label = \"lo:web\" }",
            "lo, lo:web",
        ),
    ] {
        let (config, _) = accept(&format!("{FILE}{bind}\n"));
        for binding in config.bindings.values() {
            let found = match binding {
                Binding::ByOthers => "ByOthers".to_owned(),
                Binding::Taken(wish) => format!("Taken {wish}"),
                Binding::At(place) => {
                    let interface = place.interface.as_ref().map_or("None", |i| i.as_str());
                    let label = place.label.as_ref().map_or("None", |l| l.as_str());
                    format!("{interface}, {label}")
                }
            };
            assert_eq!(found, expected, "{bind}");
        }
    }
}

#[test]
fn what_does_not_go_with_a_local_service_is_refused() {
    let cases = [
        (
            "a prefix",
            FILE.replace("\"2001:db8:100::10\"", "\"2001:db8:100::/64\""),
        ),
        (
            "a virtual address as router id",
            FILE.replace(
                "router_id = \"192.0.2.11\"",
                "router_id = \"198.51.100.10\"",
            ),
        ),
        ("a ring", format!("{FILE}ring_size = 4096\n")),
        (
            "more healthy backends than the one it is",
            format!("{FILE}min_healthy = 2\n"),
        ),
        ("memory of flows", format!("{FILE}flow_idle = \"1m\"\n")),
        ("a tunnel", format!("{FILE}gue_port = 6080\n")),
        (
            "forwarded by another service, and without a data plane",
            format!("{FILE}{FORWARDED}"),
        ),
        ("bound in two ways", format!("{FILE}{SECOND}bind = false\n")),
        (
            "an address that is bound though it is forwarded",
            FORWARDED.replace("mode = \"ipip\"", "mode = \"ipip\"\nbind = true"),
        ),
        (
            "a label of no interface",
            format!("{FILE}[service.bind]\nlabel = \"lo:web\"\n"),
        ),
        (
            "a label of another interface",
            format!("{FILE}[service.bind]\ninterface = \"web0\"\nlabel = \"lo:web\"\n"),
        ),
        (
            "a label that is none",
            format!("{FILE}[service.bind]\ninterface = \"lo\"\nlabel = \"web\"\n"),
        ),
        (
            "a check without a port",
            FILE.replace("port = 80", "port = \"any\""),
        ),
    ];
    let mut page = String::new();
    for (sentence, text) in cases {
        let error = match Config::parse(&text, "vipd.toml") {
            Err(error) => error,
            Ok((config, _)) => panic!("{sentence}: accepted as {config:#?}"),
        };
        writeln!(page, "# {sentence}\n").expect("a string takes all");
        for finding in &error.findings {
            assert!(
                finding.help.is_some(),
                "{sentence}: {finding} says what to do"
            );
            writeln!(page, "{}\n", finding.render(false)).expect("a string takes all");
        }
    }
    insta::assert_snapshot!("local", page);
}
