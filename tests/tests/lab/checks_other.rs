//! Checks of DNS, UDP, ICMP, programs and files against real servers that are up,
//! refuse, are silent, are slow or answer wrongly: state, word and reason.

use std::{
    fs,
    net::{IpAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{AgentConfig, Host, Machine, Nsd, Rack, Size, UdpEcho, Vipd, wait_until};

use crate::support::{PATIENCE, in_lab, start_agent};

/// A host that takes packets and answers none.
const SILENT: &str = "192.0.2.99";
/// An address to which the router knows no way.
const UNREACHABLE: &str = "203.0.113.200";

/// The records of the DNS server, among them some that fit into no datagram.
fn records() -> String {
    let long: String = (0..6)
        .map(|number| format!("long IN TXT \"{number}{}\"\n", "x".repeat(200)))
        .collect();
    format!("www IN A 192.0.2.80\nwww IN AAAA 2001:db8::80\nmail IN MX 10 www\n{long}")
}

/// A check, and what must be found.
struct Case {
    /// What is checked how.
    sentence: &'static str,
    /// The backend; `b1` unless it is another.
    backend: &'static str,
    /// Lines of `[service.check]`, with `{dir}` for the balancer's directory.
    check: &'static str,
    /// State of the backend.
    state: &'static str,
    /// Word of the result.
    code: &'static str,
    /// How the reason begins.
    reason: &'static str,
}

const B1: &str = "192.0.2.21";
const B1_IPV6: &str = "2001:db8:1::21";

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { sentence: "DNS over UDP", backend: B1, state: "up", code: "L7OK",
        check: "type = \"dns\"\nname = \"www.example.com\"\nanswer = \"192.0.2.80\"\nport = 53",
        reason: "NOERROR, 192.0.2.80" },
    Case { sentence: "DNS over TCP", backend: B1, state: "up", code: "L7OK",
        check: "type = \"dns\"\nname = \"www.example.com\"\nrecord_type = \"AAAA\"\nanswer = \"2001:db8::80\"\ntransport = \"tcp\"\nport = 53",
        reason: "NOERROR, 2001:db8::80" },
    Case { sentence: "DNS over IPv6", backend: B1_IPV6, state: "up", code: "L7OK",
        check: "type = \"dns\"\nname = \"mail.example.com\"\nrecord_type = \"MX\"\nanswer = { regex = \"^10 www\" }\nport = 53",
        reason: "NOERROR, 10 www.example.com" },
    Case { sentence: "DNS, an answer that fits into no datagram", backend: B1, state: "up", code: "L7OK",
        check: "type = \"dns\"\nname = \"long.example.com\"\nrecord_type = \"TXT\"\nanswer = \"5xx\"\nport = 53",
        reason: "NOERROR, \"5xxx" },
    Case { sentence: "DNS, another answer", backend: B1, state: "down", code: "L7STS",
        check: "type = \"dns\"\nname = \"www.example.com\"\nanswer = \"192.0.2.81\"\nport = 53",
        reason: "NOERROR, and no record has \"192.0.2.81\": 192.0.2.80" },
    Case { sentence: "DNS, no such name", backend: B1, state: "down", code: "L7STS",
        check: "type = \"dns\"\nname = \"nobody.example.com\"\nport = 53",
        reason: "NXDOMAIN" },
    Case { sentence: "DNS, no such name, which is wanted", backend: B1, state: "up", code: "L7OK",
        check: "type = \"dns\"\nname = \"nobody.example.com\"\nrcode = [\"NXDOMAIN\"]\nport = 53",
        reason: "NXDOMAIN" },
    Case { sentence: "DNS, no zone of this server", backend: B1, state: "down", code: "L7STS",
        check: "type = \"dns\"\nname = \"www.example.net\"\nport = 53",
        reason: "REFUSED" },
    Case { sentence: "DNS over UDP, refused", backend: B1, state: "down", code: "L4CON",
        check: "type = \"dns\"\nname = \"www.example.com\"\nport = 54",
        reason: "Connection refused" },
    Case { sentence: "DNS over TCP, refused", backend: B1, state: "down", code: "L4CON",
        check: "type = \"dns\"\nname = \"www.example.com\"\ntransport = \"tcp\"\nport = 54",
        reason: "Connection refused" },
    Case { sentence: "DNS over UDP, silent", backend: SILENT, state: "down", code: "L4TOUT",
        check: "type = \"dns\"\nname = \"www.example.com\"\nport = 53",
        reason: "no reply" },
    Case { sentence: "DNS over TCP, silent", backend: SILENT, state: "down", code: "L4TOUT",
        check: "type = \"dns\"\nname = \"www.example.com\"\ntransport = \"tcp\"\nport = 53",
        reason: "no answer to the connection" },
    Case { sentence: "DNS over TCP, too slow", backend: B1, state: "down", code: "L7TOUT",
        check: "type = \"dns\"\nname = \"www.example.com\"\ntransport = \"tcp\"\nport = 2000",
        reason: "no complete answer" },
    Case { sentence: "DNS, not spoken there", backend: B1, state: "down", code: "L7TOUT",
        check: "type = \"dns\"\nname = \"www.example.com\"\nport = 7",
        reason: "no answer to this query; what came is" },

    Case { sentence: "UDP", backend: B1, state: "up", code: "L7OK",
        check: "type = \"udp\"\nsend = \"ping\"\nexpect = \"b1:ping\"\nport = 7",
        reason: "the reply has \"b1:ping\"" },
    Case { sentence: "UDP, another reply", backend: B1, state: "down", code: "L7RSP",
        check: "type = \"udp\"\nsend = { hex = \"00ff\" }\nexpect = { hex = \"00fe\" }\nport = 7",
        reason: "no 0x00fe in the reply \"b1:\\x00\\xff\"" },
    Case { sentence: "UDP, refused", backend: B1, state: "down", code: "L4CON",
        check: "type = \"udp\"\nsend = \"ping\"\nport = 8",
        reason: "Connection refused" },
    Case { sentence: "UDP, no way there", backend: UNREACHABLE, state: "down", code: "L4CON",
        check: "type = \"udp\"\nsend = \"ping\"\nport = 8",
        reason: "No route to host" },
    Case { sentence: "UDP, silent or too slow", backend: B1, state: "down", code: "L4TOUT",
        check: "type = \"udp\"\nsend = \"ping\"\nexpect = \"pong\"\nport = 2000",
        reason: "no reply" },
    Case { sentence: "UDP, no reply is wanted and none comes", backend: B1, state: "up", code: "L4OK",
        check: "type = \"udp\"\nsend = \"ping\"\nport = 2000",
        reason: "no reply, and nobody says that it is unreachable" },
    Case { sentence: "UDP, no reply is wanted and one comes", backend: B1, state: "up", code: "L4OK",
        check: "type = \"udp\"\nsend = \"ping\"\nport = 7",
        reason: "there is a reply" },

    Case { sentence: "ICMP", backend: B1, state: "up", code: "L4OK",
        check: "type = \"icmp\"", reason: "" },
    Case { sentence: "ICMP in several fragments", backend: B1, state: "up", code: "L4OK",
        check: "type = \"icmp\"\nsize = 4000\nsource = \"192.0.2.11\"", reason: "" },
    Case { sentence: "ICMPv6", backend: B1_IPV6, state: "up", code: "L4OK",
        check: "type = \"icmp\"\nsize = 0", reason: "" },
    Case { sentence: "ICMP, silent", backend: SILENT, state: "down", code: "L4TOUT",
        check: "type = \"icmp\"", reason: "no echo reply" },
    Case { sentence: "ICMP, no way there", backend: UNREACHABLE, state: "down", code: "L4CON",
        check: "type = \"icmp\"", reason: "192.0.2.1 says: unreachable" },

    Case { sentence: "a program", backend: B1, state: "up", code: "PROCOK",
        check: "type = \"program\"\nport = 80\nenvironment = { COLOUR = \"red\" }\ncommand = [\"/bin/sh\", \"-c\", \"echo $VIPD_BACKEND $VIPD_ADDRESS $VIPD_PORT $COLOUR\"]",
        reason: "exit code 0: b1 192.0.2.21 80 red" },
    Case { sentence: "a program, as whom it runs", backend: B1, state: "up", code: "PROCOK",
        check: "type = \"program\"\nport = 80\ncommand = [\"/bin/sh\", \"-c\", \"id -un; id -Gn; grep CapBnd /proc/self/status\"]",
        reason: "exit code 0: nobody nogroup CapBnd: 0000000000000000" },
    Case { sentence: "a program that says no", backend: B1, state: "down", code: "PROCERR",
        check: "type = \"program\"\nport = 80\ncommand = [\"/bin/sh\", \"-c\", \"echo queue is full; exit 2\"]",
        reason: "exit code 2: queue is full" },
    Case { sentence: "a program that hangs", backend: B1, state: "down", code: "PROCTOUT",
        check: "type = \"program\"\nport = 80\ncommand = [\"/bin/sleep\", \"600\"]",
        reason: "not finished in time, killed" },
    Case { sentence: "a program that is not there", backend: B1, state: "down", code: "PROCERR",
        check: "type = \"program\"\nport = 80\ncommand = [\"/no/such/program\"]",
        reason: "cannot start /no/such/program: No such file" },
    Case { sentence: "a program of nobody's", backend: B1, state: "unknown", code: "SOCKERR",
        check: "type = \"program\"\nport = 80\nuser = \"no-such-user\"\ncommand = [\"/bin/true\"]",
        reason: "there is no user no-such-user on this host" },

    Case { sentence: "a file that is there", backend: B1, state: "up", code: "L7OK",
        check: "type = \"file\"\npath = \"in-service\"", reason: "{dir}/in-service is there" },
    Case { sentence: "a file that is not there", backend: B1, state: "down", code: "L7STS",
        check: "type = \"file\"\npath = \"nothing\"", reason: "{dir}/nothing is not there" },
    Case { sentence: "a file that must not be there", backend: B1, state: "down", code: "L7STS",
        check: "type = \"file\"\npath = \"in-service\"\nup_while = \"absent\"",
        reason: "{dir}/in-service is there" },
];

#[test]
fn each_check_finds_what_a_real_server_does_and_says_it_as_documented() {
    in_lab(|lab| {
        let rack = Rack::build(
            lab,
            Size {
                balancers: 1,
                backends: 1,
            },
        )?;
        let (balancer, backend) = (&rack.balancers[0], &rack.backends[0]);
        let _servers = start_servers(&rack, backend)?;
        balancer.host.write("in-service", "")?;
        let dir = balancer.host.dir().display().to_string();
        let mut config = AgentConfig::default();
        for (number, case) in CASES.iter().enumerate() {
            config.services += &service(number, case);
        }
        let mut agent = start_agent(&rack, &config)?;
        for (number, case) in CASES.iter().enumerate() {
            wait_until(case.sentence, PATIENCE, || {
                let status = agent.status()?;
                let mut services = status["services"].as_array().into_iter().flatten();
                let found = services.find(|it| it["name"] == name(number));
                let backend = &found.context("no such service")?["backends"][0];
                ensure!(backend["state"] == case.state, "{backend}");
                ensure_result(&backend["check"], case, &dir)
            })?;
        }
        // A router says to each host once a second that it knows no way, and no more
        // (`ip_error` in net/ipv4/route.c): the agent's own questions would use it up.
        agent.process().kill()?;
        for (number, case) in CASES.iter().enumerate() {
            let expected = match (case.state, case.code) {
                (_, "SOCKERR") => 3,
                ("up", _) => 0,
                _ => 2,
            };
            let (exit_code, report) = check_once(&balancer.host, &name(number))?;
            ensure!(
                exit_code == expected,
                "{}: {exit_code}, {report}",
                case.sentence
            );
            ensure_result(&report["backends"][0]["check"], case, &dir)?;
        }
        Ok(())
    });
}

#[test]
fn where_the_kernel_has_ping_sockets_for_us_they_do_as_raw_ones_do() {
    in_lab(|lab| {
        let rack = Rack::build(
            lab,
            Size {
                balancers: 1,
                backends: 1,
            },
        )?;
        let (balancer, backend) = (&rack.balancers[0], &rack.backends[0]);
        let _servers = start_servers(&rack, backend)?;
        let dir = balancer.host.dir().display().to_string();
        balancer
            .host
            .sysctl(&[("net/ipv4/ping_group_range", "0 0")])?;
        let pings: Vec<_> = CASES
            .iter()
            .filter(|case| case.check.contains("icmp"))
            .collect();
        let mut config = AgentConfig::default();
        for (number, case) in pings.iter().enumerate() {
            config.services += &service(number, case);
        }
        balancer.host.write("vipd.toml", &config.text(balancer))?;
        for (number, case) in pings.into_iter().enumerate() {
            let (_, report) = check_once(&balancer.host, &name(number))?;
            ensure_result(&report["backends"][0]["check"], case, &dir)?;
        }
        Ok(())
    });
}

/// What runs, until it is dropped.
type Servers = (Nsd, UdpEcho, UdpSocket, TcpListener);

/// A DNS server, an echo, and sockets at port 2000 from which nobody reads.
fn start_servers(rack: &Rack, backend: &Machine) -> Result<Servers> {
    let silent =
        format!("neigh replace {SILENT} lladdr 02:00:00:00:00:99 dev eth0 nud permanent\n");
    rack.balancers[0].host.ip(&silent)?;
    rack.router
        .ip(&format!("route add unreachable {UNREACHABLE}\n"))?;
    // Programs run as another user, and see what they must.
    let dir = rack.balancers[0].host.dir();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    // Linux says that nobody is there once a second to each host, and no more.
    for host in [&backend.host, &rack.router] {
        host.sysctl(&[("net/ipv4/icmp_ratelimit", "0")])?;
    }
    let address = IpAddr::from(backend.ipv4);
    let nsd = Nsd::start(&backend.host, &records())?;
    let echo = UdpEcho::start(&backend.host, address, 7)?;
    let unread = backend.host.enter(|| {
        let place = (address, 2000);
        Ok((UdpSocket::bind(place)?, TcpListener::bind(place)?))
    })?;
    Ok((nsd, echo, unread.0, unread.1))
}

fn name(number: usize) -> String {
    format!("case{number}")
}

fn service(number: usize, case: &Case) -> String {
    let Case { backend, check, .. } = case;
    let (name, port) = (name(number), 1000 + number);
    format!(
        r#"
[[service]]
name = "{name}"
vips = ["198.51.100.10"]
protocol = "udp"
port = {port}
mode = "gue"
[service.check]
interval = "1s"
timeout = "900ms"
rise = 1
fall = 2
{check}
[[service.backend]]
name = "b1"
address = "{backend}"
"#
    )
}

fn ensure_result(found: &Value, case: &Case, dir: &str) -> Result<()> {
    let reason = case.reason.replace("{dir}", dir);
    let detail = found["detail"].as_str().unwrap_or_default();
    let right = found["code"] == case.code && detail.starts_with(&reason);
    ensure!(right, "{}: {found}", case.sentence);
    Ok(())
}

/// Exit code and report of `vipd check-once --json`.
fn check_once(host: &Host, service: &str) -> Result<(i32, Value)> {
    let config = host.dir().join("vipd.toml");
    let output = host.enter(|| {
        let mut command = std::process::Command::new(Vipd::binary()?);
        command
            .args(["check-once", "--json", "--config"])
            .arg(&config)
            .arg(service);
        Ok(command.output()?)
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text);
    let code = output.status.code().context("it was killed")?;
    Ok((code, report.with_context(|| format!("it says {text}"))?))
}
