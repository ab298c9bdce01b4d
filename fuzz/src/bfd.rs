//! What must hold of the BFD decoder and of sessions, whatever arrives.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use vipd_bfd::packet::{self, MAX_LEN, PORT_SINGLE_HOP, TTL};
use vipd_bfd::{Arrival, Authentication, Config, Hops, Method, Path, Sessions, State, Timing};

/// Reads each datagram, which a byte with its length precedes, and hands it to
/// sessions without authentication and with each method.
pub fn packet(bytes: &[u8]) {
    let mut hosts: Vec<Host> = [None]
        .into_iter()
        .chain(Method::ALL.map(Some))
        .map(Host::new)
        .collect();
    for datagram in datagrams(bytes) {
        if let Ok(received) = packet::parse(datagram) {
            assert_eq!(received.bytes.len(), usize::from(datagram[3]));
            let written = received.packet.emit();
            let again = packet::parse(&written).map(|again| again.packet);
            assert_eq!(again, Ok(received.packet), "read as it was written");
        }
        for host in &mut hosts {
            host.receive(datagram);
        }
    }
}

fn datagrams(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&len, rest) = bytes.split_first()?;
        let (datagram, rest) = rest.split_at(rest.len().min(len.into()));
        bytes = rest;
        Some(datagram)
    })
}

/// A host with one session, whose discriminator is known to the peer.
struct Host {
    sessions: Sessions,
    state: State,
    now: Instant,
}

const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

impl Host {
    fn new(method: Option<Method>) -> Self {
        let interval = Duration::from_millis(100);
        let mut config = Config::new(Timing::new(interval, interval, 3).expect("a good timing"));
        config.authentication = method
            .map(|method| Authentication::new(method, 42, b"secret").expect("the key is good"));
        let path = Path {
            remote: REMOTE,
            local: None,
            interface: None,
            hops: Hops::Single,
        };
        let now = Instant::now();
        let mut sessions = Sessions::new(1);
        sessions.add(path, config, now);
        Self {
            sessions,
            state: State::Down,
            now,
        }
    }

    fn receive(&mut self, datagram: &[u8]) {
        let arrival = Arrival {
            remote: REMOTE,
            local: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
            bound: None,
            ttl: TTL,
            port: PORT_SINGLE_HOP,
        };
        let before = self.state;
        let taken = self.sessions.receive(&arrival, datagram, self.now);
        self.settle();
        assert!(
            taken.is_ok() || before == self.state,
            "{taken:?} has an effect"
        );
        let due = self.sessions.poll_timeout().expect("there is a session");
        self.now = self.now.max(due);
        for (_, session) in self.sessions.iter_mut() {
            session.handle_timeout(self.now);
        }
        self.settle();
    }

    /// All that is sent is good, and every change of the state is told.
    fn settle(&mut self) {
        for (_, session) in self.sessions.iter_mut() {
            let mut buffer = [0; MAX_LEN];
            for _ in 0..10 {
                let Some(len) = session.poll_transmit(self.now, &mut buffer) else {
                    break;
                };
                let sent = packet::parse(&buffer[..len]).expect("what is sent is good");
                assert_eq!(sent.packet.state, session.state());
                assert_eq!(
                    sent.authenticated,
                    session.config().authentication.is_some()
                );
            }
            assert!(session.poll_transmit(self.now, &mut buffer).is_none());
            while let Some(event) = session.poll_event() {
                assert_eq!(event.from, self.state, "a change of state was not told");
                self.state = event.to;
            }
            assert_eq!(
                session.state(),
                self.state,
                "a change of state was not told"
            );
            let status = session.status(self.now);
            assert!(self.state != State::Up || status.detection_time.is_some());
        }
    }
}
