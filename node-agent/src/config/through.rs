//! Checks on the way of traffic as validated.

use vipd_control::model::{Mode, Ports, Protocol, Service, Through, Vip};

use super::{report::Report, table::At, written};

/// The virtual address that checks on the way of traffic ask, if they go by it.
pub fn asked(service: &written::Service) -> Option<&At<Vip>> {
    let vips = service.vips.as_ref()?;
    vips.value
        .first()
        .filter(|_| service.check.value.through.value)
}

/// The way of traffic, if the check is to go by it.
pub fn validate(
    written: &written::Service,
    service: &Service,
    report: &mut Report,
) -> Option<Through> {
    let check = &written.check.value;
    let (through, full_mtu) = (&check.through, &check.full_mtu);
    if full_mtu.value && !through.value {
        report
            .error(
                &full_mtu.span,
                "`full_mtu` is about packets on the way of traffic",
            )
            .help("add `through = true`, or remove `full_mtu`");
    }
    let vip = asked(written)?;
    if service.mode == Mode::Local {
        report
            .error(&through.span, "no traffic of a local service goes anywhere")
            .help("remove `through`: the address is asked anyway");
    }
    if let Some(address) = &check.address {
        report
            .error(
                &address.span,
                "a check on the way of traffic asks the virtual address",
            )
            .related(&through.span, "it goes that way")
            .help("remove `address` or `through`");
    }
    let others = service.vips.iter().filter(|other| **other != vip.value);
    Some(Through {
        mode: service.mode,
        vip: vip.value.first_host(),
        others: others.map(|vip| vip.first_host()).collect(),
        port: match (service.protocol, service.ports) {
            (Protocol::Tcp, Ports::One(port) | Ports::Range(port, _)) => Some(port),
            (Protocol::Tcp, Ports::Any) | (Protocol::Udp, _) => None,
        },
        full_mtu: full_mtu.value,
    })
}
