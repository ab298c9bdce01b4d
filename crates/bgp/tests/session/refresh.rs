//! The peer asks for all routes again: plainly (RFC 2918), or with begin and
//! end marked (RFC 7313).

use ipnet::IpNet;
use vipd_bgp::wire::{Capability, Family, Message, RestartCapability, RouteRefresh, Update};
use vipd_bgp::{Event, PeerConfig};

use crate::scripted::{Scripted, open_for};
use crate::world::{ebgp, many_routes, restart, routes};

const V4: &str = "203.0.113.1/32";
const V6: &str = "2001:db8::1/128";
const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

#[test]
fn a_route_refresh_brings_one_family_again() {
    let mut speaker = Scripted::established(PeerConfig {
        next_hop_v6: "2001:db8::a".parse().ok(),
        ..ebgp().0
    });
    speaker.session.set_routes(routes(&[V4, V6]));
    let first = speaker.updates();
    assert_eq!(first.len(), 2);
    let refresh = |family| RouteRefresh::new(family).emit();

    speaker.receive(&refresh(Family::Ipv6Unicast));
    assert_eq!(speaker.updates(), first[1..]);
    speaker.receive(&refresh(Family::Ipv4Unicast));
    assert_eq!(speaker.updates(), first[..1]);

    println!("asked for again and again before it could be sent: sent and told once");
    let told = |speaker: &Scripted| {
        let requests = speaker.events.iter();
        requests
            .filter(|event| matches!(event, Event::RefreshRequested(_)))
            .count()
    };
    let before = told(&speaker);
    for _ in 0..3 {
        speaker.receive(&refresh(Family::Ipv4Unicast));
    }
    assert!(!speaker.session.is_flushed());
    assert_eq!(speaker.updates(), first[..1]);
    assert!(speaker.session.is_flushed());
    assert_eq!(told(&speaker), before + 1);

    println!("a prefix withdrawn meanwhile is withdrawn");
    speaker.receive(&refresh(Family::Ipv4Unicast));
    speaker.session.set_routes(routes(&[V6]));
    let updates = speaker.updates();
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].withdrawn, [V4.parse::<IpNet>().unwrap()]);

    println!("other families and subtypes are ignored");
    speaker.receive(
        &RouteRefresh {
            afi: 25,
            subtype: 0,
            safi: 65,
        }
        .emit(),
    );
    speaker.receive(
        &RouteRefresh {
            afi: 2,
            subtype: 3,
            safi: 1,
        }
        .emit(),
    );
    assert_eq!(speaker.updates(), []);
}

#[test]
fn many_requests_cost_no_more_than_one() {
    let mut speaker = Scripted::established(PeerConfig {
        next_hop_v6: "2001:db8::a".parse().ok(),
        ..ebgp().0
    });
    speaker.session.set_routes(many_routes(1_000));
    let all = speaker.updates().len();
    // As many as a driver reads at a time.
    speaker.receive(&RouteRefresh::new(Family::Ipv4Unicast).emit().repeat(2_849));
    assert_eq!(speaker.session.status().pending, 0, "nothing is done yet");
    assert!(speaker.updates().len() <= all);
}

/// Established with a peer that marks refreshes.
fn enhanced(config: PeerConfig, more: &[Capability]) -> Scripted {
    let config = PeerConfig {
        next_hop_v6: "2001:db8::a".parse().ok(),
        ..config
    };
    let mut open = open_for(&config);
    open.capabilities.push(Capability::EnhancedRouteRefresh);
    open.capabilities.extend_from_slice(more);
    Scripted::established_with(config, &open)
}

/// What is sent, in short.
fn told(speaker: &mut Scripted) -> Vec<String> {
    let short = |message| match message {
        Message::RouteRefresh(mark) if mark.subtype == RouteRefresh::BEGIN => "begin".to_owned(),
        Message::RouteRefresh(mark) if mark.subtype == RouteRefresh::END => "end".to_owned(),
        Message::Update(update, _) => summary(&update),
        other => panic!("{other:?}"),
    };
    speaker.sent().into_iter().map(short).collect()
}

fn summary(update: &Update) -> String {
    if let Some(family) = update.ended_family() {
        return format!("all of {family}");
    }
    let gone = update.unreachable().map(|prefix| format!("-{prefix}"));
    let there = update.reachable().map(|prefix| format!("+{prefix}"));
    gone.chain(there).collect::<Vec<_>>().join(" ")
}

#[test]
fn an_enhanced_refresh_is_marked_at_both_ends() {
    let check = |sentence: &str, act: fn(&mut Scripted), wanted: &[&str]| {
        println!("{sentence}");
        let mut speaker = enhanced(ebgp().0, &[]);
        speaker.session.set_routes(routes(&[V4, V6]));
        assert_eq!(speaker.updates().len(), 2);
        act(&mut speaker);
        assert_eq!(told(&mut speaker), wanted);
        assert!(speaker.session.is_flushed());
    };
    check(
        "one family",
        |speaker| request(speaker, Family::Ipv4Unicast),
        &["begin", "+203.0.113.1/32", "end"],
    );
    check(
        "both families",
        |speaker| {
            request(speaker, Family::Ipv6Unicast);
            request(speaker, Family::Ipv4Unicast);
        },
        &[
            "begin",
            "begin",
            "+203.0.113.1/32",
            "end",
            "+2001:db8::1/128",
            "end",
        ],
    );
    check(
        "asked for twice before it has begun",
        |speaker| {
            request(speaker, Family::Ipv4Unicast);
            request(speaker, Family::Ipv4Unicast);
        },
        &["begin", "+203.0.113.1/32", "end"],
    );
    check(
        "asked for again while it is under way",
        |speaker| {
            request(speaker, Family::Ipv4Unicast);
            assert_eq!(
                speaker
                    .session
                    .poll_transmit(vipd_bgp::Direction::Outgoing)
                    .map(|m| m[18]),
                Some(5)
            );
            request(speaker, Family::Ipv4Unicast);
        },
        &["+203.0.113.1/32", "end", "begin", "+203.0.113.1/32", "end"],
    );
    check(
        "nothing to tell",
        |speaker| {
            speaker.session.set_routes(routes(&[]));
            speaker.sent();
            request(speaker, Family::Ipv6Unicast);
        },
        &["begin", "end"],
    );
    check(
        "withdrawals go first",
        |speaker| {
            request(speaker, Family::Ipv4Unicast);
            speaker.session.set_routes(routes(&[V6]));
        },
        &["-203.0.113.1/32", "begin", "end"],
    );
    check(
        "what is new goes with it",
        |speaker| {
            request(speaker, Family::Ipv4Unicast);
            speaker
                .session
                .set_routes(routes(&[V4, V6, "203.0.113.2/32"]));
        },
        &["begin", "+203.0.113.1/32 +203.0.113.2/32", "end"],
    );
}

fn request(speaker: &mut Scripted, family: Family) {
    speaker.receive(&RouteRefresh::new(family).emit());
}

#[test]
fn between_speakers_of_graceful_restart_a_refresh_waits_for_the_end_of_rib() {
    let config = PeerConfig {
        graceful_restart: Some(restart(SECOND)),
        families: [Family::Ipv4Unicast].into(),
        ..ebgp().0
    };
    let more = Capability::GracefulRestart(RestartCapability::default());
    let mut speaker = enhanced(config, &[more]);
    speaker.session.set_routes(routes(&[V4]));
    request(&mut speaker, Family::Ipv4Unicast);
    assert_eq!(told(&mut speaker), ["+203.0.113.1/32"]);
    speaker.session.set_complete(true);
    assert!(!speaker.session.is_flushed());
    let wanted = ["all of IPv4 unicast", "begin", "+203.0.113.1/32", "end"];
    assert_eq!(told(&mut speaker), wanted);
}

#[test]
fn the_marks_of_the_peers_own_answers_change_nothing() {
    let mut speaker = enhanced(ebgp().0, &[]);
    speaker.session.set_routes(routes(&[V4]));
    speaker.sent();
    speaker.receive(&RouteRefresh::begin(Family::Ipv4Unicast).emit());
    speaker.receive(&RouteRefresh::end(Family::Ipv4Unicast).emit());
    assert_eq!(told(&mut speaker), Vec::<String>::new());
    assert_eq!(speaker.session.status().counters.received.route_refresh, 2);
}
