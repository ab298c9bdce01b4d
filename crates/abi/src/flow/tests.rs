//! The rules, packet by packet, over a bucket in ordinary memory.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    vec::Vec,
};

use super::*;

const IDLE: u16 = 100;
const HASH: u64 = 0xdead_beef_0123_4567;

/// First record of another service.
const STRANGER: u32 = 1000;

#[derive(Default)]
struct Memory {
    bucket: RefCell<[FlowEntry; FLOWS_PER_BUCKET]>,
    dead: RefCell<BTreeSet<u32>>,
    foreign: Cell<u32>,
    refused: Cell<u32>,
}

impl FlowMemory for Memory {
    fn load(&self, place: usize) -> FlowEntry {
        self.bucket.borrow()[place]
    }
    fn swap(&self, place: usize, old: FlowEntry, new: FlowEntry) -> bool {
        let entry = &mut self.bucket.borrow_mut()[place];
        let same = *entry == old;
        if same {
            *entry = new;
        }
        same
    }
    fn is_ours(&self, backend: u32) -> bool {
        backend < STRANGER
    }
    fn serves(&self, backend: u32) -> bool {
        !self.dead.borrow().contains(&backend)
    }
    fn stamp_foreign(&self, now: Tick) {
        self.foreign.set(now.0);
    }
    fn stamp_refused(&self, now: Tick) {
        self.refused.set(now.0);
    }
}

impl Memory {
    fn send(&self, slot: Slot, segment: Segment, now: u32) -> (u32, Basis) {
        let route = route(self, slot, HASH, segment, Tick(now), IDLE, IDLE);
        (route.backend, route.basis)
    }

    fn fill(&self, now: u32) {
        for (n, entry) in self.bucket.borrow_mut().iter_mut().enumerate() {
            *entry = FlowEntry::new(!HASH ^ (n as u64) << 40, 9, Tick(now));
        }
    }

    fn entries(&self) -> Vec<FlowEntry> {
        let bucket = self.bucket.borrow();
        bucket
            .iter()
            .copied()
            .filter(|e| e.backend() != 0)
            .collect()
    }
}

#[test]
fn while_a_slot_learns_new_flows_are_recorded_and_old_ones_stay() {
    let slot = Slot::learn(1, 2);
    let cases = [
        ("a SYN", Segment::Open, 2, Basis::NewlyRecorded),
        ("an ACK", Segment::Ongoing, 1, Basis::NewlyRecorded),
        ("a FIN", Segment::Closing, 1, Basis::Previous),
        ("a SYN and ACK", Segment::Odd, 1, Basis::Previous),
        ("an ICMP error", Segment::About, 1, Basis::Previous),
    ];
    for (what, segment, backend, basis) in cases {
        let memory = Memory::default();
        assert_eq!(memory.send(slot, segment, 50), (backend, basis), "{what}");
        let recorded = usize::from(basis == Basis::NewlyRecorded);
        assert_eq!(memory.entries().len(), recorded, "{what}");
        let foreign = backend != 2 && segment != Segment::About;
        assert_eq!(memory.foreign.get() != 0, foreign, "{what}");
    }
}

#[test]
fn with_a_full_bucket_nothing_is_evicted_and_new_flows_go_to_the_old_owner() {
    let slot = Slot::learn(1, 2);
    for segment in [Segment::Open, Segment::Ongoing] {
        let memory = Memory::default();
        memory.fill(50);
        let before = memory.entries();
        assert_eq!(memory.send(slot, segment, 50), (1, Basis::Refused));
        assert_eq!(memory.entries(), before, "nothing is evicted");
        assert_eq!(memory.refused.get(), 50, "the refusal is stamped");
        let late = 50 + u32::from(IDLE) + 1;
        let (_, basis) = memory.send(slot, segment, late);
        assert_eq!(basis, Basis::NewlyRecorded, "what is idle makes room");
    }
}

#[test]
fn an_entry_of_another_service_with_the_same_mark_is_left_alone() {
    let slot = Slot::learn(1, 2);
    let memory = Memory::default();
    let entry = FlowEntry::new(HASH, STRANGER, Tick(10));
    memory.bucket.borrow_mut()[0] = entry;
    for segment in [Segment::About, Segment::Open, Segment::Ongoing] {
        memory.send(slot, segment, 10 + u32::from(IDLE) / 2);
        assert_eq!(memory.entries()[0], entry, "{segment:?}");
    }
    assert_eq!(memory.entries().len(), 2, "the flow has one of its own");
    let found = memory.send(slot, Segment::Ongoing, 10 + u32::from(IDLE) / 2);
    assert_eq!(found, (2, Basis::Recorded));
}

#[test]
fn while_a_slot_tracks_only_recorded_flows_go_elsewhere() {
    let memory = Memory::default();
    memory.send(Slot::learn(1, 2), Segment::Ongoing, 10);
    let track = Slot::track(2);
    memory.foreign.set(0);
    assert_eq!(
        memory.send(track, Segment::Ongoing, 60),
        (1, Basis::Recorded)
    );
    assert_eq!(memory.foreign.get(), 60, "foreign use is stamped");
    let late = 60 + u32::from(IDLE) + 1;
    assert_eq!(
        memory.send(track, Segment::Ongoing, late),
        (2, Basis::Current),
        "an idle flow has ended"
    );
    assert!(memory.entries().is_empty(), "and nothing is recorded");
}

#[test]
fn a_pure_syn_takes_over_a_closing_flow_and_no_other() {
    let memory = Memory::default();
    let slot = Slot::learn(1, 2);
    memory.send(slot, Segment::Ongoing, 10);
    assert_eq!(
        memory.send(slot, Segment::Open, 11),
        (1, Basis::Recorded),
        "a spoofed SYN flips no flow"
    );
    assert_eq!(
        memory.send(slot, Segment::Closing, 12),
        (1, Basis::Recorded)
    );
    assert_eq!(
        memory.send(slot, Segment::Ongoing, 13),
        (1, Basis::Recorded),
        "a closing flow goes on to its end"
    );
    assert_eq!(
        memory.send(slot, Segment::Open, 14),
        (2, Basis::NewlyRecorded)
    );
    assert_eq!(memory.entries().len(), 1);
}

#[test]
fn flows_of_a_dead_backend_end() {
    let memory = Memory::default();
    memory.send(Slot::learn(1, 2), Segment::Ongoing, 10);
    memory.dead.borrow_mut().insert(1);
    assert_eq!(
        memory.send(Slot::track(2), Segment::Ongoing, 11),
        (2, Basis::Current)
    );
}

#[test]
fn an_icmp_error_follows_its_flow_and_changes_nothing() {
    let memory = Memory::default();
    memory.send(Slot::learn(1, 2), Segment::Ongoing, 10);
    let before = memory.entries();
    memory.foreign.set(0);
    assert_eq!(
        memory.send(Slot::track(2), Segment::About, 50),
        (1, Basis::Recorded)
    );
    assert_eq!((memory.entries(), memory.foreign.get()), (before, 0));
}

#[test]
fn an_entry_keeps_its_fields_apart() {
    let entry = FlowEntry::new(HASH, 0xf_ffff, Tick(0x1_fffe));
    assert_eq!((entry.backend(), entry.seen()), (0xf_ffff, 0xfffe));
    assert!(entry.is_of(HASH) && !entry.is_of(HASH ^ 1 << 37));
    assert!(!entry.is_closing());
    let later = entry.refreshed(Tick(0x2_0003), true);
    assert_eq!((later.seen(), later.is_closing()), (3, true));
    assert!(later.is_of(HASH), "{later:?}");
    assert_eq!(later.backend(), 0xf_ffff);
    assert!(later.is_fresh(Tick(0x2_0002), 0), "another clock is behind");
    assert!(entry.is_fresh(Tick(0x2_0003), 5), "time wraps");
    assert!(!entry.is_fresh(Tick(0x2_0004), 5), "time wraps");
}

#[test]
fn segments_follow_from_tcp_flags() {
    let cases = [
        (0x02, Segment::Open),
        (0xc2, Segment::Open), // with ECN set up
        (0x10, Segment::Ongoing),
        (0x18, Segment::Ongoing),
        (0x11, Segment::Closing),
        (0x04, Segment::Closing),
        (0x14, Segment::Closing),
        (0x12, Segment::Odd),
        (0x00, Segment::Odd),
        (0x03, Segment::Closing),
    ];
    for (flags, expected) in cases {
        assert_eq!(Segment::of_tcp(flags), expected, "flags {flags:#04x}");
    }
}
