//! The closer look into the VIP table: port ranges and prefixes.

use vipd_abi::{
    EntryKind, MOST_LENGTHS, MOST_RANGES, PORT_RANGES, VIP_SLOTS, VipEntry, VipKey, within,
};
use vipd_ebpf::anchor::anchor;

use super::sight::Sight;
use crate::{lookup::Table, maps};

/// The entry of the service: that of its port, or of a range of ports of the
/// address or of a prefix around it, the longest first. Or else the entry of the
/// address or prefix.
#[inline(always)]
pub fn closest(table: &Table, sight: &Sight) -> Option<&'static VipEntry> {
    let [upper, lower] = sight.address();
    look(table.half, upper, lower, sight.service)
}

/// A function of its own, whose arguments are words: the stack takes no
/// misaligned access.
#[inline(never)]
fn look(half: u32, upper: u64, lower: u64, service: u32) -> Option<&'static VipEntry> {
    let table = Table::of_half(maps::plane()?, half);
    if let Some(entry) = find(&table, upper, lower, service)
        && entry.kind == EntryKind::Service as u32
    {
        return Some(entry);
    }
    let is_v4 = upper == 0 && lower as u32 == 0xffff_u32.to_be();
    let mut covering = None;
    // No length for the address itself.
    let mut length = 0;
    let mut i = 0;
    loop {
        if let Some(entry) = covered(&table, upper, lower, length, is_v4) {
            if let Some(service) = ranged(&table, entry, service) {
                return Some(service);
            }
            if covering.is_none() {
                covering = Some(entry);
            }
        }
        if i == MOST_LENGTHS {
            return covering;
        }
        length = if is_v4 {
            table.head.lengths_4[i].into()
        } else {
            table.head.lengths_6[i].into()
        };
        if length == 0 {
            return covering;
        }
        i += 1;
    }
}

#[inline(always)]
fn find(table: &Table, upper: u64, lower: u64, service: u32) -> Option<&'static VipEntry> {
    let address = [
        upper as u32,
        (upper >> 32) as u32,
        lower as u32,
        (lower >> 32) as u32,
    ];
    table.find(&VipKey { address, service })
}

/// The entry of the address, or of a prefix of it if there is a length.
#[inline(always)]
fn covered(
    table: &Table,
    upper: u64,
    lower: u64,
    length: u32,
    is_v4: bool,
) -> Option<&'static VipEntry> {
    let entry = if length == 0 {
        find(table, upper, lower, 0)
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
        find(table, upper, lower, service)
    };
    entry.filter(|entry| entry.kind == EntryKind::Address as u32)
}

/// The service of the first of the entry's ranges that the port is in.
#[inline(always)]
fn ranged(table: &Table, entry: &VipEntry, service: u32) -> Option<&'static VipEntry> {
    let port = u16::from_be(service as u16);
    let protocol = service >> 16 & 0xff;
    let mut i = 0;
    while i < MOST_RANGES as u32 && i < entry.ranges {
        let place = (entry.ranges_start + i) & (PORT_RANGES - 1);
        let place = within(table.half * PORT_RANGES + place, 2 * PORT_RANGES);
        let range = &table.plane.ranges[place];
        if range.protocol == protocol && range.first <= port && port <= range.last {
            let place = table.half * VIP_SLOTS + (range.place & (VIP_SLOTS - 1));
            return Some(anchor(&table.plane.entries[within(place, 2 * VIP_SLOTS)]));
        }
        i += 1;
    }
    None
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
