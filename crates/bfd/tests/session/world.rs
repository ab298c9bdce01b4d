//! Two sessions on one virtual clock, with a wire between them that loses and
//! turns packets around, and drivers that come late.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vipd_bfd::packet::{self, MAX_LEN};
use vipd_bfd::{Authentication, Config, Method, Session, State};

use crate::scripted::{ms, timing};

/// What the wire and the drivers do; a function of the packet's number.
struct World {
    sides: [Session; 2],
    /// Packets under way: when they arrive, at whom.
    wire: Vec<(Instant, usize, Vec<u8>)>,
    now: Instant,
    /// Packets sent by each side.
    sent: [usize; 2],
    /// By side and number: how long the packet takes; `None`: it is lost.
    fate: Box<dyn Fn(usize, usize) -> Option<Duration>>,
    /// How late the drivers are, at most.
    slip: Duration,
    /// When each side last heard the other.
    heard: [Instant; 2],
    events: Vec<(usize, Duration, String)>,
}

impl World {
    fn new(configs: [Config; 2], seed: u64) -> Self {
        let now = Instant::now();
        let mut id = 0;
        let sides = configs.map(|config| {
            id += 1;
            Session::new(
                config,
                NonZeroU32::new(id).unwrap(),
                seed + u64::from(id),
                now,
            )
        });
        Self {
            sides,
            wire: Vec::new(),
            now,
            sent: [0; 2],
            fate: Box::new(|_, _| Some(Duration::ZERO)),
            slip: Duration::ZERO,
            heard: [now; 2],
            events: Vec::new(),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timers = self.sides.iter().filter_map(Session::poll_timeout);
            let timers = timers.map(|due| due.max(self.now) + self.slip);
            let next = timers.chain(self.wire.iter().map(|(at, ..)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.step(end - time);
        }
        self.now = end;
    }

    /// What waits in the sockets, then the time, then what is to be sent. What is
    /// sent at the very end of a detection time is not too late.
    fn step(&mut self, began: Instant) {
        self.receive();
        self.send();
        self.receive();
        for session in &mut self.sides {
            session.handle_timeout(self.now);
        }
        self.send();
        for (side, session) in self.sides.iter_mut().enumerate() {
            while let Some(event) = session.poll_event() {
                let words = format!("{} > {}: {}", event.from, event.to, event.cause);
                self.events.push((side, self.now - began, words));
            }
        }
    }

    fn receive(&mut self) {
        let now = self.now;
        let (arrived, under_way): (Vec<_>, _) = std::mem::take(&mut self.wire)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.wire = under_way;
        for (_, to, bytes) in arrived {
            self.heard[to] = now;
            // A stale sequence number may be discarded; the states tell.
            let _ = self.sides[to].receive(&packet::parse(&bytes).unwrap(), now);
        }
    }

    fn send(&mut self) {
        let now = self.now;
        for (side, session) in self.sides.iter_mut().enumerate() {
            let mut buffer = [0; MAX_LEN];
            while let Some(len) = session.poll_transmit(now, &mut buffer) {
                let number = self.sent[side];
                self.sent[side] += 1;
                if let Some(delay) = (self.fate)(side, number) {
                    self.wire
                        .push((now + delay, 1 - side, buffer[..len].to_vec()));
                }
            }
        }
    }

    fn states(&self) -> [State; 2] {
        [0, 1].map(|side: usize| self.sides[side].state())
    }

    /// Both up, with all polls answered.
    fn up(configs: [Config; 2], seed: u64) -> Self {
        let mut world = Self::new(configs, seed);
        world.run(ms(10_000));
        assert_eq!(world.states(), [State::Up; 2], "{:?}", world.events);
        world.events.clear();
        world
    }
}

fn configs() -> impl Strategy<Value = [Config; 2]> {
    let config = (10_u64..400, 10_u64..400, 2_u8..6);
    let method = prop::option::of(prop::sample::select(Method::ALL.to_vec()));
    (config.clone(), config, method).prop_map(|(a, b, method)| {
        [a, b].map(|(tx, rx, multiplier)| Config {
            authentication: method.map(|method| Authentication::new(method, 1, b"key").unwrap()),
            ..timing(ms(tx), ms(rx), multiplier)
        })
    })
}

/// The pace of a side's packets: its own and what the other can take.
fn pace(configs: &[Config; 2], side: usize) -> Duration {
    configs[side]
        .timing
        .desired_min_tx()
        .max(configs[1 - side].timing.required_min_rx())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_given_up_while_one_of_multiplier_packets_arrives(
        configs in configs(), seed: u64, phase in 0_usize..5,
    ) {
        let mut world = World::up(configs.clone(), seed);
        let sent = world.sent;
        world.fate = Box::new(move |side, number| {
            let each = usize::from(configs[side].timing.multiplier().get());
            let arrives = (number - sent[side] + phase).is_multiple_of(each);
            arrives.then_some(Duration::ZERO)
        });
        world.run(ms(60_000));
        prop_assert!(world.events.is_empty(), "{:?}", world.events);
    }

    #[test]
    fn nobody_is_given_up_when_packets_overtake_each_other_and_drivers_are_late(
        configs in configs(), seed: u64, slip in 0_u32..100, jam in 1_u32..100,
    ) {
        let mut world = World::up(configs.clone(), seed);
        // Together less than an interval of the faster side.
        let spare = pace(&configs, 0).min(pace(&configs, 1)) / 100;
        world.slip = spare * slip / 4;
        world.fate = Box::new(move |side, number| {
            let turn = (number * 7 + side * 3 + seed as usize % 11) % 5;
            Some(spare * jam * turn as u32 / 16)
        });
        world.run(ms(60_000));
        prop_assert!(world.events.is_empty(), "{:?}", world.events);
    }

    #[test]
    fn a_dead_wire_is_seen_within_the_detection_time_and_its_return_is_seen_too(
        configs in configs(), seed: u64,
    ) {
        let mut world = World::up(configs.clone(), seed);
        world.fate = Box::new(|_, _| None);
        let times = [0, 1].map(|side: usize| {
            let slowest = world.heard[side] + world.sides[side].status(world.now).detection_time.unwrap();
            slowest - world.now
        });
        world.run(ms(10_000));
        prop_assert_eq!(world.states(), [State::Down; 2]);
        prop_assert_eq!(world.events.len(), 2, "{:?}", world.events);
        for (side, at, words) in &world.events {
            prop_assert_eq!(*at, times[*side], "{}", words);
            prop_assert!(words.contains("nothing was heard"), "{}", words);
        }
        world.fate = Box::new(|_, _| Some(ms(1)));
        world.run(ms(20_000));
        prop_assert_eq!(world.states(), [State::Up; 2], "{:?}", world.events);
    }

    #[test]
    fn intervals_can_change_at_any_time_without_anybody_being_given_up(
        first in configs(), second in configs(), third in configs(), seed: u64, pause in 0_u64..2000,
    ) {
        let mut world = World::up(first.clone(), seed);
        for wanted in [second, third] {
            for (side, config) in wanted.into_iter().enumerate() {
                let authentication = first[side].authentication.clone();
                world.sides[side].configure(Config { authentication, ..config });
            }
            world.run(ms(pause));
        }
        world.run(ms(10_000));
        prop_assert!(world.events.is_empty(), "{:?}", world.events);
        let now = world.now;
        for side in 0..2 {
            let configs = [0, 1].map(|side: usize| world.sides[side].config().clone());
            let status = world.sides[side].status(now);
            prop_assert_eq!(status.transmit_interval, Some(pace(&configs, side)));
        }
    }
}
