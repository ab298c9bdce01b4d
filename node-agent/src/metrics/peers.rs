//! The metrics of the sessions with routers, BGP and BFD.

use std::fmt;

use prometheus_client::{encoding::DescriptorEncoder, registry::Unit};

use super::{States, count, counters, flag, gauges};
use crate::{
    bfd::protocol::State,
    status::{BFD_UNKNOWN, Bfd, Messages, Peer, SESSION_FAILED, SessionsState, Status},
};

pub(super) fn encode(status: &Status, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if let Some(sessions) = &status.sessions {
        let help = "1 for how the node is connected to its routers: healthy with all sessions, \
                    isolated without any, degraded in between; 0 for the others.";
        let states = States::new("state", SessionsState::ALL);
        let present = sessions.state.to_string();
        gauges(page, "bgp_sessions_state", help, None)?.states(&[], &states, &present)?;
    }
    let help = "1 for the state the session is in (RFC 4271, or `failed`), 0 for all others.";
    let mut state = gauges(page, "bgp_session_state", help, None)?;
    let mut states = States::new("state", vipd_bgp::State::ALL);
    states.all.push(SESSION_FAILED.to_owned());
    for peer in &status.peers {
        state.states(&[("peer", &peer.name)], &states, &peer.state)?;
    }
    encode_gauges(status, page)?;
    let help = "Prefixes the peer has been told of.";
    let mut prefixes = gauges(page, "bgp_announced_prefixes", help, None)?;
    for peer in &status.peers {
        for (family, advertised) in &peer.advertised {
            let labels = [("peer", peer.name.as_str()), ("family", family)];
            prefixes.gauge(&labels, number(*advertised))?;
        }
    }
    type Total = fn(&Peer) -> u64;
    let totals: [(&str, &str, Total); 3] = [
        (
            "bgp_sessions_established",
            "How often the session was established.",
            |peer| peer.established_count,
        ),
        (
            "bgp_received_prefixes",
            "Prefixes received from the peer; none is imported.",
            |peer| peer.prefixes_received,
        ),
        (
            "bgp_withdrawn_prefixes",
            "Prefixes that the peer has withdrawn.",
            |peer| peer.prefixes_withdrawn,
        ),
    ];
    for (name, help, value) in totals {
        let mut family = counters(page, name, help)?;
        for peer in &status.peers {
            family.counter(&[("peer", &peer.name)], value(peer))?;
        }
    }
    type Sums = fn(&Peer) -> &Messages;
    let messages: [(&str, &str, Sums); 2] = [
        ("bgp_messages_sent", "BGP messages sent.", |peer| {
            &peer.messages_sent
        }),
        ("bgp_messages_received", "BGP messages received.", |peer| {
            &peer.messages_received
        }),
    ];
    for (name, help, of_peer) in messages {
        let mut family = counters(page, name, help)?;
        for peer in &status.peers {
            for (kind, count) in of_peer(peer) {
                family.counter(&[("peer", peer.name.as_str()), ("type", kind)], *count)?;
            }
        }
    }
    encode_bfd(status, page)
}

/// One value for each peer; absent where there is none.
fn encode_gauges(status: &Status, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    type Value = fn(&Peer) -> Option<f64>;
    let seconds = Some(&Unit::Seconds);
    let families: [(&str, &str, Option<&Unit>, Value); 6] = [
        (
            "bgp_session_up",
            "Whether the session is established.",
            None,
            |peer| Some(flag(peer.uptime_seconds.is_some())),
        ),
        (
            "bgp_session_start_time",
            "When the session was established, in seconds since 1970; absent while it is not.",
            seconds,
            |peer| peer.start_time_seconds,
        ),
        (
            "bgp_session_last_error_time",
            "When something last went wrong with the session, in seconds since 1970; 0 if \
             nothing has.",
            seconds,
            |peer| Some(peer.last_error_time_seconds.unwrap_or(0.0)),
        ),
        (
            "bgp_session_hold_time",
            "The agreed hold time; absent while there is none.",
            seconds,
            |peer| peer.hold_time_seconds.map(count),
        ),
        (
            "bgp_wanted_prefixes",
            "Prefixes the peer is to know, whether or not it has been told.",
            None,
            |peer| Some(number(peer.wanted)),
        ),
        (
            "bgp_unsent_prefixes",
            "Prefixes that the session cannot carry.",
            None,
            |peer| Some(number(peer.unsent.len())),
        ),
    ];
    for (name, help, unit, value) in families {
        let mut family = gauges(page, name, help, unit)?;
        for peer in &status.peers {
            if let Some(value) = value(peer) {
                family.gauge(&[("peer", &peer.name)], value)?;
            }
        }
    }
    Ok(())
}

/// BFD with the peers that are to have it; nothing where there is none.
fn encode_bfd(status: &Status, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let sessions = status.peers.iter();
    let sessions: Vec<_> = sessions
        .filter_map(|peer| Some((peer.name.as_str(), peer.bfd.as_ref()?)))
        .collect();
    if sessions.is_empty() {
        return Ok(());
    }
    let help = "Whether the BFD process is reached; without it no BFD session is known.";
    let reached = status.bfd_unreachable.is_none();
    gauges(page, "bfd_process_reached", help, None)?.single(flag(reached))?;
    let help = "1 for the state the BFD session is in (RFC 5880), or `unknown` when the BFD \
                process tells nothing of it; 0 for all others.";
    let mut state = gauges(page, "bfd_session_state", help, None)?;
    let mut states = States::new("state", State::ALL);
    states.all.push(BFD_UNKNOWN.to_owned());
    for (peer, bfd) in &sessions {
        state.states(&[("peer", peer)], &states, &bfd.state)?;
    }
    type Value = fn(&Bfd) -> Option<f64>;
    let seconds = Some(&Unit::Seconds);
    let families: [(&str, &str, Option<&Unit>, Value); 4] = [
        (
            "bfd_session_up",
            "Whether packets pass both ways by BFD.",
            None,
            |bfd| Some(flag(bfd.is_up())),
        ),
        (
            "bfd_transmit_interval",
            "Between two of our packets, before up to a quarter is taken off; absent while \
             none are sent by the clock.",
            seconds,
            |bfd| bfd.transmit_interval_seconds,
        ),
        (
            "bfd_transmit_gap",
            "The worst time between two of our packets in the last minute; absent while there \
             is none.",
            seconds,
            |bfd| bfd.transmit_gap_seconds,
        ),
        (
            "bfd_detection_time",
            "After so long a silence the peer is given up; absent while it is not heard.",
            seconds,
            |bfd| bfd.detection_time_seconds,
        ),
    ];
    for (name, help, unit, value) in families {
        let mut family = gauges(page, name, help, unit)?;
        for (peer, bfd) in &sessions {
            if let Some(value) = value(bfd) {
                family.gauge(&[("peer", peer)], value)?;
            }
        }
    }
    let help = "How often the BFD session was up and went down, since the BFD process was \
                started.";
    let mut downs = counters(page, "bfd_session_downs", help)?;
    for (peer, bfd) in &sessions {
        downs.counter(&[("peer", peer)], bfd.downs)?;
    }
    Ok(())
}

/// No list of ours has more than 2^32 elements.
fn number(len: usize) -> f64 {
    u32::try_from(len).unwrap_or(u32::MAX).into()
}
