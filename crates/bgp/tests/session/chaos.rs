//! Random inputs in random order: no panic, and a way back when it is over.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use vipd_bgp::wire::keepalive;
use vipd_bgp::{Direction, Input, PeerConfig, State, StopReason};

use crate::scripted::{Scripted, open_for};
use crate::world::{A, B, World, ebgp, routes};

/// Something that can happen to two speakers at any time.
#[derive(Debug, Clone)]
enum Op {
    Wait(u64),
    Silent(bool),
    Listening(bool),
    Start(usize),
    Stop(usize),
    Routes(usize, bool),
    /// Bytes out of nowhere.
    Noise(usize, Direction, Vec<u8>),
    Break(usize, Direction),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let side = || A..=B;
    let direction = || prop_oneof![Just(Direction::Outgoing), Just(Direction::Incoming)];
    let op = prop_oneof![
        6 => (0_u64..20_000).prop_map(Op::Wait),
        2 => any::<bool>().prop_map(Op::Silent),
        2 => any::<bool>().prop_map(Op::Listening),
        2 => side().prop_map(Op::Start),
        1 => side().prop_map(Op::Stop),
        2 => (side(), any::<bool>()).prop_map(|(side, some)| Op::Routes(side, some)),
        1 => (side(), direction(), vec(any::<u8>(), 0..60))
            .prop_map(|(side, direction, bytes)| Op::Noise(side, direction, bytes)),
        2 => (side(), direction()).prop_map(|(side, direction)| Op::Break(side, direction)),
    ];
    vec(op, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_the_session_stands_again_soon_after_it_is_over(
        ops in ops(), passive: bool,
    ) {
        let (a, b) = ebgp();
        let mut world = World::new(PeerConfig { passive, ..a }, b);
        for op in ops {
            match op {
                Op::Wait(millis) => world.run(Duration::from_millis(millis)),
                Op::Silent(silent) => world.silent = silent,
                Op::Listening(listening) => world.listening = listening,
                Op::Start(side) => world.input(side, Input::Start),
                Op::Stop(side) => {
                    let reason = StopReason::AdminReset;
                    world.input(side, Input::Stop { reason, text: None });
                }
                Op::Routes(side, some) => {
                    let wanted = if some { routes(&["203.0.113.1/32"]) } else { routes(&[]) };
                    world.speakers[side].session.set_routes(wanted);
                }
                Op::Noise(side, direction, bytes) => {
                    world.input(side, Input::Received { direction, bytes: &bytes });
                }
                Op::Break(side, direction) => {
                    world.input(side, Input::TcpClosed { direction, reason: "cut".into() });
                }
            }
        }
        (world.silent, world.listening) = (false, true);
        world.input(A, Input::Start);
        world.input(B, Input::Start);
        world.speakers[A].session.set_routes(routes(&["203.0.113.1/32", "203.0.113.2/32"]));
        // A hold time for what is half dead, and some pauses.
        world.run(Duration::from_secs(200));
        world.assert_states(State::Established, State::Established);
        let told: Vec<String> =
            world.speakers[A].session.advertised().map(|(p, _)| p.to_string()).collect();
        prop_assert_eq!(told, ["203.0.113.1/32", "203.0.113.2/32"]);
    }

    #[test]
    fn no_bytes_in_any_stage_make_the_machine_panic(
        stage in 0..3, bodies in vec((0_u8..7, vec(any::<u8>(), 0..80)), 0..6),
    ) {
        let (config, _) = ebgp();
        let mut speaker = Scripted::connected(config.clone());
        if stage > 0 {
            speaker.receive(&open_for(&config).emit());
        }
        if stage > 1 {
            speaker.receive(&keepalive());
        }
        for (kind, body) in bodies {
            let len = u16::try_from(19 + body.len()).unwrap();
            let header = [[0xff; 16].as_slice(), &len.to_be_bytes(), &[kind]].concat();
            speaker.receive(&[header, body].concat());
            speaker.sent();
        }
    }
}
