//! Fragments: the later ones have no ports and follow the first.

use vipd_abi::{
    BACKENDS, FLOWS_PER_BUCKET, FRAGMENT_BUCKETS, FlowEntry, Head, Plane, flow_bucket, flow_hash,
};
use vipd_ebpf::anchor::within;
use vipd_ebpf::header::IPV6_FRAGMENT;

use super::{now, sight::Sight};
use crate::{
    flow::{self, Bucket},
    maps,
    parse::Family,
};

/// Which part of a packet it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Piece {
    Whole,
    /// The first fragment, the one with the ports.
    First,
    Later,
}

/// How long the later fragments may take, in ticks: about 4 s.
const LIFETIME: u16 = 30;

/// Hash of what the fragments of a packet have in common (RFC 791; RFC 8200,
/// section 4.5).
#[inline(always)]
pub fn hash(head: &Head, sight: &Sight) -> u64 {
    let protocol = match sight.family {
        Family::V4 => sight.protocol,
        Family::V6 => IPV6_FRAGMENT,
    };
    flow_hash(
        head.flow_key,
        sight.source,
        sight.destination,
        sight.id,
        protocol,
    )
}

/// The record of the backend that had the first fragment; 0 if none had, or is
/// no more.
#[inline(never)]
pub fn known(hash: u64) -> u32 {
    let Some(plane) = maps::plane() else {
        return 0;
    };
    let bucket = bucket(plane, hash);
    let now = now();
    let mut place = 0;
    while place < FLOWS_PER_BUCKET {
        let entry = bucket.load(place);
        if entry.is_of(hash) && entry.is_fresh(now, LIFETIME) {
            let backend = entry.backend();
            let record = &plane.records[within::<BACKENDS>(backend)];
            return if flow::is_alive(record) { backend } else { 0 };
        }
        place += 1;
    }
    0
}

/// Remembers where the first fragment went. A full bucket refuses: packets that
/// are on their way are never forgotten for new ones.
#[inline(never)]
pub fn record(hash: u64, backend: u32) -> u32 {
    let Some(plane) = maps::plane() else {
        return 0;
    };
    let bucket = bucket(plane, hash);
    let now = now();
    let new = FlowEntry::new(hash, backend, now);
    let mut free = None;
    let mut place = 0;
    while place < FLOWS_PER_BUCKET {
        let entry = bucket.load(place);
        if entry.is_of(hash) {
            free = Some((place, entry));
            break;
        }
        if free.is_none() && (entry.backend() == 0 || !entry.is_fresh(now, LIFETIME)) {
            free = Some((place, entry));
        }
        place += 1;
    }
    match free {
        Some((place, old)) => u32::from(bucket.swap(place, old, new)),
        None => 0,
    }
}

#[inline(always)]
fn bucket(plane: &Plane, hash: u64) -> Bucket {
    Bucket::of(&plane.fragments[within::<FRAGMENT_BUCKETS>(flow_bucket(hash, FRAGMENT_BUCKETS))])
}
