//! All programs, loaded and filled, and the rounds that measure them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::ProgramFd;
use vipd_abi::Slot;
use vipd_control::ring::default_ring_size;

use crate::{
    case::{self, Case, SERVICES, Target, VIP},
    floors::Floor,
    flows,
    packets::{ACK, Kind},
    plan::Plan,
    plane::{self, Plane},
    runner::{Program, Runner},
    steps::Steps,
};

/// Packets of a slice.
pub const SLICE: u32 = 250_000;
/// Undisturbed slices that make a measurement.
const SLICES: u32 = 3;
/// Slices at which it ends, however disturbed they were.
const MOST_SLICES: u32 = 12;
/// Times that a case is measured in a round until one was undisturbed.
const PASSES: u32 = 4;
/// Packets before, to fill the caches with what the case needs.
const WARM_UP: u32 = 100_000;
/// Flows that are recorded where flows are.
const RECORDED: u32 = 1_000_000;

/// A case with what it needs, and what it has cost.
pub struct Measured {
    pub case: Case,
    frame: Vec<u8>,
    plan: Plan,
    /// What one packet makes the program do.
    pub steps: Steps,
    /// Net of the wrapper, per packet and round.
    pub nanos: Vec<f64>,
}

impl Measured {
    pub fn new(case: Case) -> Self {
        let frame = case.kind.frame();
        let mut plan = case.kind.plan(&frame, case.flows, case.services);
        plan.is_cut = u32::from(case.rarely.is_some());
        Self {
            case,
            frame,
            plan,
            steps: Steps::default(),
            nanos: Vec::new(),
        }
    }
}

/// What the wrapper's cost depends on: whether it makes IPv6 packets, whether
/// every packet is a flow of its own, whether frames may be cut.
type Shape = (bool, bool, bool);

fn shape(plan: &Plan) -> Shape {
    (plan.is_ipv6 != 0, plan.flows == 0, plan.is_cut != 0)
}

/// All programs.
pub struct Stage {
    runner: Runner,
    floors: BTreeMap<Target, Floor>,
    planes: BTreeMap<Target, Plane>,
    /// What the wrapper costs with a program that does nothing, each time.
    pub wrapper: Vec<f64>,
    /// The quickest of them, by what it has to do.
    quickest: BTreeMap<Shape, f64>,
    /// Measurements, and those without an undisturbed slice.
    measurements: usize,
    disturbed: usize,
}

impl Stage {
    /// Loads and fills what the cases need.
    pub fn new(cases: &[Measured]) -> Result<Self> {
        let mut stage = Self {
            runner: Runner::load()?,
            floors: BTreeMap::new(),
            planes: BTreeMap::new(),
            wrapper: Vec::new(),
            quickest: BTreeMap::new(),
            measurements: 0,
            disturbed: 0,
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

    /// Which part of the measurements was disturbed all the time.
    pub fn disturbed(&self) -> f64 {
        self.disturbed as f64 / self.measurements as f64
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

    /// Counts what one packet of each case makes the program do. How many flows
    /// there are makes no difference: the first packet is of the first flow.
    pub fn follow(&mut self, cases: &mut [Measured]) -> Result<()> {
        let mut followed: BTreeMap<(&str, u32), Steps> = BTreeMap::new();
        for Measured {
            case, frame, steps, ..
        } in cases
        {
            let key = (case.name, case.services);
            *steps = match followed.get(&key) {
                Some(steps) => *steps,
                None => *followed.entry(key).or_insert(self.steps(case, frame)?),
            };
        }
        Ok(())
    }

    fn steps(&mut self, case: &Case, frame: &[u8]) -> Result<Steps> {
        let floor = self.floors.get(&case.target);
        let steps = match (floor, self.planes.get_mut(&case.target)) {
            (Some(floor), _) => floor.follow(frame),
            (None, Some(plane)) => plane.follow(frame),
            (None, None) => bail!("no such program"),
        };
        let steps = steps.with_context(|| format!("cannot follow a packet: {}", case.name))?;
        ensure!(
            case.rarely.is_some() || steps.action == case.action,
            "{}: followed, XDP's verdict is {} and not {}",
            case.name,
            steps.action,
            case.action
        );
        Ok(steps)
    }

    /// Measures every case once. What others disturb throughout is measured again
    /// at the end of the round, when they may have gone, and counts instead.
    pub fn round(&mut self, cases: &mut [Measured]) -> Result<()> {
        self.measurements += cases.len();
        let mut due: Vec<_> = cases.iter_mut().collect();
        for pass in 0..PASSES {
            let mut disturbed = Vec::new();
            for measured in due {
                let (nanos, is_quiet) = self.measure_counted(measured)?;
                if pass > 0 {
                    measured.nanos.pop();
                }
                measured.nanos.push(nanos);
                if !is_quiet {
                    disturbed.push(measured);
                }
            }
            due = disturbed;
        }
        self.disturbed += due.len();
        Ok(())
    }

    /// Measures a case, and makes sure that its packets met what they should.
    fn measure_counted(&mut self, measured: &mut Measured) -> Result<(f64, bool)> {
        let before = self.counted(&measured.case);
        let made = measured.plan.made;
        let found = self.measure(measured)?;
        if let (Some(before), Some(after)) = (before, self.counted(&measured.case)) {
            let packets = measured.plan.made - made;
            measured.case.check_count(after - before, packets)?;
        }
        Ok(found)
    }

    /// Measures a case in slices, of which the quickest counts: what disturbs a
    /// processor only ever takes time. Between them the wrapper is measured
    /// alone. When it is slower than it can be, somebody is in the way, perhaps
    /// on the other half of the core, and more slices are taken. Says too whether
    /// any of them was undisturbed.
    fn measure(&mut self, measured: &mut Measured) -> Result<(f64, bool)> {
        let Measured {
            case, frame, plan, ..
        } = measured;
        let program = self.fd(case.target)?;
        let (mut least, mut nothing) = (f64::INFINITY, f64::INFINITY);
        let (mut slices, mut quiet) = (0, 0);
        self.runner.run(&program, plan, frame, WARM_UP)?;
        let mut alone = self.alone(plan, frame)?;
        while quiet < SLICES && slices < MOST_SLICES {
            if case.target == Target::New
                && let Some(plane) = self.planes.get(&case.target)
            {
                flows::clear(plane.tables());
            }
            let ran = self.runner.run(&program, plan, frame, SLICE)?;
            case.check(&ran, plan.length)?;
            let next = self.alone(plan, frame)?;
            least = least.min(ran.nanos);
            nothing = nothing.min(next).min(alone);
            slices += 1;
            quiet += u32::from(next.max(alone) < 1.05 * self.quickest[&shape(plan)]);
            alone = next;
        }
        self.wrapper.push(nothing);
        Ok((least - nothing, quiet > 0))
    }

    /// What the wrapper costs with a program that does nothing.
    fn alone(&mut self, plan: &Plan, frame: &[u8]) -> Result<f64> {
        let mut plan = *plan;
        let nanos = self.runner.run_nothing(&mut plan, frame, SLICE)?.nanos;
        let quickest = self.quickest.entry(shape(&plan)).or_insert(nanos);
        *quickest = quickest.min(nanos);
        Ok(nanos)
    }

    /// Packets that met the fate that the case expects.
    fn counted(&self, case: &Case) -> Option<u64> {
        let plane = self.planes.get(&case.target)?;
        let rarely = case.rarely.map_or(0, |verdict| plane.counted(verdict));
        Some(plane.counted(case.verdict) + rarely)
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
        _ => {}
    }
    Ok(plane)
}
