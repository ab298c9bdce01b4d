//! Random events in random order: every state on the way is legal (`Side::check`
//! says what that is), and when it is over both sides stand again and know each
//! other's routes, no more and no less.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use vipd_bgp::wire::{Family, RouteRefresh, keepalive};
use vipd_bgp::{Bfd, BfdMode, Direction, Input, PeerConfig, Route, Routes, State, StopReason};

use crate::bfd::down;
use crate::net::{Counts, Known, Net};
use crate::scripted::{Scripted, open_for};
use crate::world::{A, B, ebgp, many_routes, restart};

/// Worlds, and what happens in each of them.
const SEEDS: u64 = 2_000;
const STEPS: usize = 500;

/// The longest pause between two attempts.
const RETRY: Duration = Duration::from_secs(15);

/// When all must be well after the last loss: the minute that a connection may
/// hang without an OPEN, which a half-open one does, and a few attempts.
const RECOVERY: Duration = Duration::from_secs(60 + 3 * 15);

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes, and nobody looks at the clock.
    Wait(u64),
    Tick(usize),
    Resolve(usize, bool),
    Accept(u32),
    Write(usize, Direction, usize),
    Deliver(usize, u32, usize),
    Cut(u32, [bool; 2]),
    Routes(usize, u64),
    Complete(usize, bool),
    Start(usize),
    Stop(usize, StopReason),
    Reconfigure(usize, u64),
    Refresh(usize, Direction, Family),
    Bfd(usize, Bfd),
    Noise(usize, Direction, u8),
    /// For a moment all goes well.
    Calm,
}

/// A source of numbers, the same for the same seed (SplitMix64).
#[derive(Clone, Copy)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

/// One world; it shows how it came about when a test fails in it.
struct Chaos {
    seed: u64,
    random: Random,
    net: Net,
    last: VecDeque<Step>,
}

impl Drop for Chaos {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}, the last steps: {:#?}", self.seed, self.last);
            for side in &self.net.sides {
                println!("{:#?}\n{:#?}", side.session.config(), side.session.status());
            }
        }
    }
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let configs = [A, B].map(|side| config(side, &mut random));
        let mut net = Net::new(configs, seed);
        for side in [A, B] {
            net.input(side, Input::Start);
            net.input(side, Input::Bfd(Bfd::Up));
        }
        Self {
            seed,
            random,
            net,
            last: VecDeque::new(),
        }
    }

    fn pick(&mut self) -> Step {
        let random = &mut self.random;
        let side = random.of(&[A, B]);
        let direction = random.of(&Direction::ALL);
        let pipes: Vec<u32> = self.net.pipes.keys().copied().collect();
        let pipe = if pipes.is_empty() {
            0
        } else {
            random.of(&pipes)
        };
        match random.below(1000) {
            0..100 => Step::Wait(random.of(&[1, 10, 100, 400, 1_000, 4_000])),
            100..250 => Step::Tick(side),
            250..330 => Step::Resolve(side, !random.one_in(4)),
            330..400 => Step::Accept(pipe),
            400..430 => Step::Calm,
            430..600 => Step::Write(side, direction, random.of(&[1, 3, 100])),
            600..900 => Step::Deliver(side, pipe, random.of(&[1, 19, 100, 100_000, 100_000])),
            900..904 => Step::Cut(pipe, [random.one_in(2), random.one_in(2)]),
            904..930 => Step::Routes(side, random.below(u64::MAX)),
            930..940 => Step::Complete(side, random.one_in(2)),
            940..958 => Step::Start(side),
            958..960 => Step::Stop(
                side,
                random.of(&[
                    StopReason::AdminShutdown,
                    StopReason::AdminReset,
                    StopReason::HardReset,
                    StopReason::PeerDeconfigured,
                    StopReason::ConfigurationChange,
                    StopReason::Restart,
                ]),
            ),
            960..964 => Step::Reconfigure(side, random.below(u64::MAX)),
            964..980 => Step::Refresh(side, direction, random.of(&Family::ALL)),
            980..998 => Step::Bfd(
                side,
                random.of(&[Bfd::Up, Bfd::Up, down(), Bfd::AdminDown, Bfd::default()]),
            ),
            _ => Step::Noise(side, direction, random.below(256) as u8),
        }
    }

    fn step(&mut self, step: Step) {
        let net = &mut self.net;
        match step {
            Step::Wait(millis) => net.advance(Duration::from_millis(millis)),
            Step::Tick(side) => net.tick(side),
            Step::Resolve(side, connects) => net.resolve(side, connects),
            Step::Accept(pipe) => net.accept(pipe),
            Step::Write(side, direction, count) => _ = net.write(side, direction, count),
            Step::Deliver(side, pipe, most) => _ = net.deliver(side, pipe, most),
            Step::Cut(pipe, told) => net.cut(pipe, told),
            Step::Routes(side, seed) => {
                let wanted = some_routes(&mut Random(seed));
                net.sides[side].wanted.clone_from(&wanted);
                net.sides[side].session.set_routes(wanted);
            }
            Step::Complete(side, complete) => set_complete(net, side, complete),
            Step::Start(side) => net.input(side, Input::Start),
            Step::Stop(side, reason) => {
                let text = Some("for a while".to_owned());
                net.input(side, Input::Stop { reason, text });
            }
            Step::Reconfigure(side, seed) => net.reconfigure(side, config(side, &mut Random(seed))),
            Step::Refresh(side, direction, family) => {
                if net.sides[side].session.state() == State::Established {
                    net.inject(side, direction, &RouteRefresh::new(family).emit());
                }
            }
            Step::Bfd(side, state) => net.input(side, Input::Bfd(state)),
            Step::Calm => while self.carry_on() {},
            Step::Noise(side, direction, octet) => net.inject(side, direction, &[octet; 19]),
        }
    }

    fn run(&mut self) {
        for at in 0..STEPS {
            let step = self.pick();
            if self.last.len() == 40 {
                self.last.pop_front();
            }
            self.last.push_back(step.clone());
            self.step(step);
            for side in &self.net.sides {
                side.check();
            }
            let stands = |side: &crate::net::Side| side.session.state() == State::Established;
            self.net.counts.standing += u64::from(self.net.sides.iter().all(stands));
            if at % 16 == 0 {
                self.net.sides[at / 16 % 2].check_status();
            }
        }
    }

    /// Ends all that keeps the two apart, and returns how long it took until
    /// they stood and knew all.
    fn recover(&mut self) -> Duration {
        let begun = self.net.now;
        for side in [A, B] {
            let old = self.net.sides[side].session.config();
            let good = PeerConfig {
                peer_as: base(side).peer_as,
                max_prefixes: None,
                passive: old.passive && side == B,
                ..old.clone()
            };
            self.net.reconfigure(side, good);
            self.net.input(side, Input::Bfd(Bfd::Up));
            set_complete(&mut self.net, side, true);
            if !self.net.sides[side].started {
                self.net.input(side, Input::Start);
            }
            // What is overdue since a clock slipped is a loss of before.
            self.net.tick(side);
        }
        while !self.is_well() {
            let took = self.net.now - begun;
            assert!(took <= RECOVERY, "not well after {took:?}");
            self.go_on();
        }
        let took = self.net.now - begun;
        let (stood, well) = (self.net.counts.established, self.net.now);
        while self.net.now - well < RETRY {
            self.go_on();
        }
        assert!(self.is_well(), "it was well, and is not any more");
        assert_eq!(self.net.counts.established, stood, "it fell again");
        took
    }

    /// All that can happen without time, or if nothing can, time until the next
    /// thing is due.
    fn go_on(&mut self) {
        if !self.carry_on() {
            let due = self.net.next_timeout().expect("something is due");
            let wait = due.saturating_duration_since(self.net.now);
            self.net.advance(wait);
            self.net.tick(A);
            self.net.tick(B);
        }
    }

    /// All that can happen without time, in order; says whether anything did.
    fn carry_on(&mut self) -> bool {
        let mut some = false;
        for side in [A, B] {
            some |= self.net.sides[side].dialling;
            self.net.resolve(side, true);
        }
        let pipes: Vec<u32> = self.net.pipes.keys().copied().collect();
        for pipe in pipes {
            self.net.accept(pipe);
            for side in [A, B] {
                while self.net.deliver(side, pipe, usize::MAX) {
                    some = true;
                }
            }
        }
        for side in [A, B] {
            for direction in Direction::ALL {
                some |= self.net.write(side, direction, 1_000);
            }
            self.net.sides[side].check();
            self.net.sides[side].check_status();
        }
        some
    }

    fn is_well(&self) -> bool {
        [A, B].into_iter().all(|side| {
            let sender = &self.net.sides[1 - side];
            let stands = self.net.sides[side].session.state() == State::Established;
            let Some(agreed) = sender.session.status().agreed.filter(|_| stands) else {
                return false;
            };
            let wanted = expected(1 - side, &sender.wanted, &agreed.families);
            self.net.known(side) == Some((&wanted, &agreed.families))
        })
    }
}

fn set_complete(net: &mut Net, side: usize, complete: bool) {
    net.sides[side].complete = complete;
    net.sides[side].session.set_complete(complete);
}

/// What a router must know of these routes.
fn expected(side: usize, wanted: &Routes, families: &BTreeSet<Family>) -> Known {
    let carried = wanted
        .iter()
        .filter(|(prefix, _)| families.contains(&Family::of(prefix)));
    carried
        .map(|(prefix, route)| {
            let next_hop = match Family::of(prefix) {
                Family::Ipv4Unicast => Net::local(side),
                Family::Ipv6Unicast => "2001:db8::a".parse().unwrap(),
            };
            (*prefix, (route.med, next_hop))
        })
        .collect()
}

fn some_routes(random: &mut Random) -> Routes {
    if random.one_in(50) {
        return many_routes(400);
    }
    let pool = [
        "203.0.113.1/32",
        "203.0.113.2/32",
        "198.51.100.0/24",
        "2001:db8::1/128",
        "2001:db8::2/128",
    ];
    let prefixes = pool.iter().filter(|_| random.one_in(2)).collect::<Vec<_>>();
    let route = |prefix: &&str| -> (IpNet, Arc<Route>) {
        let med = random.of(&[None, Some(1), Some(2)]);
        let route = Route {
            med,
            ..Route::default()
        };
        (prefix.parse().unwrap(), route.into())
    };
    prefixes.into_iter().map(route).collect()
}

fn base(side: usize) -> PeerConfig {
    let (a, b) = ebgp();
    [a, b][side].clone()
}

/// Anything that can be configured, now and then also what keeps the two apart.
fn config(side: usize, random: &mut Random) -> PeerConfig {
    let base = base(side);
    let secs = Duration::from_secs;
    let mut families = BTreeSet::from(Family::ALL);
    if random.one_in(4) {
        families.pop_last();
    }
    PeerConfig {
        peer_as: if random.one_in(40) {
            64511
        } else {
            base.peer_as
        },
        hold_time: secs(random.of(&[3, 9, 15])),
        send_hold_time: random.of(&[None, Some(secs(20))]),
        families,
        next_hop_v6: "2001:db8::a".parse().ok(),
        graceful_restart: random.one_in(2).then(|| restart(secs(60))),
        bfd: random.of(&[BfdMode::Off, BfdMode::On, BfdMode::Strict]),
        max_prefixes: random.of(&[None, None, Some(2), Some(100)]),
        max_prefixes_pause: secs(20),
        passive: random.one_in(4),
        retry_max: RETRY,
        ..base
    }
}

#[test]
fn whatever_happens_states_are_legal_and_when_it_is_over_both_sides_know_all() {
    let worlds = |seeds: std::ops::Range<u64>| {
        let mut longest = Duration::ZERO;
        let mut total = Counts::default();
        for seed in seeds {
            let mut chaos = Chaos::new(seed);
            chaos.run();
            longest = longest.max(chaos.recover());
            total.add(&chaos.net.counts);
        }
        (longest, total)
    };
    let halves = std::thread::scope(|scope| {
        [0..SEEDS / 2, SEEDS / 2..SEEDS]
            .map(|seeds| scope.spawn(move || worlds(seeds)))
            .map(|half| half.join().expect("see above"))
    });
    for (longest, total) in halves {
        println!("{total:?}; back after {longest:?} at most");
        // Otherwise it has shown nothing.
        let steps = SEEDS / 2 * STEPS as u64;
        assert!(total.standing > steps / 10, "hardly any session stood");
        assert!(total.established > 4 * SEEDS / 2, "hardly any session fell");
        assert!(
            total.collisions > SEEDS / 2,
            "hardly any connections crossed"
        );
        assert!(total.updates > SEEDS && total.refreshes > SEEDS / 20);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

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
