//! The metrics page: a [`Status`] in the words of Prometheus.
//!
//! Names and units follow the conventions of Prometheus. The text is
//! OpenMetrics when the reader asks for it, otherwise the older text format,
//! which is derived from it.
//!
//! Packets and bytes are counted per service and backend and never summed up
//! here: a sum falls when a backend leaves, which a reader takes for a restart
//! from zero and counts all of it anew.
//!
//! What changes is in values and not in labels, but for the result of the last
//! check: so the series are those of the configuration. Services that leave are
//! not on the page, and whatever has a state has a 0 for each that it is not in.

mod changes;
mod hooks;
mod peers;

use std::fmt;

use axum::{
    Router, extract,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};
use tokio::task::spawn_blocking;
use vipd_control::{announcement::State, standing::Standing};

use crate::{
    status::{BACKEND_STATES, INTERFACE_MODES, Status, WITHDRAWN},
    views::Views,
};

/// What a service can be.
const SERVICE_STATES: [State; 5] = [
    State::Up,
    State::Degraded,
    State::Doubt,
    State::Disabled,
    State::Down,
];

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page at `/metrics`.
pub fn router(views: Views) -> Router {
    Router::new().route("/metrics", get(page)).with_state(views)
}

async fn page(
    extract::State(views): extract::State<Views>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    let accepted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let openmetrics =
        accepted.is_some_and(|accept| accept.contains("application/openmetrics-text"));
    // The page of a large farm takes long to make, and sessions share this thread.
    let text = spawn_blocking(move || render(views.status(), openmetrics)).await;
    let text = text.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let kind = if openmetrics { OPENMETRICS } else { PROMETHEUS };
    Ok(([(header::CONTENT_TYPE, kind)], text))
}

/// The whole page.
#[must_use]
pub fn render(mut status: Status, openmetrics: bool) -> String {
    status.services.retain(|service| !service.leaving);
    let mut registry = Registry::with_prefix("vipd");
    registry.register_collector(Box::new(Page(status)));
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = text::encode(&mut out, &registry);
    if openmetrics { out } else { classic(&out) }
}

/// From OpenMetrics to the text format 0.0.4: a counter's metadata carries the
/// full name, `info` is a gauge, and there are no units and no end mark.
fn classic(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut counters = std::collections::BTreeSet::new();
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        let (hash, keyword) = (words.next(), words.next());
        if let (Some("#"), Some("TYPE"), Some(name), Some(kind)) =
            (hash, keyword, words.next(), words.next())
        {
            counters.insert((name.to_owned(), kind.to_owned()));
        }
    }
    let suffix = |name: &str| {
        let is = |kind: &str| counters.contains(&(name.to_owned(), kind.to_owned()));
        if is("counter") {
            "_total"
        } else if is("info") {
            "_info"
        } else {
            ""
        }
    };
    for line in openmetrics.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "EOF"] | ["#", "UNIT", ..] => continue,
            ["#", keyword, name, rest] => {
                let rest = if keyword == "TYPE" && rest == "info" {
                    "gauge"
                } else {
                    rest
                };
                out.push_str(&format!("# {keyword} {name}{} {rest}", suffix(name)));
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// The status as a collector.
#[derive(Debug)]
struct Page(Status);

type Labels<'a> = [(&'static str, &'a str)];

/// One family of metrics on the page.
struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    fn gauge(&mut self, labels: &Labels<'_>, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_family(&labels)?)
    }

    /// The only value of a family without labels.
    fn single(self, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0)
    }

    /// The same for a counter.
    fn total(self, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0)
    }

    fn counter(&mut self, labels: &Labels<'_>, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_family(&labels)?)
    }

    /// 1 for the present state, 0 for all others.
    fn states(&mut self, labels: &Labels<'_>, states: &States, present: &str) -> fmt::Result {
        let unknown = !states.all.iter().any(|state| state == present);
        let all = states.all.iter().map(String::as_str);
        for state in all.chain(unknown.then_some(present)) {
            let labels = [labels, &[(states.label, state)]].concat();
            self.gauge(&labels, flag(state == present))?;
        }
        Ok(())
    }
}

/// What something can be.
struct States {
    label: &'static str,
    all: Vec<String>,
}

impl States {
    fn new(label: &'static str, all: impl IntoIterator<Item: ToString>) -> Self {
        Self {
            label,
            all: all.into_iter().map(|state| state.to_string()).collect(),
        }
    }
}

fn gauges<'a>(
    page: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &'a str,
    unit: Option<&'a Unit>,
) -> Result<Family<'a>, fmt::Error> {
    page.encode_descriptor(name, help, unit, MetricType::Gauge)
        .map(Family)
}

fn counters<'a>(
    page: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &'a str,
) -> Result<Family<'a>, fmt::Error> {
    page.encode_descriptor(name, help, None, MetricType::Counter)
        .map(Family)
}

/// Exact up to 2^53, which no table of flows holds and no fingerprint has here.
fn count(value: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let value = value as f64;
    value
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

impl Collector for Page {
    fn encode(&self, mut page: DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.0;
        let build = Info::new([("version", status.version.as_str())]);
        build.encode(page.encode_descriptor(
            "build",
            "Version of the agent.",
            None,
            MetricType::Info,
        )?)?;
        let help = "When the agent started, in seconds since 1970.";
        gauges(&mut page, "start_time", help, Some(&Unit::Seconds))?
            .single(status.start_time_seconds)?;
        let help = "Checks of backends that have ended, well or not.";
        counters(&mut page, "checks", help)?.total(status.checks.ended)?;
        let help = "Checks that started more than 50 ms after they were due.";
        counters(&mut page, "checks_late", help)?.total(status.checks.late)?;
        encode_services(status, &mut page)?;
        encode_backends(status, &mut page)?;
        encode_dataplane(status, &mut page)?;
        changes::encode(status, &mut page)?;
        peers::encode(status, &mut page)?;
        hooks::encode(status, &mut page)
    }
}

fn encode_services(status: &Status, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut vips = gauges(
        page,
        "vip_announced",
        "Whether the virtual address is announced.",
        None,
    )?;
    for vip in &status.vips {
        vips.gauge(&[("vip", &vip.address)], flag(vip.announced))?;
    }
    let states = States::new(
        "state",
        State::ALL.map(State::label).into_iter().chain([WITHDRAWN]),
    );
    let help =
        "1 for the state the virtual address is announced in, or `withdrawn`; 0 for the others.";
    let mut state = gauges(page, "vip_state", help, None)?;
    for vip in &status.vips {
        state.states(&[("vip", &vip.address)], &states, &vip.state)?;
    }
    let mut bound = status
        .vips
        .iter()
        .filter_map(|vip| Some((vip, vip.bound.as_ref()?)))
        .peekable();
    if bound.peek().is_some() {
        let help =
            "Whether an address that this host serves itself is bound on it; 0 withdraws it.";
        let mut family = gauges(page, "vip_bound", help, None)?;
        for (vip, bound) in bound {
            family.gauge(&[("vip", &vip.address)], flag(bound.interface.is_some()))?;
        }
    }
    let help = "1 for the state the aggregate is announced in, or `withdrawn`; 0 for the others.";
    let mut state = gauges(page, "aggregate_state", help, None)?;
    for aggregate in &status.aggregates {
        state.states(&[("prefix", &aggregate.prefix)], &states, &aggregate.state)?;
    }
    let vips = status.vips.iter().map(|vip| (&vip.address, vip.damping));
    let aggregates = status.aggregates.iter();
    let prefixes = vips.chain(aggregates.map(|aggregate| (&aggregate.prefix, aggregate.damping)));
    let help = "What a router that damps flapping routes (RFC 2439) would have counted; 2000 is too much for most.";
    let mut penalty = gauges(page, "announcement_penalty", help, None)?;
    for (prefix, damping) in prefixes.clone() {
        penalty.gauge(&[("prefix", prefix)], damping.penalty)?;
    }
    let help = "For how long a better announcement still waits; 0 when none does.";
    let mut wait = gauges(page, "announcement_wait", help, Some(&Unit::Seconds))?;
    for (prefix, damping) in prefixes {
        wait.gauge(&[("prefix", prefix)], damping.wait_seconds)?;
    }
    let states = States::new("state", SERVICE_STATES.map(State::label));
    let help = "1 for the state the service is in by itself, 0 for the others.";
    let mut state = gauges(page, "service_state", help, None)?;
    for service in &status.services {
        state.states(&[("service", &service.name)], &states, &service.state)?;
    }
    type Value = fn(&crate::status::Service) -> f64;
    let families: [(&str, &str, Value); 3] = [
        (
            "service_alive",
            "Whether enough backends are healthy, and it is not disabled.",
            |s| flag(s.alive),
        ),
        (
            "service_backends_healthy",
            "Healthy active backends with a weight.",
            |s| s.healthy.into(),
        ),
        (
            "service_backends_configured",
            "Active backends with a weight.",
            |s| s.configured.into(),
        ),
    ];
    for (name, help, value) in families {
        let mut family = gauges(page, name, help, None)?;
        for service in &status.services {
            family.gauge(&[("service", &service.name)], value(service))?;
        }
    }
    if status.dataplane.is_some() {
        let help = "Ring slots by phase: learn and track after a change of owner.";
        let mut slots = gauges(page, "service_slots", help, None)?;
        for service in &status.services {
            let phases = service.phases.unwrap_or_default();
            for (phase, value) in [
                ("stable", phases.stable),
                ("learn", phases.learn),
                ("track", phases.track),
            ] {
                let labels = [("service", service.name.as_str()), ("phase", phase)];
                slots.gauge(&labels, value.into())?;
            }
        }
    }
    let help = "48 bits of the ring's fingerprint, the same on every node that sees the same backends \
                and has the same secret; 0 while nobody owns a slot.";
    let mut ring = gauges(page, "service_ring_fingerprint", help, None)?;
    for service in &status.services {
        let fingerprint = service.ring_fingerprint.as_deref().map_or(0, low_bits);
        ring.gauge(&[("service", &service.name)], count(fingerprint))?;
    }
    Ok(())
}

/// As much of a fingerprint in hexadecimal as a value can hold.
fn low_bits(fingerprint: &str) -> u64 {
    u64::from_str_radix(fingerprint, 16).unwrap_or(0) & ((1 << 48) - 1)
}

fn encode_backends(status: &Status, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    type Backend = crate::status::Backend;
    let each = |family: &mut dyn FnMut(&Labels<'_>, &Backend) -> fmt::Result| {
        for service in &status.services {
            for backend in &service.backends {
                let labels = [
                    ("service", service.name.as_str()),
                    ("backend", &backend.name),
                ];
                family(&labels, backend)?;
            }
        }
        Ok(())
    };
    let mut up = gauges(
        page,
        "backend_available",
        "Whether the backend takes new flows.",
        None,
    )?;
    each(&mut |labels, backend| up.gauge(labels, flag(backend.available)))?;
    let mut state = gauges(
        page,
        "backend_state",
        "1 for the state the backend is in, 0 for all others.",
        None,
    )?;
    let states = States::new("state", BACKEND_STATES);
    each(&mut |labels, backend| state.states(labels, &states, &backend.state))?;
    let help =
        "1 for what the state means for flows: up, draining, failing or down; 0 for the others.";
    let mut standing = gauges(page, "backend_standing", help, None)?;
    let states = States::new("standing", Standing::ALL.map(Standing::label));
    each(&mut |labels, backend| standing.states(labels, &states, &backend.standing))?;
    let help = "Whether the operator has drained the backend.";
    let mut drained = gauges(page, "backend_drained", help, None)?;
    each(&mut |labels, backend| drained.gauge(labels, flag(backend.drained)))?;
    let help = "How much of its share of new flows a backend has that takes them: less than 1 \
                while it starts slowly.";
    let mut share = gauges(page, "backend_share_ratio", help, None)?;
    each(&mut |labels, backend| match backend.available {
        true => share.gauge(labels, f64::from(backend.share_percent) / 100.0),
        false => Ok(()),
    })?;
    let help = "1 while BFD to the backend is up, else 0.";
    let mut bfd = gauges(page, "backend_bfd_up", help, None)?;
    each(&mut |labels, backend| match &backend.bfd {
        Some(session) => bfd.gauge(labels, flag(session.is_up())),
        None => Ok(()),
    })?;
    let mut slots = gauges(
        page,
        "backend_ring_slots",
        "Ring slots the backend owns.",
        None,
    )?;
    each(&mut |labels, backend| slots.gauge(labels, backend.slots.into()))?;
    if status.dataplane.is_some() {
        let help = "Live flows recorded for the backend; flows of stable slots need no record.";
        let mut flows = gauges(page, "backend_flows", help, None)?;
        each(&mut |labels, backend| flows.gauge(labels, count(backend.flows)))?;
    }
    let help = "How long the last check took, by its result in HAProxy's words.";
    let mut check = gauges(page, "backend_check_duration", help, Some(&Unit::Seconds))?;
    each(&mut |labels, backend| match &backend.check {
        Some(last) => {
            let mut labels = labels.to_vec();
            labels.push(("result", &last.code));
            check.gauge(&labels, last.duration_seconds)
        }
        None => Ok(()),
    })?;
    let help = "How long each part of the last check took, where it had several.";
    let mut phases = gauges(
        page,
        "backend_check_phase_duration",
        help,
        Some(&Unit::Seconds),
    )?;
    each(&mut |labels, backend| {
        let parts = backend.check.iter().flat_map(|check| check.phases.iter());
        let parts: Vec<_> = parts.collect();
        if parts.len() < 2 {
            return Ok(());
        }
        for (phase, seconds) in parts {
            let mut labels = labels.to_vec();
            labels.push(("phase", phase));
            phases.gauge(&labels, seconds)?;
        }
        Ok(())
    })?;
    let help = "When the first certificate that the backend showed expires, in Unix time.";
    let mut expiry = gauges(
        page,
        "backend_check_certificate_expiry",
        help,
        Some(&Unit::Seconds),
    )?;
    each(&mut |labels, backend| {
        let check = backend.check.as_ref();
        match check.and_then(|check| check.certificate_expiry) {
            Some(seconds) => expiry.gauge(labels, count(seconds)),
            None => Ok(()),
        }
    })?;
    let mut packets = counters(page, "backend_packets", "Packets forwarded to the backend.")?;
    each(&mut |labels, backend| packets.counter(labels, backend.packets))?;
    let help = "Bytes of frames received and forwarded to the backend.";
    let mut bytes = counters(page, "backend_bytes", help)?;
    each(&mut |labels, backend| bytes.counter(labels, backend.bytes))
}

fn encode_dataplane(status: &Status, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(dataplane) = &status.dataplane else {
        return Ok(());
    };
    let help = "Packets by what became of them; the reasons are explained in docs/verdicts.md.";
    let mut verdicts = counters(page, "packets", help)?;
    for (verdict, packets) in &dataplane.verdicts {
        verdicts.counter(&[("verdict", verdict)], *packets)?;
    }
    let mut used = gauges(page, "map_entries", "Entries in use of a BPF map.", None)?;
    for usage in &dataplane.maps {
        used.gauge(&[("map", &usage.map)], usage.used.into())?;
    }
    let mut capacity = gauges(
        page,
        "map_capacity",
        "Entries a BPF map has room for.",
        None,
    )?;
    for usage in &dataplane.maps {
        capacity.gauge(&[("map", &usage.map)], usage.capacity.into())?;
    }
    let mut attached = gauges(
        page,
        "xdp_attached",
        "Whether the interface carries the XDP program.",
        None,
    )?;
    for interface in &dataplane.interfaces {
        let carries = ["native", "generic"].contains(&interface.mode.as_str());
        attached.gauge(&[("interface", &interface.name)], flag(carries))?;
    }
    let help =
        "1 for how the interface carries the XDP program, or why it does not; 0 for all others.";
    let mut state = gauges(page, "xdp_state", help, None)?;
    let states = States::new("state", INTERFACE_MODES);
    for interface in &dataplane.interfaces {
        state.states(&[("interface", &interface.name)], &states, &interface.mode)?;
    }
    let help = "Whether the data plane forwards; 0 withdraws everything.";
    gauges(page, "dataplane_up", help, None)?.single(flag(dataplane.fault.is_none()))?;
    let help = "Services and backends that could not be applied.";
    let faults = u32::try_from(dataplane.faults.len()).unwrap_or(u32::MAX);
    gauges(page, "dataplane_faults", help, None)?.single(faults.into())
}
