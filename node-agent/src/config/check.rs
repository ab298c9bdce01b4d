//! The check of a service's backends as validated.

use std::{
    net::IpAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use vipd_control::model::{
    Check, CheckKind, Dns, Exchange, File, Http, Pattern, Ports, Protocol, Tls,
};

use super::{
    address::Vips,
    certificate,
    http::HeaderName,
    map::Map,
    program,
    report::Report,
    table::At,
    through, timing,
    value::PORT_MIN,
    written::{self, CheckType, Family},
};

/// The check of a service's backends, or `None` when it is wrong. Files are
/// looked for in `directory`.
pub fn validate(
    service: &written::Service,
    protocol: Option<Protocol>,
    service_ports: Option<Ports>,
    (vips, directory): (&Vips, &Path),
    report: &mut Report,
) -> Option<Check> {
    let check = &service.check.value;
    if let Some(source) = &check.source {
        check_source(source, service, vips, report);
    }
    if let Some(address) = &check.address {
        vips.check_host(address, "the address that checks ask", report);
    }
    let timing = timing::validate(check, report);
    let kind = check_kind(&service.check, directory, report)?;
    let port = port(&service.check, &kind, protocol, service_ports?, report);
    Some(Check {
        kind,
        address: check.address.as_ref().map(|address| address.value),
        port,
        source: check.source.as_ref().map(|source| source.value),
        through: None,
        timing,
    })
}

fn check_source(source: &At<IpAddr>, service: &written::Service, vips: &Vips, report: &mut Report) {
    vips.check_host(source, "the source of checks", report);
    let family = Family::of(source.value);
    let asked = &service.check.value.address;
    let backends = service.backends().iter();
    let backends = backends.filter_map(|at| at.value.address.as_ref());
    // Who has an address of its own to ask asks no other.
    let addresses = asked.iter().chain(backends.filter(|_| asked.is_none()));
    let addresses = addresses.map(|address| (Family::of(address.value), &address.span));
    // Nor does who goes by the way of traffic.
    let vip = through::asked(service).map(|vip| (Family::of(vip.value.address()), &vip.span));
    let mut addresses = vip.into_iter().chain(addresses.filter(|_| vip.is_none()));
    if let Some((other, span)) = addresses.find(|(other, _)| *other != family) {
        let other_family = other.name();
        report
            .error(
                &source.span,
                format!("checks of an {other_family} address cannot have this source"),
            )
            .related(span, format!("{other_family} here"))
            .help("leave `source` out, or let all that is asked be of one family");
    }
}

/// The port that is asked.
fn port(
    written: &At<written::Check>,
    kind: &CheckKind,
    protocol: Option<Protocol>,
    service_ports: Ports,
    report: &mut Report,
) -> NonZeroU16 {
    let over_tcp = match kind {
        // They know no port.
        CheckKind::None | CheckKind::Icmp { .. } | CheckKind::File(_) => return PORT_MIN,
        CheckKind::Tcp(_) | CheckKind::Tls(..) | CheckKind::Http(..) => true,
        CheckKind::Dns(_) | CheckKind::Udp(_) | CheckKind::Program(_) => false,
    };
    if let Some(port) = &written.value.port {
        return port.value;
    }
    let title = match service_ports {
        Ports::One(_) if over_tcp && protocol == Some(Protocol::Udp) => {
            "a UDP service is checked over TCP, and no port is given"
        }
        Ports::One(port) => return port,
        Ports::Range(..) | Ports::Any => {
            "the service has many ports, and none is given for its check"
        }
    };
    report
        .error(&written.span, title)
        .help("add `port` to [service.check], or type = \"none\" to trust the backends");
    PORT_MIN
}

fn check_kind(
    written: &At<written::Check>,
    directory: &Path,
    report: &mut Report,
) -> Option<CheckKind> {
    Some(match &written.value.r#type.as_ref()?.value {
        CheckType::None => CheckKind::None,
        CheckType::Tcp(said) => CheckKind::Tcp(exchange(said)),
        CheckType::Tls(tls, said) => {
            let tls = check_tls(tls, None, directory, report);
            CheckKind::Tls(tls, exchange(said))
        }
        CheckType::Http(http) => CheckKind::Http(check_http(http, report), None),
        CheckType::Https(http, tls) => {
            check_alpn(tls, report);
            let tls = check_tls(tls, http.host.as_ref(), directory, report);
            CheckKind::Http(check_http(http, report), Some(tls))
        }
        CheckType::Dns(dns) => CheckKind::Dns(check_dns(dns, report)?),
        CheckType::Udp(said) => {
            if said.send.as_ref().is_none_or(|at| at.value.0.is_empty()) {
                report
                    .error(&written.span, "a datagram without `send` has no content")
                    .help("add `send`, something that the backend answers");
            }
            CheckKind::Udp(exchange(said))
        }
        CheckType::Icmp(icmp) => CheckKind::Icmp {
            size: icmp.size.value.0,
        },
        CheckType::Program(written) => CheckKind::Program(program::validate(
            written.command.as_ref(),
            &written.environment.value,
            &written.user.value,
            report,
        )?),
        CheckType::File(file) => CheckKind::File(File {
            path: directory.join(&file.path.as_ref()?.value),
            up_while_present: file.up_while.value == written::Presence::Present,
        }),
    })
}

fn exchange(written: &written::Exchange) -> Exchange {
    let send = written.send.as_ref();
    Exchange {
        send: send.map_or_else(Vec::new, |at| at.value.0.clone()),
        expect: written.expect.as_ref().map(|at| at.value.0.clone()),
    }
}

fn check_tls(
    written: &written::Tls,
    host: Option<&At<super::http::Host>>,
    directory: &Path,
    report: &mut Report,
) -> Tls {
    if let (false, Some(ca_file)) = (written.verify.value, &written.ca_file) {
        report
            .error(&ca_file.span, "nobody's certificate is looked at")
            .related(&written.verify.span, "nothing is verified")
            .help("remove `ca_file`, or verify = false");
    }
    let given = written.server_name.as_ref().map(|at| at.value.0.clone());
    Tls {
        verify: written.verify.value,
        server_name: given.or_else(|| host.and_then(|host| host.value.dns_name())),
        ca_file: written.ca_file_in(directory),
        alpn: written
            .alpn
            .value
            .iter()
            .map(|at| at.value.0.clone())
            .collect(),
    }
}

impl written::Tls {
    fn ca_file_in(&self, directory: &Path) -> Option<PathBuf> {
        let file = self.ca_file.as_ref();
        file.map(|file| directory.join(&file.value))
    }
}

fn check_alpn(tls: &written::Tls, report: &mut Report) {
    let spoken = ["http/1.1", "http/1.0"];
    let mut offered = tls.alpn.value.iter();
    if let Some(other) = offered.find(|at| !spoken.contains(&at.value.0.as_str())) {
        let title = format!("a check does not speak {}", other.value.0);
        report
            .error(&other.span, title)
            .help("leave `alpn` out, or write [\"http/1.1\"]");
    }
}

fn check_http(written: &written::Http, report: &mut Report) -> Http {
    if written.status.value.is_empty() {
        report
            .error(
                &written.status.span,
                "with no status code no backend is ever healthy",
            )
            .help("for example [\"200-399\"]");
    }
    for (name, _) in &written.headers.value.0 {
        if let Some(why) = name.value.ours() {
            let title = format!("the header {} is not yours to set", name.value.0);
            report.error(&name.span, title).help(why);
        }
    }
    if let (Some(body), "HEAD") = (&written.expect_body, written.method.value.0.as_str()) {
        report
            .error(&body.span, "the answer to HEAD has no body")
            .related(&written.method.span, "the method")
            .help("method = \"GET\", or remove `expect_body`");
    }
    Http {
        method: written.method.value.0.clone(),
        path: written.path.value.0.clone(),
        host: written.host.as_ref().map(|at| at.value.0.clone()),
        headers: pairs(&written.headers, |text| text.0.clone()),
        status: written
            .status
            .value
            .iter()
            .map(|at| at.value.0.clone())
            .collect(),
        expect_headers: pairs(&written.expect_headers, |sought| -> Pattern {
            sought.0.clone()
        }),
        expect_body: written.expect_body.as_ref().map(|at| at.value.0.clone()),
    }
}

fn pairs<V, T>(map: &At<Map<HeaderName, V>>, value: impl Fn(&V) -> T) -> Vec<(String, T)> {
    let pairs = map.value.0.iter();
    pairs
        .map(|(name, at)| (name.value.0.clone(), value(&at.value)))
        .collect()
}

fn check_dns(written: &written::Dns, report: &mut Report) -> Option<Dns> {
    if written.rcode.value.is_empty() {
        report
            .error(
                &written.rcode.span,
                "with no response code no backend is ever healthy",
            )
            .help("for example [\"NOERROR\"]");
    }
    Some(Dns {
        tcp: written.transport.value == written::Transport::Tcp,
        name: written.name.as_ref()?.value.0.clone(),
        record_type: written.record_type.value.0,
        rcodes: written.rcode.value.iter().map(|at| at.value.0).collect(),
        answer: written.answer.as_ref().map(|at| at.value.0.clone()),
    })
}

impl written::Check {
    /// Checks that the files it names can be used.
    pub(super) fn check_files(&self, directory: &Path, report: &mut Report) {
        let kind = self.r#type.as_ref().map(|kind| &kind.value);
        let Some(CheckType::Tls(tls, _) | CheckType::Https(_, tls)) = kind else {
            return;
        };
        let path = tls.ca_file_in(directory);
        if let (Some(path), Some(written)) = (path, &tls.ca_file)
            && let Err(error) = certificate::authorities(&path)
        {
            report
                .error(&written.span, error.to_string())
                .help("a file with one or more certificates in PEM");
        }
    }
}
