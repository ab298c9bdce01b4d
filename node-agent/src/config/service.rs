//! Services as validated: their addresses, ports, backends and rings.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use vipd_abi::{BACKENDS, NEXT_HOPS, RING_SLOTS};
use vipd_control::{
    model::{Backend, Mode, Protocol, Service},
    ring::default_ring_size,
};

use super::{
    address::{Vips, check_unicast},
    check,
    report::Report,
    table::At,
    valid::check_unique,
    written::{self, Family},
};
use crate::dataplane::vip_table::MOST_ENTRIES;

/// The smallest ring.
const RING_SIZE_MIN: u32 = 64;

/// The largest ring.
const RING_SIZE_MAX: u32 = 1 << 20;

/// The most backends a ring can tell apart.
const BACKENDS_MAX: usize = 65_535;

/// The fewest slots per backend; with less some would hardly get any.
const RING_SLOTS_PER_BACKEND: u64 = 8;

/// Most parts of the data plane's tables that services may fill: a change is
/// made beside what it replaces, so half must be free.
const SHARE: usize = 2;

/// Says so where the data plane has no room, at the service that is too much.
fn check_totals(
    written: &[At<written::Service>],
    services: &[Option<Service>],
    report: &mut Report,
) {
    let limits = [
        ("ring slots", RING_SLOTS as usize / SHARE),
        (
            "backends, counted per service,",
            (BACKENDS as usize - 1) / SHARE,
        ),
        ("backend addresses", (NEXT_HOPS as usize - 1) / SHARE),
        ("addresses and ports", MOST_ENTRIES / SHARE),
    ];
    let mut addresses = BTreeSet::new();
    let mut totals = [0; 4];
    for (at, service) in written.iter().zip(services) {
        let Some(service) = service else { continue };
        let before = totals;
        totals[0] += service.ring_size as usize;
        totals[1] += service.backends.len();
        let on_link = service.mode == Mode::L2Dsr;
        addresses.extend(service.backends.iter().map(|b| (b.address, on_link)));
        totals[2] = addresses.len();
        // Each address stands by itself and with the port.
        totals[3] += 2 * service.vips.len();
        for ((what, limit), (before, after)) in limits.iter().zip(before.iter().zip(totals)) {
            if *before <= *limit && after > *limit {
                report
                    .error(
                        &at.span,
                        format!("all services up to this one have {after} {what}: too many"),
                    )
                    .help(format!("the data plane has room for {limit}"));
            }
        }
    }
}

/// All services, or `None` when one of them is wrong.
pub fn services(
    written: &[At<written::Service>],
    vips: &Vips,
    report: &mut Report,
) -> Option<Vec<Arc<Service>>> {
    let names = written.iter().filter_map(|at| at.value.name.as_ref());
    check_unique(names, "service name", report);
    check_endpoints(written, report);
    let services: Vec<_> = written.iter().map(|at| service(at, vips, report)).collect();
    check_totals(written, &services, report);
    let mut services: Vec<_> = services.into_iter().collect::<Option<_>>()?;
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Some(services.into_iter().map(Arc::new).collect())
}

/// Address, protocol and port lead to one service only.
fn check_endpoints(written: &[At<written::Service>], report: &mut Report) {
    let mut taken = BTreeMap::new();
    for service in written.iter().map(|at| &at.value) {
        let (Some(vips), Some(protocol), Some(port)) =
            (&service.vips, &service.protocol, &service.port)
        else {
            continue;
        };
        check_unique(vips.value.iter(), "virtual address", report);
        for vip in &vips.value {
            let endpoint = (vip.value, protocol.value, port.value);
            let Some((other, name)) = taken.insert(endpoint, (&service.name, &vip.span)) else {
                continue;
            };
            let other_name = other.as_ref().map(|name| &name.value);
            if other_name != service.name.as_ref().map(|name| &name.value) {
                let (vip_address, port) = (vip.value, port.value);
                let protocol = protocol_name(protocol.value);
                let title = format!("two services for {vip_address}, {protocol} port {port}");
                report
                    .error(&vip.span, title)
                    .related(name, "already served here")
                    .help("give one of them another address, protocol or port");
            }
        }
    }
}

fn service(written: &At<written::Service>, vips: &Vips, report: &mut Report) -> Option<Service> {
    let service = &written.value;
    check_vips(service, report);
    check_backends(written, vips, report);
    let ring_size = ring_size(service, report);
    let protocol = service.protocol.as_ref().map(|protocol| protocol.value);
    let port = service.port.as_ref().map(|port| port.value);
    let check = check::validate(service, protocol, port, vips, report);

    let mut vips: Vec<_> = service
        .vips
        .as_ref()?
        .value
        .iter()
        .map(|at| at.value)
        .collect();
    vips.sort_unstable();
    let backends: Vec<_> = service
        .backend
        .as_ref()?
        .value
        .iter()
        .map(backend)
        .collect();
    let mut backends: Vec<_> = backends.into_iter().collect::<Option<_>>()?;
    backends.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Service {
        name: Arc::clone(&service.name.as_ref()?.value.0),
        vips,
        protocol: protocol?,
        port: port?,
        mode: service.mode.as_ref()?.value,
        min_healthy: service.min_healthy.value.0,
        ring_size: ring_size?,
        idle: idle(protocol?),
        check: check?,
        backends,
    })
}

/// How long a flow without packets is remembered. Datagrams that belong
/// together are mostly over before a change has come and gone.
fn idle(protocol: Protocol) -> Duration {
    match protocol {
        Protocol::Tcp => Duration::from_secs(300),
        Protocol::Udp => Duration::ZERO,
    }
}

fn backend(written: &At<written::Backend>) -> Option<Backend> {
    let backend = &written.value;
    Some(Backend {
        name: Arc::clone(&backend.name.as_ref()?.value.0),
        address: backend.address.as_ref()?.value,
        weight: backend.weight.value.0,
    })
}

fn check_vips(service: &written::Service, report: &mut Report) {
    let Some(vips) = &service.vips else { return };
    if vips.value.is_empty() {
        report
            .error(&vips.span, "a service without a virtual address")
            .help("for example vips = [\"198.51.100.10\"]");
    }
    for vip in &vips.value {
        check_unicast(vip.value, &vip.span, report);
    }
}

fn check_backends(written: &At<written::Service>, vips: &Vips, report: &mut Report) {
    let service = &written.value;
    let Some(backends) = &service.backend else {
        return;
    };
    let backends = &backends.value;
    if backends.is_empty() {
        report
            .error(&written.span, "a service without a backend")
            .help("add a [[service.backend]] with name and address after it");
        return;
    }
    if let Some(beyond) = backends.get(BACKENDS_MAX) {
        report
            .error(&beyond.span, format!("more than {BACKENDS_MAX} backends"))
            .help("split the service");
    }
    let names = backends.iter().filter_map(|at| at.value.name.as_ref());
    check_unique(names, "backend name", report);
    for address in backends.iter().filter_map(|at| at.value.address.as_ref()) {
        vips.check_host(address, "the backend address", report);
        check_reachable(service, address, report);
    }
    let addresses = backends.iter().filter_map(|at| at.value.address.as_ref());
    check_unique(addresses, "backend address", report);

    let with_traffic = backends.iter().filter(|at| at.value.weight.value.0 > 0);
    let with_traffic = with_traffic.count();
    if with_traffic == 0 {
        report
            .error(&backends[0].value.weight.span, "all backends have weight 0")
            .help("give at least one of them a weight from 1 to 256");
        return;
    }
    let wanted = &service.min_healthy;
    if wanted.value.0 as usize > with_traffic {
        let title = format!(
            "{} healthy backends wanted of {with_traffic} that take traffic",
            wanted.value.0
        );
        report.error(&wanted.span, title).help(format!(
            "at most {with_traffic}, or the addresses are never announced"
        ));
    }
}

/// Checks that packets for every virtual address can be carried to `backend`.
fn check_reachable(service: &written::Service, backend: &At<IpAddr>, report: &mut Report) {
    let (Some(vips), Some(mode)) = (&service.vips, &service.mode) else {
        return;
    };
    let family = Family::of(backend.value);
    let unreachable = vips.value.iter().find(|vip| match mode.value {
        Mode::L2Dsr => Family::of(vip.value) != family,
        Mode::Ipip => family == Family::Ipv4 && vip.value.is_ipv6(),
    });
    let Some(vip) = unreachable else { return };
    let vip_family = Family::of(vip.value).name();
    let (title, help) = match mode.value {
        Mode::L2Dsr => (
            format!(
                "l2-dsr cannot carry {vip_family} to an {} backend",
                family.name()
            ),
            format!("take the backend's {vip_family} address, or a service per family"),
        ),
        Mode::Ipip => (
            String::from(
                "ipip carries IPv4 in IPv4, IPv6 in IPv6 and IPv4 in IPv6, not IPv6 in IPv4",
            ),
            String::from("take the backend's IPv6 address: it takes both families"),
        ),
    };
    report
        .error(&backend.span, title)
        .related(&vip.span, format!("{vip_family} here"))
        .help(help);
}

fn ring_size(service: &written::Service, report: &mut Report) -> Option<u32> {
    let backends = service.backend.as_ref()?.value.len();
    let needed = (backends as u64 * RING_SLOTS_PER_BACKEND).next_power_of_two();
    let needed = u32::try_from(needed).unwrap_or(u32::MAX).max(RING_SIZE_MIN);
    let Some(written) = &service.ring_size else {
        return Some(default_ring_size(backends).max(needed));
    };
    let size = written.value.0;
    if !size.is_power_of_two() || size < RING_SIZE_MIN {
        let nearest = size.next_power_of_two().clamp(RING_SIZE_MIN, RING_SIZE_MAX);
        report
            .error(&written.span, format!("{size} is no ring size"))
            .help(format!(
                "a power of two from {RING_SIZE_MIN} to {RING_SIZE_MAX}, for example {nearest}"
            ));
        return None;
    }
    if size < needed {
        let title = format!("{size} slots are too few for {backends} backends");
        report.error(&written.span, title).help(format!(
            "at least {needed}: {RING_SLOTS_PER_BACKEND} per backend"
        ));
        return None;
    }
    Some(size)
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}
