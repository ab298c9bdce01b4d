//! How evenly rings of the default size spread, and what they take.

use std::{net::IpAddr, num::NonZeroU16, sync::Arc, time::Duration};

use serde_json::{Value, json};
use vipd_abi::{Slot, Stamp};
use vipd_control::{
    model::{Backend, Check, CheckKind, Mode, Protocol, Service, Timing},
    ring::{RingBase, default_ring_size},
};

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
    let service = service(backends, set);
    let available: Vec<bool> = (0..usize::from(backends)).map(|n| n >= down).collect();
    let ring = Arc::new(RingBase::new(&service)).ring(&available);
    ring.map_or(f64::NAN, |ring| ring.balance().max)
}

fn service(backends: u16, set: u16) -> Service {
    let port = NonZeroU16::MIN;
    let address = |n: u16| {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([0x2001, 0xdb8, set, 0, 0, 0, u16::from(high), u16::from(low)])
    };
    Service {
        name: "ring".into(),
        vips: vec![address(0)],
        protocol: Protocol::Tcp,
        port,
        mode: Mode::Ipip,
        min_healthy: 1,
        ring_size: default_ring_size(usize::from(backends)),
        check: Check {
            kind: CheckKind::None,
            port,
            source: None,
            timing: Timing {
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: 1,
                fall: 1,
                jitter_permille: 0,
            },
        },
        backends: (1..=backends)
            .map(|n| Backend {
                name: format!("{n:04}").as_str().into(),
                address: address(n),
                weight: 1,
            })
            .collect(),
    }
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
