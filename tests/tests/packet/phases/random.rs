//! Random changes by the real agent's code, random flows by the real program.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fastrand::Rng;
use vipd_abi::Tick;
use vipd_control::standing::Standing;

use super::lab::{ACK, BACKENDS, Lab, SYN};
use crate::bench::address;

/// What is known of a flow of the random run.
#[derive(Clone, Copy)]
struct Flow {
    backend: usize,
    deaths: u32,
    sent: Tick,
}

#[test]
fn under_random_changes_no_flow_leaves_a_backend_that_can_serve_it() {
    const FLOWS: u16 = 24;
    let idle = Duration::from_millis(402);
    let ticks = Tick::covering(idle.as_nanos() as u64) as u32;
    let mut lab = Lab::new("random", 4, idle);
    let mut random = Rng::with_seed(7);
    let mut flows: BTreeMap<u16, Flow> = BTreeMap::new();
    let mut deaths = [0; 4];
    let mut history = Vec::new();
    let (mut held, mut stranger) = (0_u32, 0_u16);
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        for _ in 0..16 {
            let port = 10_000 + random.u16(..FLOWS);
            let known = flows.get(&port).copied();
            let known = known.filter(|flow| {
                let standing = lab.standing[&address(BACKENDS[flow.backend])];
                standing != Standing::Dead && deaths[flow.backend] == flow.deaths
            });
            let found = lab.send(port, if known.is_some() { ACK } else { SYN });
            let sent = lab.sent[&port];
            let backend = BACKENDS.iter().position(|b| address(b) == found);
            let backend = backend.expect("one of the backends");
            let now = lab.tick();
            let live = known.filter(|flow| now.0 - flow.sent.0 <= ticks);
            if let Some(flow) = live {
                held += 1;
                assert_eq!(backend, flow.backend, "port {port}: {history:#?}");
            }
            if lab.standing[&found] == Standing::Dead {
                flows.remove(&port);
            } else {
                let flow = Flow {
                    backend,
                    deaths: deaths[backend],
                    sent,
                };
                flows.insert(port, flow);
            }
        }
        for _ in 0..random.u64(..8) {
            stranger = stranger.wrapping_add(1);
            lab.send(20_000 + stranger % 40_000, SYN);
        }
        let backend = random.usize(..4);
        let what = random.u64(..24);
        match what {
            0 | 1 => lab.set(backend, Standing::Draining),
            2 => lab.set(backend, Standing::Failing),
            3 | 4 => {
                deaths[backend] += 1;
                lab.set(backend, Standing::Dead);
            }
            5..=8 => lab.set(backend, Standing::Available),
            9 => lab.change(|s| {
                let weight = &mut s.backends[backend].weight;
                *weight = 1 + *weight % 3;
            }),
            10 => {
                for way in lab.ways.values_mut() {
                    let last = 11 + random.u64(..4);
                    way.source = Some(address(&format!("192.0.2.{last}")));
                }
                lab.apply();
            }
            11 => {
                // A new agent: what it had known is in the maps.
                lab.start_agent();
                lab.apply();
            }
            12..=15 => lab.tend(),
            _ => continue,
        }
        let left = end.saturating_duration_since(Instant::now());
        history.push(format!("{left:?}: {what} {backend} {:?}", lab.phases()));
    }
    assert!(held > 20, "only {held} packets of live flows: {history:#?}");
}
