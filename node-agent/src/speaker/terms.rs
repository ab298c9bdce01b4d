//! The terms of a session: what the configuration and our own past mean to the
//! state machine.

use std::{collections::BTreeSet, time::Duration};

use vipd_bgp::{BfdMode, GracefulRestart, PeerConfig, wire};

use crate::config::{Bgp, BgpPeer};

/// How our own restart goes, as far as a peer is to know.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// This agent goes on where an earlier one stopped.
    pub restarting: bool,
    /// Packets are forwarded already when the session comes.
    pub forwarding: bool,
}

/// The session's terms, as the state machine wants them.
#[must_use]
pub fn session_config(bgp: &Bgp, peer: &BgpPeer, restart: Restart) -> PeerConfig {
    let mut config = PeerConfig::new(
        bgp.local_as.number(),
        peer.remote_as.number(),
        bgp.router_id,
    );
    config.hold_time = Duration::from_secs(peer.hold_time.seconds().into());
    config.passive = peer.passive;
    config.retry_min = peer.connect_retry;
    config.retry_max = config.retry_max.max(peer.connect_retry);
    config.families.clear();
    if peer.families.ipv4.is_some() {
        config.families.insert(wire::Family::Ipv4Unicast);
    }
    if peer.families.ipv6.is_some() {
        config.families.insert(wire::Family::Ipv6Unicast);
    }
    config.bfd = match &peer.bfd {
        None => BfdMode::Off,
        Some(bfd) if bfd.strict => BfdMode::Strict,
        Some(_) => BfdMode::On,
    };
    config.max_prefixes = peer.max_prefixes;
    config.graceful_restart = peer.graceful_restart.then(|| GracefulRestart {
        restart_time: bgp.restart_time,
        restarting: restart.restarting,
        forwarding: match restart.forwarding {
            true => config.families.clone(),
            false => BTreeSet::new(),
        },
    });
    config
}
