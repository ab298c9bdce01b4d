//! Two speakers, two possible TCP connections, one clock.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use vipd_bgp::wire::{Dialect, Family, Message, Notification};
use vipd_bgp::{
    Action, Direction, Event, GracefulRestart, Input, PeerConfig, Route, Routes, Session, State,
};

pub const A: usize = 0;
pub const B: usize = 1;

/// A speaker and all that came out of it.
pub struct Speaker {
    pub session: Session,
    pub local: IpAddr,
    pub events: Vec<Event>,
    pub sent: Vec<Message>,
    /// When it dialled, since the world began.
    pub dials: Vec<Duration>,
}

/// The two speakers and the network between them.
pub struct World {
    pub speakers: [Speaker; 2],
    pub start: Instant,
    pub now: Instant,
    /// Hosts answer; if not, dials are refused.
    pub listening: bool,
    /// Packets vanish, and nobody is told.
    pub silent: bool,
    /// Whether the connection dialled by the first index is open at the second.
    open: [[bool; 2]; 2],
}

impl World {
    pub fn new(a: PeerConfig, b: PeerConfig) -> Self {
        let locals = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        Self::between(a, b, locals.map(IpAddr::V4))
    }

    pub fn between(a: PeerConfig, b: PeerConfig, [local_a, local_b]: [IpAddr; 2]) -> Self {
        let now = Instant::now();
        Self {
            speakers: [Speaker::new(a, 1, local_a), Speaker::new(b, 2, local_b)],
            start: now,
            now,
            listening: true,
            silent: false,
            open: [[false; 2]; 2],
        }
    }

    /// Starts both and gives them a minute.
    pub fn established(mut self) -> Self {
        self.input(A, Input::Start);
        self.input(B, Input::Start);
        self.run(Duration::from_secs(60));
        self.assert_states(State::Established, State::Established);
        self
    }

    pub fn input(&mut self, side: usize, input: Input<'_>) {
        let now = self.now;
        self.speakers[side].session.handle(input, now);
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.pump();
        loop {
            let due = self
                .speakers
                .iter()
                .filter_map(|s| s.session.poll_timeout())
                .min();
            match due.filter(|&due| due <= end) {
                Some(due) => self.now = self.now.max(due),
                None => break,
            }
            for speaker in &mut self.speakers {
                speaker.session.handle_timeout(self.now);
            }
            self.pump();
        }
        self.now = end;
    }

    /// Carries messages and actions around until all is quiet.
    pub fn pump(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for side in [A, B] {
                while let Some(action) = self.speakers[side].session.poll_action() {
                    busy = true;
                    match action {
                        Action::Connect => self.dial(side),
                        Action::Close {
                            direction,
                            last_words,
                        } => {
                            self.close(side, direction, &last_words);
                        }
                    }
                }
                for direction in Direction::ALL {
                    if let Some(bytes) = self.speakers[side].session.poll_transmit(direction) {
                        busy = true;
                        let now = self.now;
                        self.speakers[side].session.wrote(direction, now);
                        self.deliver(side, direction, &bytes);
                    }
                }
                let speaker = &mut self.speakers[side];
                speaker
                    .events
                    .extend(std::iter::from_fn(|| speaker.session.poll_event()));
            }
        }
    }

    pub fn assert_states(&self, a: State, b: State) {
        let states = [A, B].map(|side| self.speakers[side].session.state());
        assert_eq!(states, [a, b], "{}", self.dump());
    }

    /// What a failed test wants to show.
    pub fn dump(&self) -> String {
        let show = |side: usize| {
            let speaker = &self.speakers[side];
            let tail = speaker.events.len().saturating_sub(20);
            format!(
                "{:#?}\n{:#?}",
                &speaker.events[tail..],
                speaker.session.status()
            )
        };
        format!(
            "after {:?}:\nA: {}\nB: {}",
            self.now - self.start,
            show(A),
            show(B)
        )
    }

    fn dial(&mut self, side: usize) {
        let at = self.now - self.start;
        self.speakers[side].dials.push(at);
        if self.silent {
            return;
        }
        if !self.listening {
            return self.input(
                side,
                Input::TcpFailed {
                    reason: "connection refused".into(),
                },
            );
        }
        let other = 1 - side;
        let admitted = self.speakers[other].session.admits_incoming();
        self.open[side][side] = true;
        self.open[side][other] = admitted;
        self.connected(side, Direction::Outgoing);
        if admitted {
            self.connected(other, Direction::Incoming);
        }
    }

    fn connected(&mut self, side: usize, direction: Direction) {
        let local = self.speakers[side].local;
        self.input(side, Input::TcpConnected { direction, local });
    }

    fn close(&mut self, side: usize, direction: Direction, last_words: &Bytes) {
        let dialler = dialler(side, direction);
        if !std::mem::take(&mut self.open[dialler][side]) {
            return;
        }
        if !last_words.is_empty() {
            self.deliver(side, direction, last_words);
        }
        self.end(1 - side, direction.other(), "closed by the peer");
    }

    fn deliver(&mut self, side: usize, direction: Direction, bytes: &Bytes) {
        let message = decode(bytes, self.speakers[side].dialect());
        self.speakers[side].sent.push(message);
        if self.silent {
            return;
        }
        let other = 1 - side;
        if !self.open[dialler(side, direction)][other] {
            return self.end(side, direction, "reset by the peer");
        }
        for bytes in bytes.chunks(7) {
            self.input(
                other,
                Input::Received {
                    direction: direction.other(),
                    bytes,
                },
            );
        }
    }

    fn end(&mut self, side: usize, direction: Direction, reason: &str) {
        if !self.silent && std::mem::take(&mut self.open[dialler(side, direction)][side]) {
            self.input(
                side,
                Input::TcpClosed {
                    direction,
                    reason: reason.into(),
                },
            );
        }
    }
}

impl Speaker {
    fn new(config: PeerConfig, seed: u64, local: IpAddr) -> Self {
        let session = Session::new(config, seed).expect("the test's configuration is good");
        Self {
            session,
            local,
            events: vec![],
            sent: vec![],
            dials: vec![],
        }
    }

    pub fn notifications_sent(&self) -> Vec<&Notification> {
        self.sent
            .iter()
            .filter_map(|message| match message {
                Message::Notification(notification) => Some(notification),
                _ => None,
            })
            .collect()
    }

    fn dialect(&self) -> Dialect {
        let internal = self.session.config().is_internal();
        let before_open = Dialect {
            four_octet_as: true,
            internal,
            extended_messages: true,
        };
        self.session
            .status()
            .agreed
            .map_or(before_open, |agreed| agreed.dialect)
    }
}

pub fn decode(bytes: &Bytes, dialect: Dialect) -> Message {
    let mut stream = BytesMut::from(bytes.as_ref());
    let message = Message::take(&mut stream, dialect).expect("a speaker writes good messages");
    assert!(
        stream.is_empty(),
        "more than one message at once: {stream:?}"
    );
    message.expect("a speaker writes whole messages")
}

/// AS 64496 with a lower, AS 64497 with a higher router id.
pub fn ebgp() -> (PeerConfig, PeerConfig) {
    let a = PeerConfig::new(64496, 64497, Ipv4Addr::new(192, 0, 2, 1));
    let b = PeerConfig::new(64497, 64496, Ipv4Addr::new(192, 0, 2, 2));
    (a, b)
}

pub fn ibgp() -> (PeerConfig, PeerConfig) {
    let (a, b) = ebgp();
    let asn = 65536;
    (
        PeerConfig {
            local_as: asn,
            peer_as: asn,
            ..a
        },
        PeerConfig {
            local_as: asn,
            peer_as: asn,
            ..b
        },
    )
}

/// A restart of this process, whose forwarding survived.
pub fn restart(restart_time: Duration) -> GracefulRestart {
    GracefulRestart {
        restart_time,
        restarting: true,
        forwarding: Family::ALL.into(),
    }
}

/// Plain routes.
pub fn routes(prefixes: &[&str]) -> Routes {
    let route = |prefix: &&str| (prefix.parse().unwrap(), Route::default().into());
    prefixes.iter().map(route).collect()
}

/// Plain routes, of both families in turn.
pub fn many_routes(count: u32) -> Routes {
    let route = std::sync::Arc::new(Route::default());
    let prefix = |n: u32| -> ipnet::IpNet {
        let text = match n % 2 {
            0 => format!("10.{}.{}.{}/32", n >> 16 & 255, n >> 8 & 255, n & 255),
            _ => format!("2001:db8::{n:x}/128"),
        };
        text.parse().unwrap()
    };
    (0..count)
        .map(|n| (prefix(n), std::sync::Arc::clone(&route)))
        .collect()
}

fn dialler(side: usize, direction: Direction) -> usize {
    match direction {
        Direction::Outgoing => side,
        Direction::Incoming => 1 - side,
    }
}
