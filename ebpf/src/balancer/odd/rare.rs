//! The closer look into the VIP table: port ranges and prefixes.

use vipd_abi::{
    EntryKind, MOST_LENGTHS, MOST_RANGES, PORT_RANGES, VIP_SLOTS, VipEntry, VipKey,
    address::{is_mapped, words},
};
use vipd_ebpf::anchor::within;

use super::sight::Sight;
use crate::{
    lookup::{Table, same},
    maps,
};

/// The entry of the service: that of its port, or of a range of ports of the
/// address or of a prefix around it, the longest first. Or else the entry of the
/// address or prefix.
#[inline(always)]
pub fn closest(table: &Table, sight: &Sight) -> Option<&'static VipEntry> {
    let [upper, lower] = sight.address();
    match look(table.half, upper, lower, sight.service) {
        NOWHERE => None,
        place => Some(table.entry(place)),
    }
}

/// No place at all.
const NOWHERE: u32 = u32::MAX;

/// The place of that entry. A function of its own, whose arguments are words,
/// as the stack takes no misaligned access; and so is what it returns, since all
/// words are one to the verifier, but each address is another.
#[inline(never)]
fn look(half: u32, upper: u64, lower: u64, service: u32) -> u32 {
    let Some(plane) = maps::plane() else {
        return NOWHERE;
    };
    let table = Table::of_half(plane, half);
    let exact = find(&table, upper, lower, service, EntryKind::Service);
    if exact != NOWHERE {
        return exact;
    }
    let covering = covering(half, upper, lower);
    if covering == NOWHERE {
        return NOWHERE;
    }
    ranged(half, covering, service)
}

/// The place of the entry of the address, or of the longest prefix around it.
#[inline(never)]
fn covering(half: u32, upper: u64, lower: u64) -> u32 {
    let Some(plane) = maps::plane() else {
        return NOWHERE;
    };
    let table = Table::of_half(plane, half);
    let is_v4 = is_mapped([upper, lower]);
    // No length for the address itself.
    let mut length = 0;
    let mut i = 0;
    loop {
        let place = covered(&table, upper, lower, length, is_v4);
        if place != NOWHERE || i == MOST_LENGTHS {
            return place;
        }
        length = if is_v4 {
            table.head.lengths_4[i].into()
        } else {
            table.head.lengths_6[i].into()
        };
        if length == 0 {
            return NOWHERE;
        }
        i += 1;
    }
}

#[inline(always)]
fn find(table: &Table, upper: u64, lower: u64, service: u32, kind: EntryKind) -> u32 {
    let address = words([upper, lower]);
    let key = VipKey { address, service };
    let place = table.place(&key);
    let entry = table.entry(place);
    if same(&entry.key, &key) && entry.kind == kind as u32 {
        place
    } else {
        NOWHERE
    }
}

/// The entry of the address, or of a prefix of it if there is a length.
#[inline(always)]
fn covered(table: &Table, upper: u64, lower: u64, length: u32, is_v4: bool) -> u32 {
    if length == 0 {
        find(table, upper, lower, 0, EntryKind::Address)
    } else {
        let service = VipKey::prefix([0; 4], length).service;
        let (upper, lower) = if is_v4 {
            (upper, lower & mask(32 + length))
        } else {
            (
                upper & mask(length),
                lower & mask(length.saturating_sub(64)),
            )
        };
        find(table, upper, lower, service, EntryKind::Address)
    }
}

/// The service of the first of the entry's ranges that the port is in, or else
/// the entry.
#[inline(never)]
fn ranged(half: u32, place: u32, service: u32) -> u32 {
    let Some(plane) = maps::plane() else {
        return NOWHERE;
    };
    let table = Table::of_half(plane, half);
    let entry = table.entry(place);
    let port = u16::from_be(service as u16);
    let protocol = service >> 16 & 0xff;
    let mut i = 0;
    while i < MOST_RANGES as u32 && i < entry.ranges {
        let range = (entry.ranges_start + i) & (PORT_RANGES - 1);
        let range = within::<{ 2 * PORT_RANGES }>(table.half * PORT_RANGES + range);
        let range = &table.plane.ranges[range];
        if range.protocol == protocol && range.first <= port && port <= range.last {
            return table.half * VIP_SLOTS + (range.place & (VIP_SLOTS - 1));
        }
        i += 1;
    }
    place
}

/// Eight bytes of which the first bits on the wire are set, as they lie in
/// memory.
#[inline(always)]
fn mask(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (!(u64::MAX >> bits)).to_be()
    }
}
