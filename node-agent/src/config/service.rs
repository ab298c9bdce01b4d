//! Services as validated: their addresses, ports, backends and rings.

use std::{
    collections::BTreeSet, net::IpAddr, num::NonZeroU16, path::Path, sync::Arc, time::Duration,
};

use vipd_abi::{BACKENDS, NEXT_HOPS, RING_SLOTS};
use vipd_control::{
    model::{Backend, Depends, Mode, Protocol, Role, Service},
    ring::default_ring_size,
};

use super::{
    address::{Vips, check_unicast},
    check,
    endpoint::check_endpoints,
    local::implicit_backend,
    needs::needs,
    report::Report,
    table::{At, nearest},
    through, track,
    valid::check_unique,
    value::show_duration,
    wish,
    written::{self, Family, ModeName},
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

/// UDP port of GUE unless told otherwise, as registered at IANA.
const GUE_PORT: NonZeroU16 = NonZeroU16::new(6080).expect("it is not zero");

/// Longest time without a packet that a flow can be given.
const FLOW_IDLE_MAX: Duration = Duration::from_secs(3600);

/// The same unless told otherwise, for TCP.
const FLOW_IDLE_TCP: Duration = Duration::from_secs(300);

/// The longest time in which the share of a backend may grow.
const SLOW_START_MAX: Duration = Duration::from_secs(3600);

/// Most parts of the data plane's tables that services may fill: a change is
/// made beside what it replaces, so half must be free.
pub const SHARE: usize = 2;

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
        let Some(service) = service.as_ref().filter(|s| s.mode.forwards()) else {
            continue;
        };
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

/// All services, or `None` when one of them is wrong. `around` is what they are
/// seen against: all virtual addresses, and the directory of the file.
pub fn services(
    written: &[At<written::Service>],
    around: (&Vips, &Path),
    report: &mut Report,
) -> Option<Vec<Arc<Service>>> {
    let names = written.iter().filter_map(|at| at.value.name.as_ref());
    check_unique(names, "service name", report);
    check_endpoints(written, report);
    let services: Vec<_> = written
        .iter()
        .map(|at| service(at, around, report))
        .collect();
    check_totals(written, &services, report);
    let mut services: Vec<_> = services.into_iter().collect::<Option<_>>()?;
    track::resolve(written, &mut services, report);
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Some(services.into_iter().map(Arc::new).collect())
}

fn service(
    written: &At<written::Service>,
    around: (&Vips, &Path),
    report: &mut Report,
) -> Option<Service> {
    let service = &written.value;
    check_vips(service, report);
    wish::check(service, report);
    check_backends(written, around.0, report);
    let ring_size = ring_size(service, report);
    let protocol = service.protocol.as_ref().map(|protocol| protocol.value);
    let ports = service.port.as_ref().map(|ports| ports.value);
    let mut check = check::validate(service, protocol, ports, around, report);
    let mode = mode(service, report);
    let idle = idle(service, report);
    let needs = needs(service, report);
    let track = tracked(service, around.0, report);

    let written_vips = service.vips.as_ref().map_or(&[][..], |vips| &vips.value);
    let mut vips: Vec<_> = written_vips.iter().map(|at| at.value).collect();
    vips.sort_unstable();
    let backends: Vec<_> = service.backends().iter().map(backend).collect();
    let mut backends: Vec<_> = backends.into_iter().collect::<Option<_>>()?;
    if backends.is_empty() {
        backends.push(implicit_backend(service, check.as_mut()?)?);
    }
    backends.sort_by(|a, b| a.name.cmp(&b.name));
    let mut validated = Service {
        name: Arc::clone(&service.name.as_ref()?.value.0),
        vips,
        protocol: protocol?,
        ports: ports?,
        mode: mode?,
        needs,
        track,
        disable_file: service
            .disable_file
            .as_ref()
            .map(|at| around.1.join(&at.value)),
        depends: depends(&service.depends.value, report),
        ring_size: ring_size?,
        idle: idle?,
        check: check?,
        bfd: matches!(&service.bfd, Some(bfd) if bfd.value.0.is_some()),
        slow_start: slow_start(service, report)?,
        backends,
    };
    validated.check.through = through::validate(service, &validated, report);
    Some(validated)
}

fn backend(written: &At<written::Backend>) -> Option<Backend> {
    let backend = &written.value;
    Some(Backend {
        name: Arc::clone(&backend.name.as_ref()?.value.0),
        address: backend.address.as_ref()?.value,
        weight: backend.weight.value.0,
        // Whom it follows can only be told once all are known.
        track: None,
        role: backend.role.value,
    })
}

fn check_vips(service: &written::Service, report: &mut Report) {
    let Some(vips) = &service.vips else { return };
    if vips.value.is_empty() && service.vips_from.is_none() {
        report
            .error(&vips.span, "a service without a virtual address")
            .help("for example vips = [\"198.51.100.10\"]");
    }
    for vip in &vips.value {
        check_unicast(vip.value.prefix(), &vip.span, report);
    }
}

fn check_backends(written: &At<written::Service>, vips: &Vips, report: &mut Report) {
    let service = &written.value;
    let backends = service.backends();
    if backends.is_empty() {
        if service.mode.is_some() && service.forwards() {
            report
                .error(&written.span, "a service without a backend")
                .help("add a [[service.backend]] with name and address after it");
        }
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
        if service.forwards() {
            vips.check_host(address, "the backend address", report);
            check_reachable(service, address, report);
        }
    }
    let addresses = backends.iter().filter_map(|at| at.value.address.as_ref());
    check_unique(addresses, "backend address", report);

    let with_traffic = backends.iter().filter(|at| at.value.weight.value.0 > 0);
    if with_traffic.count() == 0 {
        report
            .error(&backends[0].value.weight.span, "all backends have weight 0")
            .help("give at least one of them a weight from 1 to 256");
        return;
    }
    let is_active = |at: &&At<written::Backend>| {
        at.value.role.value == Role::Active && at.value.weight.value.0 > 0
    };
    if !backends.iter().any(|at| is_active(&at)) {
        report
            .error(
                &backends[0].value.role.span,
                "no active backend takes traffic",
            )
            .help("leave out `role` where a backend is to serve always");
    }
}

fn depends(written: &written::Depends, report: &mut Report) -> Depends {
    check_unique(written.interfaces.value.iter(), "interface", report);
    check_unique(written.routes.value.iter(), "route", report);
    let interfaces = written.interfaces.value.iter();
    let routes = written.routes.value.iter();
    Depends {
        interfaces: interfaces.map(|at| at.value.as_str().into()).collect(),
        routes: routes.map(|at| at.value).collect(),
    }
}

/// The services it tracks, which must be others that there are.
fn tracked(service: &written::Service, vips: &Vips, report: &mut Report) -> Vec<Arc<str>> {
    let own = service.name.as_ref().map(|name| &name.value.0);
    let others: Vec<_> = vips
        .services()
        .filter(|name| own.is_none_or(|own| **own != **name))
        .collect();
    for at in &service.track.value {
        if !others.contains(&&*at.value.0) {
            let help = match nearest(&at.value.0, &others) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if others.is_empty() => "there is no other".to_owned(),
                None => format!("there are: {}", others.join(", ")),
            };
            report
                .error(
                    &at.span,
                    format!("there is no other service `{}`", at.value),
                )
                .help(help);
        }
    }
    let names = service.track.value.iter();
    names.map(|at| Arc::clone(&at.value.0)).collect()
}

/// Checks that packets for every virtual address can be carried to `backend`.
fn check_reachable(service: &written::Service, backend: &At<IpAddr>, report: &mut Report) {
    let (Some(vips), Some(mode)) = (&service.vips, &service.mode) else {
        return;
    };
    let family = Family::of(backend.value);
    let unreachable = vips.value.iter().find(|vip| match mode.value {
        ModeName::L2Dsr => Family::of(vip.value.address()) != family,
        ModeName::Ipip => family == Family::Ipv4 && !vip.value.is_ipv4(),
        ModeName::Gue | ModeName::Local => false,
    });
    let Some(vip) = unreachable else { return };
    let vip_family = Family::of(vip.value.address()).name();
    let (title, help) = match mode.value {
        ModeName::L2Dsr => (
            format!(
                "l2-dsr cannot carry {vip_family} to an {} backend",
                family.name()
            ),
            format!("take the backend's {vip_family} address, or a service per family"),
        ),
        ModeName::Ipip | ModeName::Gue | ModeName::Local => (
            String::from(
                "ipip carries IPv4 in IPv4, IPv6 in IPv6 and IPv4 in IPv6, not IPv6 in IPv4",
            ),
            String::from(
                "take the backend's IPv6 address, which takes both families, or mode = \"gue\"",
            ),
        ),
    };
    report
        .error(&backend.span, title)
        .related(&vip.span, format!("{vip_family} here"))
        .help(help);
}

/// How packets reach backends, with the port where it belongs.
fn mode(service: &written::Service, report: &mut Report) -> Option<Mode> {
    let mode = service.mode.as_ref()?;
    if let Some(port) = &service.gue_port
        && mode.value != ModeName::Gue
    {
        report
            .error(&port.span, "`gue_port` belongs to mode gue")
            .related(&mode.span, "another mode here")
            .help("mode = \"gue\", or remove `gue_port`");
    }
    let gue_port = service.gue_port.as_ref();
    Some(match mode.value {
        ModeName::L2Dsr => Mode::L2Dsr,
        ModeName::Ipip => Mode::Ipip,
        ModeName::Gue => Mode::Gue(gue_port.map_or(GUE_PORT, |port| port.value)),
        ModeName::Local => Mode::Local,
    })
}

/// How long a flow without packets is remembered. Datagrams that belong
/// together are mostly over before a change has come and gone.
fn idle(service: &written::Service, report: &mut Report) -> Option<Duration> {
    let Some(written) = &service.flow_idle else {
        return Some(match service.protocol.as_ref()?.value {
            Protocol::Tcp => FLOW_IDLE_TCP,
            Protocol::Udp => Duration::ZERO,
        });
    };
    if written.value > FLOW_IDLE_MAX {
        let title = format!(
            "a flow cannot be remembered for {}",
            show_duration(written.value)
        );
        report
            .error(&written.span, title)
            .help(format!("at most \"{}\"", show_duration(FLOW_IDLE_MAX)));
        return None;
    }
    Some(written.value)
}

/// How long the share of a backend grows that has come back.
fn slow_start(service: &written::Service, report: &mut Report) -> Option<Duration> {
    let At { value, span } = &service.slow_start;
    if *value > SLOW_START_MAX {
        let title = format!("a slow start of {}", show_duration(*value));
        report
            .error(span, title)
            .help(format!("at most \"{}\"", show_duration(SLOW_START_MAX)));
        return None;
    }
    Some(*value)
}

fn ring_size(service: &written::Service, report: &mut Report) -> Option<u32> {
    if !service.forwards() {
        return Some(1);
    }
    let backends = service.backends().len();
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
