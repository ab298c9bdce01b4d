//! One capture, from the moment the program is loaded until the forwarding one
//! is back.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{OwnedMutexGuard, mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{interval, sleep, timeout},
};
use tracing::error;
use vipd_abi::CaptureFilter;

use super::{CaptureError, Counts, Message, Packet};
use crate::{
    dataplane::{
        kernel::KernelError,
        pins::Pins,
        tap::{self, Tap},
    },
    explain::Names,
};

/// Between two words on how many packets there were, also when there are none:
/// so whoever has left is noticed.
const COUNTS: Duration = Duration::from_secs(1);
/// How long the program captures on when it hears nothing of the agent.
const DEADLINE: Duration = Duration::from_secs(5);
/// Packets that are read at once.
const BATCH: usize = 128;

/// What a capture is to do, and for whom.
pub(super) struct Plan {
    pub pins: Pins,
    /// Gets the kernel's id of the program.
    pub program: Arc<watch::Sender<Option<u32>>>,
    pub filter: CaptureFilter,
    pub names: Names,
    /// Packets after which it ends.
    pub count: Option<u64>,
    /// How long it takes at most.
    pub limit: Duration,
    pub messages: mpsc::Sender<Message>,
    /// Whether the agent stops.
    pub stopping: watch::Receiver<bool>,
}

impl Plan {
    /// Captures. `begun` is told when the program is in place, or why it is not;
    /// the permit is given back when it is out again.
    pub async fn carry_out(
        self,
        permit: OwnedMutexGuard<()>,
        begun: oneshot::Sender<Result<(), CaptureError>>,
    ) {
        let mut capture = match self.begin().await {
            Ok(capture) => capture,
            Err(error) => {
                drop(permit);
                // Whoever asked may have gone.
                let _ = begun.send(Err(error));
                return;
            }
        };
        let _ = begun.send(Ok(()));
        let why = capture.run().await;
        let counts = capture.counts();
        let messages = capture.plan.messages.clone();
        // It waits for the kernel.
        let _ = spawn_blocking(move || drop((capture, permit))).await;
        let _ = timeout(COUNTS, messages.send(Message::Ended { why, counts })).await;
    }

    async fn begin(self) -> Result<Capture, CaptureError> {
        let attached = spawn_blocking(|| {
            let (attached, packets) = self.attach()?;
            Ok::<_, CaptureError>((self, attached, packets))
        });
        let (plan, attached, packets) = attached.await.map_err(io::Error::other)??;
        // SAFETY: the ring buffer owns its descriptor and keeps it open, the
        // same one, for as long as it lives.
        let packets = unsafe { AsyncFd::register_with_interest(packets, Interest::READABLE) }
            .map_err(io::Error::from)?;
        Ok(Capture {
            attached,
            packets,
            sent: 0,
            plan,
        })
    }

    /// Puts the program in place, unless nobody wants it any more.
    fn attach(&self) -> Result<(Attached, RingBuf<MapData>), CaptureError> {
        if self.program.borrow().is_some() {
            // That of an earlier capture could not be taken out everywhere.
            tap::put_back(&self.pins)?;
            self.program.send_replace(None);
        }
        let mut attached = Attached::new(&self.pins, &self.program)?;
        let tap = &mut attached.tap;
        tap.set_filter(deadline(self.filter));
        let packets = tap.packets().ok_or(KernelError::NotBuilt)?;
        // Loading takes a while.
        if self.messages.is_closed() || *self.stopping.borrow() {
            return Err(CaptureError::Stopping);
        }
        tap.put_in()?;
        Ok((attached, packets))
    }
}

/// The capturing program, named to whoever guards the links for as long as it
/// may be in one. When dropped, the forwarding one is put back.
struct Attached {
    tap: Tap,
    pins: Pins,
    named: Named,
}

impl Attached {
    fn new(pins: &Pins, program: &Arc<watch::Sender<Option<u32>>>) -> Result<Self, KernelError> {
        let mut tap = Tap::load(pins)?;
        let named = Named::new(tap.program_id()?, program);
        Ok(Self {
            tap,
            pins: pins.clone(),
            named,
        })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        match tap::put_back(&self.pins) {
            Ok(()) => self.named.clear(),
            // It stays named: where it is, it forwards, which is no fault.
            Err(error) => error!(
                "the capturing program stays and forwards; the next capture tries again to \
                 replace it, and a restart of vipd does: {error}"
            ),
        }
    }
}

/// An id that is told to others.
pub(super) struct Named {
    id: u32,
    program: Arc<watch::Sender<Option<u32>>>,
}

impl Named {
    pub fn new(id: u32, program: &Arc<watch::Sender<Option<u32>>>) -> Self {
        program.send_replace(Some(id));
        Self {
            id,
            program: Arc::clone(program),
        }
    }

    /// Takes it back, unless it is another's by now.
    pub fn clear(&self) {
        self.program.send_if_modified(|program| {
            let ours = *program == Some(self.id);
            if ours {
                *program = None;
            }
            ours
        });
    }
}

struct Capture {
    packets: AsyncFd<RingBuf<MapData>>,
    sent: u64,
    attached: Attached,
    plan: Plan,
}

impl Capture {
    /// Captures until there is a reason to end, and says it.
    async fn run(&mut self) -> String {
        let limit = self.plan.limit;
        let messages = self.plan.messages.clone();
        let mut stopping = self.plan.stopping.clone();
        tokio::select! {
            why = self.pump() => why,
            () = sleep(limit) => format!("{} seconds have passed", limit.as_secs()),
            () = messages.closed() => String::new(),
            _ = stopping.wait_for(|stopping| *stopping) => "the agent stops".to_owned(),
        }
    }

    /// Hands on packets until there were enough; says why it has ended.
    async fn pump(&mut self) -> String {
        let mut tick = interval(COUNTS);
        loop {
            let batch = tokio::select! {
                _ = tick.tick() => {
                    self.attached.tap.set_filter(deadline(self.plan.filter));
                    vec![Message::Counts(self.counts())]
                }
                ready = self.packets.readable_mut() => match ready {
                    Ok(mut ready) => {
                        let packets = ready.get_inner_mut();
                        let batch = read(packets, &self.plan.names, &self.attached.tap);
                        if batch.len() < BATCH {
                            ready.clear_ready();
                        }
                        batch
                    }
                    Err(error) => return format!("the packets cannot be read: {error}"),
                },
            };
            for message in batch {
                let is_packet = matches!(message, Message::Packet(_));
                if self.plan.messages.send(message).await.is_err() {
                    return String::new();
                }
                self.sent += u64::from(is_packet);
                if self.plan.count == Some(self.sent) {
                    return format!("{} packets were captured", self.sent);
                }
            }
        }
    }

    fn counts(&self) -> Counts {
        let counts = self.attached.tap.counts();
        Counts {
            captured: counts.captured,
            limited: counts.limited,
            lost: counts.lost,
        }
    }
}

/// What the ring buffer holds now, up to a batch.
fn read(packets: &mut RingBuf<MapData>, names: &Names, tap: &Tap) -> Vec<Message> {
    let boot = boot_nanos();
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(bytes) = packets.next()
    {
        if let Some(captured) = tap::captured(&bytes) {
            let packet = Packet::new(&captured, boot, names, tap);
            batch.push(Message::Packet(Box::new(packet)));
        }
    }
    batch
}

/// The filter in force for a while from now on.
fn deadline(filter: CaptureFilter) -> CaptureFilter {
    let until = monotonic_nanos().saturating_add(nanos(DEADLINE));
    CaptureFilter { until, ..filter }
}

/// What is to be added to the monotonic clock to get the time since 1970.
fn boot_nanos() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    nanos(now.unwrap_or_default()).wrapping_sub(monotonic_nanos())
}

fn monotonic_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    nanos(Duration::try_from(now).unwrap_or_default())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
