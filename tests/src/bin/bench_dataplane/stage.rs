//! All programs, loaded and filled, and the rounds that measure them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramFd;
use vipd::dataplane::tables::Tables;
use vipd_abi::{BackendKind, BackendRecord, Slot};
use vipd_control::ring::default_ring_size;

use crate::{
    case::{self, Case, EVERY_PACKET, SERVICES, Target, VIP},
    floors::Floor,
    flows,
    packets::{ACK, Kind},
    plan::Plan,
    plane::{self, Plane},
    runner::{Program, Runner},
};

/// Packets of one measurement.
pub const PACKETS: u32 = 1_000_000;
/// Packets before it, to fill the caches with what the case needs.
pub const WARM_UP: u32 = 100_000;
/// Flows that are recorded where flows are.
const RECORDED: u32 = 1_000_000;

/// A case with what it needs, and what it has cost.
pub struct Measured {
    pub case: Case,
    frame: Vec<u8>,
    plan: Plan,
    /// Net of the wrapper, per packet and round.
    pub nanos: Vec<f64>,
}

impl Measured {
    pub fn new(case: Case) -> Self {
        let frame = case.kind.frame();
        let plan = case.kind.plan(&frame, case.flows, case.services);
        Self {
            case,
            frame,
            plan,
            nanos: Vec::new(),
        }
    }
}

/// All programs.
pub struct Stage {
    runner: Runner,
    floors: BTreeMap<Target, Floor>,
    planes: BTreeMap<Target, Plane>,
    /// What the wrapper costs with a program that does nothing, per round, by
    /// (is IPv6, every packet is a flow).
    pub wrapper: BTreeMap<(bool, bool), Vec<f64>>,
}

impl Stage {
    /// Loads and fills what the cases need.
    pub fn new(cases: &[Measured]) -> Result<Self> {
        let mut stage = Self {
            runner: Runner::load()?,
            floors: BTreeMap::new(),
            planes: BTreeMap::new(),
            wrapper: BTreeMap::new(),
        };
        for target in cases.iter().map(|measured| measured.case.target) {
            if !stage.floors.contains_key(&target) && !stage.planes.contains_key(&target) {
                stage
                    .set_up(target)
                    .with_context(|| format!("cannot set up {target:?}"))?;
            }
        }
        Ok(stage)
    }

    fn set_up(&mut self, target: Target) -> Result<()> {
        let ring_size = default_ring_size(usize::from(plane::BACKENDS));
        let floor = match target {
            Target::F1 => Some(Floor::plain("f1")?),
            Target::F2 => Some(Floor::plain("f2")?),
            Target::F3 => Some(Floor::balancer(1, 1, ring_size)?),
            Target::F3Many => Some(Floor::balancer(0, SERVICES, 4096)?),
            _ => None,
        };
        match floor {
            Some(floor) => drop(self.floors.insert(target, floor)),
            None => drop(self.planes.insert(target, plane(target)?)),
        }
        Ok(())
    }

    /// What the kernel says of the target's program.
    pub fn program(&mut self, target: Target) -> Result<Program> {
        if let Some(floor) = self.floors.get_mut(&target) {
            return floor.info();
        }
        let plane = self.planes.get_mut(&target);
        plane.context("no such program")?.info()
    }

    fn fd(&mut self, target: Target) -> Result<ProgramFd> {
        if let Some(floor) = self.floors.get_mut(&target) {
            return floor.program();
        }
        let plane = self.planes.get_mut(&target);
        plane.context("no such program")?.program()
    }

    /// Measures every case once.
    pub fn round(&mut self, cases: &mut [Measured]) -> Result<()> {
        let mut wrapper = BTreeMap::new();
        for measured in cases {
            let (case, plan) = (&measured.case, &mut measured.plan);
            let shape = (plan.is_ipv6 != 0, plan.flows == EVERY_PACKET);
            let base = match wrapper.get(&shape) {
                Some(base) => *base,
                None => {
                    let mut plan = *plan;
                    let frame = &measured.frame;
                    self.runner.run_nothing(&mut plan, frame, WARM_UP)?;
                    let base = self.runner.run_nothing(&mut plan, frame, PACKETS)?.nanos;
                    self.wrapper.entry(shape).or_default().push(base);
                    *wrapper.entry(shape).or_insert(base)
                }
            };
            let program = self.fd(case.target)?;
            let plane = self.planes.get(&case.target);
            if case.target == Target::New
                && let Some(plane) = plane
            {
                flows::clear(plane.tables());
            }
            let before = plane.map(|plane| plane.counted(case.verdict));
            self.runner.run(&program, plan, &measured.frame, WARM_UP)?;
            let ran = self.runner.run(&program, plan, &measured.frame, PACKETS)?;
            let after = plane.map(|plane| plane.counted(case.verdict));
            if let (Some(before), Some(after)) = (before, after) {
                ensure!(
                    after - before == u64::from(WARM_UP + PACKETS),
                    "{}: {} of {} packets were {}",
                    case.name,
                    after - before,
                    WARM_UP + PACKETS,
                    case.verdict.label()
                );
            }
            let expected = plan.length + case.grows;
            ensure!(
                ran.action == case.action && ran.length == expected,
                "{}: XDP's verdict {} and {} bytes, expected {} and {expected}",
                case.name,
                ran.action,
                ran.length,
                case.action,
            );
            measured.nanos.push(ran.nanos - base);
        }
        Ok(())
    }
}

fn plane(target: Target) -> Result<Plane> {
    let tcp = Kind::tcp(VIP, ACK);
    let plan = tcp.plan(&tcp.frame(), RECORDED, 1);
    let learn = |owner, other| Slot::learn(other, owner);
    let track = |owner, _| Slot::track(owner);
    let plane = match target {
        Target::Balancer => Plane::new(&case::services())?,
        Target::Many => Plane::new(&case::many_services())?,
        _ => Plane::new(&case::two_services())?,
    };
    let tables = plane.tables();
    match target {
        Target::Learn | Target::Track => {
            flows::remember(tables);
            if target == Target::Learn {
                flows::change_slots(tables, &tcp, learn)?;
            } else {
                flows::change_slots(tables, &tcp, track)?;
            }
            let recorded = flows::record(tables, &tcp, &plan, RECORDED)?;
            // Buckets run full before the table does.
            ensure!(recorded >= RECORDED / 10 * 9, "{recorded} flows recorded");
        }
        Target::Full => {
            flows::remember(tables);
            flows::change_slots(tables, &tcp, learn)?;
            flows::change_slots(tables, &Kind::tcp(case::OTHER_VIP, ACK), track)?;
            flows::fill(tables, &tcp)?;
        }
        Target::New => {
            flows::remember(tables);
            flows::change_slots(tables, &tcp, learn)?;
        }
        Target::Balancer => tunnel_by_gue(tables, &Kind::tcp(case::VIP_GUE, ACK))?,
        _ => {}
    }
    Ok(plane)
}

/// Makes records of IP in IP over IPv4 such of GUE.
fn tunnel_by_gue(tables: &Tables, kind: &Kind) -> Result<()> {
    const UDP: u32 = 17;
    const IPV4_IN_IP: u32 = 4;
    for index in flows::owners(tables, kind)? {
        let record = tables.records.load(index);
        let gue = BackendRecord {
            kind: BackendKind::Gue4 as u32,
            checksum: record.checksum + UDP - IPV4_IN_IP,
            port: 6080_u16.to_be().into(),
            ..record
        };
        tables.records.store(index, gue);
    }
    Ok(())
}
