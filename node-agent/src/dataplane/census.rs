//! The census: walks the tables of flows and fragments, counts, and frees what
//! has ended.
//!
//! It has a thread of its own, so that a walk never delays a change. Packets
//! claim and refresh entries meanwhile, so each is changed by compare-and-swap
//! only. An index of a backend record is used again only after a walk that
//! found nothing that names it; hence a record is looked at after the entry
//! that names it, never before.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::watch, time::sleep};
use tracing::debug;
use vipd_abi::{BackendKind, BackendRecord, FLOWS_PER_BUCKET, FlowBucket, FlowEntry, Tick};

use super::{
    apply::Flows,
    clock::{self, Clock},
    mapped::Mapped,
    tables::Tables,
};

/// Between two walks while there is something to wait for.
const BUSY: Duration = Duration::from_secs(1);
/// Between two walks otherwise: often enough that no entry grows so old that
/// its 16 bits of time look young again.
const AT_REST: Duration = Duration::from_secs(60);
/// How long a fragmented packet may be in coming: as long as a host waits for
/// the rest of it (RFC 8200, section 4.5).
const FRAGMENTS_IDLE: u16 = 448;

/// What a walk has to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Idle time in ticks, by service number.
    pub idle: BTreeMap<u32, u16>,
    /// Records whose flows are to be moved to another of the same backend.
    pub moved: BTreeMap<u32, u32>,
    /// Whether somebody waits for what it finds.
    pub busy: bool,
}

/// What a walk has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// When it began.
    pub started: Instant,
    /// The same, by the clock that packets go by.
    pub tick: Tick,
    /// What names a record, by the record's index; absent when nothing does.
    pub records: BTreeMap<u32, Named>,
}

impl Count {
    /// Whether flows are recorded for this record.
    #[must_use]
    pub fn has_flows(&self, record: u32) -> bool {
        let named = self.records.get(&record);
        named.is_some_and(|named| named.flows != Flows::default())
    }
}

/// What names a backend record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Flows.
    pub flows: Flows,
    /// Fragmented packets on their way.
    pub fragments: u32,
}

/// Walks the tables.
pub struct Census {
    flows: Arc<Mapped<FlowBucket>>,
    fragments: Arc<Mapped<FlowBucket>>,
    records: Arc<Mapped<BackendRecord>>,
    clock: Arc<Clock>,
}

impl Census {
    /// A census of these tables.
    #[must_use]
    pub fn new(tables: &Tables) -> Self {
        Self {
            flows: Arc::clone(&tables.flows),
            fragments: Arc::clone(&tables.fragments),
            records: Arc::clone(&tables.records),
            clock: Arc::clone(&tables.clock),
        }
    }

    /// One walk.
    #[must_use]
    pub fn walk(&self, orders: &Orders, started: Instant) -> Count {
        let tick = self.clock.tick();
        let mut named = vec![Named::default(); self.records.len() as usize];
        let clock = || self.clock.tick();
        self.table(&self.flows, orders, None, clock, |entry| {
            let flows = &mut named[entry.backend() as usize].flows;
            if entry.is_closing() {
                flows.closing += 1;
            } else {
                flows.live += 1;
            }
        });
        let idle = Some(FRAGMENTS_IDLE);
        self.table(&self.fragments, orders, idle, clock::coarse, |entry| {
            named[entry.backend() as usize].fragments += 1;
        });
        let records = (0..).zip(named);
        Count {
            started,
            tick,
            records: records.filter(|(_, n)| *n != Named::default()).collect(),
        }
    }

    /// Goes through one table. `idle` is the same for all its entries, or that
    /// of their services; `clock` is what they go by. Hands what stays to `count`.
    fn table(
        &self,
        table: &Mapped<FlowBucket>,
        orders: &Orders,
        idle: Option<u16>,
        clock: impl Fn() -> Tick,
        mut count: impl FnMut(FlowEntry),
    ) {
        let mut now = clock();
        for bucket in 0..table.len() {
            if bucket % 1024 == 0 {
                now = clock();
            }
            for place in 0..FLOWS_PER_BUCKET {
                let entry = table.entry(bucket, place);
                if entry.backend() == 0 {
                    continue;
                }
                match self.judge(entry, orders, idle, (now, &clock)) {
                    Some(new) => {
                        // If a packet was faster, the entry lives.
                        if new != entry {
                            table.swap(bucket, place, entry, new);
                        }
                        count(new);
                    }
                    None => {
                        if !table.swap(bucket, place, entry, FlowEntry::FREE) {
                            count(entry);
                        }
                    }
                }
            }
        }
    }

    /// What an entry is to be; `None` when it has ended.
    fn judge(
        &self,
        entry: FlowEntry,
        orders: &Orders,
        idle: Option<u16>,
        (now, clock): (Tick, &impl Fn() -> Tick),
    ) -> Option<FlowEntry> {
        let index = entry.backend();
        if index >= self.records.len() {
            return None;
        }
        let record = self.records.load(index);
        if BackendKind::of(record.kind) == BackendKind::Unset
            || record.state & BackendRecord::DEAD != 0
        {
            return None;
        }
        let of_service = || orders.idle.get(&record.service).copied();
        let idle = idle.or_else(of_service).unwrap_or(Tick::LONGEST_IDLE);
        // Before an entry is given up the clock is read again: the walk may
        // have been interrupted since, and the entry be of after that.
        if !entry.is_fresh(now, idle) && !entry.is_fresh(clock(), idle) {
            return None;
        }
        let to = orders.moved.get(&index).copied();
        let same = |to: &u32| {
            let other = self.records.load(*to);
            (other.destination, other.service) == (record.destination, record.service)
        };
        Some(to.filter(same).map_or(entry, |to| entry.moved_to(to)))
    }
}

/// Starts the thread. It ends when nobody gives orders any more.
///
/// # Errors
///
/// When the system has no more threads.
pub fn spawn(
    census: Census,
    mut orders: watch::Receiver<Orders>,
    counts: watch::Sender<Option<Arc<Count>>>,
    runtime: Handle,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("census".to_owned())
        .spawn(move || {
            loop {
                let started = Instant::now();
                let current = orders.borrow_and_update().clone();
                let count = census.walk(&current, started);
                debug!(took = ?started.elapsed(), records = count.records.len(), "flows counted");
                counts.send_replace(Some(Arc::new(count)));
                if !runtime.block_on(rest(&mut orders, current.busy)) {
                    return;
                }
            }
        })
}

/// Waits for the next walk's time; says whether there will be one.
async fn rest(orders: &mut watch::Receiver<Orders>, busy: bool) -> bool {
    if !busy {
        // Whatever makes it busy is waited for as long as usual.
        tokio::select! {
            found = orders.wait_for(|orders| orders.busy) => match found {
                Ok(_) => {}
                Err(_) => return false,
            },
            () = sleep(AT_REST) => return true,
        }
    }
    let closed = async { while orders.changed().await.is_ok() {} };
    tokio::select! {
        () = closed => false,
        () = sleep(BUSY) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: u64 = 0xdead_beef_0123_4567;

    fn record(service: u32, state: u32) -> BackendRecord {
        BackendRecord {
            kind: BackendKind::Ipip4 as u32,
            service,
            state,
            ..BackendRecord::default()
        }
    }

    /// Records 1 and 2 of service 7, 3 of another, 4 dead, 5 unset.
    fn tables() -> Tables {
        let tables = Tables::anonymous().expect("memory");
        tables.records.fill(1, record(7, 0));
        tables.records.fill(2, record(7, BackendRecord::DRAINED));
        tables.records.fill(3, record(8, 0));
        tables.records.fill(4, record(7, BackendRecord::DEAD));
        tables
    }

    fn orders() -> Orders {
        Orders {
            idle: BTreeMap::from([(7, 100), (8, 1000)]),
            ..Orders::default()
        }
    }

    #[test]
    fn what_has_ended_is_freed_and_the_rest_counted() {
        let now = tables().clock.tick();
        let aged = |age: u32| Tick(now.0.wrapping_sub(age));
        let closing = FlowEntry::new(HASH, 1, now).refreshed(now, true);
        let cases = [
            ("fresh", FlowEntry::new(HASH, 1, now), Some((1, 1, 0))),
            ("closing", closing, Some((1, 0, 1))),
            (
                "rather old",
                FlowEntry::new(HASH, 2, aged(90)),
                Some((2, 1, 0)),
            ),
            ("too old", FlowEntry::new(HASH, 2, aged(150)), None),
            (
                "patient",
                FlowEntry::new(HASH, 3, aged(150)),
                Some((3, 1, 0)),
            ),
            ("of the dead", FlowEntry::new(HASH, 4, now), None),
            ("of nobody", FlowEntry::new(HASH, 5, now), None),
            ("out of range", FlowEntry::new(HASH, 0xf_ffff, now), None),
        ];
        for (sentence, entry, expected) in cases {
            let tables = tables();
            assert!(tables.flows.swap(77, 5, FlowEntry::FREE, entry));
            let count = Census::new(&tables).walk(&orders(), Instant::now());
            let found: Vec<_> = count
                .records
                .iter()
                .map(|(index, n)| (*index, n.flows.live, n.flows.closing))
                .collect();
            assert_eq!(found, Vec::from_iter(expected), "{sentence}");
            let left = tables.flows.entry(77, 5);
            assert_eq!(left != FlowEntry::FREE, expected.is_some(), "{sentence}");
        }
    }

    #[test]
    fn fragments_have_a_time_of_their_own() {
        let now = clock::coarse();
        let tables = tables();
        let entry = |age| FlowEntry::new(HASH, 1, Tick(now.0.wrapping_sub(age)));
        assert!(tables.fragments.swap(0, 0, FlowEntry::FREE, entry(200)));
        assert!(tables.fragments.swap(0, 1, FlowEntry::FREE, entry(600)));
        let count = Census::new(&tables).walk(&orders(), Instant::now());
        assert_eq!(count.records[&1].fragments, 1);
        assert_eq!(count.records[&1].flows, Flows::default());
    }

    #[test]
    fn flows_follow_their_backend_to_another_record() {
        let tables = tables();
        let now = tables.clock.tick();
        let entry = FlowEntry::new(HASH, 1, now);
        assert!(tables.flows.swap(3, 0, FlowEntry::FREE, entry));
        let mut orders = orders();
        orders.moved = BTreeMap::from([(1, 3)]);
        let census = Census::new(&tables);
        let count = census.walk(&orders, Instant::now());
        assert_eq!(count.records[&1].flows.live, 1, "3 is another service's");
        orders.moved = BTreeMap::from([(1, 2)]);
        let count = census.walk(&orders, Instant::now());
        assert_eq!(count.records.keys().collect::<Vec<_>>(), [&2]);
        assert_eq!(tables.flows.entry(3, 0), entry.moved_to(2));
    }
}
