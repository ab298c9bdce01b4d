//! Checks over TCP against real servers: up, refused, silent, slow, wrong
//! answer and wrong certificate. `docs/checks.md` has the same table.

pub mod case;
mod servers;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{AgentConfig, Machine, Rack, Vipd, wait_until};

use self::{
    case::{Case, judge},
    servers::{Authority, EXPIRY, Servers},
};
use crate::support::{PATIENCE, SMALL, VIP, in_lab, start_agent};

const CASES: &[Case] = &[
    Case::of_b1(
        "TCP: connection accepted",
        "type = 'tcp'\nport = 80",
        "L4OK",
        "",
    ),
    Case::of_b1(
        "any check: port closed",
        "type = 'tcp'\nport = 9998",
        "L4CON",
        "Connection refused (os error 111)",
    ),
    Case::of_b1(
        "any check: packets dropped",
        "type = 'tcp'\nport = 9999",
        "L4TOUT",
        "no answer to the connection",
    ),
    Case::of_b1(
        "TCP: the expected answer",
        "type = 'tcp'\nport = 80\nsend = \"GET / HTTP/1.0\\r\\n\\r\\n\"\nexpect = 'b1'",
        "L7OK",
        "",
    ),
    Case::of_b1(
        "TCP: another answer, then closed",
        "type = 'tcp'\nport = 80\nsend = \"GET /\\r\\n\"\nexpect = 'b2'",
        "L7RSP",
        "closed with no \"b2\" in \"b1\\n\"",
    ),
    Case::of_b1(
        "TCP: accepted, and no answer in time",
        "type = 'tcp'\nport = 8082\nsend = 'x'\nexpect = 'y'",
        "L7TOUT",
        "no complete answer",
    ),
    Case::of_b1(
        "HTTP: the expected answer",
        "type = 'http'\nport = 80\npath = '/healthz'\nexpect_body = 'ok'",
        "L7OK 200",
        "HTTP status 200",
    ),
    Case::of_b1(
        "HTTP: another status",
        "type = 'http'\nport = 8080",
        "L7STS 503",
        "HTTP status 503",
    ),
    Case::of_b1(
        "HTTP: another body",
        "type = 'http'\nport = 80\nexpect_body = 'b2'",
        "L7STS 200",
        "no \"b2\" in the body \"b1\\n\"",
    ),
    Case::of_b1(
        "HTTP: another header",
        "type = 'http'\nport = 80\nexpect_headers = { Content-Type = 'json' }",
        "L7STS 200",
        "no \"json\" in the header Content-Type: \"text/plain\"",
    ),
    Case::of_b1(
        "HTTP: a header is missing",
        "type = 'http'\nport = 80\nexpect_headers = { X-Node = 'b1' }",
        "L7STS 200",
        "no header X-Node",
    ),
    Case::of_b1(
        "HTTP: accepted, and no answer in time",
        "type = 'http'\nport = 8081",
        "L7TOUT",
        "no complete answer",
    ),
    Case::of_b1(
        "HTTP: the server speaks TLS",
        "type = 'http'\nport = 8443",
        "L7STS 400",
        "HTTP status 400",
    ),
    Case::of_b1(
        "TLS: a valid certificate",
        "type = 'tls'\nport = 8443\nserver_name = 'www.example.com'\nCA",
        "L6OK",
        "",
    ),
    Case::of_b1(
        "TLS: a valid certificate for the address",
        "type = 'tls'\nport = 8443\nCA",
        "L6OK",
        "",
    ),
    Case::of_b1(
        "TLS: the expected protocol",
        "type = 'tls'\nport = 8443\nCA\nalpn = ['http/1.1']",
        "L6OK",
        "",
    ),
    Case::of_b1(
        "TLS: no protocol in common",
        "type = 'tls'\nport = 8443\nCA\nalpn = ['imap']",
        "L6RSP",
        "the backend speaks none of the protocols in alpn",
    ),
    Case::of_b1(
        "TLS: the expected answer",
        "type = 'tls'\nport = 8443\nCA\nsend = \"GET / HTTP/1.0\\r\\n\\r\\n\"\nexpect = 'secure'",
        "L7OK",
        "",
    ),
    Case::of_b1(
        "TLS: nothing verified",
        "type = 'tls'\nport = 8444\nverify = false",
        "L6OK",
        "certificate not verified",
    ),
    Case::of_b1(
        "TLS: accepted, and no answer in time",
        "type = 'tls'\nport = 8082\nCA",
        "L6TOUT",
        "no answer to the TLS handshake",
    ),
    Case::of_b1(
        "TLS: the server does not speak it",
        "type = 'tls'\nport = 80\nCA",
        "L6RSP",
        "what answers does not speak TLS",
    ),
    Case::of_b1(
        "TLS: the server does not know the name",
        "type = 'tls'\nport = 8450\nserver_name = 'other.example.com'\nCA",
        "L6RSP",
        "the backend does not know the name in server_name",
    ),
    Case::of_b1(
        "HTTPS: the expected answer",
        "type = 'https'\nport = 8443\nhost = 'www.example.com'\nCA\nexpect_body = 'secure'",
        "L7OK 200",
        "HTTP status 200",
    ),
    Case::of_b1(
        "HTTPS: another status",
        "type = 'https'\nport = 8443\nhost = 'www.example.com'\nCA\npath = '/missing'",
        "L7STS 404",
        "HTTP status 404",
    ),
    Case::of_b1(
        "certificate expired",
        "type = 'https'\nport = 8444\nhost = 'www.example.com'\nCA",
        "L6RSP",
        "the certificate expired on 2024-01-01T00:00:00Z, N days ago",
    ),
    Case::of_b1(
        "certificate not valid yet",
        "type = 'https'\nport = 8445\nhost = 'www.example.com'\nCA",
        "L6RSP",
        "the certificate is valid only from 2100-01-01T00:00:00Z",
    ),
    Case::of_b1(
        "certificate for another name",
        "type = 'https'\nport = 8446\nhost = 'www.example.com'\nCA",
        "L6RSP",
        "the certificate is for shop.example.com, 192.0.2.99, not for www.example.com",
    ),
    Case::of_b1(
        "certificate signed by itself",
        "type = 'https'\nport = 8447\nhost = 'www.example.com'\nCA",
        "L6RSP",
        "unknown issuer: the certificate is signed by itself (CN=www.example.com)",
    ),
    Case::of_b1(
        "certificate of an unknown issuer",
        "type = 'https'\nport = 8448\nhost = 'www.example.com'\nCA",
        "L6RSP",
        "unknown issuer: CN=Another CA is not trusted, or the backend does not send its certificate",
    ),
];

#[test]
fn every_check_over_tcp_finds_what_is_documented() {
    in_lab(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        let backend = &rack.backends[0];
        let authority = Authority::new("Lab CA")?;
        let _servers = Servers::start(&backend.host, &authority)?;
        let balancer = &rack.balancers[0];
        let ca_file = balancer.host.write("ca.pem", &authority.pem())?;
        let config = AgentConfig {
            services: services(backend, &format!("ca_file = '{}'", ca_file.display())),
            ..AgentConfig::default()
        };
        let agent = start_agent(&rack, &config)?;
        wait_until("every check finds what is documented", PATIENCE, || {
            let found = checks(&agent)?;
            let cases = CASES.iter().zip(&found);
            let judged = cases.map(|(case, (state, check))| judge(case, state, check));
            let wrong: Vec<_> = judged.flatten().collect();
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            ensure_phases_and_expiry(&agent)
        })
    });
}

/// A service on a port of its own for each case.
fn services(backend: &Machine, ca_file: &str) -> String {
    let cases = CASES.iter().enumerate();
    let services = cases.map(|(i, case)| {
        let lines = case.check.replace("\nCA", &format!("\n{ca_file}"));
        format!(
            "[[service]]\nname = 'case-{i:02}'\nvips = ['{VIP}']\nprotocol = 'tcp'\n\
             port = {port}\nmode = 'ipip'\n[service.check]\n{lines}\n\
             interval = '1s'\ntimeout = '900ms'\nrise = 1\nfall = 1\n\
             [[service.backend]]\nname = 'b1'\naddress = '{address}'\n",
            port = 1000 + i,
            address = backend.ipv4,
        )
    });
    services.collect()
}

/// State and last check of each case, in their order.
fn checks(agent: &Vipd) -> Result<Vec<(Value, Value)>> {
    let status = agent.status()?;
    let services = status["services"].as_array().context("no services")?;
    let backends = services.iter().map(|service| &service["backends"][0]);
    let checks = backends.map(|backend| (backend["state"].clone(), backend["check"].clone()));
    Ok(checks.collect())
}

/// How long the parts of a check took, and when the certificate expires, where
/// machines read them.
fn ensure_phases_and_expiry(agent: &Vipd) -> Result<()> {
    let of = |situation: &str| -> Result<(String, Value)> {
        let at = CASES.iter().position(|case| case.situation == situation);
        let at = at.with_context(|| format!("no case {situation}"))?;
        Ok((format!("case-{at:02}"), checks(agent)?[at].1.clone()))
    };
    let (name, check) = of("HTTPS: the expected answer")?;
    for phase in ["connect_seconds", "tls_seconds", "answer_seconds"] {
        let took = check["phases"][phase].as_f64().unwrap_or_default();
        ensure!(took > 0.0 && took < 0.9, "{phase} in {check}");
    }
    ensure!(check["certificate_expiry"] == EXPIRY, "{check}");
    let metrics = agent.metrics("text/plain")?;
    let labels = format!("service=\"{name}\",backend=\"b1\"");
    let wanted = [
        format!("vipd_backend_check_certificate_expiry_seconds{{{labels}}} {EXPIRY}"),
        format!("vipd_backend_check_phase_duration_seconds{{{labels},phase=\"tls\"}} "),
    ];
    for wanted in wanted {
        ensure!(metrics.contains(&wanted), "no {wanted} in\n{metrics}");
    }
    let (name, check) = of("certificate expired")?;
    ensure!(check["phases"]["answer_seconds"].is_null(), "{check}");
    ensure!(
        check["certificate_expiry"] == 1_704_067_200,
        "{name}: {check}"
    );
    Ok(())
}
