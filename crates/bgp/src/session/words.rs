//! What an operator is told: what the peer's NOTIFICATIONs mean and what helps,
//! and what is dangerous about a session that stands.

use std::time::Duration;

use super::{Agreed, Bfd, BfdMode, PeerConfig};
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

/// Why a session that waits for BFD has not come up.
pub(super) fn strict_wait(bfd: &Bfd) -> String {
    let why = not_up(bfd).map_or_else(String::new, |why| format!(": {why}"));
    let help = match bfd {
        Bfd::Down(_) => ", whether BFD runs on the peer, and what filters its packets",
        Bfd::Unknown(_) | Bfd::AdminDown | Bfd::Up => "",
    };
    format!(
        "BFD with the peer does not come up, and the session must not be established without it \
         (strict mode){why}; see `vipd show bfd`{help}"
    )
}

/// Why BFD cannot be relied on; `None`: it is up.
fn not_up(bfd: &Bfd) -> Option<String> {
    match bfd {
        Bfd::Up => None,
        Bfd::AdminDown => Some("BFD is administratively down".to_owned()),
        Bfd::Down(why) => Some(format!("BFD is not up ({why})")),
        Bfd::Unknown(why) => Some(format!("it is not known whether BFD is up ({why})")),
    }
}

/// Why a silent death is not noticed by BFD, and what helps; `None`: it is.
fn blind(config: &PeerConfig, bfd: &Bfd) -> Option<(String, &'static str)> {
    match config.bfd {
        BfdMode::Off => Some(("no BFD runs".to_owned(), "run BFD")),
        BfdMode::On | BfdMode::Strict => Some((not_up(bfd)?, "see `vipd show bfd`")),
    }
}

/// What is dangerous about the terms of a session, and what helps.
pub(super) fn warnings(config: &PeerConfig, agreed: &Agreed, bfd: &Bfd) -> Vec<String> {
    let (hold_time, blind) = (agreed.hold_time, blind(config, bfd));
    let seconds = hold_time.as_secs();
    let death = blind.as_ref().and_then(|(why, help)| {
        if hold_time.is_zero() {
            Some(format!(
                "no hold time is agreed and {why}: a silent death is never noticed; {help}"
            ))
        } else if hold_time > LONG_HOLD {
            Some(format!(
                "the agreed hold time is {seconds} s and {why}: a silent death is noticed only \
                 then; {help}, or set a shorter hold time on either side"
            ))
        } else {
            (config.bfd != BfdMode::Off).then(|| {
                format!(
                    "{why}: a silent death is noticed only at the end of the hold time, {seconds} \
                     s; {help}"
                )
            })
        }
    });
    let restart = match (&config.graceful_restart, &agreed.restart, &blind) {
        (Some(_), None, _) => Some(
            "the peer does not offer graceful restart: our routes flap when this agent restarts"
                .to_owned(),
        ),
        (Some(restart), Some(_), Some((why, help))) => Some(format!(
            "with graceful restart, and since {why}, a peer sends packets to this host for up to \
             {} s after it has died: {help}",
            (hold_time + restart.restart_time).as_secs()
        )),
        (Some(_), Some(_), None) | (None, ..) => None,
    };
    death.into_iter().chain(restart).collect()
}
