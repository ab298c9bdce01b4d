//! Services that take their addresses from an interface of this host: what they
//! take of what is found there, and what becomes of the rest of the file.

use std::fmt::Write as _;

use vipd::config::{Binding, Config, Finding, Found, MOST_TAKEN};
use vipd_control::announcement::State;

const FILE: &str = r#"
[bgp]
local_as = 64500
router_id = "192.0.2.11"

[[bgp.peer]]
address = "192.0.2.1"
as = 64500
families = ["ipv4", "ipv6"]
source = "192.0.2.12"
next_hop_ipv6 = "2001:db8::11"

[[bgp.rule]]
services = ["dns"]
med = 10

[[bgp.aggregate]]
prefix = "198.51.100.0/24"

[[service]]
name = "dns"
protocol = "udp"
port = 53
mode = "local"
check = { type = "dns", name = "example.com" }

[service.vips_from]
interface = "lo"
label = "lo:any*"
within = ["2001:db8:30::/64"]

[[service]]
name = "web"
vips = ["198.51.100.80"]
protocol = "tcp"
port = 80
mode = "local"
"#;

fn found(list: &[(&str, &str)]) -> Vec<Found> {
    let found = list.iter().map(|(address, label)| Found {
        interface: label.split(':').next().unwrap_or_default().into(),
        address: address.parse().expect("an address"),
        label: address.contains('.').then(|| (*label).into()),
    });
    found.collect()
}

fn with(text: &str, list: &[(&str, &str)]) -> (Config, Vec<Finding>) {
    Config::parse_found(text, "vipd.toml", &found(list))
        .unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}

/// What is found, and what the first service takes of it, in the words of
/// `vipd check`.
#[track_caller]
fn check(sentence: &str, text: &str, list: &[(&str, &str)], expected: &str) {
    let (config, warnings) = with(text, list);
    assert_eq!(warnings, [], "{sentence}");
    let taking = config.taking.as_ref().expect("something is taken");
    assert_eq!(taking.services[0].to_string(), expected, "{sentence}");
}

#[test]
fn a_service_takes_what_it_names_and_nothing_that_is_something_else() {
    const FROM: &str = "dns takes 1 of lo (label lo:any*, within 2001:db8:30::/64): 198.51.100.10";
    check(
        "nothing is there",
        FILE,
        &[("127.0.0.1", "lo"), ("::1", "lo")],
        "dns takes no address of lo (label lo:any*, within 2001:db8:30::/64): none is there",
    );
    check(
        "by its label, of any that is like it",
        FILE,
        &[
            ("198.51.100.10", "lo:anycast"),
            ("198.51.100.11", "lo:other"),
            ("198.51.100.12", "eth0:anycast"),
        ],
        FROM,
    );
    check(
        "the router id and a source stay what they are",
        FILE,
        &[
            ("198.51.100.10", "lo:any"),
            ("192.0.2.11", "lo:any"),
            ("192.0.2.12", "lo:any"),
        ],
        &format!(
            "{FROM}; not 192.0.2.11, which is the router id; not 192.0.2.12, which is the \
                  session's source"
        ),
    );
    check(
        "what stands in the file is looked after there",
        FILE,
        &[("198.51.100.10", "lo:any"), ("198.51.100.80", "lo:any")],
        &format!("{FROM}; not 198.51.100.80, which stands in `vips` as 198.51.100.80"),
    );
    check(
        "IPv6 by its prefix, and what never leaves the link not at all",
        FILE,
        &[
            ("2001:db8:30::1", "lo"),
            ("2001:db8:31::1", "lo"),
            ("fe80::1", "lo"),
            ("169.254.7.7", "lo:any"),
        ],
        "dns takes 1 of lo (label lo:any*, within 2001:db8:30::/64): 2001:db8:30::1",
    );
}

#[test]
fn what_is_taken_is_served_like_what_is_written() {
    let (config, _) = with(FILE, &[("198.51.100.10", "lo:any")]);
    let service = &config.model.services[0];
    let vip = service.vips[0];
    assert_eq!(service.vips.len(), 1, "{service:#?}");
    let binding = config.bindings.get(&vip);
    assert!(matches!(binding, Some(Binding::Taken(_))), "{binding:?}");
    let bgp = config.bgp.as_ref().expect("a speaker");
    let rule = &bgp.peers[0].rules[0];
    assert!(rule.matches(vip, State::Up), "{rule:?}");
    let written = "198.51.100.80"
        .parse::<std::net::IpAddr>()
        .expect("an address");
    assert!(!rule.matches(written.into(), State::Up), "{rule:?}");
    // It is asked where it is, whatever comes and goes.
    assert_eq!(service.backends[0].address.to_string(), "127.0.0.1");
    assert_eq!(service.check.source, None);
}

#[test]
fn a_service_may_have_addresses_of_its_own_besides() {
    let text = FILE.replace(
        "name = \"dns\"\n",
        "name = \"dns\"\nvips = [\"198.51.100.9\"]\n",
    );
    let (config, _) = with(&text, &[("198.51.100.10", "lo:any")]);
    let service = &config.model.services[0];
    let bound: Vec<_> = service
        .vips
        .iter()
        .map(|vip| &config.bindings[vip])
        .collect();
    assert!(
        matches!(*bound, [Binding::At(_), Binding::Taken(_)]),
        "{bound:?}"
    );
    assert_eq!(service.backends[0].address.to_string(), "198.51.100.9");
}

#[test]
fn of_two_services_on_one_port_the_first_has_the_address() {
    let second = "[[service]]\nname = \"other\"\nprotocol = \"udp\"\nport = 53\nmode = \"local\"\n\
                  check = { type = \"dns\", name = \"example.com\" }\n\
                  [service.vips_from]\ninterface = \"lo\"\n";
    let found = [("198.51.100.10", "lo:any"), ("198.51.100.11", "lo")];
    let (config, _) = with(&format!("{FILE}{second}"), &found);
    let taking = config.taking.as_ref().expect("something is taken");
    assert_eq!(
        taking.services[1].to_string(),
        "other takes 1 of lo: 198.51.100.11; not 198.51.100.10, which dns has taken for the same \
         port"
    );
    // Another port is another matter.
    let (config, _) = with(&format!("{FILE}{}", second.replace("53", "54")), &found);
    let taking = config.taking.as_ref().expect("something is taken");
    assert_eq!(taking.services[1].vips.len(), 2, "{taking:?}");
}

#[test]
fn only_what_matters_gives_another_configuration() {
    let (config, _) = with(FILE, &[("198.51.100.10", "lo:any")]);
    let again = |list: &[(&str, &str)]| config.with_found(&found(list));
    assert!(again(&[("198.51.100.10", "lo:any")]).is_none(), "the same");
    let elsewhere = [("198.51.100.10", "lo:any"), ("192.0.2.99", "eth0")];
    assert!(again(&elsewhere).is_none(), "nobody wants it");
    let gone = again(&[]).expect("another").expect("a good one");
    assert_eq!(gone.model.services[0].vips, []);
    let (fresh, _) = with(FILE, &[]);
    assert_eq!(gone, fresh, "as if it had been loaded now");
    assert!(
        with(FORWARDING, &[])
            .0
            .with_found(&found(&[("198.51.100.1", "lo")]))
            .is_none()
    );
}

/// A file that takes nothing.
const FORWARDING: &str = "[metrics]\nenabled = false\n";

#[test]
fn what_cannot_be_meant_is_refused() {
    let from = "[service.vips_from]\ninterface = \"lo\"\nlabel = \"lo:any*\"\n";
    let many = (0..=MOST_TAKEN).map(|i| Found {
        interface: "lo".into(),
        address: [198, 18, (i / 256) as u8, (i % 256) as u8].into(),
        label: Some("lo:any".into()),
    });
    let many: Vec<_> = many.collect();
    let none: &[Found] = &[];
    let cases = [
        (
            "neither `vips` nor `vips_from`",
            FILE.replace(from, "")
                .replace("within = [\"2001:db8:30::/64\"]", ""),
            none,
        ),
        (
            "what is forwarded cannot be taken",
            FILE.replace(
                "name = \"dns\"\nprotocol = \"udp\"\nport = 53\nmode = \"local\"",
                "name = \"dns\"\nprotocol = \"udp\"\nport = 53\nmode = \"ipip\"",
            ),
            none,
        ),
        (
            "a label of another interface",
            FILE.replace("lo:any*", "anycast"),
            none,
        ),
        ("no label", FILE.replace("lo:any*", "lo: any"), none),
        (
            "no interface",
            FILE.replace("interface = \"lo\"\n", ""),
            none,
        ),
        ("too many of them", FILE.to_owned(), &many),
    ];
    let mut page = String::new();
    for (sentence, text, found) in cases {
        let error = match Config::parse_found(&text, "vipd.toml", found) {
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
    insta::assert_snapshot!("vips_from", page);
}

#[test]
fn a_restart_that_would_withdraw_all_for_some_addresses_is_told() {
    let text = |keep: &str| {
        format!("{FILE}[dataplane]\ninterfaces = [\"eth0\"]\non_stop = \"keep\"\n{keep}")
    };
    let (_, warnings) = with(&text(""), &[]);
    let words: Vec<_> = warnings.iter().map(|warning| &*warning.title).collect();
    assert!(
        matches!(&*words, [one] if one.contains("withdraws all routes")),
        "{words:?}"
    );
    let (_, warnings) = with(&text("[stop]\nlocal = \"keep\"\n"), &[]);
    assert_eq!(warnings, []);
}
