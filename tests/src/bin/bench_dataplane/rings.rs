//! How evenly rings of the default size spread, and what they take.

use std::{net::IpAddr, num::TryFromIntError, sync::Arc};

use serde_json::{Value, json};
use vipd_abi::{Slot, Stamp};
use vipd_control::{
    duty,
    model::{Mode, Protocol},
    ring::{RingBase, default_ring_size},
};
use vipd_tests::bench::service;

/// Numbers of backends: the usual ones, and both sides of each step in size.
const BACKENDS: [u16; 10] = [2, 3, 10, 32, 33, 100, 128, 129, 500, 1000];
/// Sets of addresses that are averaged over.
const SETS: u16 = 10;

/// A ring of the default size.
pub struct Line {
    pub backends: u16,
    pub slots: u32,
    /// Largest share of a backend relative to its fair one, all up.
    pub all_up: f64,
    /// The same with 10 % down, at least one.
    pub tenth_down: f64,
    /// Bytes in the kernel's maps, for slots and stamps.
    pub bytes: u32,
}

/// All of them.
pub fn lines() -> Vec<Line> {
    BACKENDS.into_iter().map(line).collect()
}

fn line(backends: u16) -> Line {
    let slots = default_ring_size(usize::from(backends));
    let down = usize::from(backends.div_ceil(10));
    let mean = |down: usize| {
        let sum: f64 = (0..SETS)
            .map(|set| largest_share(backends, set, down))
            .sum();
        sum / f64::from(SETS)
    };
    Line {
        backends,
        slots,
        all_up: mean(0),
        tenth_down: mean(down),
        bytes: slots * (size_of::<Slot>() + size_of::<Stamp>()) as u32,
    }
}

fn largest_share(backends: u16, set: u16, down: usize) -> f64 {
    let available: Vec<bool> = (0..usize::from(backends)).map(|n| n >= down).collect();
    let base = base(backends, set).ok().map(Arc::new);
    let ring = base.and_then(|base| base.ring(&available));
    ring.map_or(f64::NAN, |ring| ring.balance().max)
}

fn base(backends: u16, set: u16) -> Result<RingBase, TryFromIntError> {
    let address = |n| IpAddr::from([0x2001, 0xdb8, set, 0, 0, 0, 0, n]);
    let service = service(
        "ring",
        (address(0), 80),
        (Protocol::Tcp, Mode::Ipip),
        (1..=backends).map(address),
        default_ring_size(usize::from(backends)),
    )?;
    Ok(RingBase::new(&service, duty::Line::Active))
}

/// For the file of results.
pub fn json(lines: &[Line]) -> Value {
    let line = |line: &Line| {
        json!({
            "backends": line.backends,
            "slots": line.slots,
            "max_over_fair_all_up": line.all_up,
            "max_over_fair_tenth_down": line.tenth_down,
            "bytes": line.bytes,
        })
    };
    lines.iter().map(line).collect()
}

/// For people.
pub fn table(lines: &[Line]) -> String {
    let mut text = "\
        | backends | slots | all up | 10 % down | KiB in the maps |\n\
        |---:|---:|---:|---:|---:|\n"
        .to_owned();
    for line in lines {
        text += &format!(
            "| {:>8} | {:>5} | {:>6.3} | {:>9.3} | {:>15} |\n",
            line.backends,
            line.slots,
            line.all_up,
            line.tenth_down,
            line.bytes / 1024
        );
    }
    text
}
