//! ICMP echo. All checks of a family, and of a source address, share one socket: a
//! raw socket is handed every reply that a host gets, so one per check would cost
//! the square of their number.

mod packet;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use vipd_control::check::CheckCode;

use self::{
    packet::{Echo, Family, is_data},
    socket::{Heard, IcmpSocket},
};
use super::{
    check::{Outcome, Target},
    tcp,
    through::Passage,
};
use crate::speaker::icmp::{IcmpError, IcmpKind};

/// Between two attempts to read from a socket that has none to give but errors.
const PAUSE: Duration = Duration::from_millis(1);

/// How often sending is tried: the first error may be of another check's.
const ATTEMPTS: usize = 3;

/// In time.
const NO_REPLY: &str = "no echo reply";

/// Asks hosts for an echo. Sockets are opened when they are needed first.
#[derive(Debug, Default)]
pub struct Pinger {
    channels: Mutex<Channels>,
}

/// By the family, and the source address where one is given.
type Channels = HashMap<(Family, Option<IpAddr>), Arc<Channel>>;

/// A socket and who waits for something by it.
#[derive(Debug)]
struct Channel {
    socket: Arc<IcmpSocket>,
    waiting: Arc<Mutex<Waiting>>,
    reader: JoinHandle<()>,
}

/// Who waits, by the sequence number of the request.
#[derive(Debug, Default)]
struct Waiting {
    next: u16,
    checks: HashMap<u16, Awaited>,
}

/// The reply that a check waits for.
#[derive(Debug)]
struct Awaited {
    target: IpAddr,
    size: u16,
    token: u64,
    found: oneshot::Sender<Found>,
}

/// What has come of a request.
#[derive(Debug)]
enum Found {
    Reply,
    Unreachable(IcmpError),
}

/// A check's place among those that wait, given up when dropped.
struct Place {
    waiting: Arc<Mutex<Waiting>>,
    sequence: u16,
}

impl Pinger {
    /// Asks once for an echo of so many octets.
    pub async fn ask(&self, target: Target<'_>, size: u16, within: Duration) -> Outcome {
        if let Some(passage) = target.passage {
            return carried(passage, target, size, within).await;
        }
        let (target, source) = (target.address.ip(), target.source);
        let channel = match self.channel(Family::of(target), source) {
            Ok(channel) => channel,
            Err(error) => return unable(&error, source),
        };
        let token = fastrand::u64(..);
        let (found, finding) = oneshot::channel();
        let awaited = Awaited {
            target,
            size,
            token,
            found,
        };
        let Some(place) = Place::take(&channel.waiting, awaited) else {
            let words = "65536 echo requests are on their way already";
            return Outcome::with(CheckCode::SockErr, words);
        };
        if let Err(error) = channel.send(target, place.sequence, size, token) {
            return tcp::failed(&error, source);
        }
        match timeout(within, finding).await {
            Ok(Ok(Found::Reply)) => Outcome::new(CheckCode::L4Ok),
            Ok(Ok(Found::Unreachable(error))) => Outcome::with(CheckCode::L4Con, words(error)),
            Ok(Err(_)) => Outcome::with(CheckCode::SockErr, "nobody listens for echo replies"),
            Err(_) => Outcome::with(CheckCode::L4Timeout, NO_REPLY),
        }
    }

    fn channel(&self, family: Family, source: Option<IpAddr>) -> io::Result<Arc<Channel>> {
        match lock(&self.channels).entry((family, source)) {
            Entry::Occupied(open) => Ok(Arc::clone(open.get())),
            Entry::Vacant(place) => {
                let channel = Channel::open(family, source)?;
                Ok(Arc::clone(place.insert(Arc::new(channel))))
            }
        }
    }
}

/// The same on the way of traffic.
async fn carried(passage: &Passage, target: Target<'_>, size: u16, within: Duration) -> Outcome {
    let echo = passage.echo(target.address.ip(), size);
    match timeout(within, echo).await {
        Ok(Ok(())) => Outcome::new(CheckCode::L4Ok),
        Ok(Err(error)) => tcp::failed(&error, target.source),
        Err(_) => Outcome::with(CheckCode::L4Timeout, NO_REPLY),
    }
}

impl Channel {
    fn open(family: Family, source: Option<IpAddr>) -> io::Result<Self> {
        let socket = Arc::new(IcmpSocket::open(family, source)?);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let reader = tokio::spawn(listen(Arc::clone(&socket), Arc::clone(&waiting)));
        Ok(Self {
            socket,
            waiting,
            reader,
        })
    }

    fn send(&self, target: IpAddr, sequence: u16, size: u16, token: u64) -> io::Result<()> {
        let echo = Echo {
            identifier: self.socket.identifier(),
            sequence,
        };
        let request = echo.request(self.socket.family(), size, token);
        let mut sent = Ok(());
        for _ in 0..ATTEMPTS {
            sent = self.socket.send(&request, target);
            if sent.is_ok() {
                break;
            }
        }
        sent
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Hands what comes to who waits for it, for ever.
async fn listen(socket: Arc<IcmpSocket>, waiting: Arc<Mutex<Waiting>>) {
    loop {
        let heard = socket
            .hear(|heard| lock(&waiting).take_in(socket.family(), &heard))
            .await;
        if heard.is_err() {
            sleep(PAUSE).await;
        }
    }
}

impl Waiting {
    /// Tells who waits for it; what nobody waits for, or what is forged, is nothing.
    fn take_in(&mut self, family: Family, heard: &Heard<'_>) {
        let (sequence, found) = match *heard {
            Heard::Reply { from, echo, data } => {
                let is_wanted = |awaited: &Awaited| {
                    family == Family::of(from)
                        && awaited.target == from
                        && is_data(data, awaited.size, awaited.token)
                };
                if !self.checks.get(&echo.sequence).is_some_and(is_wanted) {
                    return;
                }
                (echo.sequence, Found::Reply)
            }
            Heard::Unreachable {
                target,
                echo,
                error,
            } => {
                let is_wanted = |awaited: &Awaited| awaited.target == target;
                if !self.checks.get(&echo.sequence).is_some_and(is_wanted) {
                    return;
                }
                (echo.sequence, Found::Unreachable(error))
            }
        };
        if let Some(awaited) = self.checks.remove(&sequence) {
            // Its time may be over.
            let _ = awaited.found.send(found);
        }
    }
}

impl Place {
    /// `None` when all sequence numbers are taken.
    fn take(waiting: &Arc<Mutex<Waiting>>, awaited: Awaited) -> Option<Self> {
        let mut all = lock(waiting);
        let first = all.next;
        let mut free = (0..=u16::MAX).map(|step| first.wrapping_add(step));
        let sequence = free.find(|sequence| !all.checks.contains_key(sequence))?;
        all.next = sequence.wrapping_add(1);
        all.checks.insert(sequence, awaited);
        Some(Self {
            waiting: Arc::clone(waiting),
            sequence,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.waiting).checks.remove(&self.sequence);
    }
}

impl Family {
    const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

fn unable(error: &io::Error, source: Option<IpAddr>) -> Outcome {
    if error.kind() == io::ErrorKind::PermissionDenied {
        let words = "vipd may not send echo requests: give it CAP_NET_RAW, or its group a place in \
                     net.ipv4.ping_group_range";
        return Outcome::with(CheckCode::SockErr, words);
    }
    tcp::failed(error, source)
}

fn words(error: IcmpError) -> String {
    let IcmpError { from, kind } = error;
    match kind {
        IcmpKind::HopsExceeded => format!("{from} says: hops exceeded"),
        IcmpKind::Prohibited => format!("{from} says: prohibited"),
        IcmpKind::Port | IcmpKind::Unreachable => format!("{from} says: unreachable"),
    }
}

/// What is behind it is right between any two statements that could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
