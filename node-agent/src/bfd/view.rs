//! How the process and its sessions are, for those who ask.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use vipd_bfd::{Discard, Discards, Hops};

use super::{
    process::Process,
    protocol::{Peer, Session, State, Status},
};

pub(super) fn status(process: &Process, agent: bool, now: Instant) -> Status {
    let sessions = process.entries.keys();
    Status {
        sessions: sessions
            .filter_map(|id| session(process, *id, now))
            .collect(),
        agent,
        discarded: discards(&process.sessions.discarded()),
        worst_delay_seconds: process.worst_delay.as_secs_f64(),
    }
}

pub(super) fn session(process: &Process, id: NonZeroU32, now: Instant) -> Option<Session> {
    let (entry, session) = (process.entries.get(&id)?, process.sessions.get(id)?);
    let status = session.status(now);
    let links = process.facts.links.as_ref();
    let interface = links
        .zip(entry.interface)
        .and_then(|(links, index)| links.get(&index));
    let seconds = |duration: Duration| duration.as_secs_f64();
    let last_down = status.last_down.as_ref().map(|down| down.cause.to_string());
    Some(Session {
        name: entry.name.clone(),
        remote: entry.path.remote,
        local: entry.path.local,
        interface: interface.map(|link| link.name.clone()),
        multihop: matches!(entry.path.hops, Hops::Multi { .. }),
        state: status.state.into(),
        why: why(&status, last_down.as_deref()),
        for_seconds: seconds(now.saturating_duration_since(status.since)),
        diagnostic: status.diagnostic.to_string(),
        peer: status.remote.map(|remote| Peer {
            state: remote.state.into(),
            diagnostic: remote.diagnostic.to_string(),
            min_tx_seconds: seconds(remote.desired_min_tx),
            min_rx_seconds: seconds(remote.required_min_rx),
            multiplier: remote.multiplier,
            independent: remote.independent,
        }),
        transmit_interval_seconds: status.transmit_interval.map(seconds),
        detection_time_seconds: status.detection_time.map(seconds),
        sent: status.counters.sent,
        unsent: entry.unsent,
        received: status.counters.received,
        discarded: discards(&status.counters.discarded),
        ups: status.counters.ups,
        downs: status.counters.downs,
        last_down,
        worst_gap: status.worst_gap.into(),
        worst_gap_last_minute: status.worst_gap_last_minute.into(),
    })
}

/// Why a session is not up; empty when it is.
fn why(status: &vipd_bfd::Status, last_down: Option<&str>) -> String {
    let state = State::from(status.state);
    let heard = status.remote.is_some();
    match (state, last_down) {
        (State::Up, _) => String::new(),
        (State::Init, _) => String::from("the peer does not hear us yet"),
        (State::AdminDown, Some(why)) => why.to_owned(),
        (State::Down | State::AdminDown, why) => {
            let discarded = &status.counters.discarded;
            let worst = discarded
                .iter()
                .filter(|(reason, _)| *reason != Discard::AdminDown);
            match (worst.max_by_key(|(_, count)| *count), why) {
                (Some((reason, count)), _) if !heard => {
                    format!("{count} packets of the peer were discarded: {reason}")
                }
                (_, Some(why)) => why.to_owned(),
                (_, None) => String::from("nothing has been heard of the peer"),
            }
        }
    }
}

fn discards(discards: &Discards) -> BTreeMap<String, u64> {
    discards
        .iter()
        .map(|(reason, count)| (reason.name().to_owned(), count))
        .collect()
}
