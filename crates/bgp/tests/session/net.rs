//! Two speakers and a network that does its worst: connections hang, break or
//! cross each other, bytes come in pieces, clocks slip. Nothing happens but by
//! a call of the test, so that it can be random and be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use vipd_bgp::wire::{Code, Dialect, Family, Message, RouteRefresh, Update};
use vipd_bgp::{Action, Direction, Event, Input, PeerConfig, Routes, Session, State};

use crate::world::decode;

/// Bytes that a connection holds before its sender must wait.
const WINDOW: usize = 8192;

pub const DIALECT: Dialect = Dialect {
    four_octet_as: true,
    internal: false,
    extended_messages: true,
};

/// The network and the two sides of it.
pub struct Net {
    pub now: Instant,
    pub sides: [Side; 2],
    pub pipes: BTreeMap<u32, Pipe>,
    pub counts: Counts,
    made: u32,
}

/// A speaker and what it was told to do.
pub struct Side {
    pub session: Session,
    pub started: bool,
    pub dialling: bool,
    pub complete: bool,
    pub wanted: Routes,
    /// Its connections by [`Direction`], as keys of [`Net::pipes`].
    connections: [Option<u32>; 2],
    state: State,
}

/// A TCP connection.
pub struct Pipe {
    dialler: usize,
    /// The other side has let it in, or refused it.
    accepted: bool,
    /// Nothing gets through any more, whether or not the ends know.
    dead: bool,
    ends: [End; 2],
}

/// One side's end of a connection.
#[derive(Default)]
struct End {
    attached: bool,
    closed: bool,
    /// What it has written and the other side has not read.
    flight: BytesMut,
    /// Which End-of-RIBs it has written.
    ended: BTreeSet<Family>,
    view: View,
}

/// What a router at this end would know.
#[derive(Default)]
struct View {
    inbox: BytesMut,
    garbled: bool,
    routes: Known,
    /// Not sent again since their refresh has begun.
    stale: BTreeSet<IpNet>,
    refreshing: BTreeSet<Family>,
    ended: BTreeSet<Family>,
}

/// MED and next hop of each route.
pub type Known = BTreeMap<IpNet, (Option<u32>, IpAddr)>;

/// How often things have happened.
#[derive(Debug, Default)]
pub struct Counts {
    pub established: u64,
    pub collisions: u64,
    pub refreshes: u64,
    pub updates: u64,
    /// Steps on which both sides stood.
    pub standing: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.established += other.established;
        self.collisions += other.collisions;
        self.refreshes += other.refreshes;
        self.updates += other.updates;
        self.standing += other.standing;
    }
}

impl Net {
    pub fn new(configs: [PeerConfig; 2], seed: u64) -> Self {
        let side = |config: PeerConfig, seed| Side {
            session: Session::new(config, seed).expect("the test's configuration is good"),
            started: false,
            dialling: false,
            complete: false,
            wanted: Routes::new(),
            connections: [None, None],
            state: State::Idle,
        };
        let [a, b] = configs;
        Self {
            now: Instant::now(),
            sides: [side(a, seed), side(b, !seed)],
            pipes: BTreeMap::new(),
            counts: Counts::default(),
            made: 0,
        }
    }

    /// Our end of all connections of a side.
    pub fn local(side: usize) -> IpAddr {
        [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)][side].into()
    }

    pub fn input(&mut self, side: usize, input: Input<'_>) {
        match input {
            Input::Start => self.sides[side].started = true,
            Input::Stop { .. } => self.sides[side].started = false,
            _ => (),
        }
        let now = self.now;
        self.sides[side].session.handle(input, now);
        self.act(side);
    }

    pub fn tick(&mut self, side: usize) {
        let now = self.now;
        self.sides[side].session.handle_timeout(now);
        self.act(side);
    }

    pub fn reconfigure(&mut self, side: usize, config: PeerConfig) {
        let now = self.now;
        let outcome = self.sides[side].session.reconfigure(config, now);
        outcome.expect("the test's configuration is good");
        self.act(side);
    }

    /// What becomes of a side's dial: it fails, or gets through to the host.
    pub fn resolve(&mut self, side: usize, connects: bool) {
        if !std::mem::take(&mut self.sides[side].dialling) {
            return;
        }
        if !connects {
            let reason = "refused".to_owned();
            return self.input(side, Input::TcpFailed { reason });
        }
        self.made += 1;
        let mut pipe = Pipe {
            dialler: side,
            accepted: false,
            dead: false,
            ends: [End::default(), End::default()],
        };
        pipe.ends[side].attached = true;
        self.pipes.insert(self.made, pipe);
        self.connected(side, Direction::Outgoing, self.made);
    }

    /// The other side comes to look at a connection that was opened to it.
    pub fn accept(&mut self, id: u32) {
        let Some(pipe) = self.pipes.get_mut(&id).filter(|pipe| !pipe.accepted) else {
            return;
        };
        pipe.accepted = true;
        let side = 1 - pipe.dialler;
        if pipe.dead {
            return;
        }
        if self.sides[side].session.admits_incoming() {
            pipe.ends[side].attached = true;
            self.connected(side, Direction::Incoming, id);
        } else {
            pipe.ends[side].closed = true;
        }
    }

    /// Lets a side write up to `count` messages on a connection; says whether
    /// there was one.
    pub fn write(&mut self, side: usize, direction: Direction, count: usize) -> bool {
        let mut some = false;
        for _ in 0..count {
            let Some(id) = self.sides[side].connections[direction as usize] else {
                break;
            };
            let pipe = self.pipes.get_mut(&id).expect("it is attached");
            if pipe.ends[side].flight.len() > WINDOW {
                break;
            }
            let Some(bytes) = self.sides[side].session.poll_transmit(direction) else {
                break;
            };
            some = true;
            self.sides[side].note_written(&mut pipe.ends[side], &bytes);
            if !pipe.dead {
                pipe.ends[side].flight.extend_from_slice(&bytes);
                self.sides[side].session.wrote(direction, self.now);
            }
        }
        self.act(side);
        some
    }

    /// Puts bytes behind what a side has written.
    pub fn inject(&mut self, side: usize, direction: Direction, bytes: &[u8]) {
        if let Some(id) = self.sides[side].connections[direction as usize]
            && let Some(pipe) = self.pipes.get_mut(&id).filter(|pipe| !pipe.dead)
        {
            pipe.ends[side].flight.extend_from_slice(bytes);
        }
    }

    /// Brings a side up to `most` bytes that were written to it, or behind them
    /// the end of the connection; says whether there was something.
    pub fn deliver(&mut self, side: usize, id: u32, most: usize) -> bool {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return false;
        };
        let [mine, other] = pipe
            .ends
            .get_disjoint_mut([side, 1 - side])
            .expect("two sides");
        if pipe.dead || !mine.attached {
            self.forget_if_over(id);
            return false;
        }
        let direction = direction(side, pipe.dialler);
        if !other.flight.is_empty() {
            let bytes = other.flight.split_to(most.clamp(1, other.flight.len()));
            mine.view.read(&bytes, &mut self.counts);
            let bytes = &bytes[..];
            self.input(side, Input::Received { direction, bytes });
            return true;
        }
        if other.closed {
            self.detach(side, id, "closed by the peer");
            return true;
        }
        false
    }

    /// Breaks a connection; `told` says which ends learn of it.
    pub fn cut(&mut self, id: u32, told: [bool; 2]) {
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.dead = true;
            for (side, told) in told.into_iter().enumerate() {
                if told {
                    self.detach(side, id, "reset");
                }
            }
            self.forget_if_over(id);
        }
    }

    /// What a router at this side would know and of which families it has all,
    /// if its connection works and nothing is on the way.
    pub fn known(&self, side: usize) -> Option<(&Known, &BTreeSet<Family>)> {
        let mine = &self.sides[side];
        let (direction, _) = mine.session.status().connection?;
        let pipe = &self.pipes[&mine.connections[direction as usize]?];
        let view = &pipe.ends[side].view;
        let quiet = pipe.ends.iter().all(|end| end.flight.is_empty());
        let whole = quiet && !pipe.dead && !view.garbled && view.refreshing.is_empty();
        whole.then_some((&view.routes, &view.ended))
    }

    /// The next time at which a side wants to be told the time.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.sides
            .iter()
            .filter_map(|side| side.session.poll_timeout())
            .min()
    }

    pub fn advance(&mut self, duration: Duration) {
        self.now += duration;
    }

    fn connected(&mut self, side: usize, direction: Direction, id: u32) {
        self.sides[side].connections[direction as usize] = Some(id);
        let local = Self::local(side);
        self.input(side, Input::TcpConnected { direction, local });
    }

    fn detach(&mut self, side: usize, id: u32, reason: &str) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        let direction = direction(side, pipe.dialler);
        if std::mem::take(&mut pipe.ends[side].attached) {
            pipe.ends[side].closed = true;
            self.sides[side].connections[direction as usize] = None;
            let reason = reason.to_owned();
            self.input(side, Input::TcpClosed { direction, reason });
        }
    }

    fn forget_if_over(&mut self, id: u32) {
        let over =
            |pipe: &Pipe| pipe.ends.iter().all(|end| !end.attached) && (pipe.accepted || pipe.dead);
        if self.pipes.get(&id).is_some_and(over) {
            self.pipes.remove(&id);
        }
    }

    /// Does what a session asks for.
    fn act(&mut self, side: usize) {
        while let Some(action) = self.sides[side].session.poll_action() {
            match action {
                Action::Connect => {
                    let mine = &mut self.sides[side];
                    assert!(!mine.dialling, "two dials");
                    let slot = mine.connections[Direction::Outgoing as usize];
                    assert_eq!(slot, None, "a dial beside a dialled connection");
                    mine.dialling = true;
                }
                Action::Close {
                    direction,
                    last_words,
                } => self.close(side, direction, &last_words),
            }
        }
        while let Some(event) = self.sides[side].session.poll_event() {
            let mine = &mut self.sides[side];
            match event {
                Event::StateChanged { from, to, .. } => {
                    assert_eq!(from, mine.state, "a change from another state");
                    mine.state = to;
                }
                Event::Established(_) => self.counts.established += 1,
                _ => (),
            }
        }
    }

    fn close(&mut self, side: usize, direction: Direction, last_words: &Bytes) {
        let mine = &mut self.sides[side];
        let Some(id) = mine.connections[direction as usize].take() else {
            let dial = direction == Direction::Outgoing && std::mem::take(&mut mine.dialling);
            assert!(dial, "a close of nothing: {direction:?}");
            assert!(last_words.is_empty(), "words to nobody");
            return;
        };
        let pipe = self.pipes.get_mut(&id).expect("it is attached");
        let end = &mut pipe.ends[side];
        (end.attached, end.closed) = (false, true);
        if !last_words.is_empty() {
            let said = decode(last_words, DIALECT);
            let Message::Notification(said) = said else {
                panic!("last words that are no NOTIFICATION: {said:?}");
            };
            self.counts.collisions += u64::from(said.code == Code::COLLISION);
            end.flight.extend_from_slice(last_words);
        }
        self.forget_if_over(id);
    }
}

impl Side {
    /// What must hold at any time.
    pub fn check(&self) {
        let state = self.session.state();
        let connected = self.connections.iter().any(Option::is_some);
        let timed = self.session.poll_timeout().is_some();
        let passive = self.session.config().passive;
        let legal = match state {
            State::Idle => !connected && !self.dialling && timed == self.started,
            State::Active => self.started && !connected && !self.dialling && timed != passive,
            State::Connect => self.started && !connected && self.dialling && timed && !passive,
            State::OpenSent | State::OpenConfirm => self.started && connected && timed,
            State::Established => self.started && connected && !self.dialling,
        };
        assert!(legal, "illegal in {state}");
        assert_eq!(state, self.state, "a change of state was not told");
        let incoming = self.connections[Direction::Incoming as usize].is_some();
        let admits = state != State::Idle && !incoming;
        assert_eq!(self.session.admits_incoming(), admits);
        if state != State::Established {
            assert!(self.session.is_flushed(), "there is nobody to tell");
            assert_eq!(self.session.advertised().count(), 0, "nobody was told");
        }
    }

    /// What must hold of the status.
    pub fn check_status(&self) {
        let status = self.session.status();
        let established = status.state == State::Established;
        assert_eq!(status.established_at.is_some(), established);
        assert_eq!(
            status.connection.is_some(),
            self.connections.iter().any(Option::is_some)
        );
        assert_eq!(
            status.agreed.is_some(),
            matches!(status.state, State::OpenConfirm | State::Established)
        );
        assert_eq!(status.deadlines.send_hold.is_some(), established);
        let retries = status.retry_at.is_some();
        assert!(!retries || matches!(status.state, State::Idle | State::Active));
        let told: usize = status.advertised.values().sum();
        assert!(told >= self.session.advertised().count());
        assert!(status.pending == 0 || !self.session.is_flushed());
        let limit = self.session.config().max_prefixes;
        for count in status.heard.into_values() {
            assert!(
                limit.is_some_and(|limit| count <= limit as usize) || limit.is_none(),
                "{count} of {limit:?} remembered"
            );
        }
    }

    fn note_written(&self, end: &mut End, bytes: &Bytes) {
        if let Message::Update(update, faults) = decode(bytes, DIALECT) {
            assert_eq!(faults, [], "{update:?}");
            if let Some(family) = update.ended_family() {
                assert!(self.complete, "an End-of-RIB before all is known");
                assert!(end.ended.insert(family), "a second End-of-RIB of {family}");
            }
        }
    }
}

impl View {
    fn read(&mut self, bytes: &[u8], counts: &mut Counts) {
        self.inbox.extend_from_slice(bytes);
        while !self.garbled {
            match Message::take(&mut self.inbox, DIALECT) {
                Ok(Some(Message::Update(update, _))) => {
                    counts.updates += 1;
                    self.update(&update);
                }
                Ok(Some(Message::RouteRefresh(mark))) => self.mark(mark, counts),
                Ok(Some(_)) => (),
                Ok(None) => break,
                Err(_) => self.garbled = true,
            }
        }
    }

    fn update(&mut self, update: &Update) {
        self.ended.extend(update.ended_family());
        for prefix in update.unreachable() {
            self.routes.remove(prefix);
            self.stale.remove(prefix);
        }
        let attributes = &update.attributes;
        let reach = attributes.mp_reach.as_ref().map(|reach| reach.next_hop);
        let next_hop = reach.or(attributes.next_hop.map(IpAddr::V4));
        for prefix in update.reachable() {
            let next_hop = next_hop.expect("a route has a next hop");
            self.routes.insert(*prefix, (attributes.med, next_hop));
            self.stale.remove(prefix);
        }
    }

    fn mark(&mut self, mark: RouteRefresh, counts: &mut Counts) {
        let family = mark.family().expect("a family of ours");
        let of_family = |prefix: &IpNet| Family::of(prefix) == family;
        match mark.subtype {
            RouteRefresh::BEGIN => {
                assert!(self.refreshing.insert(family), "a refresh in a refresh");
                let all = self.routes.keys().filter(|prefix| of_family(prefix));
                self.stale.extend(all.copied());
            }
            RouteRefresh::END => {
                counts.refreshes += 1;
                assert!(self.refreshing.remove(&family), "an end without begin");
                let left: Vec<_> = self.stale.iter().filter(|p| of_family(p)).collect();
                assert!(left.is_empty(), "not sent again: {left:?}");
            }
            _ => (),
        }
    }
}

fn direction(side: usize, dialler: usize) -> Direction {
    if side == dialler {
        Direction::Outgoing
    } else {
        Direction::Incoming
    }
}
