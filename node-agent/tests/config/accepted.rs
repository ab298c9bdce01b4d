//! What files mean: defaults, choices that follow from others, warnings.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
    path::Path,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use vipd::config::{Config, NextHop, Relation};
use vipd_control::model::{Mode, Ports, Vip};

use crate::{accept, edited};

/// The least that serves something.
const LEAST: &str = r#"
[dataplane]
interfaces = ["eth0"]

[bgp]
local_as = 64500
router_id = "192.0.2.11"

[[bgp.peer]]
address = "192.0.2.1"
as = 64501

[[service]]
name = "web"
vips = ["198.51.100.10"]
protocol = "tcp"
port = 80
mode = "ipip"

[[service.backend]]
name = "b1"
address = "192.0.2.21"
"#;

#[test]
fn the_least_file_gets_all_defaults() {
    let (config, warnings) = accept(LEAST);
    assert_eq!(warnings, []);
    insta::assert_debug_snapshot!("defaults", config);
}

#[test]
fn every_example_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let entries = fs::read_dir(&folder).expect("the examples are there");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let files: Vec<_> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        // The secrets that it names are each site's own.
        let text = fs::read_to_string(&file).expect("it can be read");
        match Config::parse(&text, &file.display().to_string()) {
            Ok((_, warnings)) => assert_eq!(warnings, [], "{}", file.display()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn order_in_the_file_does_not_matter() {
    let (forward, _) = accept(&edited(&[]));
    let (backward, _) = accept(&edited(&[
        (
            "name = \"b1\"\naddress = \"192.0.2.21\"\nweight = 1",
            "SWAP",
        ),
        (
            "name = \"b2\"\naddress = \"192.0.2.22\"\nweight = 2",
            "name = \"b1\"\naddress = \"192.0.2.21\"\nweight = 1",
        ),
        (
            "SWAP",
            "name = \"b2\"\naddress = \"192.0.2.22\"\nweight = 2",
        ),
        (
            "[\"198.51.100.53\", \"2001:db8:100::53\"]",
            "[\"2001:db8:100::53\", \"198.51.100.53\"]",
        ),
    ]));
    assert_eq!(forward, backward);
}

#[test]
fn families_of_a_session_follow_its_address_and_next_hops() {
    let given = NextHop::Given(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11));
    let both = (true, Some(given));
    let table = [
        ("an IPv4 session", "", (true, None)),
        ("and a next hop", "next_hop_ipv6 = \"2001:db8::11\"", both),
        (
            "only what is asked for",
            "families = [\"ipv6\"]\nnext_hop_ipv6 = \"2001:db8::11\"",
            (false, Some(given)),
        ),
        (
            "a next hop that is not asked for",
            "families = [\"ipv4\"]\nnext_hop_ipv6 = \"2001:db8::11\"",
            (true, None),
        ),
    ];
    for (sentence, lines, (ipv4, ipv6)) in table {
        let edits = [("next_hop_ipv6 = \"2001:db8::11\"", lines)];
        let (config, _) = accept(&edited(&edits));
        let families = config.bgp.expect("there is BGP").peers[0].families;
        let expected_ipv4 = ipv4.then_some(NextHop::Own);
        assert_eq!(families.ipv4, expected_ipv4, "{sentence}");
        assert_eq!(families.ipv6, ipv6, "{sentence}");
    }
}

#[test]
fn a_short_interval_shortens_the_default_time_out() {
    let (config, warnings) = accept(&edited(&[("path = \"/healthz\"", "interval = \"100ms\"")]));
    let service = &config.model.services[1];
    assert_eq!(&*service.name, "web");
    assert_eq!(service.check.timing.timeout, service.check.timing.interval);
    assert_eq!(warnings, []);
}

#[test]
fn a_peer_is_internal_or_external_by_its_as() {
    let (config, _) = accept(&edited(&[]));
    let bgp = config.bgp.expect("there is BGP");
    let [external, internal] = &bgp.peers[..] else {
        panic!("two peers, not {:?}", bgp.peers);
    };
    assert_eq!(external.relation, Relation::External { prepend: 0 });
    assert_eq!(external.reach.ttl().get(), 1);
    let local_preference = 200;
    assert_eq!(internal.relation, Relation::Internal { local_preference });
    assert_eq!(internal.reach.ttl().get(), 64);
}

#[test]
fn relative_paths_start_from_the_file() {
    let text = edited(&[(
        "source = \"192.0.2.11\"",
        "password_file = \"secrets/ext.md5\"",
    )]);
    let parsed = Config::parse(&text, "/etc/vipd/vipd.toml");
    let (config, _) = parsed.expect("the file is right");
    let bgp = config.bgp.expect("there is BGP");
    let password = bgp.peers[0].password.as_ref().expect("there is a password");
    assert_eq!(password.path(), Path::new("/etc/vipd/secrets/ext.md5"));
    assert_eq!(config.control_socket, Path::new("/run/vipd/vipd.sock"));
}

#[test]
fn doubts_are_warnings() {
    let no_bgp = GOOD_WITHOUT_BGP.to_owned();
    let table = [
        ("an empty file", String::new()),
        ("no BGP at all", no_bgp),
        (
            "IPv6 addresses and no session for them",
            edited(&[("next_hop_ipv6 = \"2001:db8::11\"", "")]),
        ),
        (
            "rules and an aggregate for what is not there",
            with_tables(
                "[[bgp.rule]]\nprefixes = [\"198.51.100.0/24\", \"203.0.113.0/24\"]\nmed = 1\n\
                 [[bgp.aggregate]]\nprefix = \"203.0.112.0/24\"\n",
            ),
        ),
        (
            "attributes for what is withdrawn",
            with_tables("[[bgp.rule]]\nstates = [\"down\"]\nmed_add = 900\n"),
        ),
        (
            "a path with the AS of the peer",
            with_tables("[[bgp.rule]]\nas_path = [64502, 64501]\n"),
        ),
        (
            "host routes to the world",
            edited(&[("source = \"192.0.2.11\"", "upstream = true")]),
        ),
        (
            "checks that take longer than the window of doubt",
            edited(&[(
                "path = \"/healthz\"",
                "path = \"/healthz\"\ninterval = \"30s\"",
            )]),
        ),
        (
            "backends that fall at once and come back one after the other",
            edited(&[(
                "path = \"/healthz\"",
                "path = \"/healthz\"\ndown_interval = \"20s\"",
            )]),
        ),
        (
            "an aggregate that the world would take, but is not told of",
            with_tables(
                "[[bgp.peer]]\nname = \"world\"\naddress = \"192.0.2.3\"\nas = 64502\n\
                 upstream = true\n\
                 [[bgp.aggregate]]\nprefix = \"198.51.100.0/24\"\n\
                 [[bgp.rule]]\npeers = [\"world\"]\naggregate = true\nannounce = false\n",
            ),
        ),
    ];
    let mut page = String::new();
    for (sentence, text) in table {
        let (_, warnings) = accept(&text);
        assert!(!warnings.is_empty(), "{sentence}");
        page += &format!("# {sentence}\n\n");
        for warning in warnings {
            page += &format!("{}\n\n", warning.render(false));
        }
    }
    insta::assert_snapshot!("warnings", page);
}

#[test]
fn what_the_world_takes_is_no_doubt() {
    let world = "[[bgp.peer]]\nname = \"world\"\naddress = \"192.0.2.3\"\nas = 64502\n\
                 upstream = true\n";
    let aggregate = "[[bgp.aggregate]]\nprefix = \"198.51.100.0/24\"\n";
    let rule = "[[bgp.rule]]\npeers = [\"world\"]\n";
    for (sentence, tables) in [
        (
            "host routes and an aggregate",
            format!("{world}{aggregate}"),
        ),
        (
            "an aggregate alone",
            format!("{world}{aggregate}suppress = true\n"),
        ),
        ("nothing", format!("{world}{rule}announce = false\n")),
    ] {
        let (_, warnings) = accept(&with_tables(&tables));
        assert_eq!(warnings, [], "{sentence}");
    }
}

/// A good file with further tables of `[bgp]`.
fn with_tables(tables: &str) -> String {
    let service = "[[service]]\nname = \"web\"";
    edited(&[(service, &format!("{tables}{service}"))])
}

const GOOD_WITHOUT_BGP: &str = r#"
[dataplane]
interfaces = ["eth0"]

[[service]]
name = "web"
vips = ["198.51.100.10", "198.51.100.11"]
protocol = "tcp"
port = 80
mode = "ipip"

[[service.backend]]
name = "b1"
address = "192.0.2.21"
"#;

#[test]
fn what_a_reload_does_not_change_is_shared() {
    let (old, _) = accept(&edited(&[]));
    let (mut new, _) = accept(&edited(&[
        ("weight = 2", "weight = 3"),
        ("local_preference = 200", "local_preference = 300"),
    ]));
    new.share_with(&old);
    let same = |a: &[Arc<_>], b: &[Arc<_>]| -> Vec<bool> {
        a.iter().zip(b).map(|(a, b)| Arc::ptr_eq(a, b)).collect()
    };
    // In the order of their names: dns and web, whose weight has changed.
    assert_eq!(
        same(&new.model.services, &old.model.services),
        [true, false]
    );
    let peers = |config: &Config| config.bgp.clone().expect("there is BGP").peers;
    let (new_peers, old_peers) = (peers(&new), peers(&old));
    assert!(Arc::ptr_eq(&new_peers[0], &old_peers[0]), "ext is the same");
    assert_ne!(new_peers[1], old_peers[1], "int has another preference");
}

#[test]
fn services_may_share_an_address() {
    let (config, _) = accept(&edited(&[("\"198.51.100.53\"", "\"198.51.100.10\"")]));
    let shared = Vip::from(IpAddr::from([198, 51, 100, 10]));
    let services = config.model.services.iter();
    assert_eq!(
        services
            .filter(|service| service.vips.contains(&shared))
            .count(),
        2
    );
}

#[test]
fn a_service_is_on_what_the_file_says() {
    let port = |number| NonZeroU16::new(number).expect("not zero");
    let prefix = |text: &str| Vip::from(text.parse::<IpNet>().expect("a prefix"));
    let seconds = Duration::from_secs;
    // Lines of the service, then addresses, ports, mode and idle.
    let table = [
        (
            "vips = [\"198.51.100.1\"]\nport = 80\nmode = \"ipip\"",
            vec![prefix("198.51.100.1/32")],
            Ports::One(port(80)),
            (Mode::Ipip, seconds(300)),
        ),
        (
            "vips = [\"2001:db8::/64\", \"198.51.100.16/28\", \"198.51.100.1/32\"]\n\
             port = \"8000-8999\"\nmode = \"gue\"\nflow_idle = \"1h\"",
            vec![
                prefix("198.51.100.1/32"),
                prefix("198.51.100.16/28"),
                prefix("2001:db8::/64"),
            ],
            Ports::Range(port(8000), port(8999)),
            (Mode::Gue(port(6080)), seconds(3600)),
        ),
        (
            "vips = [\"198.51.0.0/16\"]\nport = \"any\"\nmode = \"gue\"\n\
             gue_port = 5555\nflow_idle = \"0s\"",
            vec![prefix("198.51.0.0/16")],
            Ports::Any,
            (Mode::Gue(port(5555)), seconds(0)),
        ),
    ];
    for (lines, vips, ports, (mode, idle)) in table {
        let (config, _) = accept(&format!(
            "[dataplane]\ninterfaces = [\"eth0\"]\ntunnel_source_ipv4 = \"203.0.113.0/24\"\n\
             [[service]]\nname = \"web\"\nprotocol = \"tcp\"\n{lines}\n\
             [service.check]\ntype = \"tcp\"\nport = 80\n\
             [[service.backend]]\nname = \"b1\"\naddress = \"192.0.2.21\"\n"
        ));
        let service = &config.model.services[0];
        assert_eq!(service.vips, vips, "{lines}");
        assert_eq!(service.ports, ports, "{lines}");
        assert_eq!((service.mode, service.idle), (mode, idle), "{lines}");
        let source = config.dataplane.and_then(|d| d.tunnel_source_ipv4);
        assert_eq!(
            source.map(|source| source.prefix_len()),
            Some(24),
            "{lines}"
        );
    }
}

#[test]
fn narrower_services_may_stand_within_wider_ones() {
    let service = |name: &str, vip: &str, port: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nvips = [\"{vip}\"]\nprotocol = \"tcp\"\n\
             port = {port}\nmode = \"gue\"\n[service.check]\ntype = \"none\"\n\
             [[service.backend]]\nname = \"b1\"\naddress = \"192.0.2.21\"\n"
        )
    };
    let text = [
        String::from("[dataplane]\ninterfaces = [\"eth0\"]\n"),
        service("port", "198.51.100.10", "80"),
        service("range", "198.51.100.10", "\"80-89\""),
        service("next-range", "198.51.100.10", "\"90-99\""),
        service("any", "198.51.100.10", "\"any\""),
        service("port-of-prefix", "198.51.100.0/28", "80"),
        service("any-of-prefix", "198.51.100.0/28", "\"any\""),
        service("any-of-wider-prefix", "198.51.100.0/24", "\"any\""),
    ];
    let (config, _) = accept(&text.concat());
    assert_eq!(config.model.services.len(), 7);
}
