//! What is wrong with broken files, as the operator reads it.

mod bgp;
mod checks;
mod health;
mod hooks;

use std::fmt::Write;

use vipd::config::{Config, Finding, Severity};

use self::{
    bgp::{BGP, POLICY},
    checks::CHECKS,
    health::HEALTH,
    hooks::HOOKS,
};
use crate::edited;

/// What is wrong, in words, and the edits of the good file that make it so.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const SYNTAX: &[Case] = &[
    (
        "a string without its closing quote",
        &[("\"ext\"", "\"ext")],
    ),
    (
        "a word without quotes",
        &[("\"tcp\"\nport = 80\n", "tcp\nport = 80\n")],
    ),
    (
        "a key that stands twice",
        &[("as = 64501", "as = 64501\nas = 64502")],
    ),
    ("a header without its bracket", &[("[bgp]", "[bgp")]),
];

const FORM: &[Case] = &[
    (
        "a misspelt key, which is then missing",
        &[("router_id", "router-id")],
    ),
    (
        "a key nobody knows",
        &[("name = \"ext\"", "colour = \"red\"")],
    ),
    ("a misspelt table", &[("[dataplane]", "[data_plane]")]),
    (
        "a table where a list of tables is wanted",
        &[(
            "[[service]]\nname = \"dns\"",
            "[dns]\n[[service]]\nname = \"dns\"",
        )],
    ),
    (
        "a single bracket where a list of tables is wanted",
        &[(
            "[[service.backend]]\nname = \"n1\"",
            "[service.backend]\nname = \"n1\"",
        )],
    ),
    (
        "a required key is missing",
        &[("mode = \"ipip\"\nmin_healthy = 2", "")],
    ),
    ("a number in quotes", &[("64501", "\"64501\"")]),
    ("a port out of range", &[("port = 80\n", "port = 80000\n")]),
    (
        "a backend with a prefix length",
        &[("\"192.0.2.21\"", "\"192.0.2.21/32\"")],
    ),
    (
        "a prefix with bits after it",
        &[("\"198.51.100.10\"", "\"198.51.100.10/28\"")],
    ),
    (
        "a prefix that is longer than an address",
        &[("\"198.51.100.10\"", "\"198.51.100.0/33\"")],
    ),
    (
        "a prefix that holds everything",
        &[("\"198.51.100.10\"", "\"0.0.0.0/0\"")],
    ),
    (
        "an IPv6 prefix for IPv4 tunnels",
        &[(
            "tunnel_source_ipv4 = \"192.0.2.11\"",
            "tunnel_source_ipv4 = \"2001:db8::/96\"",
        )],
    ),
    (
        "a range of ports that goes backwards",
        &[("port = 80\n", "port = \"8999-8000\"\n")],
    ),
    ("an address that is none", &[("192.0.2.21", "192.0.2.321")]),
    (
        "an unknown mode",
        &[("mode = \"ipip\"\nmin_healthy = 2", "mode = \"ip-ip\"")],
    ),
    (
        "a duration without a unit",
        &[("source = \"192.0.2.11\"", "hold_time = 9")],
    ),
    (
        "an unknown unit of time",
        &[("source = \"192.0.2.11\"", "connect_retry = \"5 sec\"")],
    ),
    (
        "an interface name that is too long",
        &[("\"eth0\"", "\"ethernet-to-the-rack\"")],
    ),
    ("no interface at all", &[("\"eth0\"", "")]),
    ("a name with a space", &[("\"web\"", "\"my web\"")]),
    (
        "a community that is none",
        &[("local_preference = 200", "communities = [\"64500\"]")],
    ),
    (
        "a standard community of a 4-octet AS",
        &[("local_preference = 200", "communities = [\"65536:1\"]")],
    ),
    (
        "a path without its slash",
        &[("\"/healthz\"", "\"healthz\"")],
    ),
    (
        "a status code that is none",
        &[("path = \"/healthz\"", "status = [\"200-600\"]")],
    ),
    (
        "too much jitter",
        &[("path = \"/healthz\"", "jitter = 0.9")],
    ),
    (
        "several errors at once",
        &[
            ("as = 64501", "as = 0"),
            ("\"eth0\"", "\"eth0\", \"eth0\""),
            ("port = 8053", "port = \"http\""),
        ],
    ),
];

const SERVICES: &[Case] = &[
    (
        "services without a data plane",
        &[(
            "[dataplane]\ninterfaces = [\"eth0\"]\ntunnel_source_ipv4 = \"192.0.2.11\"\n",
            "",
        )],
    ),
    (
        "a virtual address as tunnel source",
        &[(
            "tunnel_source_ipv4 = \"192.0.2.11\"",
            "tunnel_source_ipv4 = \"198.51.100.53\"",
        )],
    ),
    (
        "a virtual address as backend",
        &[("192.0.2.21", "198.51.100.53")],
    ),
    (
        "a virtual address as source of checks",
        &[("path = \"/healthz\"", "source = \"198.51.100.10\"")],
    ),
    (
        "checks from the wrong family",
        &[("path = \"/healthz\"", "source = \"2001:db8::11\"")],
    ),
    ("two services of one name", &[("\"dns\"", "\"web\"")]),
    (
        "two services on one address and port",
        &[
            ("\"198.51.100.53\"", "\"198.51.100.10\""),
            (
                "protocol = \"udp\"\nport = 53",
                "protocol = \"tcp\"\nport = 80",
            ),
        ],
    ),
    (
        "a virtual address that stands twice",
        &[(
            "[\"198.51.100.10\"]",
            "[\"198.51.100.10\", \"198.51.100.10\"]",
        )],
    ),
    (
        "two services on ranges that overlap",
        &[
            ("\"198.51.100.53\"", "\"198.51.100.10\""),
            (
                "protocol = \"udp\"\nport = 53",
                "protocol = \"tcp\"\nport = \"80-99\"",
            ),
            ("port = 80\n", "port = \"70-89\"\n"),
            ("path = \"/healthz\"", "port = 80"),
        ],
    ),
    (
        "two services on any port of one prefix",
        &[
            ("\"198.51.100.53\"", "\"198.51.100.0/28\""),
            (
                "protocol = \"udp\"\nport = 53",
                "protocol = \"tcp\"\nport = \"any\"",
            ),
            ("\"198.51.100.10\"", "\"198.51.100.0/28\""),
            ("port = 80\n", "port = \"any\"\n"),
            ("path = \"/healthz\"", "port = 80"),
        ],
    ),
    (
        "a virtual prefix with the router id, a backend and the session's source",
        &[("\"198.51.100.10\"", "\"192.0.2.0/27\"")],
    ),
    (
        "a virtual address among tunnel sources",
        &[(
            "tunnel_source_ipv4 = \"192.0.2.11\"",
            "tunnel_source_ipv4 = \"198.51.100.0/24\"",
        )],
    ),
    (
        "a virtual prefix with the loopback network",
        &[("\"198.51.100.10\"", "\"64.0.0.0/2\"")],
    ),
    (
        "prefixes of too many lengths",
        &[(
            "[\"198.51.100.10\"]",
            "[\"198.18.0.0/16\", \"198.18.0.0/17\", \"198.18.0.0/18\", \"198.18.0.0/19\", \
             \"198.18.0.0/20\", \"198.18.0.0/21\", \"198.18.0.0/22\", \"198.18.0.0/23\", \
             \"198.18.0.0/24\"]",
        )],
    ),
    (
        "the port of GUE in another mode",
        &[("min_healthy = 2", "gue_port = 6080")],
    ),
    (
        "flows that are remembered for too long",
        &[("min_healthy = 2", "flow_idle = \"2h\"")],
    ),
    (
        "a service of many ports whose check has none",
        &[("port = 80\n", "port = \"8000-8999\"\n")],
    ),
    (
        "a virtual address on the loopback network",
        &[("[\"198.51.100.10\"]", "[\"127.0.0.1\"]")],
    ),
    (
        "a service without virtual addresses",
        &[("[\"198.51.100.10\"]", "[]")],
    ),
    (
        "a service without backends",
        &[(
            "[[service.backend]]\nname = \"n1\"\naddress = \"2001:db8:2::31\"\n",
            "",
        )],
    ),
    ("two backends of one name", &[("\"b2\"", "\"b1\"")]),
    (
        "two backends at one address",
        &[("192.0.2.22", "192.0.2.21")],
    ),
    ("IPv6 in IPv4", &[("2001:db8:2::31", "192.0.2.31")]),
    (
        "a backend of the other family on the link",
        &[(
            "mode = \"ipip\"\n\n[service.check]\ntype = \"tcp\"",
            "mode = \"l2-dsr\"\n\n[service.check]\ntype = \"tcp\"",
        )],
    ),
    (
        "more healthy backends wanted than there are",
        &[("min_healthy = 2", "min_healthy = 3")],
    ),
    (
        "a share of backends that is none",
        &[("min_healthy = 2", "min_healthy = \"half\"")],
    ),
    (
        "a service that comes back below the mark at which it went",
        &[(
            "min_healthy = 2",
            "min_healthy = 2\nrecover_healthy = \"50%\"\nmin_weight = \"60%\"\nrecover_weight = \"50%\"",
        )],
    ),
    (
        "a service that is always degraded",
        &[("min_healthy = 2", "degraded_below = 3")],
    ),
    (
        "nobody but backups",
        &[
            ("weight = 1", "role = \"backup\""),
            ("weight = 2", "role = \"spare\""),
        ],
    ),
    (
        "a service that tracks itself, and one that is not there",
        &[("min_healthy = 2", "track = [\"web\", \"dnss\"]")],
    ),
    (
        "no backend with a weight",
        &[("weight = 1", "weight = 0"), ("weight = 2", "weight = 0")],
    ),
    ("a weight out of range", &[("weight = 2", "weight = 300")]),
    (
        "a ring size that is no power of two",
        &[("min_healthy = 2", "ring_size = 5000")],
    ),
    (
        "a ring that is too small for its backends",
        &[
            ("min_healthy = 2", "ring_size = 64"),
            (
                "name = \"b1\"\naddress = \"192.0.2.21\"\nweight = 1\n",
                "name = \"b1\"\n\
            address = \"192.0.2.21\"\n\
            [[service.backend]]\nname = \"c1\"\naddress = \"192.0.2.31\"\n\
            [[service.backend]]\nname = \"c2\"\naddress = \"192.0.2.32\"\n\
            [[service.backend]]\nname = \"c3\"\naddress = \"192.0.2.33\"\n\
            [[service.backend]]\nname = \"c4\"\naddress = \"192.0.2.34\"\n\
            [[service.backend]]\nname = \"c5\"\naddress = \"192.0.2.35\"\n\
            [[service.backend]]\nname = \"c6\"\naddress = \"192.0.2.36\"\n\
            [[service.backend]]\nname = \"c7\"\naddress = \"192.0.2.37\"\n",
            ),
        ],
    ),
    (
        "a time-out longer than the interval",
        &[("path = \"/healthz\"", "interval = \"1s\"\ntimeout = \"2s\"")],
    ),
    (
        "an interval of nothing",
        &[("path = \"/healthz\"", "interval = \"0s\"")],
    ),
    (
        "a UDP service whose check has no port",
        &[("port = 8053", "")],
    ),
];

#[test]
fn what_is_not_toml_is_refused() {
    insta::assert_snapshot!("syntax", check(SYNTAX));
}

#[test]
fn what_is_wrong_with_health_is_refused() {
    insta::assert_snapshot!("health", check(HEALTH));
}

#[test]
fn what_has_the_wrong_form_is_refused() {
    insta::assert_snapshot!("form", check(FORM));
}

#[test]
fn what_bgp_cannot_do_is_refused() {
    insta::assert_snapshot!("bgp", check(BGP));
}

#[test]
fn rules_and_aggregates_that_cannot_be_meant_are_refused() {
    insta::assert_snapshot!("policy", check(POLICY));
}

#[test]
fn checks_that_cannot_be_meant_are_refused() {
    insta::assert_snapshot!("checks", check(CHECKS));
}

#[test]
fn hooks_that_cannot_be_meant_are_refused() {
    insta::assert_snapshot!("hooks", check(HOOKS));
}

#[test]
fn services_that_cannot_work_are_refused() {
    insta::assert_snapshot!("services", check(SERVICES));
}

/// What is said about each case. All of it must say where and what to do.
fn check(cases: &[Case]) -> String {
    let mut page = String::new();
    for (sentence, edits) in cases {
        let text = edited(edits);
        let error = match Config::parse(&text, "vipd.toml") {
            Err(error) => error,
            Ok((config, _)) => panic!("{sentence}: accepted as {config:#?}"),
        };
        writeln!(page, "# {sentence}\n").expect("a string takes all");
        for finding in &error.findings {
            assert!(
                finding.position().is_some(),
                "{sentence}: {finding} says where"
            );
            assert!(
                finding.help.is_some(),
                "{sentence}: {finding} says what to do"
            );
            writeln!(page, "{}\n", finding.render(false)).expect("a string takes all");
        }
        let errors = error.findings.iter();
        let errors = errors.filter(|finding| finding.severity == Severity::Error);
        assert!(errors.count() > 0, "{sentence}: {error}");
    }
    page
}

/// The only error of a file with so many services, each twelve lines long.
fn too_much(count: u32, service: impl Fn(u32) -> (&'static str, String)) -> String {
    let mut text = String::from("[dataplane]\ninterfaces = [\"eth0\"]\n");
    for number in 1..=count {
        let (vip, lines) = service(number);
        write!(
            text,
            "[[service]]\nname = \"s{number}\"\nvips = [\"{vip}\"]\nprotocol = \"tcp\"\n\
             mode = \"ipip\"\n{lines}\n\
             [service.check]\ntype = \"none\"\n\
             [[service.backend]]\nname = \"b\"\naddress = \"192.0.2.21\"\n"
        )
        .expect("a string takes everything");
    }
    let error = Config::parse(&text, "big.toml").expect_err("it is too much");
    let is_error = |finding: &&Finding| finding.severity == Severity::Error;
    let errors: Vec<_> = error.findings.iter().filter(is_error).collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0].to_string()
}

#[test]
fn more_than_the_data_plane_has_room_for_is_refused_where_it_is_too_much() {
    let said = too_much(5, |number| {
        let lines = format!("port = {number}\nring_size = 1048576");
        ("198.51.100.10", lines)
    });
    assert!(said.starts_with("big.toml:51:"), "{said}");
    assert!(said.contains("ring slots: too many"), "{said}");

    let range = |number| format!("port = \"{number}00-{number}50\"\nmin_healthy = 1");
    let said = too_much(33, |number| ("198.51.100.10", range(number)));
    assert!(said.starts_with("big.toml:389:9: "), "{said}");
    assert!(
        said.contains("198.51.100.10 and the prefixes around it have 33 port ranges"),
        "{said}"
    );

    let port = |number| format!("port = {number}\nmin_healthy = 1");
    let said = too_much(33, |number| match number {
        1 => ("198.51.100.10", range(number)),
        _ => ("198.51.100.0/24", port(number)),
    });
    assert!(said.starts_with("big.toml:5:9: "), "{said}");
    assert!(
        said.contains("198.51.100.10 and the prefixes around it have 33 port ranges"),
        "{said}"
    );
}
