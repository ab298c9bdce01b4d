//! Doubt about our own network, as validated.

use std::{sync::Arc, time::Duration};

use vipd_control::{
    doubt::Terms,
    model::{Service, Timing},
};

use super::{
    address::Vips, report::Report, valid::check_unique, value::show_duration, written::File,
};
use crate::doubt::Settings;

/// When our own network is in doubt. `services` are those that are right.
pub fn doubt(file: &File, services: &[Arc<Service>], vips: &Vips, report: &mut Report) -> Settings {
    let written = &file.doubt.value;
    check_unique(written.anchors.value.iter(), "anchor", report);
    let peers = file.bgp.iter().flat_map(|bgp| &bgp.value.peer.value);
    let sources: Vec<_> = (peers.clone())
        .filter_map(|peer| peer.value.source.as_ref())
        .collect();
    for anchor in &written.anchors.value {
        vips.check_host(anchor, "the anchor", report);
        if let Some(own) = sources.iter().find(|source| source.value == anchor.value) {
            report
                .error(&anchor.span, "the anchor is this host itself")
                .related(&own.span, "its address, by this")
                .help("take one that answers only if the network works");
        }
        let mut peers = peers.clone().map(|peer| &peer.value);
        let peer = peers.find(|peer| matches!(&peer.address, Some(at) if at.value == anchor.value));
        let Some(peer) = peer else { continue };
        let guard = peer.password_file.as_ref().map(|at| &at.span);
        if let Some(guard) = guard.or(peer.ttl_security.as_ref().map(|at| &at.span)) {
            report
                .warning(
                    &anchor.span,
                    "the anchor is asked without password, and from any distance",
                )
                .related(guard, "but this peer may be silent to who comes so")
                .help("take another router's or server's address");
        }
    }
    let settings = Settings {
        is_enabled: written.enabled.value,
        terms: Terms {
            window: written.window.value,
            limit: written.limit.value,
        },
        anchors: written.anchors.value.iter().map(|at| at.value).collect(),
    };
    if settings.is_enabled {
        for service in services {
            warn_if_slow(file, service, settings.terms.window, report);
        }
    }
    settings
}

/// Says so of checks that take longer than the window: then backends do not fall, or
/// do not come back, together.
fn warn_if_slow(file: &File, service: &Service, window: Duration, report: &mut Report) {
    let check = &service.check;
    if !(service.mode.forwards() && check.kind.tells_silence()) {
        return;
    }
    let (down, up) = (time_down(&check.timing), time_up(&check.timing));
    let (time, what) = if down >= up {
        (down, "down")
    } else {
        (up, "up again")
    };
    if time <= window {
        return;
    }
    let mut all = file.service.value.iter();
    let written = all.find(|at| {
        let name = at.value.name.as_ref();
        name.is_some_and(|name| *name.value.0 == *service.name)
    });
    let Some(written) = written else { return };
    let rest = u64::from(time.subsec_nanos() > 0);
    let whole = Duration::from_secs(time.as_secs().saturating_add(rest));
    let (shown, window) = (show_duration(whole), show_duration(window));
    report
        .warning(
            &written.value.check.value.interval.span,
            format!(
                "it takes up to {shown} to find a backend {what}, and `window` of [doubt] is {window}"
            ),
        )
        .help(format!(
            "a `window` of \"{shown}\" or more, or it will not be seen that all fall at once; \
             or shorter intervals"
        ));
}

/// The longest time in which a backend that falls silent is found.
fn time_down(timing: &Timing) -> Duration {
    let jitter = timing.interval / 1000 * u32::from(timing.jitter_permille);
    let turn = timing.interval.saturating_add(jitter);
    turn.saturating_add(row(timing, timing.fall))
}

/// The same of one that answers again.
fn time_up(timing: &Timing) -> Duration {
    timing
        .down_interval
        .saturating_add(row(timing, timing.rise))
}

/// So many checks in a row that begin with one at its turn.
fn row(timing: &Timing, count: u32) -> Duration {
    let pause = timing.fast_interval.max(timing.timeout);
    let pauses = pause.saturating_mul(count.saturating_sub(1));
    pauses.saturating_add(timing.timeout)
}
