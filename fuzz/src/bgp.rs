//! What must hold of the BGP decoder and of a session, whatever a peer sends.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use vipd_bgp::wire::{
    Capability, Code, Dialect, Family, HEADER_LEN, Message, Open, RestartCapability, WireError,
    keepalive,
};
use vipd_bgp::{
    Action, Bfd, BfdMode, Direction, Event, GracefulRestart, Input, PeerConfig, Route, Routes,
    Session, State,
};

/// Reads a stream of messages. The first byte is the dialect, the second how
/// many bytes come at a time: that makes no difference to what is read.
pub fn message(bytes: &[u8]) {
    let Some((&[flags, cut], stream)) = bytes.split_first_chunk() else {
        return;
    };
    let dialect = Dialect {
        four_octet_as: flags & 1 != 0,
        internal: flags & 2 != 0,
        extended_messages: flags & 4 != 0,
    };
    let whole = read([stream], dialect);
    let in_pieces = read(stream.chunks(usize::from(cut) + 1), dialect);
    assert_eq!(whole, in_pieces, "read whole and in pieces");
    for message in whole.0 {
        written_as_read(message, dialect);
    }
}

/// The messages of a stream that comes in pieces, up to the first error.
fn read<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    dialect: Dialect,
) -> (Vec<Message>, Option<WireError>) {
    let (mut messages, mut inbox) = (Vec::new(), BytesMut::new());
    for piece in pieces {
        inbox.extend_from_slice(piece);
        loop {
            match Message::take(&mut inbox, dialect) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// What has one form only comes back when it is written.
fn written_as_read(message: Message, dialect: Dialect) {
    let written = match &message {
        Message::Open(open) => open.emit(),
        Message::Notification(notification) => {
            assert!(!notification.to_string().is_empty());
            let _ = (notification.text(), notification.reset());
            notification.emit()
        }
        Message::RouteRefresh(refresh) => refresh.emit(),
        Message::Keepalive => keepalive(),
        Message::Update(update, faults) => {
            assert!(faults.iter().all(|fault| !fault.words.is_empty()));
            let _ = (update.ended_family(), update.unreachable().count());
            return;
        }
    };
    let read = read([&written[..]], dialect);
    assert_eq!(read, (vec![message], None), "read as it was written");
}

/// Runs a session with a peer whose OPEN is good. The first byte says what was
/// agreed, the second how many bytes come at a time; the others are what the
/// peer sends: as they are, or as type, length and body of messages.
pub fn session(bytes: &[u8]) {
    let Some((&[flags, cut], said)) = bytes.split_first_chunk() else {
        return;
    };
    let flag = |bit: u8| flags >> bit & 1 != 0;
    let mut config = PeerConfig::new(
        64496,
        if flag(0) { 64496 } else { 64497 },
        Ipv4Addr::new(192, 0, 2, 1),
    );
    config.max_prefixes = flag(1).then_some(3);
    config.graceful_restart = flag(2).then(|| GracefulRestart {
        restart_time: Duration::from_secs(120),
        restarting: false,
        forwarding: [Family::Ipv4Unicast].into(),
    });
    if flag(7) {
        config.bfd = BfdMode::Strict;
    }
    let mut capabilities = vec![
        Capability::family(Family::Ipv4Unicast),
        Capability::family(Family::Ipv6Unicast),
        Capability::RouteRefresh,
    ];
    if flag(2) {
        let notification = true;
        capabilities.push(Capability::GracefulRestart(RestartCapability {
            notification,
            ..RestartCapability::default()
        }));
    }
    if flag(3) {
        capabilities.push(Capability::FourOctetAs(config.peer_as));
    }
    if flag(4) {
        capabilities.extend([
            Capability::ExtendedMessages,
            Capability::EnhancedRouteRefresh,
        ]);
    }
    let open = Open {
        my_as: config.peer_as as u16,
        hold_time: 90,
        router_id: Ipv4Addr::new(192, 0, 2, 2),
        capabilities,
    };
    let mut peering = Peering::new(config);
    peering.receive(&open.emit());
    assert_eq!(peering.session.state(), State::OpenConfirm);
    if flag(5) {
        peering.receive(&keepalive());
        if flag(7) {
            assert_eq!(peering.session.state(), State::OpenConfirm);
            peering.hear(Bfd::Up);
        }
        assert_eq!(peering.session.state(), State::Established);
    }
    let said = if flag(6) {
        messages(said)
    } else {
        said.to_vec()
    };
    for piece in said.chunks(usize::from(cut) + 1) {
        peering.receive(piece);
    }
    if flag(7) {
        peering.hear(Bfd::Up);
        peering.hear(Bfd::Down("it is not heard".into()));
        let state = peering.session.state();
        assert!(state < State::OpenConfirm, "{state} without BFD");
    }
    for _ in 0..20 {
        peering.pass();
    }
}

/// Messages of which `bytes` gives type, length and body.
fn messages(mut bytes: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let Some((&[kind, len], rest)) = bytes.split_first_chunk() {
        let (body, rest) = rest.split_at(rest.len().min(len.into()));
        stream.extend([0xff; 16]);
        stream.extend(((HEADER_LEN + body.len()) as u16).to_be_bytes());
        stream.push(kind);
        stream.extend(body);
        bytes = rest;
    }
    stream
}

/// A session on a connection that it dialled. All it sends is good, and after
/// whatever happens it is in a legal state.
struct Peering {
    session: Session,
    now: Instant,
    state: State,
    connected: bool,
    dialling: bool,
}

const OUT: Direction = Direction::Outgoing;

impl Peering {
    fn new(config: PeerConfig) -> Self {
        let mut this = Self {
            session: Session::new(config, 1).expect("the configuration is good"),
            now: Instant::now(),
            state: State::Idle,
            connected: false,
            dialling: false,
        };
        let vip = "203.0.113.1/32".parse().expect("it is a prefix");
        let routes = Routes::from([(vip, Route::default().into())]);
        this.session.set_routes(routes);
        this.session.set_complete(true);
        this.session.handle(Input::Start, this.now);
        this.settle();
        let local = Ipv4Addr::new(192, 0, 2, 1).into();
        let direction = OUT;
        (this.dialling, this.connected) = (false, true);
        let input = Input::TcpConnected { direction, local };
        this.session.handle(input, this.now);
        this.settle();
        this
    }

    fn receive(&mut self, bytes: &[u8]) {
        let direction = OUT;
        let input = Input::Received { direction, bytes };
        self.session.handle(input, self.now);
        self.settle();
    }

    fn hear(&mut self, bfd: Bfd) {
        self.session.handle(Input::Bfd(bfd), self.now);
        self.settle();
    }

    /// Lets time pass until something is due.
    fn pass(&mut self) {
        if let Some(due) = self.session.poll_timeout() {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
            self.settle();
        }
    }

    /// Does what the session asks for.
    fn settle(&mut self) {
        while let Some(message) = self.session.poll_transmit(OUT) {
            self.session.wrote(OUT, self.now);
            sent(&message);
        }
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Connect => self.dialling = true,
                Action::Close { last_words, .. } => {
                    (self.connected, self.dialling) = (false, false);
                    self.check_last_words(sent(&last_words));
                }
            }
        }
        while let Some(event) = self.session.poll_event() {
            if let Event::StateChanged { from, to, .. } = event {
                assert_eq!(from, self.state, "a change of state was not told");
                self.state = to;
            }
        }
        self.check();
    }

    /// A peer that survives NOTIFICATIONs, which all do here that have graceful
    /// restart, must keep no routes when BFD is down or it has announced too many of its own.
    fn check_last_words(&self, words: Option<Message>) {
        let code = match words {
            None => return,
            Some(Message::Notification(notification)) => notification.code,
            Some(other) => panic!("last words that are no NOTIFICATION: {other:?}"),
        };
        let survives = self.session.config().graceful_restart.is_some();
        let ends_routes = matches!(code, Code::BFD_DOWN | Code::MAXIMUM_PREFIXES);
        let stood = self.state == State::Established;
        assert!(!(survives && stood && ends_routes), "a bare {code}");
    }

    fn check(&self) {
        let state = self.session.state();
        assert_eq!(state, self.state, "a change of state was not told");
        let timed = self.session.poll_timeout().is_some();
        let legal = match state {
            State::Idle | State::Active => !self.connected && !self.dialling && timed,
            State::Connect => !self.connected && self.dialling && timed,
            State::OpenSent | State::OpenConfirm => self.connected && timed,
            State::Established => self.connected && !self.dialling,
        };
        assert!(legal, "illegal in {state}: {:#?}", self.session.status());
        let established = state == State::Established;
        assert!(established || self.session.advertised().count() == 0);
        let limit = self.session.config().max_prefixes;
        let heard = self.session.status().heard;
        assert!(
            heard
                .into_values()
                .all(|n| limit.is_none_or(|limit| n <= limit as usize))
        );
    }
}

/// A message of ours, which has no fault; `None` if there are no bytes.
fn sent(bytes: &[u8]) -> Option<Message> {
    // What we send does not depend on the width of AS numbers but in UPDATEs,
    // whose paths are our own and short.
    let dialect = Dialect {
        four_octet_as: true,
        internal: true,
        extended_messages: true,
    };
    let (mut messages, error) = read([bytes], dialect);
    assert_eq!(error, None, "our own message");
    assert!(messages.len() <= 1 && messages.is_empty() == bytes.is_empty());
    messages.pop()
}
