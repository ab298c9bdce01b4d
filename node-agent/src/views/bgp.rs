//! What is shown of the BGP sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use futures_util::future::join_all;
use vipd_bgp::{
    Agreed, LastError, Status,
    wire::{Attributes, Capability, Family},
};

use super::{Start, Views, bfd, seconds};
use crate::{
    bfd::client::States,
    config::Bgp,
    show::bgp::{BgpView, Route, Session},
    speaker::{PeerStatus, PeerView, Told},
    status::{self, Sessions},
};

impl Views {
    /// Everything of the BGP sessions as it is now.
    pub async fn bgp(&self) -> BgpView {
        let (config, peers) = (self.config.borrow().clone(), self.peers.borrow().clone());
        let bfd = self.bfd.borrow().clone();
        let told = join_all(peers.values().map(PeerView::told)).await;
        let now = Instant::now();
        let each = config.bgp.iter().flat_map(|bgp| {
            let sessions = peers.values().zip(&told);
            sessions.map(|(view, told)| {
                // The session waits for no words about its routes.
                let status = view.status.borrow().clone();
                let peer = peer(&status, &bfd, now, &self.started);
                session(bgp, &status, peer, told, now)
            })
        });
        let sessions: Vec<_> = each.collect();
        let peers: Vec<_> = sessions
            .iter()
            .map(|session| session.peer.clone())
            .collect();
        BgpView {
            node: config.node.name().to_string(),
            sessions: Sessions::of(&peers),
            bfd_unreachable: self.bfd_unreachable(),
            peers: sessions,
        }
    }
}

fn session(
    bgp: &Bgp,
    status: &PeerStatus,
    peer: status::Peer,
    told: &Told,
    now: Instant,
) -> Session {
    let session = &status.session;
    let agreed = session.agreed.as_deref();
    let families = |families: &BTreeSet<Family>| families.iter().map(ToString::to_string).collect();
    let names =
        |capabilities: &[Capability]| capabilities.iter().map(ToString::to_string).collect();
    let end = |which: fn((SocketAddr, SocketAddr)) -> SocketAddr| {
        status.ends.map(|ends| which(ends).to_string())
    };
    let counters = &session.counters;
    Session {
        peer,
        local_as: bgp.local_as.number(),
        local_router_id: bgp.router_id,
        remote_router_id: agreed.map(|agreed| agreed.peer_router_id),
        local_address: end(|(local, _)| local),
        remote_address: end(|(_, remote)| remote),
        hold_time_proposed_seconds: status.peer.hold_time.seconds().into(),
        keepalive_seconds: agreed.map(|agreed| agreed.keepalive.as_secs_f64()),
        timers_seconds: timers(session, now),
        local_capabilities: names(&session.local_capabilities),
        remote_capabilities: agreed.map_or_else(Vec::new, |a| names(&a.peer_capabilities)),
        agreed: agreed.map_or_else(Vec::new, terms),
        updates_malformed: counters.attribute_discards + counters.treated_as_withdraw,
        prefixes_standing: by_family(&session.heard),
        max_prefixes: status.peer.max_prefixes,
        complete: session.complete,
        end_of_rib_sent: families(&session.end_of_rib_sent),
        end_of_rib_received: families(&session.end_of_rib_received),
        routes: told
            .iter()
            .map(|(prefix, attributes)| route(prefix.to_string(), attributes))
            .collect(),
        notes: session.warnings.clone(),
    }
}

/// The timers that run, and what is left of them.
fn timers(session: &Status, now: Instant) -> BTreeMap<String, f64> {
    let deadlines = &session.deadlines;
    let timers = [
        ("connect retry", session.retry_at),
        ("hold", deadlines.hold),
        ("keepalive", deadlines.keepalive),
        ("send hold", deadlines.send_hold),
    ];
    let running = timers
        .into_iter()
        .filter_map(|(name, due)| Some((name, due?)));
    running
        .map(|(name, due)| (name.to_owned(), seconds(now, due)))
        .collect()
}

/// What two OPENs came to, besides the hold time.
fn terms(agreed: &Agreed) -> Vec<String> {
    let families = agreed.families.iter().map(ToString::to_string);
    let kept = agreed.restart.as_ref().map(|restart| &restart.kept);
    let kept: Vec<_> = kept
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let restart = format!("graceful restart ({})", kept.join(", "));
    let as_numbers = if agreed.dialect.four_octet_as {
        "four-octet AS"
    } else {
        "two-octet AS"
    };
    let terms = [
        (true, as_numbers),
        (agreed.dialect.extended_messages, "extended messages"),
        (agreed.enhanced_refresh, "enhanced route refresh"),
        (agreed.restart.is_some(), &restart),
        (agreed.bfd_strict, "strict BFD"),
    ];
    let terms = terms.into_iter().filter(|(both, _)| *both);
    families
        .chain(terms.map(|(_, name)| name.to_owned()))
        .collect()
}

fn route(prefix: String, attributes: &Attributes) -> Route {
    let text = |values: &mut dyn Iterator<Item = String>| values.collect();
    let mp_reach = attributes.mp_reach.as_ref();
    Route {
        prefix,
        next_hop: match (attributes.next_hop, mp_reach) {
            (Some(next_hop), _) => Some(next_hop.to_string()),
            (None, reach) => reach.map(|reach| reach.next_hop.to_string()),
        },
        origin: attributes
            .origin
            .map(|origin| format!("{origin:?}").to_uppercase()),
        as_path: attributes
            .as_path
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        med: attributes.med,
        local_preference: attributes.local_pref,
        communities: text(&mut attributes.communities.iter().map(ToString::to_string)),
        extended_communities: text(
            &mut attributes
                .extended_communities
                .iter()
                .map(ToString::to_string),
        ),
        large_communities: text(&mut attributes.large_communities.iter().map(ToString::to_string)),
    }
}

/// What `vipd status` has of a session.
pub(super) fn peer(
    status: &PeerStatus,
    states: &States,
    now: Instant,
    start: &Start,
) -> status::Peer {
    let session = &status.session;
    let words = |told: &Option<LastError>| told.as_ref().map(|told| told.words.clone());
    let age = |told: &Option<LastError>| told.as_ref().map(|told| seconds(told.at, now));
    status::Peer {
        name: status.peer.name.to_string(),
        address: status.peer.address.to_string(),
        remote_as: status.peer.remote_as.number(),
        state: if status.failed {
            status::SESSION_FAILED.to_owned()
        } else {
            session.state.to_string()
        },
        since_seconds: seconds(status.since, now),
        uptime_seconds: session.established_at.map(|at| seconds(at, now)),
        start_time_seconds: session.established_at.map(|at| start.unix(at)),
        established_count: session.established_count,
        advertised: by_family(&session.advertised),
        wanted: status.wanted,
        pending: session.pending,
        prefixes_received: session.counters.prefixes_reachable,
        prefixes_withdrawn: session.counters.prefixes_withdrawn,
        hold_time_seconds: session
            .agreed
            .as_ref()
            .map(|agreed| agreed.hold_time.as_secs()),
        last_error: words(&session.last_error),
        last_error_time_seconds: session
            .last_error
            .as_ref()
            .map(|error| start.unix(error.at)),
        last_error_seconds_ago: age(&session.last_error),
        hint: status.hint(),
        notification_received: words(&status.received),
        notification_received_seconds_ago: age(&status.received),
        notification_sent: words(&status.sent),
        notification_sent_seconds_ago: age(&status.sent),
        messages_sent: messages(&session.counters.sent),
        messages_received: messages(&session.counters.received),
        unsent: session
            .unsent
            .iter()
            .map(|(prefix, why)| format!("{prefix}: {why}"))
            .collect(),
        bfd: status
            .peer
            .bfd
            .as_ref()
            .map(|_| bfd::session(status.peer.address.ip(), states)),
    }
}

fn by_family(counts: &BTreeMap<Family, usize>) -> BTreeMap<String, usize> {
    let counts = counts.iter();
    counts
        .map(|(family, count)| (family.to_string(), *count))
        .collect()
}

fn messages(messages: &vipd_bgp::Messages) -> status::Messages {
    [
        ("open", messages.open),
        ("update", messages.update),
        ("notification", messages.notification),
        ("keepalive", messages.keepalive),
        ("route_refresh", messages.route_refresh),
    ]
    .into_iter()
    .map(|(kind, count)| (kind.to_owned(), count))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_are_shown_as_they_are_configured() {
        let extended = [
            "rt:64496:5",
            "soo:192.0.2.1:7",
            "generic:0x43000000:0x00000001",
        ];
        let attributes = Attributes {
            extended_communities: extended
                .iter()
                .map(|text| text.parse().expect(text))
                .collect(),
            ..Attributes::default()
        };
        let route = route("198.51.100.10/32".to_owned(), &attributes);
        assert_eq!(route.extended_communities, extended);
    }
}
