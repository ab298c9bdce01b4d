//! `killed_agent PINS SEED [rest]`: takes over a data plane as an agent does, checks
//! that what it finds is consistent, says `ready`, and changes it at random
//! until it is killed, or lets it come to rest and says `at rest`. The other
//! process of the tests of killed agents.

mod check;
mod world;

use std::{
    env,
    path::Path,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd::dataplane::{apply::Applier, census::Census, clock::Ticker, kernel::Kernel};
use vipd_control::decide::{Decider, Desired};

use self::{check::Findings, world::World};

/// Nobody needs it longer, if its parent is gone.
const LIFE: Duration = Duration::from_secs(20);
/// More than the time for which indices rest: what was given back by one
/// change is handed out again by the next, as far as the applier dares.
const STEP: Duration = Duration::from_millis(150);
/// Passes after which nothing is left to do.
const PASSES: usize = 4;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let pins = arguments.next().context("no path for the pins")?;
    let seed = arguments.next().context("no seed")?.parse()?;

    let (mut kernel, tables) = Kernel::load(Some(Path::new(&pins)), false)?;
    kernel.settle();
    let found = check::tables(&tables).context("as the last agent left it")?;
    check::packets(&mut kernel, &found).context("as the last agent left it")?;

    let _ticker = Ticker::start(Arc::clone(&tables.clock))?;
    let mut agent = Agent {
        applier: Applier::new(tables, world::settings()),
        decider: Decider::new([0; 16]),
        desired: Desired::default(),
        now: Instant::now(),
    };
    let mut world = World::new(seed);
    let settled = agent.settle(&world)?;
    check::packets(&mut kernel, &settled).context("once the new agent has applied its state")?;
    println!("ready {}", found.unfinished);
    if arguments.next().as_deref() == Some("rest") {
        agent.rest(&world)?;
        println!("at rest");
        return Ok(());
    }

    let end = Instant::now() + LIFE;
    while Instant::now() < end {
        world.change();
        agent.pass(&world);
    }
    Ok(())
}

struct Agent {
    applier: Applier,
    decider: Decider,
    desired: Desired,
    /// Runs ahead of the clock.
    now: Instant,
}

impl Agent {
    /// One change of state, one pass of the applier.
    fn pass(&mut self, world: &World) -> vipd::dataplane::apply::Applied {
        let view = |_: &_, backend: &_| world.is_up(backend);
        self.desired = self.decider.decide(&world.model(), &view, &self.desired);
        self.now += STEP;
        self.applier.review();
        self.applier
            .apply(&self.desired, &world.reach(), false, self.now)
    }

    /// Applies until nothing is left to do but to wait.
    fn settle(&mut self, world: &World) -> Result<Findings> {
        let mut applied = self.pass(world);
        for _ in 1..PASSES {
            applied = self.pass(world);
        }
        ensure!(applied.faults.is_empty(), "faults: {:?}", applied.faults);
        let found = check::tables(self.applier.tables()).context("after the first passes")?;
        Ok(found)
    }

    /// Until nothing is in use but what is configured: slots have come to rest,
    /// and what killed agents have left is given back.
    fn rest(&mut self, world: &World) -> Result<()> {
        let census = Census::new(self.applier.tables());
        let wanted: usize = world.services().map(|s| s.backends.len()).sum();
        let end = Instant::now() + LIFE;
        loop {
            let applied = self.pass(world);
            let used = |map: &str| applied.usage.iter().find(|usage| usage.map == map);
            let used = used("backends").context("no usage of the records")?;
            if used.used as usize == wanted {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{} records in use for {wanted} backends after {LIFE:?}",
                used.used
            );
            let count = census.walk(&self.applier.orders(), Instant::now());
            self.applier.counted(Arc::new(count));
            sleep(STEP);
        }
    }
}
