//! Connections to a server of the same protocol, over a link that loses packets, on a
//! clock of our own.

use proptest::prelude::*;

use super::*;

const MTU: u32 = 1480;
const PORT: u16 = 80;

/// What the server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Says so much when it has heard something, and closes.
    Answers(usize),
    /// The same, and does not close.
    Says(usize),
    /// Resets it when it has heard something.
    Resets,
    /// Accepts, and that is all.
    SaysNothing,
    /// Refuses it.
    Refuses,
    /// Is not there.
    IsSilent,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// This much was answered, and that is all.
    Answered(usize),
    Refused,
    Reset,
    /// So far it had come when the time was over.
    Waits(Stage),
}

/// Both ends, and the link between them.
struct Play {
    ours: Connection,
    theirs: (Interface, SocketSet<'static>, SocketHandle, Link),
    server: Server,
    now: Instant,
    epoch: Instant,
    /// Whether the next packet arrives, again and again.
    arrives: Box<dyn FnMut() -> bool>,
    /// What we have sent.
    sent: Vec<Vec<u8>>,
    answer_left: usize,
    heard: usize,
}

const QUESTION: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

impl Play {
    fn new(ipv4: bool, server: Server, arrives: impl FnMut() -> bool + 'static) -> Self {
        let (ours, theirs) = if ipv4 {
            ("192.0.2.11:61000", "198.51.100.10:80")
        } else {
            ("[2001:db8:1::11]:61000", "[2001:db8:100::10]:80")
        };
        let [ours, theirs] = [ours, theirs].map(|text| text.parse::<SocketAddr>().unwrap());
        let epoch = Instant::now();
        let (interface, link) = interface(theirs, 1500, 7).unwrap();
        let mut socket = socket();
        if server != Server::Refuses {
            socket.listen(PORT).unwrap();
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self {
            ours: Connection::new(ours, theirs, MTU, 5, epoch).unwrap(),
            theirs: (interface, sockets, handle, link),
            server,
            now: epoch,
            epoch,
            arrives: Box::new(arrives),
            sent: Vec::new(),
            answer_left: 0,
            heard: 0,
        }
    }

    /// Asks, and follows both ends for so long.
    fn run(&mut self, limit: Duration) -> End {
        let mut asked = false;
        let mut answered = 0;
        while self.now < self.epoch + limit {
            let packets = self.ours.advance(self.now);
            for packet in packets {
                assert!(packet.len() <= MTU as usize, "{} octets", packet.len());
                self.sent.push(packet.clone());
                if self.server != Server::IsSilent && (self.arrives)() {
                    self.theirs.3.arrived.push_back(packet);
                }
            }
            self.serve();
            match self.ours.stage() {
                Stage::Closed if !asked => return End::Refused,
                Stage::Open if !asked => {
                    assert_eq!(self.ours.write(QUESTION).unwrap(), Some(QUESTION.len()));
                    asked = true;
                }
                _ => {}
            }
            if asked {
                let mut buffer = [0; 700];
                loop {
                    match self.ours.read(&mut buffer) {
                        Ok(Some(0)) => return End::Answered(answered),
                        Ok(Some(length)) => answered += length,
                        Ok(None) if self.server == Server::Says(answered) => {
                            return End::Answered(answered);
                        }
                        Ok(None) => break,
                        Err(error) => {
                            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                            return End::Reset;
                        }
                    }
                }
            }
            self.now += Duration::from_millis(5);
        }
        End::Waits(self.ours.stage())
    }

    fn serve(&mut self) {
        let (interface, sockets, handle, link) = &mut self.theirs;
        let now = time::Instant::ZERO + (self.now - self.epoch).into();
        interface.poll(now, link, sockets);
        let socket = sockets.get_mut::<Socket<'_>>(*handle);
        let mut buffer = [0; 100];
        if let Ok(length @ 1..) = socket.recv_slice(&mut buffer) {
            self.heard += length;
            match self.server {
                Server::Answers(length) | Server::Says(length) => self.answer_left = length,
                Server::Resets => socket.abort(),
                Server::SaysNothing | Server::Refuses | Server::IsSilent => {}
            }
        }
        if self.answer_left > 0 {
            let sent = socket.send_slice(&vec![b'a'; self.answer_left]);
            self.answer_left -= sent.unwrap();
        } else if self.heard > 0 && matches!(self.server, Server::Answers(_)) {
            socket.close();
        }
        interface.poll(now, link, sockets);
        for packet in std::mem::take(&mut link.leaving) {
            if (self.arrives)() {
                self.ours.take_in(packet);
            }
        }
    }

    /// How many packets have come to the server since, that end a connection.
    fn resets_of(&mut self) -> usize {
        let packets = self.ours.advance(self.now);
        let is_reset = |packet: &&Vec<u8>| {
            let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
            matches!(sliced.transport, Some(etherparse::TransportSlice::Tcp(tcp)) if tcp.rst())
        };
        packets.iter().filter(is_reset).count()
    }
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn each_server_is_found_to_be_what_it_is() {
    for ipv4 in [true, false] {
        for (server, expected) in [
            (Server::Answers(0), End::Answered(0)),
            (Server::Answers(10), End::Answered(10)),
            (Server::Answers(100_000), End::Answered(100_000)),
            (Server::Says(10), End::Answered(10)),
            (Server::Resets, End::Reset),
            (Server::SaysNothing, End::Waits(Stage::Open)),
            (Server::Refuses, End::Refused),
            (Server::IsSilent, End::Waits(Stage::Connecting)),
        ] {
            let mut play = Play::new(ipv4, server, || true);
            assert_eq!(play.run(LONG), expected, "IPv4: {ipv4}, {server:?}");
        }
    }
}

#[test]
fn a_silent_server_is_asked_again_within_seconds_and_not_in_a_flood() {
    let mut play = Play::new(true, Server::IsSilent, || true);
    play.run(LONG);
    assert!(
        (2..10).contains(&play.sent.len()),
        "{} times",
        play.sent.len()
    );
}

#[test]
fn whoever_leaves_says_so_once() {
    for server in [Server::Answers(100_000), Server::SaysNothing] {
        let mut play = Play::new(true, server, || true);
        play.run(Duration::from_millis(40));
        assert_eq!(play.ours.stage(), Stage::Open);
        // What is under way when it leaves is answered by resets, too.
        play.ours.advance(play.now);
        play.ours.abort();
        assert_eq!(play.resets_of(), 1, "{server:?}");
        assert_eq!(play.resets_of(), 0, "{server:?}: again");
        assert_eq!(play.ours.stage(), Stage::Closed);
    }
    let mut play = Play::new(true, Server::Refuses, || true);
    play.run(LONG);
    play.ours.abort();
    assert_eq!(play.resets_of(), 0, "nobody is there to be told");
}

#[test]
fn what_is_no_packet_of_the_connection_changes_nothing() {
    let mut play = Play::new(true, Server::Answers(10), || true);
    for packet in [
        vec![],
        vec![0x45],
        vec![0x45; 20],
        vec![0x60; 60],
        vec![0xff; 100],
    ] {
        play.ours.take_in(packet);
    }
    assert_eq!(play.run(LONG), End::Answered(10));
}

#[test]
fn no_connection_is_between_such_addresses() {
    for (ours, theirs) in [
        ("192.0.2.11:61000", "[2001:db8::1]:80"),
        ("192.0.2.11:61000", "0.0.0.0:80"),
        ("192.0.2.11:61000", "198.51.100.10:0"),
        ("192.0.2.11:0", "198.51.100.10:80"),
        ("0.0.0.0:61000", "198.51.100.10:80"),
        ("224.0.0.1:61000", "198.51.100.10:80"),
    ] {
        let [ours, theirs] = [ours, theirs].map(|text| text.parse().unwrap());
        let made = Connection::new(ours, theirs, MTU, 5, Instant::now());
        let error = made.err().map(|error| error.kind());
        assert_eq!(error, Some(io::ErrorKind::InvalidInput), "{ours} {theirs}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whichever_packets_are_lost_the_answer_comes_whole(
        ipv4: bool,
        length in 1_usize..40_000,
        lost in proptest::collection::vec(proptest::bool::weighted(0.2), 1..60),
    ) {
        // After these all arrive.
        let mut lost = lost.into_iter();
        let arrives = move || !lost.next().unwrap_or(false);
        let mut play = Play::new(ipv4, Server::Says(length), arrives);
        let end = play.run(Duration::from_secs(600));
        prop_assert_eq!(end, End::Answered(length));
    }
}
