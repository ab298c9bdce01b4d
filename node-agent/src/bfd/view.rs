//! How the process and its sessions are, for those who ask.

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use vipd_bfd::{Discards, Hops, State};

use super::{
    process::Process,
    protocol::{Peer, Session, Status},
};

pub(super) fn status(process: &Process, agent: bool, now: Instant) -> Status {
    let wanted = process
        .entries
        .iter()
        .filter(|(_, entry)| entry.leaving.is_none());
    let sessions = wanted.map(|(id, _)| id);
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
        interface: interface
            .map(|link| link.name.clone())
            .or_else(|| entry.path.interface.as_deref().map(str::to_owned)),
        multihop: entry.path.hops == Hops::Multi,
        state: status.state.into(),
        why: why(&status, entry.failure.as_ref()),
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
fn why(status: &vipd_bfd::Status, failure: Option<&io::Error>) -> String {
    let last_down = status.last_down.as_ref().map(|down| down.cause.to_string());
    let unheard = status.remote.is_none() && !status.held;
    match (status.state, failure, status.last_discard, last_down) {
        (State::Up, ..) => String::new(),
        (State::Init, ..) => String::from("the peer does not hear us yet"),
        (_, Some(error), ..) if unheard => format!("packets cannot be sent: {error}"),
        (_, _, Some(reason), _) if unheard => {
            format!("packets of the peer are discarded: {reason}")
        }
        (_, _, _, Some(why)) => why,
        (_, _, _, None) => String::from("nothing has been heard of the peer"),
    }
}

fn discards(discards: &Discards) -> BTreeMap<String, u64> {
    discards
        .iter()
        .map(|(reason, count)| (reason.name().to_owned(), count))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vipd_bfd::{Authentication, Config, Diagnostic, Hold, Method, Timing};

    use super::*;

    fn session(config: impl FnOnce(Config) -> Config, now: Instant) -> vipd_bfd::Session {
        let interval = Duration::from_millis(100);
        let timing = Timing::new(interval, interval, 3).expect("a good timing");
        vipd_bfd::Session::new(config(Config::new(timing)), NonZeroU32::MIN, 1, now)
    }

    #[test]
    fn the_reason_that_helps_most_comes_first() {
        let now = Instant::now();
        let told = |session: &vipd_bfd::Session, failure: Option<&io::Error>| {
            why(&session.status(now), failure)
        };
        let mut ours = session(|config| config, now);
        assert_eq!(told(&ours, None), "nothing has been heard of the peer");
        let failure = io::Error::other("no route");
        assert_eq!(
            told(&ours, Some(&failure)),
            "packets cannot be sent: no route"
        );

        let key = Authentication::new(Method::KeyedMd5, 1, b"key").expect("a good key");
        let authentication = Some(key);
        let mut theirs = session(
            |config| Config {
                authentication,
                ..config
            },
            now,
        );
        let mut buffer = [0; vipd_bfd::packet::MAX_LEN];
        let length = theirs.poll_transmit(now, &mut buffer).expect("a packet");
        let received = vipd_bfd::packet::parse(&buffer[..length]).expect("a good packet");
        ours.receive(&received, now)
            .expect_err("it is authenticated");
        let discarded = "packets of the peer are discarded: it is authenticated, and the \
                         session is not";
        assert_eq!(told(&ours, None), discarded);

        let (diagnostic, why) = (Diagnostic::PATH_DOWN, Arc::from("the cable is cut"));
        ours.hold(Some(Hold::Down { diagnostic, why }), now);
        assert_eq!(told(&ours, Some(&failure)), "the cable is cut");
    }
}
