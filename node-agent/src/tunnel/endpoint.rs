//! The place where packets of our own leave and answers to them arrive, for many
//! exchanges at the same time.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{
    io::unix::AsyncFd,
    sync::mpsc::{self, error::TrySendError},
    task::{JoinSet, yield_now},
};

use super::{
    ear::{Ear, PACKET},
    heard::{Heard, Key, Protocol, read},
    lane::Lane,
    ports::{COUNT, FIRST, Ports},
    sender::Sender,
};

/// So many packets of an exchange may wait to be looked at; more are lost.
const WAITING: usize = 64;
/// So many packets are looked at before others get their turn.
const AT_ONCE: usize = 64;
/// So many ports are used in turn before others are held.
const USUAL: u16 = 64;

/// Sends for everybody, and hands out what comes.
#[derive(Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
    /// They end with us.
    _ears: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    sender: Sender,
    flows: Mutex<Flows>,
}

/// The exchanges that go on.
#[derive(Debug, Default)]
struct Flows {
    open: HashMap<Key, mpsc::Sender<Heard>>,
    ports: Ports,
    /// The port that is to be used next, counted from the first.
    next: u16,
}

/// An exchange with the other end of a lane. It is over when dropped.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    key: Key,
    lane: Lane,
    heard: mpsc::Receiver<Heard>,
}

impl Endpoint {
    /// Opens its sockets.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or packet sockets.
    pub fn open() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            sender: Sender::open()?,
            flows: Mutex::default(),
        });
        let mut ears = JoinSet::new();
        for ear in Ear::both()? {
            // SAFETY: an ear has one socket, and keeps it open as long as it lives.
            let ear = unsafe { AsyncFd::register(ear) }?;
            let shared = Arc::clone(&shared);
            ears.spawn(hear(ear, move |packet| shared.take(packet)));
        }
        Ok(Self {
            shared,
            _ears: ears,
        })
    }

    /// Begins an exchange from one of our addresses.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn flow(
        &self,
        protocol: Protocol,
        lane: &Lane,
        ours: IpAddr,
        theirs: SocketAddr,
    ) -> io::Result<Flow> {
        let (heard_in, heard) = mpsc::channel(WAITING);
        let mut flows = self.shared.flows();
        let key = flows.free(protocol, ours, theirs)?;
        flows.open.insert(key, heard_in);
        drop(flows);
        Ok(Flow {
            shared: Arc::clone(&self.shared),
            key,
            lane: *lane,
            heard,
        })
    }
}

impl Flows {
    /// A port of ours that nothing else with them comes from.
    fn free(&mut self, protocol: Protocol, ours: IpAddr, theirs: SocketAddr) -> io::Result<Key> {
        let first = self.next;
        self.next = (first + 1) % USUAL;
        let usual = (0..USUAL).map(|n| (first + n) % USUAL);
        for n in usual.chain(USUAL..COUNT) {
            let key = Key {
                protocol,
                ours: SocketAddr::new(ours, FIRST + n),
                theirs,
            };
            if self.open.contains_key(&key) {
                continue;
            }
            match self.ports.hold(protocol, key.ours.port()) {
                Ok(()) => return Ok(key),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::QuotaExceeded,
            format!("{COUNT} exchanges with {theirs} go on already"),
        ))
    }
}

impl Shared {
    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a packet to whoever waits for it.
    fn take(&self, packet: &[u8]) {
        let Some((key, unreachable)) = read(packet) else {
            return;
        };
        if let Some(flow) = self.flows().open.get(&key) {
            // Copied for somebody only: anybody can send us very many.
            let whole = || Heard::Packet(packet.to_vec());
            match flow.try_send(unreachable.map_or_else(whole, Heard::Unreachable)) {
                // As when a network card's queue is full.
                Err(TrySendError::Full(_)) | Ok(()) => {}
                // It is about to be forgotten.
                Err(TrySendError::Closed(_)) => {}
            }
        }
    }
}

impl Flow {
    /// Our end.
    #[must_use]
    pub const fn ours(&self) -> SocketAddr {
        self.key.ours
    }

    /// The other end.
    #[must_use]
    pub const fn theirs(&self) -> SocketAddr {
        self.key.theirs
    }

    /// The largest packet that traffic is sent as on this lane, in octets.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.lane.inner_mtu()
    }

    /// Sends an IP packet as the data plane would.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.shared.sender.send(&self.lane, packet)
    }

    /// The next of what comes.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Heard>> {
        let heard = ready!(self.heard.poll_recv(context));
        Poll::Ready(heard.ok_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }

    /// The same, waited for.
    ///
    /// # Errors
    /// When nothing is heard any more.
    pub async fn next(&mut self) -> io::Result<Heard> {
        std::future::poll_fn(|context| self.poll(context)).await
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.flows().open.remove(&self.key);
    }
}

/// Hears until it is aborted.
async fn hear(ear: AsyncFd<Ear>, take: impl Fn(&[u8])) {
    let mut buffer = vec![0; PACKET];
    while let Ok(mut ready) = ear.readable().await {
        for _ in 0..AT_ONCE {
            match ready.try_io(|ear| ear.get_ref().next(&mut buffer)) {
                Ok(Ok(length)) => take(buffer.get(..length).unwrap_or_default()),
                // An interface that goes down is an error once.
                Ok(Err(_)) => {}
                Err(_would_block) => break,
            }
        }
        // More may come than can be read, and a thread is not for this alone.
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn a_flood_of_packets_leaves_others_their_turn() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..AT_ONCE + 10 {
            let to = receiver.local_addr().unwrap();
            assert_eq!(sender.send_to(b"flood", to).unwrap(), 5);
        }
        // SAFETY: an ear has one socket, and keeps it open as long as it lives.
        let ear = unsafe { AsyncFd::register(Ear::of(receiver.into())) }.unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let take = move |packet: &[u8]| {
            assert_eq!(packet, b"flood");
            count.fetch_add(1, Ordering::Relaxed);
        };
        let mut ears = JoinSet::new();
        ears.spawn(hear(ear, take));
        let first = loop {
            yield_now().await;
            match taken.load(Ordering::Relaxed) {
                0 => {}
                first => break first,
            }
        };
        assert_eq!(first, AT_ONCE, "taken before anybody else has run");
    }

    #[test]
    fn exchanges_with_the_same_other_end_have_ports_of_their_own() {
        let mut flows = Flows::default();
        let ours: IpAddr = "192.0.2.11".parse().unwrap();
        let theirs = |last| SocketAddr::from(([198, 51, 100, last], 80));
        let mut take = |last| {
            let key = flows.free(Protocol::Echo, ours, theirs(last));
            let key = key.map_err(|error| error.kind())?;
            let (flow, _) = mpsc::channel(1);
            assert!(flows.open.insert(key, flow).is_none(), "{key:?}");
            Ok(key.ours.port())
        };
        let first = take(10).unwrap();
        assert_ne!(take(10), Ok(first), "it is in use");
        for _ in 2..COUNT {
            assert!(take(10).unwrap() >= FIRST);
        }
        assert_eq!(take(10), Err(io::ErrorKind::QuotaExceeded));
        assert!(take(11).is_ok(), "with somebody else");
    }

    #[test]
    fn a_port_is_not_used_again_at_once() {
        let mut flows = Flows::default();
        let theirs = SocketAddr::from(([198, 51, 100, 10], 80));
        let ours: IpAddr = "192.0.2.11".parse().unwrap();
        let mut take = || flows.free(Protocol::Echo, ours, theirs).unwrap();
        let first = take();
        for _ in 1..USUAL {
            assert_ne!(take(), first);
        }
        assert_eq!(take(), first);
    }
}
