//! What an operator is told: what the peer's NOTIFICATIONs mean and what helps,
//! and what is dangerous about a session that stands.

use std::time::Duration;

use super::{Agreed, BfdMode, PeerConfig};
use crate::wire::{Code, Notification};

/// A hold time above which a silent death takes long to be noticed.
const LONG_HOLD: Duration = Duration::from_secs(30);

/// Why the peer ended a connection, and what helps.
pub(super) fn peer_ended(config: &PeerConfig, notification: &Notification) -> String {
    let reset = notification.reset();
    let reason = reset.as_ref().unwrap_or(notification);
    let mut words = format!("the peer ended the connection: {notification}");
    for more in [
        remedy(config, reason),
        (notification.code == Code::HARD_RESET).then(|| "it keeps none of our routes".to_owned()),
    ] {
        words.extend(more.map(|more| format!("; {more}")));
    }
    words
}

fn remedy(config: &PeerConfig, notification: &Notification) -> Option<String> {
    let words = match notification.code {
        Code::BAD_PEER_AS => {
            let asn = config.local_as;
            return Some(format!(
                "it expects another AS than ours, which is {asn}: correct the neighbour's AS \
                 there, or ours here"
            ));
        }
        Code::BAD_BGP_IDENTIFIER => {
            let id = config.router_id;
            return Some(format!(
                "it does not take our router id {id}: within an AS each must have its own"
            ));
        }
        Code::UNACCEPTABLE_HOLD_TIME => {
            let seconds = config.hold_time.as_secs();
            return Some(format!("it does not take our hold time of {seconds} s"));
        }
        Code::MAXIMUM_PREFIXES => match notification.limit() {
            Some((family, limit)) => {
                return Some(format!(
                    "it takes at most {limit} prefixes of {family}: announce fewer, or raise \
                     its limit for this node"
                ));
            }
            None => "it takes fewer prefixes: announce fewer, or raise its limit for this node",
        },
        Code::UNSUPPORTED_VERSION => "it does not speak BGP-4",
        Code::UNSUPPORTED_OPTIONAL_PARAMETER => "it does not know capabilities (RFC 5492)",
        Code::UNSUPPORTED_CAPABILITY => {
            "it misses something in what we offer: activate the same address families on both \
             sides, and see what else it insists on"
        }
        Code::ROLE_MISMATCH => "it insists on a role (RFC 9234), and we tell none",
        Code::HOLD_TIMER_EXPIRED => {
            "it has heard nothing from us for the hold time: packets are lost on the way, or \
             this host is overloaded"
        }
        Code::SEND_HOLD_TIMER_EXPIRED => {
            "we have taken in nothing of what it sends: packets are lost on the way, or this \
             host is overloaded"
        }
        Code::ADMIN_SHUTDOWN => "an operator has shut the session down there",
        Code::PEER_DECONFIGURED => "this node is not configured there any more",
        Code::ADMIN_RESET => "an operator has restarted the session there",
        Code::CONNECTION_REJECTED => {
            "it does not let this node in: it must know it as a neighbour, by the address that \
             we dial from"
        }
        Code::CONFIGURATION_CHANGE => "it has been reconfigured",
        Code::COLLISION => "it holds on to another connection with us",
        Code::OUT_OF_RESOURCES => "it has no room for the session",
        Code::BFD_DOWN => "its BFD says that the way to us is gone",
        _ => return None,
    };
    Some(words.to_owned())
}

/// What is dangerous about the terms of a session, and what helps.
pub(super) fn warnings(config: &PeerConfig, agreed: &Agreed) -> Vec<String> {
    let mut warnings = Vec::new();
    let (hold_time, blind) = (agreed.hold_time, config.bfd == BfdMode::Off);
    if blind && hold_time.is_zero() {
        warnings.push(
            "no hold time is agreed and no BFD runs: a silent death is never noticed".to_owned(),
        );
    } else if blind && hold_time > LONG_HOLD {
        warnings.push(format!(
            "the agreed hold time is {} s and no BFD runs: a silent death is noticed only then; \
             run BFD, or set a shorter hold time on either side",
            hold_time.as_secs()
        ));
    }
    match (&config.graceful_restart, &agreed.restart) {
        (Some(_), None) => warnings.push(
            "the peer does not offer graceful restart: our routes flap when this agent restarts"
                .to_owned(),
        ),
        (Some(restart), Some(_)) if blind => warnings.push(format!(
            "with graceful restart and no BFD, a peer sends packets to this host for up to {} s \
             after it has died: run BFD",
            (hold_time + restart.restart_time).as_secs()
        )),
        (Some(_), Some(_)) | (None, _) => (),
    }
    warnings
}
