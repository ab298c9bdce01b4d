//! The check of a service's backends as validated.

use std::net::IpAddr;

use vipd_control::model::{Check, CheckKind, Exchange, Http, Ports, Protocol};

use super::{
    address::Vips,
    report::Report,
    table::At,
    timing,
    value::PORT_MIN,
    written::{self, CheckType, Family},
};

/// The check of a service's backends, or `None` when it is wrong.
pub fn validate(
    service: &written::Service,
    protocol: Option<Protocol>,
    service_ports: Option<Ports>,
    vips: &Vips,
    report: &mut Report,
) -> Option<Check> {
    let at = &service.check;
    let check = &at.value;
    if let Some(source) = &check.source {
        check_source(source, service, vips, report);
    }
    let timing = timing::validate(check, report);
    let kind = check_kind(check, report)?;
    let service_port = match service_ports? {
        Ports::One(port) => Some(port),
        Ports::Range(..) | Ports::Any => None,
    };
    if check.port.is_none() && !matches!(kind, CheckKind::None) {
        let title = match (protocol, service_port) {
            (Some(Protocol::Udp), _) => {
                Some("a UDP service is checked over TCP, and no port is given")
            }
            (_, None) => Some("the service has many ports, and none is given for its check"),
            _ => None,
        };
        if let Some(title) = title {
            report
                .error(&at.span, title)
                .help("add `port` to [service.check], or type = \"none\" to trust the backends");
        }
    }
    Some(Check {
        kind,
        address: None,
        port: check
            .port
            .as_ref()
            .map(|port| port.value)
            .or(service_port)
            // Nothing is asked, or it is an error.
            .unwrap_or(PORT_MIN),
        source: check.source.as_ref().map(|source| source.value),
        timing,
    })
}

fn check_source(source: &At<IpAddr>, service: &written::Service, vips: &Vips, report: &mut Report) {
    vips.check_host(source, "the source of checks", report);
    let family = Family::of(source.value);
    let backends = service.backend.iter().flat_map(|list| &list.value);
    let mut addresses = backends.filter_map(|at| at.value.address.as_ref());
    if let Some(other) = addresses.find(|address| Family::of(address.value) != family) {
        let other_family = Family::of(other.value).name();
        report
            .error(
                &source.span,
                format!("checks of an {other_family} backend cannot have this source"),
            )
            .related(&other.span, format!("{other_family} here"))
            .help("leave `source` out, or give all backends addresses of one family");
    }
}

fn check_kind(check: &written::Check, report: &mut Report) -> Option<CheckKind> {
    let kind = check.r#type.as_ref()?;
    if kind.value != CheckType::Http {
        let path = check.path.as_ref().map(|at| ("path", &at.span));
        let host = check.host.as_ref().map(|at| ("host", &at.span));
        let status = check.status.as_ref().map(|at| ("status", &at.span));
        for (key, span) in [path, host, status].into_iter().flatten() {
            report
                .error(span, format!("`{key}` belongs to HTTP checks"))
                .related(&kind.span, "another type here")
                .help(format!("type = \"http\", or remove `{key}`"));
        }
    }
    Some(match kind.value {
        CheckType::None => CheckKind::None,
        CheckType::Tcp => CheckKind::Tcp(Exchange::default()),
        CheckType::Http => CheckKind::Http(
            Http {
                method: String::from("GET"),
                headers: Vec::new(),
                expect_headers: Vec::new(),
                expect_body: None,
                path: check
                    .path
                    .as_ref()
                    .map_or_else(|| String::from("/"), |at| at.value.0.clone()),
                host: check.host.as_ref().map(|at| at.value.0.clone()),
                status: match &check.status {
                    Some(list) if list.value.is_empty() => {
                        report
                            .error(&list.span, "with no status code no backend is ever healthy")
                            .help("for example [\"200-399\"]");
                        return None;
                    }
                    Some(list) => list.value.iter().map(|at| at.value.0.clone()).collect(),
                    None => vec![200..=399],
                },
            },
            None,
        ),
    })
}
