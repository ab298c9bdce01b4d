//! How the process and its sessions are, for those who ask.

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use vipd_bfd::{Cause, Discards, Hops, Remote, State};

use super::{
    process::Process,
    protocol::{Peer, Session, Status, VERSION},
};

pub(super) fn status(process: &Process, agent: bool, now: Instant) -> Status {
    let wanted = process
        .entries
        .iter()
        .filter(|(_, entry)| entry.leaving.is_none());
    let mut sessions: Vec<_> = wanted
        .filter_map(|(id, _)| session(process, *id, now))
        .collect();
    sessions.sort_by(|a, b| a.name.cmp(&b.name));
    let mut discarded = discards(&process.sessions.discarded());
    let by_kernel = process.all_dropped();
    discarded.extend((by_kernel > 0).then(|| ("kernel".to_owned(), by_kernel)));
    Status {
        version: VERSION,
        sessions,
        agent,
        discarded,
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
        why: why(
            &status,
            entry.failure.as_ref(),
            Dropped {
                packets: process.dropped(&entry.path),
                min_ttl: entry.path.hops.min_ttl(session.config()),
            },
        ),
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
        lost: lost(&status),
        worst_gap: status.worst_gap.into(),
        worst_gap_last_minute: status.worst_gap_last_minute.into(),
    })
}

/// Why a session was lost that is not up, if the peer or the way to it is to blame.
fn lost(status: &vipd_bfd::Status) -> Option<String> {
    let cause = &status.last_down.as_ref()?.cause;
    match (status.state, cause) {
        (State::Up | State::AdminDown, _) => None,
        _ if status.held => None,
        (State::Down | State::Init, Cause::Silence(_)) => {
            Some(format!("control detection time expired, {cause}"))
        }
        (
            State::Down | State::Init,
            Cause::Peer {
                state: State::Down | State::Init | State::Up,
                ..
            },
        ) => Some(cause.to_string()),
        (
            State::Down | State::Init,
            Cause::Peer {
                state: State::AdminDown,
                ..
            }
            | Cause::Admin
            | Cause::Held(_)
            | Cause::Released,
        ) => None,
    }
}

/// What the kernel has dropped, of this session's packets or of others to the same
/// port.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    packets: u32,
    min_ttl: u8,
}

/// Why a session is not up; empty when it is. What is so now comes before what has
/// been.
fn why(status: &vipd_bfd::Status, failure: Option<&io::Error>, dropped: Dropped) -> String {
    let cause = status.last_down.as_ref().map(|down| &down.cause);
    match (status.state, status.remote) {
        (State::Up, _) => return String::new(),
        (State::Init, _) => return String::from("the peer does not hear us yet"),
        _ if status.held => return cause.map_or_else(String::new, ToString::to_string),
        (
            State::Down | State::AdminDown,
            Some(Remote {
                state, diagnostic, ..
            }),
        ) => {
            return Cause::Peer { state, diagnostic }.to_string();
        }
        (State::Down | State::AdminDown, None) => (),
    }
    if let Some(error) = failure {
        return format!("packets cannot be sent: {error}");
    }
    if let Some(reason) = status.last_discard {
        return format!("packets of the peer are discarded: {reason}");
    }
    let silence = match cause {
        None => String::from("nothing has been heard of the peer"),
        Some(held @ (Cause::Held(_) | Cause::Admin)) => {
            format!("nothing has been heard of the peer since this was over: {held}")
        }
        Some(cause) => cause.to_string(),
    };
    match dropped {
        Dropped { packets: 0, .. } => silence,
        Dropped { packets, min_ttl } => format!(
            "{silence} ({packets} packets to its port, from whomever, have been dropped: with a \
             TTL below {min_ttl}, or too many at once)"
        ),
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

    fn told(session: &vipd_bfd::Session, now: Instant) -> String {
        why(&session.status(now), None, Dropped::default())
    }

    /// The packet that a session is about to send.
    fn hear(ours: &mut vipd_bfd::Session, theirs: &mut vipd_bfd::Session, now: Instant) {
        let mut buffer = [0; vipd_bfd::packet::MAX_LEN];
        let length = theirs.poll_transmit(now, &mut buffer).expect("a packet");
        let received = vipd_bfd::packet::parse(&buffer[..length]).expect("a good packet");
        // What is discarded is told.
        let _ = ours.receive(&received, now);
    }

    #[test]
    fn the_reason_that_helps_most_comes_first() {
        let now = Instant::now();
        let mut ours = session(|config| config, now);
        assert_eq!(told(&ours, now), "nothing has been heard of the peer");
        let failure = io::Error::other("no route");
        let dropped = Dropped {
            packets: 7,
            min_ttl: 255,
        };
        let status = ours.status(now);
        assert_eq!(
            why(&status, Some(&failure), dropped),
            "packets cannot be sent: no route"
        );
        assert_eq!(
            why(&status, None, dropped),
            "nothing has been heard of the peer (7 packets to its port, from whomever, have been \
             dropped: with a TTL below 255, or too many at once)"
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
        hear(&mut ours, &mut theirs, now);
        let discarded = "packets of the peer are discarded: it is authenticated, and the \
                         session is not";
        assert_eq!(told(&ours, now), discarded);

        let (diagnostic, reason) = (Diagnostic::PATH_DOWN, Arc::from("the cable is cut"));
        let why_held = Some(Hold::Down {
            diagnostic,
            why: reason,
        });
        ours.hold(why_held, now);
        let status = ours.status(now);
        assert_eq!(why(&status, Some(&failure), dropped), "the cable is cut");
    }

    #[test]
    fn what_has_been_is_not_told_as_what_is() {
        let now = Instant::now();
        let cut = |session: &mut vipd_bfd::Session| {
            let (diagnostic, why) = (Diagnostic::PATH_DOWN, Arc::from("the cable is cut"));
            session.hold(Some(Hold::Down { diagnostic, why }), now);
            session.hold(None, now);
        };
        let mut ours = session(|config| config, now);
        cut(&mut ours);
        let silent = "nothing has been heard of the peer since this was over: the cable is cut";
        assert_eq!(told(&ours, now), silent);

        // The peer is held down from its start.
        let mut theirs = session(|config| config, now);
        theirs.hold(Some(Hold::Admin), now);
        let by_peer = "the peer is AdminDown: Administratively Down";
        for sentence in ["after the cable", "from the start"] {
            hear(&mut ours, &mut theirs, now);
            assert_eq!(told(&ours, now), by_peer, "{sentence}");
            ours = session(|config| config, now);
            theirs = session(|config| config, now);
            theirs.hold(Some(Hold::Admin), now);
        }
    }
}
