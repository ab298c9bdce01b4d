//! What comes of two OPENs: the terms of the session, or why there is none
//! (RFC 4271 section 6.2, RFC 5492, 6286, 6793).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::{BfdMode, PeerConfig};
use crate::wire::{
    Capability, Code, Dialect, Family, Notification, Open, RestartCapability, WireError,
};

/// The terms of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The peer's BGP identifier.
    pub peer_router_id: Ipv4Addr,
    /// The peer's AS number.
    pub peer_as: u32,
    /// What the peer can do, as it said.
    pub peer_capabilities: Vec<Capability>,
    /// The smaller of both proposals; zero: no hold timer, no keepalives.
    pub hold_time: Duration,
    /// A third of the hold time; each pause is up to a quarter shorter.
    pub keepalive: Duration,
    /// Families that both sides offer.
    pub families: BTreeSet<Family>,
    /// What comes of restarts, if both sides offer graceful restart.
    pub restart: Option<AgreedRestart>,
    /// Begin and end of a refresh are marked (RFC 7313): both sides offer it.
    pub enhanced_refresh: bool,
    /// Both sides wait for BFD (draft-ietf-idr-bgp-bfd-strict-mode).
    pub bfd_strict: bool,
    /// How messages are written. They are read in the same way, but that
    /// extended ones are always taken, since we offer that.
    pub dialect: Dialect,
}

/// What both sides have agreed on restarts (RFC 4724, RFC 8538).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgreedRestart {
    /// Families whose routes the peer keeps while we are away, for our restart
    /// time.
    pub kept: BTreeSet<Family>,
    /// A NOTIFICATION is followed by a restart like a broken connection, unless
    /// it is a Hard Reset.
    pub notification: bool,
    /// What the peer says of its own restarts.
    pub peer: RestartCapability,
}

/// Judges the peer's OPEN against our configuration.
pub(super) fn agree(config: &PeerConfig, open: &Open) -> Result<Agreed, WireError> {
    check_as(config, open)?;
    check_router_id(config, open.router_id)?;
    let hold_time = agree_hold_time(config, open.hold_time)?;
    let dialect = Dialect {
        four_octet_as: open.four_octet_as().is_some(),
        internal: config.is_internal(),
        extended_messages: open.capabilities.contains(&Capability::ExtendedMessages),
    };
    let families = agree_families(config, open)?;
    Ok(Agreed {
        peer_router_id: open.router_id,
        peer_as: open.asn(),
        peer_capabilities: open.capabilities.clone(),
        hold_time,
        keepalive: hold_time / 3,
        restart: agree_restart(config, open, &families),
        enhanced_refresh: open
            .capabilities
            .contains(&Capability::EnhancedRouteRefresh),
        bfd_strict: config.bfd == BfdMode::Strict
            && open.capabilities.contains(&Capability::BfdStrict),
        families,
        dialect,
    })
}

fn check_as(config: &PeerConfig, open: &Open) -> Result<(), WireError> {
    let (actual, wanted) = (open.asn(), config.peer_as);
    if actual == wanted {
        return Ok(());
    }
    let words = format!(
        "the peer is in AS {actual}, but AS {wanted} is configured for it: correct the peer's AS here, \
         or its own there"
    );
    Err(WireError::plain(Code::BAD_PEER_AS, words))
}

fn check_router_id(config: &PeerConfig, router_id: Ipv4Addr) -> Result<(), WireError> {
    let words = if router_id.is_unspecified() {
        "the peer's router id is 0.0.0.0: set one there".to_owned()
    } else if config.is_internal() && router_id == config.router_id {
        format!("the peer has our own router id {router_id}: within an AS each must have its own")
    } else {
        return Ok(());
    };
    Err(WireError::plain(Code::BAD_BGP_IDENTIFIER, words))
}

fn agree_hold_time(config: &PeerConfig, proposed: u16) -> Result<Duration, WireError> {
    if matches!(proposed, 1 | 2) {
        let words = format!("the peer proposes a hold time of {proposed} s: 0, or 3 and more");
        return Err(WireError::plain(Code::UNACCEPTABLE_HOLD_TIME, words));
    }
    Ok(config.hold_time.min(Duration::from_secs(proposed.into())))
}

fn agree_families(config: &PeerConfig, open: &Open) -> Result<BTreeSet<Family>, WireError> {
    let offered = offered_families(open);
    let common: BTreeSet<Family> = config.families.intersection(&offered).copied().collect();
    if !common.is_empty() {
        return Ok(common);
    }
    let names: Vec<String> = config.families.iter().map(Family::to_string).collect();
    let words = format!(
        "the peer offers none of the address families configured here ({}): activate one there",
        names.join(", ")
    );
    // What we miss is quoted (RFC 5492 section 5).
    let missing = config
        .families
        .iter()
        .flat_map(|&f| Capability::family(f).to_octets());
    let notification = Notification::new(Code::UNSUPPORTED_CAPABILITY, missing.collect::<Vec<_>>());
    Err(WireError {
        notification,
        words,
    })
}

/// We list all our families, and always offer to survive NOTIFICATIONs.
fn agree_restart(
    config: &PeerConfig,
    open: &Open,
    families: &BTreeSet<Family>,
) -> Option<AgreedRestart> {
    config.graceful_restart.as_ref()?;
    let peer = open.graceful_restart()?.clone();
    Some(AgreedRestart {
        kept: families.clone(),
        notification: peer.notification,
        peer,
    })
}

/// A peer that says nothing about families carries IPv4 unicast
/// (RFC 4760 section 8).
fn offered_families(open: &Open) -> BTreeSet<Family> {
    let mut multiprotocol = open
        .capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::Multiprotocol { afi, safi } => Some(Family::from_numbers(*afi, *safi)),
            _ => None,
        })
        .peekable();
    if multiprotocol.peek().is_none() {
        return [Family::Ipv4Unicast].into();
    }
    multiprotocol.flatten().collect()
}
