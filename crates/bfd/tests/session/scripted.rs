//! A session and a peer that says what the test wants.

use std::time::{Duration, Instant};

use vipd_bfd::packet::{self, MAX_LEN, Packet};
use vipd_bfd::{Config, Diagnostic, Session, State, Timing};

/// Our session's discriminator.
pub const OURS: u32 = 7;
/// The peer's.
pub const THEIRS: u32 = 9;

/// Milliseconds.
pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// 100 ms both ways, three times.
pub fn config() -> Config {
    timing(ms(100), ms(100), 3)
}

/// A session with that timing and nothing else.
pub fn timing(tx: Duration, rx: Duration, multiplier: u8) -> Config {
    Config::new(Timing::new(tx, rx, multiplier).unwrap())
}

/// A session on a virtual clock.
pub struct Scripted {
    pub session: Session,
    pub now: Instant,
}

impl Scripted {
    pub fn new(config: Config) -> Self {
        let now = Instant::now();
        let session = Session::new(config, OURS.try_into().unwrap(), 1, now);
        Self { session, now }
    }

    /// In that state, with a peer whose intervals are 100 ms and who answers no
    /// poll.
    pub fn in_state(config: Config, state: State) -> Self {
        let mut scripted = Self::new(config);
        scripted.sent();
        match state {
            State::AdminDown => scripted
                .session
                .hold(Some(vipd_bfd::Hold::Admin), scripted.now),
            State::Down => (),
            State::Init => scripted.hear(peer(State::Down)),
            State::Up => scripted.hear(peer(State::Init)),
        }
        scripted.sent();
        assert_eq!(scripted.session.state(), state);
        scripted
    }

    /// The peer sends a packet.
    pub fn hear(&mut self, packet: Packet) {
        let bytes = packet.emit();
        // What is discarded is seen by what does not change.
        let _ = self
            .session
            .receive(&packet::parse(&bytes).unwrap(), self.now);
    }

    /// What is sent now.
    pub fn sent(&mut self) -> Vec<Packet> {
        let mut sent = Vec::new();
        let mut buffer = [0; MAX_LEN];
        while let Some(len) = self.session.poll_transmit(self.now, &mut buffer) {
            sent.push(packet::parse(&buffer[..len]).unwrap().packet);
            assert!(sent.len() < 10, "it never stops sending");
        }
        sent
    }

    /// Lets time pass and gives back what is sent, and when, from now on.
    pub fn run(&mut self, time: Duration) -> Vec<(Duration, Packet)> {
        let start = self.now;
        let end = start + time;
        let mut sent = Vec::new();
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
            sent.extend(
                self.sent()
                    .into_iter()
                    .map(|packet| (self.now - start, packet)),
            );
            assert!(sent.len() < 100_000, "it never stops sending");
        }
        self.now = end;
        sent
    }

    /// Lets time pass while the peer repeats a packet each 50 ms.
    pub fn run_hearing(&mut self, time: Duration, packet: Packet) -> Vec<(Duration, Packet)> {
        let mut sent = Vec::new();
        let step = ms(50);
        let mut passed = Duration::ZERO;
        while passed < time {
            let of_step = self.run(step);
            sent.extend(
                of_step
                    .into_iter()
                    .map(|(at, packet)| (passed + at, packet)),
            );
            passed += step;
            self.hear(packet);
        }
        sent
    }

    /// The changes of state since the last question, as `from > to: why`.
    pub fn events(&mut self) -> Vec<String> {
        let next = || self.session.poll_event();
        let events = std::iter::from_fn(next);
        events
            .map(|event| format!("{} > {}: {}", event.from, event.to, event.cause))
            .collect()
    }
}

/// A packet of the peer's, who knows us.
pub fn peer(state: State) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        poll: false,
        answer: false,
        independent: false,
        demand: false,
        multiplier: 3.try_into().unwrap(),
        my_discriminator: THEIRS.try_into().unwrap(),
        your_discriminator: Some(OURS.try_into().unwrap()),
        desired_min_tx: ms(100),
        required_min_rx: ms(100),
        required_min_echo_rx: Duration::ZERO,
    }
}
