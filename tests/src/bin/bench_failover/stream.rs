//! What a client of a VIP sees: UDP packets at a steady pace on several flows,
//! each of which is to be answered.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{Host, wait_until};

/// So many that all of them take the same way once in 30,000 runs.
const FLOWS: usize = 16;
/// Packets in one go, and how often: each flow has one every 8 ms.
const BURST: (usize, Duration) = (2, Duration::from_millis(1));
/// An answer that takes longer is none.
const GRACE: Duration = Duration::from_millis(300);
/// All is well when every packet of so long a time is answered.
const CALM: Duration = Duration::from_millis(250);
/// So many packets must be sent in that time, half of what should be.
const FEWEST: usize = (CALM.as_millis() / BURST.1.as_millis()) as usize * BURST.0 / 2;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The packets, while they are being sent.
pub struct Stream {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

/// One of them; the flows take turns.
#[derive(Clone, Copy)]
struct Packet {
    sent: Instant,
    answered: Option<Instant>,
}

/// All of them.
pub struct Report(Vec<Packet>);

impl Stream {
    /// Begins at once.
    pub fn start(host: &Host, target: SocketAddr) -> Self {
        let packets = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (host, packets, stop) = (host.clone(), Arc::clone(&packets), Arc::clone(&stop));
            move || host.enter(|| run(target, &packets, &stop))
        });
        Self {
            packets,
            stop,
            thread: Some(thread),
        }
    }

    /// Waits until every packet of [`CALM`] is answered, all of it after `since`.
    pub fn wait_until_calm(&self, since: Instant) -> Result<()> {
        wait_until("all packets are answered", PATIENCE, || {
            let now = Instant::now();
            let begin = now.checked_sub(CALM + GRACE).context("a young machine")?;
            ensure!(since <= begin, "it has only begun");
            let packets = lock(&self.packets);
            ensure!(
                packets.first().is_some_and(|first| first.sent <= begin),
                "it has only begun"
            );
            let lately = packets.iter().filter(|it| it.sent >= begin);
            let old_enough = lately.filter(|it| it.sent + GRACE <= now);
            let answered: Vec<bool> = old_enough.map(|it| it.answered.is_some()).collect();
            ensure!(answered.len() >= FEWEST, "the client does not get to send");
            let lost = answered.iter().filter(|answered| !**answered).count();
            ensure!(lost == 0, "{lost} packets are not answered");
            Ok(())
        })
    }

    /// Sends no more, and reports when the last answers have had their time.
    pub fn finish(mut self) -> Result<Report> {
        self.end()?;
        let packets = lock(&self.packets).clone();
        Ok(Report(packets))
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().ok().context("the stream panicked")?,
            None => Ok(()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Its findings are not wanted any more.
        let _ = self.end();
    }
}

impl Report {
    /// How many packets were sent.
    pub fn sent(&self) -> usize {
        self.0.len()
    }

    /// How many were not answered in time.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|it| it.is_lost()).count()
    }

    /// When and where packets were lost, in words.
    pub fn losses(&self, event: Instant) -> String {
        let lost = self.0.iter().enumerate().filter(|(_, it)| it.is_lost());
        let flows: BTreeSet<usize> = lost.clone().map(|(number, _)| number % FLOWS).collect();
        let mut times = lost.map(|(_, it)| it.sent.saturating_duration_since(event));
        let Some(first) = times.next() else {
            return "none is lost".to_owned();
        };
        let last = times.next_back().unwrap_or(first);
        let count = self.lost();
        format!(
            "{count} packets of {} flows are lost, from {first:?} to {last:?} after it began",
            flows.len()
        )
    }

    /// From `event` until no flow loses any more, for each flow that has lost
    /// packets: to the first answer after its last lost packet.
    pub fn gaps(&self, event: Instant) -> Result<Vec<Duration>> {
        let mut gaps = Vec::new();
        for flow in 0..FLOWS {
            let own: Vec<&Packet> = self.0.iter().skip(flow).step_by(FLOWS).collect();
            let Some(last_lost) = own.iter().rposition(|it| it.is_lost()) else {
                continue;
            };
            let next = own.get(last_lost + 1).and_then(|it| it.answered);
            let next = next.context("a flow is not answered any more")?;
            gaps.push(next.saturating_duration_since(event));
        }
        Ok(gaps)
    }

    /// The longest time in which the client itself did not get to send.
    pub fn stall(&self) -> Duration {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let pauses = pairs.map(|(before, after)| after.sent - before.sent);
        pauses.max().unwrap_or_default()
    }
}

impl Packet {
    fn is_lost(&self) -> bool {
        self.answered
            .is_none_or(|answered| answered - self.sent > GRACE)
    }
}

fn run(target: SocketAddr, packets: &Mutex<Vec<Packet>>, stop: &AtomicBool) -> Result<()> {
    let socket = || -> Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(target)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let sockets: Vec<_> = (0..FLOWS).map(|_| socket()).collect::<Result<_>>()?;
    let (at_once, pause) = BURST;
    let mut due = Instant::now();
    let mut end = None;
    while end.is_none_or(|end| Instant::now() < end) {
        let mut packets = lock(packets);
        if end.is_none() {
            for _ in 0..at_once {
                send(&sockets, &mut packets);
            }
        }
        for socket in &sockets {
            receive(socket, &mut packets);
        }
        drop(packets);
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(Instant::now() + GRACE);
        }
        // What was missed is not made up for.
        due = (due + pause).max(Instant::now());
        sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn send(sockets: &[UdpSocket], packets: &mut Vec<Packet>) {
    let number = packets.len();
    let socket = &sockets[number % FLOWS];
    packets.push(Packet {
        sent: Instant::now(),
        answered: None,
    });
    let datagram = (number as u64).to_be_bytes();
    // An ICMP error of an earlier packet is told once, in place of sending. A
    // packet that is not sent is one that is not answered.
    if socket.send(&datagram).is_err() {
        let _ = socket.send(&datagram);
    }
}

/// Takes all answers there are; they end with what was sent.
fn receive(socket: &UdpSocket, packets: &mut [Packet]) {
    let mut answer = [0; 64];
    loop {
        match socket.recv(&mut answer) {
            Ok(length) => {
                let number = answer[..length].last_chunk().copied();
                let number = number.map(u64::from_be_bytes);
                let packet = number.and_then(|it| packets.get_mut(usize::try_from(it).ok()?));
                if let Some(packet) = packet {
                    packet.answered.get_or_insert_with(Instant::now);
                }
            }
            // An ICMP error of an earlier packet.
            Err(error) if error.kind() != ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_with_the_first_answer_after_the_last_loss() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        // Flow 0 loses its second and third packet, flow 1 nothing.
        let packets = (0..FLOWS as u64 * 5).map(|number| {
            let (turn, flow) = (number / FLOWS as u64, number % FLOWS as u64);
            let lost = flow == 0 && (turn == 1 || turn == 2);
            Packet {
                sent: at(8 * turn),
                answered: (!lost).then_some(at(8 * turn + 1)),
            }
        });
        let report = Report(packets.collect());
        assert_eq!((report.sent(), report.lost()), (FLOWS * 5, 2));
        let gaps = report.gaps(at(7)).expect("all is answered at last");
        assert_eq!(gaps, [Duration::from_millis(18)]);
    }
}
