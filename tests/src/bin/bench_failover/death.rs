//! A host dies: its carrier stays, its packets vanish. What a client sees of it.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use vipd_tests::{Machine, Rack, wait_until};

use crate::{pairs::Pair, stream::Stream};

/// How long both may take to stand by each other.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the client saw.
pub struct Death {
    /// Who died.
    pub victim: Machine,
    /// Just before it did.
    pub at: SystemTime,
    /// Until no flow lost packets any more.
    pub gap: Duration,
    /// How many packets were lost.
    pub lost: usize,
    /// The longest time in which the client itself did not get to send.
    pub stall: Duration,
}

/// Lets one of the two die, and revives it.
pub fn die(rack: &Rack, pair: &mut dyn Pair) -> Result<Death> {
    let name = pair.name();
    let victim = wait_until("both stand by each other", PATIENCE, || pair.ready());
    let victim = victim.context(name)?;
    let stream = Stream::start(&rack.client, pair.target());
    stream.wait_until_calm(Instant::now()).context(name)?;

    let (at, dead) = (SystemTime::now(), Instant::now());
    rack.unplug_silently(&victim)?;
    stream
        .wait_until_calm(dead)
        .with_context(|| format!("{name}, after a death"))?;
    let report = stream.finish()?;
    rack.plug_in(&victim)?;
    pair.revived();

    let gap = report.gaps(dead)?.into_iter().max();
    let gap = gap.with_context(|| format!("{name}: nobody has noticed a death"))?;
    let (lost, stall) = (report.lost(), report.stall());
    eprintln!("    {name}: {:.0} ms", gap.as_secs_f64() * 1e3);
    Ok(Death {
        victim,
        at,
        gap,
        lost,
        stall,
    })
}
