//! One speaker, and a peer whose every message the test writes.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vipd_bgp::wire::{Capability, Dialect, Family, Message, Notification, Open, Update, keepalive};
use vipd_bgp::{Action, Direction, Event, Input, PeerConfig, Reconfigured, Session, State};

use crate::world::decode;

/// The speaker under test. Its peer is reached by the connection it dialled.
pub struct Scripted {
    pub session: Session,
    pub now: Instant,
    pub events: Vec<Event>,
    pub dialect: Dialect,
    /// How often it wanted to dial.
    pub dials: usize,
    /// Connections and dials it gave up.
    pub closed: Vec<Direction>,
    /// Last words of connections it closed.
    pub last_words: Vec<Notification>,
}

const OUT: Direction = Direction::Outgoing;

impl Scripted {
    /// Started and not yet connected.
    pub fn new(config: PeerConfig) -> Self {
        let dialect = Dialect {
            four_octet_as: true,
            internal: config.is_internal(),
            extended_messages: true,
        };
        let session = Session::new(config, 7).expect("the test's configuration is good");
        let now = Instant::now();
        let mut this = Self {
            session,
            now,
            events: vec![],
            dialect,
            dials: 0,
            closed: vec![],
            last_words: vec![],
        };
        this.input(Input::Start);
        this
    }

    /// With the dialled connection open.
    pub fn connected(config: PeerConfig) -> Self {
        let mut this = Self::new(config);
        this.connect();
        this
    }

    /// Established with a peer that offers all it should.
    pub fn established(config: PeerConfig) -> Self {
        let open = open_for(&config);
        Self::established_with(config, &open)
    }

    /// Established with a peer that sends this OPEN.
    pub fn established_with(config: PeerConfig, open: &Open) -> Self {
        let mut this = Self::connected(config);
        this.dialect.four_octet_as = open.four_octet_as().is_some();
        this.receive(&open.emit());
        this.receive(&keepalive());
        assert_eq!(this.session.state(), State::Established, "{}", this.dump());
        let greeting = this.sent();
        assert!(
            matches!(&greeting[..2], [Message::Open(_), Message::Keepalive]),
            "first OPEN, then KEEPALIVE: {greeting:?}"
        );
        this
    }

    pub fn connect(&mut self) {
        self.connect_by(OUT);
    }

    pub fn connect_by(&mut self, direction: Direction) {
        let local = Ipv4Addr::new(192, 0, 2, 1).into();
        self.input(Input::TcpConnected { direction, local });
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.receive_by(OUT, bytes);
    }

    pub fn receive_by(&mut self, direction: Direction, bytes: &[u8]) {
        self.input(Input::Received { direction, bytes });
    }

    /// Changes the configuration by `edit`.
    pub fn reconfigure(&mut self, edit: impl FnOnce(&mut PeerConfig)) -> Reconfigured {
        let mut config = self.session.config().clone();
        edit(&mut config);
        let outcome = self.session.reconfigure(config, self.now);
        self.drain();
        outcome.expect("the test's configuration is good")
    }

    pub fn input(&mut self, input: Input<'_>) {
        self.session.handle(input, self.now);
        self.drain();
    }

    /// Lets time pass, timer by timer, without reading what is sent.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.session.poll_timeout().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// All messages that are ready to be written.
    pub fn sent(&mut self) -> Vec<Message> {
        let dialect = self.dialect;
        self.sent_bytes()
            .iter()
            .map(|bytes| decode(bytes, dialect))
            .collect()
    }

    pub fn sent_bytes(&mut self) -> Vec<Bytes> {
        let sent = std::iter::from_fn(|| self.session.poll_transmit(OUT)).collect();
        self.drain();
        sent
    }

    /// The UPDATEs among all messages that are ready to be written.
    pub fn updates(&mut self) -> Vec<Update> {
        let update = |message| match message {
            Message::Update(update, faults) => {
                assert!(faults.is_empty(), "{faults:?}");
                Some(update)
            }
            _ => None,
        };
        self.sent().into_iter().filter_map(update).collect()
    }

    pub fn dump(&self) -> String {
        format!(
            "{:#?}\n{:#?}\n{:#?}",
            self.events,
            self.last_words,
            self.session.status()
        )
    }

    fn drain(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Connect => self.dials += 1,
                Action::Close {
                    direction,
                    last_words,
                } => {
                    self.closed.push(direction);
                    if !last_words.is_empty() {
                        self.hear_out(&last_words);
                    }
                }
            }
        }
        self.events
            .extend(std::iter::from_fn(|| self.session.poll_event()));
    }

    fn hear_out(&mut self, last_words: &Bytes) {
        match decode(last_words, self.dialect) {
            Message::Notification(notification) => self.last_words.push(notification),
            other => panic!("last words that are no NOTIFICATION: {other:?}"),
        }
    }
}

/// The OPEN of the peer that `config` expects.
pub fn open_for(config: &PeerConfig) -> Open {
    Open {
        my_as: u16::try_from(config.peer_as).unwrap_or(23456),
        hold_time: 90,
        router_id: Ipv4Addr::new(192, 0, 2, 2),
        capabilities: vec![
            Capability::family(Family::Ipv4Unicast),
            Capability::family(Family::Ipv6Unicast),
            Capability::RouteRefresh,
            Capability::FourOctetAs(config.peer_as),
        ],
    }
}
