//! Checks on the way of traffic, of servers that listen on the virtual address only:
//! what they find that no check of the backend itself can.
//!
//! lb1 runs the agent. lb2 runs none, so that nothing holds an address there: what it
//! asks once must not be undone by its own kernel, which knows of no connection.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{
    AgentConfig, Decapsulator, Host, Lab, Machine, Nginx, Nsd, Rack, Size, UdpEcho, Vipd,
    wait_until,
};

use crate::support::{PATIENCE, VIP, VIP6, in_lab};

const MIXED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
const GUE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 12);
const ON_LINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 13);
const BESIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 15);

/// A service that is checked on the way of traffic.
struct Served {
    name: &'static str,
    vip: IpAddr,
    mode: &'static str,
    /// Whether its backends are known by IPv4 addresses.
    outer_ipv4: bool,
}

const SERVICES: [Served; 5] = [
    Served {
        name: "four",
        vip: IpAddr::V4(VIP),
        mode: "ipip",
        outer_ipv4: true,
    },
    Served {
        name: "six",
        vip: IpAddr::V6(VIP6),
        mode: "ipip",
        outer_ipv4: false,
    },
    Served {
        name: "mixed",
        vip: IpAddr::V4(MIXED),
        mode: "ipip",
        outer_ipv4: false,
    },
    Served {
        name: "gue",
        vip: IpAddr::V4(GUE),
        mode: "gue",
        outer_ipv4: true,
    },
    Served {
        name: "link",
        vip: IpAddr::V4(ON_LINK),
        mode: "l2-dsr",
        outer_ipv4: true,
    },
];
const TUNNELLED: [&str; 4] = ["four", "six", "mixed", "gue"];
const ALL: [&str; 5] = ["four", "six", "mixed", "gue", "link"];
const SOURCES: [&str; 2] = ["192.0.2.0/24", "2001:db8:1::/64"];

/// Long enough for a busy machine.
const TIMING: &str = "interval = \"700ms\"\ntimeout = \"600ms\"\nrise = 1\nfall = 2\n";

#[test]
fn a_backend_that_loses_its_address_its_decapsulation_or_large_packets_is_found() {
    in_lab(|lab| {
        let rack = build(lab)?;
        let _servers = start_servers(&rack)?;
        let [lb1, lb2] = &rack.balancers[..] else {
            anyhow::bail!("two balancers");
        };
        let config = config(&rack);
        for balancer in [lb1, lb2] {
            watch_for_resets(&balancer.host)?;
        }
        let agent = Vipd::start_with_rights_of_unit(&lb1.host, &config.text(lb1))?;
        let ward = Ward { rack: &rack, agent };
        ward.wait(&[], "")?;
        ensure_once_up(lb2, &config)?;

        let backend = &rack.backends[0];
        for Served { name, vip, .. } in SERVICES {
            let prefix = if vip.is_ipv4() { 32 } else { 128 };
            let change = |verb: &str| format!("addr {verb} {vip}/{prefix} dev lo\n");
            backend.host.ip(&change("del"))?;
            ward.wait(&[name], "the address is not bound there")?;
            backend.host.ip(&change("add"))?;
            ward.wait(&[], "")?;
        }

        detach(&backend.host)?;
        ward.wait(&TUNNELLED, "it does not decapsulate")?;
        Decapsulator::attach(&backend.host, &SOURCES)?;
        ward.wait(&[], "")?;

        for (mtu, lost) in [(1510, &TUNNELLED[..]), (1400, &ALL[..])] {
            rack.switch.ip(&format!("link set b1 mtu {mtu}\n"))?;
            ward.wait(lost, "has a smaller MTU")?;
        }
        rack.switch.ip("link set b1 mtu 1600\n")?;
        ward.wait(&[], "")?;

        for balancer in [lb1, lb2] {
            ensure_no_resets(&balancer.host)?;
        }
        Ok(())
    });
}

/// How a service is checked, and what must be found at both backends.
struct Case {
    check: &'static str,
    code: &'static str,
    /// How the reason begins.
    reason: &'static str,
}

#[rustfmt::skip]
const KINDS: &[Case] = &[
    Case { check: "type = \"tcp\"\nport = 8080", code: "L4OK", reason: "" },
    Case { check: "type = \"tcp\"\nport = 8080\nsend = \"GET / HTTP/1.0\\r\\n\\r\\n\"\nexpect = \"served\"",
        code: "L7OK", reason: "" },
    Case { check: "type = \"tcp\"\nport = 8081", code: "L4CON", reason: "Connection refused" },
    Case { check: "type = \"http\"\nport = 8080\npath = \"/large\"\nexpect_body = \"end\"",
        code: "L7OK", reason: "HTTP status 200" },
    Case { check: "type = \"http\"\nport = 8080\npath = \"/missing\"", code: "L7STS", reason: "HTTP status 404" },
    Case { check: "type = \"tls\"\nport = 8443\nverify = false", code: "L6OK", reason: "certificate not verified" },
    Case { check: "type = \"https\"\nport = 8443\npath = \"/large\"\nexpect_body = \"end\"\nverify = false",
        code: "L7OK", reason: "HTTP status 200" },
    Case { check: "type = \"dns\"\nport = 53\nname = \"www.example.com\"\ntransport = \"tcp\"\nanswer = \"192.0.2.80\"",
        code: "L7OK", reason: "NOERROR, 192.0.2.80" },
    Case { check: "type = \"dns\"\nport = 7\nname = \"www.example.com\"",
        code: "L7TOUT", reason: "no answer to this query" },
    Case { check: "type = \"udp\"\nport = 7\nsend = \"ping\"\nexpect = \":ping\"", code: "L7OK", reason: "the reply has" },
    Case { check: "type = \"udp\"\nport = 8\nsend = \"ping\"", code: "L4CON", reason: "Connection refused" },
    Case { check: "type = \"icmp\"\nsize = 1000", code: "L4OK", reason: "" },
];

#[test]
fn every_kind_of_check_goes_the_way_of_traffic() {
    in_lab(|lab| {
        let rack = build(lab)?;
        let _servers = start_servers(&rack)?;
        let mut echoes = Vec::new();
        let mut nsds = Vec::new();
        for backend in &rack.backends {
            // ICMP errors are not to be rationed.
            backend.host.sysctl(&[
                ("net/ipv4/icmp_ratelimit", "0"),
                ("net/ipv6/icmp/ratelimit", "0"),
            ])?;
            nsds.push(Nsd::start(&backend.host, "www IN A 192.0.2.80\n")?);
            for Served { vip, .. } in SERVICES {
                echoes.push(UdpEcho::start(&backend.host, vip, 7)?);
            }
        }
        let balancer = &rack.balancers[1];
        watch_for_resets(&balancer.host)?;
        for Case {
            check,
            code,
            reason,
        } in KINDS
        {
            let timing = "through = true\ntimeout = \"3s\"\ninterval = \"4s\"\n";
            let mut config = AgentConfig::default();
            for served in &SERVICES {
                config.services += &service(served, &format!("{check}\n{timing}"), &rack);
            }
            for Served { name, .. } in SERVICES {
                let report = check_once(balancer, &config, name)?;
                let backends = report["backends"].as_array().context("no backends")?;
                ensure!(backends.len() == 2, "{report}");
                for backend in backends {
                    let found = &backend["check"];
                    let detail = found["detail"].as_str().unwrap_or_default();
                    let good = found["code"] == *code && detail.starts_with(reason);
                    ensure!(good, "{name}: {check}: {backend}");
                }
            }
        }
        ensure_no_resets(&balancer.host)
    });
}

#[test]
fn a_datagram_that_nobody_replies_to_must_have_come_to_the_address() {
    in_lab(|lab| {
        let rack = build(lab)?;
        let _servers = start_servers(&rack)?;
        // They take datagrams in, and say nothing.
        let mut deaf = Vec::new();
        for backend in &rack.backends {
            for Served { vip, .. } in SERVICES {
                deaf.push(
                    backend
                        .host
                        .enter(|| UdpSocket::bind((vip, 9)).map_err(Into::into))?,
                );
            }
        }
        let check = "type = \"udp\"\nport = 9\nsend = \"log\"\nthrough = true\ntimeout = \"3s\"\ninterval = \"4s\"\n";
        let mut config = AgentConfig::default();
        for served in &SERVICES {
            config.services += &service(served, check, &rack);
        }
        let balancer = &rack.balancers[1];
        for Served { name, vip, .. } in SERVICES {
            let well = ("L4OK", "no reply, and nobody says");
            ensure_found(balancer, &config, name, [well, well])?;
            let prefix = if vip.is_ipv4() { 32 } else { 128 };
            let backend = &rack.backends[0].host;
            backend.ip(&format!("addr del {vip}/{prefix} dev lo\n"))?;
            let lost = ("L4TOUT", "the address is not bound there");
            ensure_found(balancer, &config, name, [lost, well])?;
        }
        Ok(())
    });
}

#[test]
fn an_address_that_is_missing_beside_one_that_answers_is_no_silence() {
    in_lab(|lab| {
        let rack = build(lab)?;
        let _servers = start_servers(&rack)?;
        let check =
            "type = \"http\"\nport = 8080\nthrough = true\ntimeout = \"3s\"\ninterval = \"4s\"\n";
        let one = format!("vips = [\"{VIP}\"]");
        let two = format!("vips = [\"{VIP}\", \"{BESIDE}\"]");
        let config = AgentConfig {
            services: service(&SERVICES[0], check, &rack).replace(&one, &two),
            ..AgentConfig::default()
        };
        let balancer = &rack.balancers[1];
        let lost = ("L7TOUT", "198.51.100.15 does not answer by ipip");
        ensure_found(balancer, &config, "four", [lost, lost])?;
        // No web server is there.
        rack.bind_vips(&[BESIDE.into()])?;
        let refused = ("L7RSP", "198.51.100.15:8080 refuses connections by ipip");
        ensure_found(balancer, &config, "four", [refused, refused])
    });
}

/// Whether one check of each backend finds this word, with this in its reason.
fn ensure_found(
    balancer: &Machine,
    config: &AgentConfig,
    name: &str,
    expected: [(&str, &str); 2],
) -> Result<()> {
    let report = check_once(balancer, config, name)?;
    let backends = report["backends"].as_array().context("no backends")?;
    ensure!(backends.len() == expected.len(), "{report}");
    for (backend, (code, words)) in backends.iter().zip(expected) {
        let found = &backend["check"];
        let detail = found["detail"].as_str().unwrap_or_default();
        let good = found["code"] == code && detail.contains(words);
        ensure!(good, "{name}: {code} {words} is expected: {backend}");
    }
    Ok(())
}

fn build(lab: &Lab) -> Result<Rack> {
    let size = Size {
        balancers: 2,
        backends: 2,
    };
    Rack::build(lab, size)
}

/// Web servers on the virtual addresses only, and what takes tunnels from the rack.
fn start_servers(rack: &Rack) -> Result<Vec<Nginx>> {
    let vips: Vec<_> = SERVICES.iter().map(|served| served.vip).collect();
    rack.bind_vips(&vips)?;
    let start = |backend: &Machine| {
        let certificate = rcgen::generate_simple_self_signed(["www.example.com".to_owned()])?;
        let pem = certificate.cert.pem() + &certificate.signing_key.serialize_pem();
        let file = backend.host.write("server.pem", &pem)?;
        // Of some packets.
        let large = format!("{}end", "x".repeat(3000));
        let mut blocks = String::new();
        for vip in &vips {
            let address = match vip {
                IpAddr::V4(vip) => vip.to_string(),
                IpAddr::V6(vip) => format!("[{vip}]"),
            };
            blocks += &format!(
                "    server {{\n        listen {address}:8080;\n        \
                 listen {address}:8443 ssl;\n        ssl_certificate {file};\n        \
                 ssl_certificate_key {file};\n        \
                 location = /missing {{ return 404; }}\n        \
                 location = /large {{ return 200 \"{large}\"; }}\n        \
                 location / {{ return 200 \"served\\n\"; }}\n    }}\n",
                file = file.display()
            );
        }
        Decapsulator::attach(&backend.host, &SOURCES)?;
        Nginx::start_with(&backend.host, &blocks)
    };
    rack.backends.iter().map(start).collect()
}

/// All services, and one whose check asks the backends themselves.
fn config(rack: &Rack) -> AgentConfig {
    let mut config = AgentConfig::default();
    let direct = Served {
        name: "direct",
        vip: Ipv4Addr::new(198, 51, 100, 14).into(),
        mode: "ipip",
        outer_ipv4: true,
    };
    config.services += &service(&direct, &format!("type = \"icmp\"\n{TIMING}"), rack);
    let check = format!("type = \"http\"\nthrough = true\nfull_mtu = true\n{TIMING}");
    for served in &SERVICES {
        config.services += &service(served, &check, rack);
    }
    config
}

fn service(served: &Served, check: &str, rack: &Rack) -> String {
    let Served {
        name,
        vip,
        mode,
        outer_ipv4,
    } = served;
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\nvips = [\"{vip}\"]\nprotocol = \"tcp\"\nport = 8080\n\
         mode = \"{mode}\"\n[service.check]\n{check}"
    );
    for Machine { host, ipv4, ipv6 } in &rack.backends {
        let address: IpAddr = if *outer_ipv4 {
            (*ipv4).into()
        } else {
            (*ipv6).into()
        };
        let name = host.name();
        text += &format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    }
    text
}

/// A rack whose balancer checks on the way of traffic, but for one service.
struct Ward<'r> {
    rack: &'r Rack,
    agent: Vipd,
}

impl Ward<'_> {
    /// Waits until just these services have b1 down, for this reason; b2 is well.
    fn wait(&self, down: &[&str], words: &str) -> Result<()> {
        // Small packets are answered there.
        let code = if words.contains("MTU") {
            "L7TOUT"
        } else {
            "L4TOUT"
        };
        let sentence = format!("b1 is down in {down:?}: {words}");
        wait_until(&sentence, PATIENCE, || {
            let status = self.agent.status()?;
            let services = status["services"].as_array().context("no services")?;
            ensure!(services.len() == 1 + SERVICES.len(), "{status}");
            for service in services {
                let name = service["name"].as_str().context("no name")?;
                let backends = service["backends"].as_array().context("no backends")?;
                ensure!(backends.len() == self.rack.backends.len(), "{service}");
                for backend in backends {
                    let lost = backend["name"] == "b1" && down.contains(&name);
                    let check = &backend["check"];
                    let good = if lost {
                        let detail = check["detail"].as_str().unwrap_or_default();
                        check["code"] == code && detail.contains(words)
                    } else {
                        check["code"] == if name == "direct" { "L4OK" } else { "L7OK" }
                    };
                    let up = backend["available"] == true;
                    ensure!(good && up != lost, "{name}: {backend}");
                }
            }
            Ok(())
        })
    }
}

/// What `vipd check-once` finds, without an agent.
fn check_once(balancer: &Machine, config: &AgentConfig, name: &str) -> Result<serde_json::Value> {
    let host = &balancer.host;
    let path = host.write("once.toml", &config.text(balancer))?;
    let binary = Vipd::binary()?;
    // It ends as a monitoring plugin, and what it prints counts.
    let script = format!(
        "{} check-once --json --config {} {name} || true",
        binary.display(),
        path.display()
    );
    let text = host.run("sh", &["-c", &script])?;
    serde_json::from_str(&text).with_context(|| format!("check-once printed {text}"))
}

fn ensure_once_up(balancer: &Machine, config: &AgentConfig) -> Result<()> {
    for name in ALL {
        wait_until("one check finds it up", PATIENCE, || {
            let report = check_once(balancer, config, name)?;
            ensure!(report["verdict"] == "ok", "{report}");
            Ok(())
        })?;
    }
    Ok(())
}

fn detach(host: &Host) -> Result<()> {
    let pins = host.pins().join("decap");
    let pins = pins.to_string_lossy();
    let detach = ["decap", "detach", "--iface", "eth0", "--pin-path", &*pins];
    host.run(&Vipd::binary()?.to_string_lossy(), &detach)?;
    Ok(())
}

/// Counts what the kernel hears of our connections, and the resets that it sends.
fn watch_for_resets(host: &Host) -> Result<()> {
    let rules = "table inet watch {\n chain in {\n  type filter hook input priority 0\n  \
                 tcp dport >= 61000 tcp flags & (syn | ack) == (syn | ack) counter\n }\n \
                 chain out {\n  type filter hook output priority 0\n  \
                 tcp sport >= 61000 tcp flags & rst == rst counter\n }\n}\n";
    let rules = host.write("watch.nft", rules)?;
    host.run("nft", &["-f", &rules.to_string_lossy()])?;
    Ok(())
}

fn ensure_no_resets(host: &Host) -> Result<()> {
    let rules = host.run("nft", &["list", "table", "inet", "watch"])?;
    let counts = rules.split("packets ").skip(1);
    let counts: Vec<u64> = counts
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    let [accepted, resets] = counts[..] else {
        anyhow::bail!("no counters: {rules}");
    };
    ensure!(accepted > 0, "the kernel has heard nothing: {rules}");
    ensure!(resets == 0, "the kernel has sent resets: {rules}");
    Ok(())
}
