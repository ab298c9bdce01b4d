//! A service in small: backends, a ring, a flow table, clients. The packets'
//! half is the one the kernel runs, the agent's half the one the agent runs.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use vipd_abi::{Basis, FlowBucket, FlowEntry, FlowMemory, Segment, flow_bucket, route};

use super::super::*;

const IDLE: u16 = 6;
const FLOWS: u32 = 32;
const MOST_SLOTS: usize = 16;

/// What happens within one tick.
#[derive(Clone, Debug)]
pub struct Round {
    pub change: Change,
    /// New flows that send one packet and are never heard of again.
    pub flood: u8,
    /// A bit for each flow that sends.
    pub send: u32,
    /// A bit for each flow that ends, if it sends.
    pub close: u32,
    /// Whether the table is walked.
    pub census: bool,
}

/// What becomes of a backend, or of the ring.
#[derive(Clone, Debug)]
pub enum Change {
    Nothing,
    /// Drained, or taken out of the configuration.
    Drain(usize),
    /// Configured, up, and not drained.
    Restore(usize),
    Die(usize),
    Weigh(usize, u8),
    /// The same backend gets another record.
    Replace(usize),
    Grow,
    RestartAgent,
}

/// A rule that is left out, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omit {
    Nothing,
    /// A new flow that cannot be recorded goes to `current`.
    RefusedToPrevious,
    /// Refusals are not stamped.
    RefusalProlongs,
    /// Who returns from the dead has the same record.
    NewRecord,
    /// A slot whose `previous` has died is stable at once.
    TrackAfterDeath,
    /// A slot that changes hands is stable at once.
    Learning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Available,
    Draining,
    Dead,
}

#[derive(Clone, Copy, Debug)]
struct Backend {
    state: State,
    weight: u8,
    record: u32,
    deaths: u32,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    backend: usize,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// Whose flow it is, how often that one had died, and when it sent last.
    owner: Option<(usize, u32, Tick)>,
    closing: bool,
}

pub struct Model {
    omit: Omit,
    now: Tick,
    backends: Vec<Backend>,
    /// By index; those in use.
    records: BTreeMap<u32, Record>,
    ring: Vec<Slot>,
    stamps: Vec<Cell<Stamp>>,
    unsettled: Unsettled,
    table: Vec<RefCell<FlowBucket>>,
    flows: Vec<Flow>,
    strangers: u64,
}

impl Model {
    pub fn new(omit: Omit, buckets: u32) -> Self {
        let backend = |record| Backend {
            state: State::Available,
            weight: 1,
            record,
            deaths: 0,
        };
        let record = |backend| Record {
            backend,
            fate: Fate::Serves,
        };
        let mut model = Self {
            omit,
            now: Tick(100),
            backends: (1..=5).map(backend).collect(),
            records: (1..=5).zip((0..5).map(record)).collect(),
            ring: vec![Slot::default(); 4],
            stamps: vec![Cell::default(); MOST_SLOTS],
            unsettled: Unsettled::default(),
            table: (0..buckets).map(|_| RefCell::default()).collect(),
            flows: vec![Flow::default(); FLOWS as usize],
            strangers: 0,
        };
        model.agent_pass();
        model
    }

    /// Fills the table with flows that are still fresh.
    pub fn fill(&mut self) {
        for bucket in &self.table {
            for (n, entry) in (0_u64..).zip(&mut bucket.borrow_mut().0) {
                *entry = FlowEntry::new(hash(1 << 40 | n), 1, self.now);
            }
        }
    }

    pub fn round(&mut self, round: &Round) -> Result<(), String> {
        self.now.0 += 1;
        self.send_some(round, 0)?;
        self.change(&round.change);
        self.send_some(round, 1)?;
        for _ in 0..round.flood {
            self.strangers += 1;
            self.packet(hash(1 << 32 | self.strangers), Segment::Open);
        }
        if round.census {
            self.census();
        }
        self.agent_advance();
        self.send_some(round, 2)
    }

    /// A third of the flows: before, between and after what the agent does.
    fn send_some(&mut self, round: &Round, third: u32) -> Result<(), String> {
        for flow in (0..FLOWS).filter(|flow| flow % 3 == third) {
            if round.send >> flow & 1 != 0 {
                self.send(flow, round.close >> flow & 1 != 0)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, number: u32, close: bool) -> Result<(), String> {
        let flow = self.flows[number as usize];
        let live = flow.owner.filter(|(backend, deaths, last)| {
            let backend = self.backends[*backend];
            let serves = backend.state != State::Dead && backend.deaths == *deaths;
            serves && self.now.0 - last.0 <= u32::from(IDLE)
        });
        let is_udp = number % 4 == 3;
        let (segment, bound) = match live {
            // The same ports again, as a new flow.
            Some(_) if flow.closing && !close => (Segment::Open, None),
            Some(owner) if close && !is_udp => (Segment::Closing, Some(owner)),
            Some(owner) => (Segment::Ongoing, Some(owner)),
            None if is_udp => (Segment::Ongoing, None),
            None => (Segment::Open, None),
        };
        let Some(backend) = self.packet(hash(u64::from(number)), segment) else {
            return Ok(());
        };
        if let Some((owner, ..)) = bound.filter(|(owner, ..)| *owner != backend) {
            return Err(format!(
                "at {} flow {number} of backend {owner} went to {backend}: {segment:?}\n{}",
                self.now.0,
                self.describe()
            ));
        }
        let Backend { state, deaths, .. } = self.backends[backend];
        // The dead answer nobody, so that is no flow.
        let answers = state != State::Dead;
        // The end of a flow is not recorded: it has the idle time to end.
        let last = match bound {
            Some((.., last)) if segment == Segment::Closing => last,
            _ => self.now,
        };
        self.flows[number as usize] = Flow {
            owner: answers.then_some((backend, deaths, last)),
            closing: segment == Segment::Closing,
        };
        Ok(())
    }

    /// The backend that a packet goes to.
    fn packet(&self, hash: u64, segment: Segment) -> Option<usize> {
        let place = hash as usize % self.ring.len();
        let slot = self.ring[place];
        let index = if slot.is_stable() {
            slot.current()
        } else {
            let bucket = flow_bucket(hash, self.table.len() as u32) as usize;
            let memory = Memory {
                model: self,
                bucket: &self.table[bucket],
                stamp: &self.stamps[place],
            };
            let route = route(&memory, slot, hash, segment, self.now, IDLE, IDLE);
            let turned_away = route.basis == Basis::Refused && segment == Segment::Open;
            if turned_away && self.omit == Omit::RefusedToPrevious {
                slot.current()
            } else {
                route.backend
            }
        };
        self.records.get(&index).map(|record| record.backend)
    }

    fn change(&mut self, change: &Change) {
        match *change {
            Change::Nothing => return,
            Change::Drain(b) => {
                let state = &mut self.backends[b].state;
                if *state == State::Available {
                    *state = State::Draining;
                }
            }
            Change::Restore(b) => {
                self.backends[b].state = State::Available;
                let record = self.backends[b].record;
                // It is not if nobody was left when the backend died.
                if self.records[&record].fate == Fate::Dead {
                    self.come_back(b);
                }
            }
            Change::Die(b) => {
                self.backends[b].state = State::Dead;
                self.backends[b].deaths += 1;
            }
            Change::Weigh(b, weight) => self.backends[b].weight = weight,
            Change::Replace(b) => self.replace(b),
            Change::Grow if self.ring.len() < MOST_SLOTS => {
                let size = self.ring.len() as u32 * 2;
                let old = std::mem::take(&mut self.ring);
                self.ring = (0..size).map(|slot| inherit(slot, size, &old)).collect();
                self.adopt();
            }
            Change::Grow => {}
            Change::RestartAgent => self.adopt(),
        }
        self.agent_pass();
    }

    /// The past of the slots is not known.
    fn adopt(&mut self) {
        self.unsettled = Unsettled::default();
        for (slot, word) in (0..).zip(&self.ring) {
            self.unsettled.note(slot, *word, *word, self.now);
        }
    }

    fn come_back(&mut self, backend: usize) {
        if self.omit == Omit::NewRecord {
            self.fate(self.backends[backend].record, Fate::Serves);
        } else {
            self.new_record(backend);
        }
    }

    fn replace(&mut self, backend: usize) {
        if self.backends[backend].state == State::Dead {
            return;
        }
        let old = self.backends[backend].record;
        let new = self.new_record(backend);
        self.fate(old, Fate::Moved(new));
        for record in self.records.values_mut() {
            if record.fate == Fate::Moved(old) {
                record.fate = Fate::Moved(new);
            }
        }
    }

    fn new_record(&mut self, backend: usize) -> u32 {
        let index = (1..).find(|index| !self.records.contains_key(index));
        let index = index.expect("there are many");
        let fate = Fate::Serves;
        self.records.insert(index, Record { backend, fate });
        self.backends[backend].record = index;
        index
    }

    fn fate(&mut self, record: u32, fate: Fate) {
        if let Some(record) = self.records.get_mut(&record) {
            record.fate = fate;
        }
    }

    fn agent_pass(&mut self) {
        let anybody = (0..self.backends.len()).any(|b| self.draws(b) > 0);
        if anybody {
            self.mark_dead();
        }
        for place in 0..self.ring.len() {
            let wanted = anybody.then(|| self.wanted(place));
            let old = self.ring[place];
            let learns = self.omit != Omit::Learning;
            let mut new = turn(old, wanted, learns, |index| self.records[&index].fate);
            let died = old.phase() == Phase::Learn
                && new.phase() == Phase::Track
                && new.current() != old.previous();
            if died && self.omit == Omit::TrackAfterDeath {
                new = Slot::stable(new.current());
            }
            self.ring[place] = new;
            self.unsettled.note(place as u32, old, new, self.now);
        }
    }

    /// Before any slot moves.
    fn mark_dead(&mut self) {
        for record in self.records.values_mut() {
            if self.backends[record.backend].state == State::Dead {
                record.fate = Fate::Dead;
            }
        }
    }

    fn draws(&self, backend: usize) -> u8 {
        let backend = self.backends[backend];
        match backend.state {
            State::Available => backend.weight,
            State::Draining | State::Dead => 0,
        }
    }

    /// The ring: who of the available draws the highest lot of a slot.
    fn wanted(&self, place: usize) -> u32 {
        let lots = (0..self.backends.len()).flat_map(|backend| {
            let seed = (place as u64) << 16 | (backend as u64) << 8;
            let draws = 0..u64::from(self.draws(backend));
            draws.map(move |n| (hash(seed | n), backend))
        });
        let winner = lots.max().map(|(_, backend)| backend);
        winner.map_or(0, |backend| self.backends[backend].record)
    }

    fn agent_advance(&mut self) {
        let (ring, stamps) = (RefCell::new(&mut self.ring), &self.stamps);
        self.unsettled.advance(
            self.now,
            IDLE,
            |slot| {
                let place = slot as usize;
                (ring.borrow()[place], stamps[place].get())
            },
            |slot, word| ring.borrow_mut()[slot as usize] = word,
        );
    }

    /// Frees what is idle or dead, moves what has moved, and gives up records
    /// that nothing names.
    fn census(&mut self) {
        let mut named: BTreeSet<u32> = self.backends.iter().map(|b| b.record).collect();
        for bucket in &self.table {
            for entry in &mut bucket.borrow_mut().0 {
                let fate = self.records.get(&entry.backend()).map(|record| record.fate);
                let fate = fate.filter(|_| entry.is_fresh(self.now, IDLE));
                *entry = match fate {
                    None | Some(Fate::Dead) => FlowEntry::FREE,
                    Some(Fate::Moved(to)) => entry.moved_to(to),
                    Some(Fate::Serves) => *entry,
                };
                named.insert(entry.backend());
            }
        }
        for slot in &self.ring {
            named.extend([slot.current(), slot.previous()]);
        }
        self.records.retain(|index, _| named.contains(index));
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for (place, slot) in self.ring.iter().enumerate() {
            let (phase, stamp) = (slot.phase(), self.stamps[place].get());
            let (previous, current) = (slot.previous(), slot.current());
            let _ = writeln!(
                text,
                "slot {place}: {phase:?} {previous}>{current} {stamp:?}"
            );
        }
        let _ = writeln!(text, "{:?}\n{:?}", self.backends, self.records);
        text
    }
}

/// The memory of one packet.
struct Memory<'a> {
    model: &'a Model,
    bucket: &'a RefCell<FlowBucket>,
    stamp: &'a Cell<Stamp>,
}

impl FlowMemory for Memory<'_> {
    fn load(&self, place: usize) -> FlowEntry {
        self.bucket.borrow().0[place]
    }
    fn swap(&self, place: usize, old: FlowEntry, new: FlowEntry) -> bool {
        let entry = &mut self.bucket.borrow_mut().0[place];
        let same = *entry == old;
        if same {
            *entry = new;
        }
        same
    }
    fn is_ours(&self, backend: u32) -> bool {
        // There is one service.
        self.model.records.contains_key(&backend)
    }
    fn serves(&self, backend: u32) -> bool {
        let record = self.model.records.get(&backend);
        record.is_some_and(|record| record.fate != Fate::Dead)
    }
    fn stamp_foreign(&self, now: Tick) {
        let foreign = now.0;
        self.stamp.update(|stamp| Stamp { foreign, ..stamp });
    }
    fn stamp_refused(&self, now: Tick) {
        let refused = now.0;
        if self.model.omit != Omit::RefusalProlongs {
            self.stamp.update(|stamp| Stamp { refused, ..stamp });
        }
    }
}

/// A number without a pattern (SplitMix64).
fn hash(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
