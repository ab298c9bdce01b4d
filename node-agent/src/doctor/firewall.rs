//! What the packet filter of this host does to packets that come to a port, as far
//! as its rules tell: `nft -j list ruleset` (libnftables-json(5)).

use std::{collections::BTreeSet, fs, net::IpAddr, time::Duration};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

/// How long `nft` may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A port that others send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its number.
    pub number: u16,
    /// Who sends to it.
    pub senders: BTreeSet<IpAddr>,
}

/// A rule or a policy that drops what comes to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The port, with those of its senders that the chain sees.
    pub port: Port,
    /// Family, table and chain, as `nft` takes them.
    pub chain: String,
    /// The rule; `None` is the chain's policy.
    pub handle: Option<u64>,
}

impl Blocked {
    /// The command that lets in those who send to the port, and nobody else: in
    /// front of the rule, or behind all of them.
    pub fn fix(&self) -> String {
        let Self {
            port,
            chain,
            handle,
        } = self;
        let place = match handle {
            Some(handle) => format!("insert rule {chain} handle {handle}"),
            None => format!("add rule {chain}"),
        };
        let (ipv4, ipv6): (Vec<_>, Vec<_>) = port.senders.iter().partition(|it| it.is_ipv4());
        let families = [("ip", ipv4), ("ip6", ipv6)].into_iter();
        let commands = families.filter(|(_, senders)| !senders.is_empty());
        let commands = commands.map(|(family, senders)| {
            let senders: Vec<_> = senders.into_iter().map(IpAddr::to_string).collect();
            let senders = match senders.as_slice() {
                [one] => one.clone(),
                some => format!("{{ {} }}", some.join(", ")),
            };
            let Port {
                protocol, number, ..
            } = port;
            format!("nft {place} {family} saddr {senders} {protocol} dport {number} accept")
        });
        commands.collect::<Vec<_>>().join(" && ")
    }
}

/// The rules of this host.
///
/// # Errors
/// Why they are not known, in words.
pub async fn ruleset() -> Result<Value, String> {
    let mut nft = Command::new("nft");
    nft.args(["-j", "list", "ruleset"]).kill_on_drop(true);
    let output = match timeout(PATIENCE, nft.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("`nft` cannot be run: {error}")),
        Err(_) => return Err(format!("`nft` has not answered within {PATIENCE:?}")),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default();
        return Err(format!("`nft -j list ruleset` has failed: {said}"));
    }
    let rules = serde_json::from_slice(&output.stdout);
    rules.map_err(|error| format!("`nft -j list ruleset` is not understood: {error}"))
}

/// Whether there are rules that `nft` does not show: those of the older
/// `iptables-legacy`.
pub fn has_legacy() -> bool {
    let tables = ["ip_tables_names", "ip6_tables_names"];
    let tables = tables.map(|name| fs::read_to_string(format!("/proc/net/{name}")));
    let mut tables = tables.into_iter().flatten();
    tables.any(|names| !names.trim().is_empty())
}

/// What the rules block of these ports, whoever sends.
pub fn blocked(ruleset: &Value, ports: &[Port]) -> Vec<Blocked> {
    let all = ruleset["nftables"].as_array();
    let all = all.map(Vec::as_slice).unwrap_or_default();
    let chains = all.iter().map(|entry| &entry["chain"]);
    let inward = chains.filter(|chain| {
        let hook = chain["hook"].as_str();
        hook.is_some_and(|hook| matches!(hook, "input" | "prerouting" | "ingress"))
    });
    let mut found = Vec::new();
    for chain in inward {
        let rules: Vec<_> = all
            .iter()
            .map(|entry| &entry["rule"])
            .filter(|rule| {
                let same = |key: &str, of: &str| rule[key] == chain[of];
                same("family", "family") && same("table", "table") && same("chain", "name")
            })
            .collect();
        let words = ["family", "table", "name"].map(|key| chain[key].as_str().unwrap_or("?"));
        let is_seen = |sender: &IpAddr| match words[0] {
            "ip" => sender.is_ipv4(),
            "ip6" => sender.is_ipv6(),
            _ => true,
        };
        for port in ports {
            let senders = port.senders.iter().copied().filter(is_seen);
            let port = Port {
                senders: senders.collect(),
                ..port.clone()
            };
            if port.senders.is_empty() {
                continue;
            }
            if let Some(handle) = fate(&rules, &chain["policy"], &port) {
                found.push(Blocked {
                    port,
                    chain: words.join(" "),
                    handle,
                });
            }
        }
    }
    found
}

/// What drops every packet to the port: a rule or the policy. `None` if nothing
/// does, or nobody can tell.
fn fate(rules: &[&Value], policy: &Value, port: &Port) -> Option<Option<u64>> {
    for rule in rules {
        let parts = rule["expr"].as_array().map(Vec::as_slice);
        let parts = parts.unwrap_or_default();
        let matches = parts.iter().map(|part| &part["match"]);
        let concerns: Vec<_> = matches
            .filter(|part| !part.is_null())
            .map(|part| concerns(part, port))
            .collect();
        if concerns.contains(&Concern::Others) {
            continue;
        }
        let end = parts.iter().map(end).max().unwrap_or(End::None);
        let for_all = !concerns.contains(&Concern::Some) && !parts.iter().any(is_condition);
        match (end, for_all) {
            (End::Drop, true) => return Some(rule["handle"].as_u64()),
            // Others may get through.
            (End::Drop, false) | (End::None, _) => {}
            (End::Unknown, _) => return None,
        }
    }
    (policy == "drop").then_some(None)
}

/// What a part of a rule does with a packet that it holds for. The greatest of all
/// parts holds for the rule: beside a verdict, what is not known is a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// It goes on to the next part, or the next rule.
    None,
    /// It may be let in, or another chain or nobody that we know decides.
    Unknown,
    /// It is dropped.
    Drop,
}

fn end(part: &Value) -> End {
    /// Statements that decide nothing (libnftables-json(5)).
    const HARMLESS: [&str; 11] = [
        "match", "counter", "log", "comment", "limit", "quota", "ct count", "mangle", "set",
        "notrack", "meter",
    ];
    match kind(part) {
        "drop" | "reject" => End::Drop,
        kind if HARMLESS.contains(&kind) => End::None,
        _ => End::Unknown,
    }
}

/// Whether a part lets its rule hold for some packets only, by something else than
/// a match: a limit, a counted set.
fn is_condition(part: &Value) -> bool {
    const NONE: [&str; 6] = ["match", "counter", "log", "comment", "drop", "reject"];
    !NONE.contains(&kind(part))
}

/// Its only key.
fn kind(part: &Value) -> &str {
    let keys = part.as_object().and_then(|part| part.keys().next());
    keys.map_or("", String::as_str)
}

/// Which packets to a port a condition holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Concern {
    /// All.
    All,
    /// None that opens something, from elsewhere.
    Others,
    /// Some; which, depends.
    Some,
}

fn concerns(part: &Value, port: &Port) -> Concern {
    let (left, right) = (&part["left"], &part["right"]);
    let equal = part["op"] == "==";
    let (protocol, field) = (&left["payload"]["protocol"], &left["payload"]["field"]);
    let of_all = |holds: bool| if holds { Concern::All } else { Concern::Others };
    if field == "dport" && equal {
        let concerned = protocol == port.protocol || protocol == "th";
        return match contains(right, port.number) {
            Some(holds) => of_all(concerned && holds),
            None if concerned => Concern::Some,
            None => Concern::Others,
        };
    }
    if protocol == "tcp" || protocol == "udp" {
        return if protocol == port.protocol {
            Concern::Some
        } else {
            Concern::Others
        };
    }
    let meta = left["meta"]["key"].as_str().unwrap_or_default();
    let loopback = matches!(meta, "iif" | "iifname") && right == "lo" && equal;
    if loopback || left["ct"]["key"] == "state" {
        return Concern::Others;
    }
    if meta == "l4proto" && equal && right.is_string() {
        return of_all(right == port.protocol);
    }
    Concern::Some
}

/// Whether a number is among those of a condition; `None` when they are elsewhere.
fn contains(right: &Value, port: u16) -> Option<bool> {
    let number = u64::from(port);
    if let Some(one) = right.as_u64() {
        return Some(one == number);
    }
    if let Some([from, to]) = right["range"].as_array().map(Vec::as_slice) {
        return Some((from.as_u64()?..=to.as_u64()?).contains(&number));
    }
    let set = right["set"].as_array()?;
    Some(set.iter().any(|one| contains(one, port) == Some(true)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// That of BGP, with a peer of each family.
    fn bgp() -> Port {
        port(&["192.0.2.1", "2001:db8::1"])
    }

    fn port(senders: &[&str]) -> Port {
        let senders = senders.iter().map(|text| text.parse().expect("an address"));
        Port {
            protocol: "tcp",
            number: 179,
            senders: senders.collect(),
        }
    }

    /// Rules of an input chain, each with its handle, and what they do to BGP.
    fn check(sentence: &str, policy: &str, rules: &[Value], expected: Option<Option<u64>>) {
        let chain = json!({"chain": {"family": "inet", "table": "filter", "name": "in",
            "hook": "input", "policy": policy}});
        let rules = rules.iter().zip(4..).map(|(expr, handle): (_, u64)| {
            json!({"rule": {"family": "inet", "table": "filter", "chain": "in",
                "handle": handle, "expr": expr}})
        });
        let all: Vec<_> = std::iter::once(chain).chain(rules).collect();
        let found = blocked(&json!({ "nftables": all }), &[bgp()]);
        let expected: Vec<_> = expected
            .map(|handle| Blocked {
                port: bgp(),
                chain: "inet filter in".to_owned(),
                handle,
            })
            .into_iter()
            .collect();
        assert_eq!(found, expected, "{sentence}");
    }

    fn dport(right: &Value) -> Value {
        json!({"match": {"op": "==", "right": right,
            "left": {"payload": {"protocol": "tcp", "field": "dport"}}}})
    }

    #[test]
    fn a_port_is_blocked_by_a_rule_or_by_the_policy() {
        let (drop, accept) = (json!({"drop": null}), json!({"accept": null}));
        let from = json!({"match": {"op": "==", "right": "192.0.2.1",
            "left": {"payload": {"protocol": "ip", "field": "saddr"}}}});
        let established = json!({"match": {"op": "in", "right": ["established"],
            "left": {"ct": {"key": "state"}}}});
        let loopback = json!({"match": {"op": "==", "right": "lo",
            "left": {"meta": {"key": "iifname"}}}});
        let port = dport(&json!(179));
        let span = dport(&json!({"range": [1, 1023]}));
        let set = dport(&json!({"set": [22, {"range": [170, 180]}]}));
        let udp = json!({"match": {"op": "==", "right": 179,
            "left": {"payload": {"protocol": "udp", "field": "dport"}}}});
        let c = check;
        c("no rule", "accept", &[], None);
        c("the policy alone", "drop", &[], Some(None));
        let rule = |parts: &[&Value]| json!(parts);
        let dropped = [rule(&[&port, &drop])];
        c("its port is dropped", "accept", &dropped, Some(Some(4)));
        let all = [rule(&[&drop])];
        c("everything is dropped", "accept", &all, Some(Some(4)));
        for within in [&span, &set] {
            let dropped = [rule(&[within, &drop])];
            c("its port is among them", "accept", &dropped, Some(Some(4)));
        }
        let refused = [rule(&[&port, &json!({"reject": null})])];
        c("it is refused", "accept", &refused, Some(Some(4)));
        let other = [rule(&[&udp, &drop])];
        c("another protocol", "accept", &other, None);
        let other = [rule(&[&dport(&json!(80)), &drop])];
        c("another port", "accept", &other, None);
        let counted = [rule(&[
            &json!({"counter": {"packets": 1, "bytes": 1}}),
            &drop,
        ])];
        c(
            "everything is counted and dropped",
            "accept",
            &counted,
            Some(Some(4)),
        );
        for some in [
            json!({"limit": {"rate": 100, "per": "second", "inv": true}}),
            json!({"xt": null}),
            json!({"ct count": {"val": 20, "inv": true}}),
        ] {
            let bounded = [rule(&[&port, &some, &drop])];
            c("what is too much only", "accept", &bounded, None);
        }
        let one = [rule(&[&from, &port, &drop])];
        c("from one host only", "accept", &one, None);
        let usual = [
            rule(&[&established, &accept]),
            rule(&[&loopback, &accept]),
            rule(&[&dport(&json!(22)), &accept]),
        ];
        c("what a usual filter lets in", "drop", &usual, Some(None));
        let routers = [rule(&[&from, &port, &accept]), rule(&[&port, &drop])];
        c("routers were let in before", "accept", &routers, None);
        let mut counted = usual.to_vec();
        counted.push(rule(&[&json!({"counter": {}}), &port, &accept]));
        c("its port is let in", "drop", &counted, None);
        let elsewhere = [rule(&[&json!({"jump": {"target": "other"}})])];
        c("another chain decides", "drop", &elsewhere, None);
        // As `iptables -m conntrack --ctstate INVALID -j DROP` is shown.
        let odd = [rule(&[
            &json!({"xt": null}),
            &json!({"counter": {}}),
            &drop,
        ])];
        c(
            "by a condition that nft does not show",
            "accept",
            &odd,
            None,
        );
        c("the policy behind such a rule", "drop", &odd, Some(None));
        let hidden = [rule(&[&json!({"xt": null}), &json!({"counter": {}})])];
        c("by a verdict that nft does not show", "drop", &hidden, None);
        for other in ["return", "queue", "dnat"] {
            let other = [rule(&[&port, &json!({other: null})]), rule(&[&drop])];
            c("it goes another way before", "accept", &other, None);
        }
        let logged = [
            rule(&[&json!({"limit": {"rate": 1}}), &json!({"log": {}})]),
            rule(&[&drop]),
        ];
        c("some are logged before", "accept", &logged, Some(Some(5)));
    }

    #[test]
    fn a_chain_of_one_family_blocks_only_senders_of_that_family() {
        for (family, senders) in [
            ("ip", &["192.0.2.1"][..]),
            ("ip6", &["2001:db8::1"]),
            ("inet", &["192.0.2.1", "2001:db8::1"]),
        ] {
            let chain = json!({"chain": {"family": family, "table": "filter", "name": "in",
                "hook": "input", "policy": "drop"}});
            let rules = json!({ "nftables": [chain] });
            let found = blocked(&rules, &[bgp()]);
            let found: Vec<_> = found.iter().map(|blocked| &blocked.port).collect();
            assert_eq!(found, [&port(senders)], "{family}");
            let others = match family {
                "ip" => port(&["2001:db8::1"]),
                _ => port(&["192.0.2.1"]),
            };
            let count = blocked(&rules, &[others]).len();
            assert_eq!(count, usize::from(family == "inet"), "{family}");
        }
    }

    #[test]
    fn the_command_lets_in_those_who_send_and_nobody_else() {
        let fix = |senders: &[&str], handle| {
            let chain = "inet filter in".to_owned();
            let port = port(senders);
            Blocked {
                port,
                chain,
                handle,
            }
            .fix()
        };
        assert_eq!(
            fix(&["192.0.2.1"], Some(5)),
            "nft insert rule inet filter in handle 5 ip saddr 192.0.2.1 tcp dport 179 accept"
        );
        assert_eq!(
            fix(&["192.0.2.1", "192.0.2.2", "2001:db8::1"], None),
            "nft add rule inet filter in ip saddr { 192.0.2.1, 192.0.2.2 } tcp dport 179 accept \
             && nft add rule inet filter in ip6 saddr 2001:db8::1 tcp dport 179 accept"
        );
    }
}
