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

use crate::{
    checks::case::{Case, Verdict, judge, judge_result},
    support::{PATIENCE, in_lab, start_agent},
};

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

const B1_IPV6: &str = "2001:db8:1::21";

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case::of_b1("DNS: a good answer",
        "type = \"dns\"\nname = \"www.example.com\"\nanswer = \"192.0.2.80\"\nport = 53",
        "L7OK 0", "NOERROR, 192.0.2.80"),
    Case::of_b1("DNS: a good answer [over TCP]",
        "type = \"dns\"\nname = \"www.example.com\"\nrecord_type = \"AAAA\"\nanswer = \"2001:db8::80\"\ntransport = \"tcp\"\nport = 53",
        "L7OK 0", "NOERROR, 2001:db8::80"),
    Case { backend: B1_IPV6, ..Case::of_b1("DNS: a good answer [over IPv6]",
        "type = \"dns\"\nname = \"mail.example.com\"\nrecord_type = \"MX\"\nanswer = { regex = \"^10 www\" }\nport = 53",
        "L7OK 0", "NOERROR, 10 www.example.com.") },
    Case::of_b1("DNS: over UDP, and it is truncated [one of six records]",
        "type = \"dns\"\nname = \"long.example.com\"\nrecord_type = \"TXT\"\nanswer = \"5xx\"\nport = 53",
        "L7OK 0", "NOERROR, \"5xxx..."),
    Case::of_b1("DNS: another address",
        "type = \"dns\"\nname = \"www.example.com\"\nanswer = \"192.0.2.81\"\nport = 53",
        "L7STS 0", "NOERROR, and no record has \"192.0.2.81\": 192.0.2.80"),
    Case::of_b1("DNS: no record of the type",
        "type = \"dns\"\nname = \"mail.example.com\"\nanswer = \"192.0.2.81\"\nport = 53",
        "L7STS 0", "NOERROR, and no record of that type, where \"192.0.2.81\" is wanted"),
    Case::of_b1("DNS: no such name",
        "type = \"dns\"\nname = \"nobody.example.com\"\nport = 53",
        "L7STS 3", "NXDOMAIN"),
    Case::of_b1("DNS: no such name, and `rcode` wants that",
        "type = \"dns\"\nname = \"nobody.example.com\"\nrcode = [\"NXDOMAIN\"]\nport = 53",
        "L7OK 3", "NXDOMAIN"),
    Case::of_b1("DNS: no zone of this server",
        "type = \"dns\"\nname = \"www.example.net\"\nport = 53",
        "L7STS 5", "REFUSED"),
    Case::of_b1("DNS: nobody at the port",
        "type = \"dns\"\nname = \"www.example.com\"\nport = 54",
        "L4CON", "Connection refused (os error 111)"),
    Case::of_b1("DNS: nobody at the port [over TCP]",
        "type = \"dns\"\nname = \"www.example.com\"\ntransport = \"tcp\"\nport = 54",
        "L4CON", "Connection refused (os error 111)"),
    Case { backend: SILENT, ..Case::of_b1("DNS: silence over UDP",
        "type = \"dns\"\nname = \"www.example.com\"\nport = 53",
        "L4TOUT", "no reply") },
    Case { backend: SILENT, ..Case::of_b1("DNS: silence over TCP",
        "type = \"dns\"\nname = \"www.example.com\"\ntransport = \"tcp\"\nport = 53",
        "L4TOUT", "no answer to the connection") },
    Case::of_b1("DNS: accepted, and no answer in time",
        "type = \"dns\"\nname = \"www.example.com\"\ntransport = \"tcp\"\nport = 2000",
        "L7TOUT", "no complete answer"),
    Case::of_b1("DNS: something else answers over UDP [an echo]",
        "type = \"dns\"\nname = \"www.example.com\"\nport = 7",
        "L7TOUT", "no answer to this query; what came is ..."),

    Case::of_b1("UDP: the reply that is expected",
        "type = \"udp\"\nsend = \"pong\"\nexpect = \"pong\"\nport = 7",
        "L7OK", "the reply has \"pong\""),
    Case::of_b1("UDP: another reply",
        "type = \"udp\"\nsend = \"ping\"\nexpect = \"pong\"\nport = 7",
        "L7RSP", "no \"pong\" in the reply \"b1:ping\""),
    Case::of_b1("UDP: another reply [of octets]",
        "type = \"udp\"\nsend = { hex = \"00ff\" }\nexpect = { hex = \"00fe\" }\nport = 7",
        "L7RSP", "no 0x00fe in the reply \"b1:\\x00\\xff\""),
    Case::of_b1("UDP: port unreachable",
        "type = \"udp\"\nsend = \"ping\"\nport = 8",
        "L4CON", "Connection refused (os error 111)"),
    Case { backend: UNREACHABLE, ..Case::of_b1("UDP: host or network unreachable",
        "type = \"udp\"\nsend = \"ping\"\nport = 8",
        "L4CON", "No route to host (os error 113)") },
    Case::of_b1("UDP: silence, or a reply too late",
        "type = \"udp\"\nsend = \"ping\"\nexpect = \"pong\"\nport = 2000",
        "L4TOUT", "no reply"),
    Case::of_b1("UDP: without `expect`: silence",
        "type = \"udp\"\nsend = \"ping\"\nport = 2000",
        "L4OK", "no reply, and nobody says that it is unreachable"),
    Case::of_b1("UDP: without `expect`: a reply",
        "type = \"udp\"\nsend = \"ping\"\nport = 7",
        "L4OK", "there is a reply"),

    Case::of_b1("ICMP: a reply",
        "type = \"icmp\"",
        "L4OK", ""),
    Case::of_b1("ICMP: a reply [in several fragments]",
        "type = \"icmp\"\nsize = 4000\nsource = \"192.0.2.11\"",
        "L4OK", ""),
    Case { backend: B1_IPV6, ..Case::of_b1("ICMP: a reply [over IPv6]",
        "type = \"icmp\"\nsize = 0",
        "L4OK", "") },
    Case { backend: SILENT, ..Case::of_b1("ICMP: silence",
        "type = \"icmp\"",
        "L4TOUT", "no echo reply") },
    Case { backend: UNREACHABLE, ..Case::of_b1("ICMP: a router says so",
        "type = \"icmp\"",
        "L4CON", "192.0.2.1 says: unreachable") },

    Case::of_b1("Programs: exit code 0",
        "type = \"program\"\nport = 80\ncommand = [\"/bin/sh\", \"-c\", \"echo 3 workers\"]",
        "PROCOK 0", "exit code 0: 3 workers"),
    Case::of_b1("Programs: exit code 0 [what it is told]",
        "type = \"program\"\nport = 80\nenvironment = { COLOUR = \"red\" }\ncommand = [\"/bin/sh\", \"-c\", \"echo $VIPD_BACKEND $VIPD_ADDRESS $VIPD_PORT $COLOUR\"]",
        "PROCOK 0", "exit code 0: b1 192.0.2.21 80 red"),
    Case::of_b1("Programs: exit code 0 [as whom it runs]",
        "type = \"program\"\nport = 80\ncommand = [\"/bin/sh\", \"-c\", \"id -un; id -Gn; grep CapBnd /proc/self/status\"]",
        "PROCOK 0", "exit code 0: nobody nogroup CapBnd: 0000000000000000"),
    Case::of_b1("Programs: another exit code",
        "type = \"program\"\nport = 80\ncommand = [\"/bin/sh\", \"-c\", \"echo queue is full; exit 2\"]",
        "PROCERR 2", "exit code 2: queue is full"),
    Case::of_b1("Programs: ended by a signal",
        "type = \"program\"\nport = 80\ncommand = [\"/bin/sh\", \"-c\", \"kill -SEGV $$\"]",
        "PROCERR", "killed by signal 11"),
    Case::of_b1("Programs: not ended in time",
        "type = \"program\"\nport = 80\ncommand = [\"/bin/sleep\", \"600\"]",
        "PROCTOUT", "not finished in time, killed"),
    Case::of_b1("Programs: it cannot be started",
        "type = \"program\"\nport = 80\ncommand = [\"/no/such/program\"]",
        "PROCERR", "cannot start /no/such/program: No such file or directory (os error 2)"),
    Case::of_b1("Programs: no such user, or we may not be that user",
        "type = \"program\"\nport = 80\nuser = \"pager\"\ncommand = [\"/bin/true\"]",
        "SOCKERR", "there is no user pager on this host"),

    Case::of_b1("Files: it is there, as it should be",
        "type = \"file\"\npath = \"web-is-in-service\"",
        "L7OK", "/run/web-is-in-service is there"),
    Case::of_b1("Files: it is not",
        "type = \"file\"\npath = \"away/web-is-in-service\"",
        "L7STS", "/run/web-is-in-service is not there"),
    Case::of_b1("Files: it is not [as it should be]",
        "type = \"file\"\npath = \"web-is-in-service\"\nup_while = \"absent\"",
        "L7STS", "/run/web-is-in-service is there"),
    Case::of_b1("Files: nobody can tell, for example for lack of rights",
        "type = \"file\"\npath = \"web-is-in-service/beneath\"",
        "SOCKERR", "cannot tell whether ..."),
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
        balancer.host.write("web-is-in-service", "")?;
        let dir = balancer.host.dir().display().to_string();
        let mut config = AgentConfig::default();
        for (number, case) in CASES.iter().enumerate() {
            config.services += &service(number, case);
        }
        let mut agent = start_agent(&rack, &config)?;
        for (number, case) in CASES.iter().enumerate() {
            wait_until(case.situation, PATIENCE, || {
                let status = agent.status()?;
                let mut services = status["services"].as_array().into_iter().flatten();
                let found = services.find(|it| it["name"] == name(number));
                let backend = &found.context("no such service")?["backends"][0];
                let check = below_run(&backend["check"], &dir);
                let wrong = judge(case, &backend["state"], &check);
                ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
                Ok(())
            })?;
        }
        // A router says to each host once a second that it knows no way, and no more
        // (`ip_error` in net/ipv4/route.c): the agent's own questions would use it up.
        agent.process().kill()?;
        for (number, case) in CASES.iter().enumerate() {
            let expected = match case.verdict() {
                Verdict::Passes => 0,
                Verdict::Fails => 2,
                Verdict::Unable => 3,
            };
            wait_until("one check finds what is documented", PATIENCE, || {
                let (exit_code, report) = check_once(&balancer.host, &name(number))?;
                ensure!(
                    exit_code == expected,
                    "{}: {exit_code}, {report}",
                    case.situation
                );
                ensure_result(case, &report, &dir)
            })?;
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
            wait_until("one check finds what is documented", PATIENCE, || {
                let (_, report) = check_once(&balancer.host, &name(number))?;
                ensure_result(case, &report, &dir)
            })?;
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

/// That a report says what it must of its only backend.
fn ensure_result(case: &Case, report: &Value, dir: &str) -> Result<()> {
    let check = below_run(&report["backends"][0]["check"], dir);
    let wrong = judge_result(case, &check);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A result as it is documented: files are below /run there.
fn below_run(check: &Value, dir: &str) -> Value {
    let mut check = check.clone();
    let detail = check["detail"].as_str().unwrap_or_default();
    let detail = detail.replace(&format!("{dir}/away"), "/run");
    check["detail"] = detail.replace(dir, "/run").into();
    check
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
