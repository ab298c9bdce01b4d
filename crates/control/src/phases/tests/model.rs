//! A service in small: backends, a ring, a flow table, clients. The packets'
//! half is the one the kernel runs, the agent's half the one the agent runs.

mod table;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use vipd_abi::{FlowBucket, FlowEntry, Segment};

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
    /// A bit for each flow that also sends a packet which reads the word before
    /// the change, and is on its way until the agent is done: of the thirds that
    /// send nothing meanwhile.
    pub late: u32,
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
    /// Another backend takes the place of one that is dead.
    Renew(usize),
    /// Packets for it are not sent on, or are again.
    Cut(usize),
    Mend(usize),
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
    /// Nobody counts as having been sent a packet.
    Counting,
    /// Nothing counts as recorded.
    Walking,
    /// A new record has a counter of its own.
    SharedCounter,
    /// Packets on their way are not waited for.
    Grace,
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
    /// Whether packets for it are sent on.
    is_reached: bool,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    backend: usize,
    fate: Fate,
    counter: u32,
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
    /// Packets sent on, by counter.
    counts: RefCell<BTreeMap<u32, u64>>,
    /// When the table was walked last, and the records that it named then.
    walk: Option<(Tick, BTreeSet<u32>)>,
    flows: Vec<Flow>,
    /// Flows with a packet on its way, and the word it has read.
    late: Vec<(u32, Slot)>,
    strangers: u64,
}

impl Model {
    /// At its start `up` of the five backends are available.
    pub fn new(omit: Omit, buckets: u32, up: usize) -> Self {
        let backend = |index: usize| Backend {
            state: match index < up {
                true => State::Available,
                false => State::Dead,
            },
            weight: 1,
            record: index as u32 + 1,
            deaths: 0,
            is_reached: true,
        };
        let record = |backend: usize| Record {
            backend,
            fate: Fate::Serves,
            counter: backend as u32,
        };
        let mut model = Self {
            omit,
            now: Tick(100),
            backends: (0..5).map(backend).collect(),
            records: (1..=5).zip((0..5).map(record)).collect(),
            ring: vec![Slot::default(); 4],
            stamps: vec![Cell::default(); MOST_SLOTS],
            unsettled: Unsettled::default(),
            table: (0..buckets).map(|_| RefCell::default()).collect(),
            counts: RefCell::default(),
            walk: None,
            flows: vec![Flow::default(); FLOWS as usize],
            late: Vec::new(),
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
        self.late = (0..FLOWS)
            .filter(|flow| round.late >> flow & 1 != 0 && flow % 3 != 1)
            .map(|flow| (flow, self.word(hash(u64::from(flow)))))
            .collect();
        self.change(&round.change);
        self.send_some(round, 1)?;
        for _ in 0..round.flood {
            self.strangers += 1;
            let hash = hash(1 << 32 | self.strangers);
            self.packet(self.word(hash), hash, Segment::Open);
        }
        if round.census {
            self.census();
        }
        self.agent_advance();
        for (flow, word) in std::mem::take(&mut self.late) {
            self.send(flow, word, false)?;
        }
        self.send_some(round, 2)
    }

    /// A third of the flows: before, between and after what the agent does.
    fn send_some(&mut self, round: &Round, third: u32) -> Result<(), String> {
        for flow in (0..FLOWS).filter(|flow| flow % 3 == third) {
            if round.send >> flow & 1 != 0 {
                let word = self.word(hash(u64::from(flow)));
                self.send(flow, word, round.close >> flow & 1 != 0)?;
            }
        }
        Ok(())
    }

    /// Sends a packet of a flow that has read this word.
    fn send(&mut self, number: u32, word: Slot, close: bool) -> Result<(), String> {
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
        let Some(backend) = self.packet(word, hash(u64::from(number)), segment) else {
            return Ok(());
        };
        if let Some((owner, ..)) = bound.filter(|(owner, ..)| *owner != backend) {
            return Err(format!(
                "at {} flow {number} of backend {owner} went to {backend}: {segment:?}\n{}",
                self.now.0,
                self.describe()
            ));
        }
        let Backend {
            state,
            deaths,
            is_reached,
            ..
        } = self.backends[backend];
        if !is_reached {
            if bound.is_none() {
                // It has heard nothing of this flow.
                self.flows[number as usize] = Flow::default();
            }
            return Ok(());
        }
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

    /// What a packet finds in the ring.
    fn word(&self, hash: u64) -> Slot {
        self.ring[hash as usize % self.ring.len()]
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
            Change::Renew(b) => self.renew(b),
            Change::Cut(b) => self.backends[b].is_reached = false,
            Change::Mend(b) => self.backends[b].is_reached = true,
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
            let counter = self.counter(backend);
            self.new_record(backend, counter);
        }
    }

    /// That of the backend's present record.
    fn counter(&mut self, backend: usize) -> u32 {
        match self.omit {
            Omit::SharedCounter => self.new_counter(),
            _ => self.records[&self.backends[backend].record].counter,
        }
    }

    /// Those that nobody has any more are used again, from zero.
    fn new_counter(&mut self) -> u32 {
        let is_used = |counter| self.records.values().any(|r| r.counter == counter);
        let counter = (0..).find(|counter| !is_used(*counter));
        let counter = counter.expect("there are many");
        self.counts.borrow_mut().remove(&counter);
        counter
    }

    fn renew(&mut self, backend: usize) {
        let old = self.backends[backend].record;
        if self.records[&old].fate == Fate::Dead {
            let counter = self.new_counter();
            self.new_record(backend, counter);
            self.backends[backend].state = State::Available;
        }
    }

    fn replace(&mut self, backend: usize) {
        if self.backends[backend].state == State::Dead {
            return;
        }
        let old = self.backends[backend].record;
        let counter = self.counter(backend);
        let new = self.new_record(backend, counter);
        self.fate(old, Fate::Moved(new));
        for record in self.records.values_mut() {
            if record.fate == Fate::Moved(old) {
                record.fate = Fate::Moved(new);
            }
        }
    }

    fn new_record(&mut self, backend: usize, counter: u32) -> u32 {
        let index = (1..).find(|index| !self.records.contains_key(index));
        let index = index.expect("there are many");
        let record = Record {
            backend,
            fate: Fate::Serves,
            counter,
        };
        self.records.insert(index, record);
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
        for (slot, old, new) in self.due() {
            self.ring[slot as usize] = new;
            self.unsettled.note(slot, old, new, self.now);
        }
    }

    fn due(&self) -> Vec<(u32, Slot, Slot)> {
        let counts = self.counts.borrow();
        let records = self.records.iter();
        let mut evidence = Evidence::new(
            records.map(|(index, record)| (*index, record.counter)),
            |counter| self.omit != Omit::Counting && counts.contains_key(&counter),
        );
        if let Some((began, named)) = &self.walk {
            let names = |record| self.omit != Omit::Walking && named.contains(&record);
            evidence = evidence.with_walk(*began, names);
        }
        let early = self.early();
        let (now, idle) = (Tick(self.now.0 + early), IDLE + early as u16);
        let load = |slot| (self.ring[slot as usize], self.stamps[slot as usize].get());
        self.unsettled.due(load, &evidence, now, idle)
    }

    /// How much later the agent takes it to be when it does not wait for packets
    /// on their way.
    fn early(&self) -> u32 {
        if self.omit == Omit::Grace { 2 } else { 0 }
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

/// A number without a pattern (SplitMix64).
fn hash(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
