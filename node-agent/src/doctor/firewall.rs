//! What the packet filter of this host does to packets that come to a port, as far
//! as its rules tell: `nft -j list ruleset` (libnftables-json(5)).

use std::process::Command;

use serde_json::Value;

/// A port that routers send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its number.
    pub number: u16,
}

/// A rule or a policy that drops what comes to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The port.
    pub port: Port,
    /// Family, table and chain, as `nft` takes them.
    pub chain: String,
    /// The rule; `None` is the chain's policy.
    pub handle: Option<u64>,
}

/// The rules of this host; nothing where `nft` is not installed or not allowed.
pub fn ruleset() -> Value {
    let output = Command::new("nft").args(["-j", "list", "ruleset"]).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
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
        for port in ports {
            if let Some(handle) = fate(&rules, &chain["policy"], *port) {
                found.push(Blocked {
                    port: *port,
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
fn fate(rules: &[&Value], policy: &Value, port: Port) -> Option<Option<u64>> {
    for rule in rules {
        let empty = Vec::new();
        let parts = rule["expr"].as_array().unwrap_or(&empty);
        let has = |verdict: &str| parts.iter().any(|part| part.get(verdict).is_some());
        let matches: Vec<_> = parts
            .iter()
            .map(|part| &part["match"])
            .filter(|part| !part.is_null())
            .map(|part| concerns(part, port))
            .collect();
        if matches.contains(&Concern::Others) {
            continue;
        }
        if has("accept") || has("jump") || has("goto") || has("vmap") {
            return None;
        }
        let is_bound = parts.iter().any(is_condition) || matches.contains(&Concern::Some);
        if (has("drop") || has("reject")) && !is_bound {
            return Some(rule["handle"].as_u64());
        }
    }
    (policy == "drop").then_some(None)
}

/// Whether a part of a rule lets it hold for some packets only, by something else
/// than a match: a limit, a counted set, an extension of iptables.
fn is_condition(part: &Value) -> bool {
    const NONE: [&str; 6] = ["match", "counter", "log", "comment", "drop", "reject"];
    let mut kinds = part.as_object().into_iter().flat_map(|part| part.keys());
    kinds.any(|kind| !NONE.contains(&kind.as_str()))
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

fn concerns(part: &Value, port: Port) -> Concern {
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

    const BGP: Port = Port {
        protocol: "tcp",
        number: 179,
    };

    /// Rules of an input chain, each with its handle, and what they do to BGP.
    fn check(sentence: &str, policy: &str, rules: &[Value], expected: Option<Option<u64>>) {
        let chain = json!({"chain": {"family": "inet", "table": "filter", "name": "in",
            "hook": "input", "policy": policy}});
        let rules = rules.iter().zip(4..).map(|(expr, handle): (_, u64)| {
            json!({"rule": {"family": "inet", "table": "filter", "chain": "in",
                "handle": handle, "expr": expr}})
        });
        let all: Vec<_> = std::iter::once(chain).chain(rules).collect();
        let found = blocked(&json!({ "nftables": all }), &[BGP]);
        let expected: Vec<_> = expected
            .map(|handle| Blocked {
                port: BGP,
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
    }
}
