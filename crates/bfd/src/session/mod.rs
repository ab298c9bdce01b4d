//! The session with one peer: the state machine of RFC 5880 section 6.2.
//!
//! ```text
//!                             +--+
//!                             |  | peer: Up, AdminDown; silence
//!                             |  V
//!                 peer: Down +------+ peer: Init
//!               +------------|      |------------+
//!               |            | Down |            |
//!               |  +-------->|      |<--------+  |
//!               |  | peer:   +------+ peer:   |  |
//!               |  | AdminDown, AdminDown,    |  |
//!               |  | silence    Down, silence |  |
//!               V  |                          |  V
//!             +------+                      +------+
//!        +----|      | peer: Init, Up       |      |----+
//!  peer: |    | Init |--------------------->|  Up  |    | peer: Init, Up
//!  Down  +--->|      |                      |      |<---+
//!             +------+                      +------+
//! ```
//!
//! Besides, [`Session::hold`] keeps it in Down or AdminDown from any state.
//!
//! There are no timers: what is due follows from when we last sent and when the
//! peer was last heard, and from the intervals in force at this moment. So a
//! change of an interval takes effect by itself.

mod config;
mod gap;
mod poll;
mod receive;
mod status;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::config::{Config, ConfigError, Timing};
pub use self::gap::Gap;
pub use self::status::{Cause, Counters, Event, LastDown, Remote, Status};

use self::gap::Gaps;
use self::poll::Poll;
use crate::packet::{MAX_LEN, MIN_LEN, Packet};
use crate::random::Random;
use crate::words::{Diagnostic, Discard, State};

/// While a session is not up, nobody sends faster than that (RFC 5880 section
/// 6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// What keeps a session from coming up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// An operator. Says nothing about the path: a peer should not take it for a
    /// failure (RFC 5882 section 4.2).
    Admin,
    /// A failure: the peer must stop sending packets our way.
    Down {
        /// What the peer is told.
        diagnostic: Diagnostic,
        /// What has happened, in words.
        why: Arc<str>,
    },
}

/// The session with one peer. See the [crate] for how to drive it.
#[derive(Debug)]
pub struct Session {
    config: Config,
    discriminator: NonZeroU32,
    state: State,
    since: Instant,
    diagnostic: Diagnostic,
    hold: Option<Hold>,
    /// Our intervals as they count now. They follow the configuration when the
    /// peer knows it.
    min_tx: Duration,
    min_rx: Duration,
    poll: Poll,
    heard: Option<Heard>,
    /// We have sent Init or Up, and the peer has not said since then that it is
    /// down: that takes it up, whatever it has said last.
    told_up: bool,
    /// The peer waits for an answer.
    answer: bool,
    /// The peer does not know yet what has changed.
    changed: bool,
    sent: Option<Sent>,
    sequence: u32,
    /// The peer's last sequence number.
    seen: Option<SeenSequence>,
    random: Random,
    gaps: Gaps,
    counters: Counters,
    last_down: Option<LastDown>,
    last_discard: Option<Discard>,
    events: VecDeque<Event>,
}

/// The last packet of the peer.
#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    packet: Packet,
}

/// Our last periodic packet.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    state: State,
    /// The interval at that time.
    interval: Duration,
    /// Which part of the interval the next one comes after, in 1/1024.
    part: u32,
}

#[derive(Debug, Clone, Copy)]
struct SeenSequence {
    number: u32,
    /// Then any number is accepted again.
    until: Instant,
}

impl Session {
    /// A session that is Down and sends its first packet at once, unless it is
    /// passive. `discriminator` is unique on this host; `seed` spreads its
    /// packets and its first sequence number.
    #[must_use]
    pub fn new(config: Config, discriminator: NonZeroU32, seed: u64, now: Instant) -> Self {
        let mut random = Random::new(seed);
        Self {
            discriminator,
            state: State::Down,
            since: now,
            diagnostic: Diagnostic::NONE,
            hold: None,
            min_tx: config.timing.desired_min_tx().max(SLOW),
            min_rx: config.timing.required_min_rx(),
            poll: Poll::Idle,
            heard: None,
            told_up: false,
            answer: false,
            changed: true,
            sent: None,
            sequence: random.next_u32(),
            seen: None,
            random,
            gaps: Gaps::default(),
            counters: Counters::default(),
            last_down: None,
            last_discard: None,
            events: VecDeque::new(),
            config,
        }
    }

    /// Takes in that time has passed. Hand over what the socket holds first.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.seen.is_some_and(|seen| seen.until <= now) {
            self.seen = None;
        }
        let (Some(deadline), Some(time)) = (self.detection_deadline(), self.detection_time())
        else {
            return;
        };
        if deadline > now {
            return;
        }
        self.heard = None;
        if matches!(self.state, State::Init | State::Up) {
            self.diagnostic = Diagnostic::DETECTION_TIME_EXPIRED;
            self.enter(State::Down, Cause::Silence(time), now);
        }
    }

    /// When [`Session::handle_timeout`] or [`Session::poll_transmit`] is due. May
    /// be in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let forget = self.seen.map(|seen| seen.until);
        [self.transmit_deadline(), self.detection_deadline(), forget]
            .into_iter()
            .flatten()
            .min()
    }

    /// Writes the packet that is due, if one is, and gives back its length. Ask
    /// until there is none.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8; MAX_LEN]) -> Option<usize> {
        let answer = std::mem::take(&mut self.answer);
        let poll = if answer {
            false
        } else {
            let interval = self.transmit_interval()?;
            if self.transmit_deadline()? > now {
                return None;
            }
            self.note_gap(interval, now);
            self.changed = false;
            self.sent = Some(Sent {
                at: now,
                state: self.state,
                interval,
                part: self.draw_part(),
            });
            self.poll.next_packet()
        };
        let packet = self.packet(poll, answer);
        self.told_up |= matches!(self.state, State::Init | State::Up);
        self.counters.sent += 1;
        Some(match &self.config.authentication {
            Some(authentication) => {
                self.sequence = self.sequence.wrapping_add(1);
                authentication.emit(&packet, self.sequence, buffer)
            }
            None => {
                buffer[..MIN_LEN].copy_from_slice(&packet.emit());
                MIN_LEN
            }
        })
    }

    /// The next change of state.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Keeps the session down, or no longer.
    pub fn hold(&mut self, hold: Option<Hold>, now: Instant) {
        if self.hold == hold {
            return;
        }
        match &hold {
            Some(Hold::Admin) => {
                self.diagnostic = Diagnostic::ADMINISTRATIVELY_DOWN;
                self.enter(State::AdminDown, Cause::Admin, now);
            }
            Some(Hold::Down { diagnostic, why }) => {
                self.diagnostic = *diagnostic;
                self.enter(State::Down, Cause::Held(Arc::clone(why)), now);
            }
            None => {
                self.diagnostic = Diagnostic::NONE;
                self.enter(State::Down, Cause::Released, now);
            }
        }
        self.changed = true;
        self.hold = hold;
    }

    /// Changes what the session wants. Other intervals are agreed with the peer
    /// without going down (by a poll sequence). Another key works only if the
    /// peer gets it within the detection time.
    pub fn configure(&mut self, config: Config) {
        if self.config == config {
            return;
        }
        self.config = config;
        self.changed = true;
        self.follow_intervals();
    }

    /// What the session wants.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Our state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Names the session in packets of the peer.
    #[must_use]
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// Whether the peer does not take the session for up: either it has said so
    /// to our last word, or it is not heard. For an end in good order: hold it in
    /// AdminDown, and wait for this.
    #[must_use]
    pub fn peer_is_down(&self) -> bool {
        self.heard
            .is_none_or(|heard| heard.packet.state != State::Up && !self.told_up)
    }

    /// How the session is doing.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        Status {
            state: self.state,
            since: self.since,
            diagnostic: self.diagnostic,
            last_down: self.last_down.clone(),
            held: self.hold.is_some(),
            last_discard: self.last_discard,
            remote: self.heard.map(|heard| Remote::of(&heard.packet)),
            transmit_interval: self.transmit_interval(),
            detection_time: self.detection_time(),
            counters: self.counters,
            worst_gap: self.gaps.ever(),
            worst_gap_last_minute: self.gaps.last_minute(now),
        }
    }

    fn packet(&self, poll: bool, answer: bool) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll,
            answer,
            independent: self.config.independent,
            demand: false,
            multiplier: self.config.timing.multiplier(),
            my_discriminator: self.discriminator,
            your_discriminator: self.heard.map(|heard| heard.packet.my_discriminator),
            desired_min_tx: self.told_min_tx(),
            required_min_rx: self.config.timing.required_min_rx(),
            required_min_echo_rx: Duration::ZERO,
        }
    }

    fn enter(&mut self, to: State, cause: Cause, now: Instant) {
        let from = std::mem::replace(&mut self.state, to);
        let is_down = |state| matches!(state, State::Down | State::AdminDown);
        if is_down(to) && cause != Cause::Released {
            let at = now;
            let cause = cause.clone();
            self.last_down = Some(LastDown { at, cause });
        }
        if from == to {
            return;
        }
        self.since = now;
        self.last_discard = None;
        self.changed = true;
        self.counters.ups += u64::from(to == State::Up);
        self.counters.downs += u64::from(from == State::Up);
        self.follow_intervals();
        self.events.push_back(Event { from, to, cause });
    }

    /// The interval that the peer is told.
    fn told_min_tx(&self) -> Duration {
        let wanted = self.config.timing.desired_min_tx();
        match self.state {
            State::Up => wanted,
            State::AdminDown | State::Down | State::Init => wanted.max(SLOW),
        }
    }

    /// Brings the intervals in force in line with what the peer is told. While
    /// the session is up, it must agree first to what would make it miss a packet
    /// of ours, or us one of its (RFC 5880 section 6.8.3).
    fn follow_intervals(&mut self) {
        let (tx, rx) = (self.told_min_tx(), self.config.timing.required_min_rx());
        if self.state != State::Up {
            self.poll.stop();
            (self.min_tx, self.min_rx) = (tx, rx);
        } else if (tx, rx) != (self.min_tx, self.min_rx) || !self.poll.is_idle() {
            self.poll.start();
            self.min_tx = self.min_tx.min(tx);
            self.min_rx = self.min_rx.max(rx);
        }
    }

    /// Between two periodic packets, at most; `None`: none are sent.
    fn transmit_interval(&self) -> Option<Duration> {
        let Some(Heard { packet, .. }) = self.heard else {
            return (!self.config.passive).then_some(self.min_tx);
        };
        let both_up = self.state == State::Up && packet.state == State::Up;
        let unwanted = packet.required_min_rx.is_zero()
            || (packet.demand && both_up && self.poll.is_idle() && !self.changed);
        (!unwanted).then(|| self.min_tx.max(packet.required_min_rx))
    }

    /// When the next packet is to be sent.
    fn transmit_deadline(&self) -> Option<Instant> {
        if self.answer {
            return Some(self.since);
        }
        let interval = self.transmit_interval()?;
        Some(match self.sent {
            Some(sent) if !self.changed => sent.at + sent.after(interval),
            _ => self.since,
        })
    }

    /// The jitter (RFC 5880 section 6.8.7): 75 to 100 % of the interval; where
    /// a single packet may not be late, at most 90 %.
    fn draw_part(&mut self) -> u32 {
        let longest = if self.config.timing.multiplier().get() == 1 {
            921
        } else {
            1024
        };
        768 + self.random.next_u32() % (longest - 768 + 1)
    }

    /// Takes down how long after the last packet this one is sent, in a session
    /// that is up. The longer interval counts if it has changed in between.
    fn note_gap(&mut self, interval: Duration, now: Instant) {
        if let Some(sent) = self.sent
            && sent.state == State::Up
            && self.state == State::Up
        {
            let gap = Gap {
                real: now.saturating_duration_since(sent.at),
                expected: sent.after(interval.max(sent.interval)),
            };
            self.gaps.record(gap, now);
        }
    }

    fn detection_time(&self) -> Option<Duration> {
        let packet = self.heard?.packet;
        let interval = self.min_rx.max(packet.desired_min_tx);
        Some(u32::from(packet.multiplier.get()) * interval)
    }

    fn detection_deadline(&self) -> Option<Instant> {
        Some(self.heard?.at + self.detection_time()?)
    }
}

impl Sent {
    /// How long after this packet the next one follows.
    fn after(self, interval: Duration) -> Duration {
        self.part * interval / 1024
    }
}

impl Remote {
    fn of(packet: &Packet) -> Self {
        Self {
            discriminator: packet.my_discriminator.get(),
            state: packet.state,
            diagnostic: packet.diagnostic,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            multiplier: packet.multiplier.get(),
            independent: packet.independent,
            demand: packet.demand,
        }
    }
}
