//! A backend dies: which new connections are still sent to it, when checks notice
//! and when BFD does, and how soon routers are told.

mod connections;
mod results;
mod stage;
mod updates;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use vipd_tests::{Lab, wait_until};

use self::{connections::Connections, stage::Stage};
pub use self::{results::Results, updates::Updates};

/// How long a backend that has returned may take to be found up.
const PATIENCE: Duration = Duration::from_secs(40);
/// The longest that a death waits, so that it comes at any moment between two
/// checks.
const WHENEVER: Duration = Duration::from_millis(100);

/// How backends die, and what notices it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// All packets from and to it vanish; checks notice.
    Vanished,
    /// It accepts no connection any more; checks notice.
    Refusing,
    /// Its packets vanish; BFD notices.
    VanishedWithBfd,
}

/// What clients saw of a death.
pub struct Loss {
    /// Until the last new connection was sent to the dead.
    pub last: Duration,
    /// How many connections were.
    pub lost: usize,
    /// The longest time in which the client itself did not get to send.
    pub stall: Duration,
}

impl Death {
    pub const ALL: [Self; 3] = [Self::Vanished, Self::Refusing, Self::VanishedWithBfd];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Vanished => "its packets vanish; checks",
            Self::Refusing => "it refuses connections; checks",
            Self::VanishedWithBfd => "its packets vanish; BFD 50 ms x 3",
        }
    }

    /// The longest that it may take until the last new connection is sent to the
    /// dead, in milliseconds.
    pub const fn goal_ms(self) -> f64 {
        match self {
            Self::Vanished => 250.0,
            Self::Refusing => 180.0,
            Self::VanishedWithBfd => 220.0,
        }
    }

    fn has_bfd(self) -> bool {
        self == Self::VanishedWithBfd
    }
}

/// Lets backends die by checks or by BFD, so many times in each way.
pub fn measure(lab: &Lab, with_bfd: bool, deaths: u32, results: &mut Results) -> Result<()> {
    let mut stage = Stage::build(lab, with_bfd)?;
    stage.wait_until_ready(PATIENCE)?;
    let before = Updates::of(&stage.agent)?;
    for number in 0..deaths {
        for death in Death::ALL.into_iter().filter(|it| it.has_bfd() == with_bfd) {
            let loss = die(&mut stage, death, number as usize).context(death.name())?;
            eprintln!(
                "    {}: {:.0} ms, {} connections",
                death.name(),
                loss.last.as_secs_f64() * 1e3,
                loss.lost
            );
            results.losses.push((death, loss));
        }
    }
    let updates = Updates::of(&stage.agent)?.since(&before);
    results.updates = std::mem::take(&mut results.updates).and(updates);
    Ok(())
}

fn die(stage: &mut Stage, death: Death, number: usize) -> Result<Loss> {
    stage.wait_until_ready(PATIENCE)?;
    let victim = number % stage.rack.backends.len();
    let connections = Connections::start(&stage.rack.client, stage.target());
    connections.wait_until_calm(Instant::now())?;
    sleep(WHENEVER.mul_f64(fastrand::f64()));

    let dead = Instant::now();
    stage.kill(victim, death)?;
    connections
        .wait_until_calm(dead)
        .context("after the death")?;
    let report = connections.finish()?;
    wait_until("the dead is found dead", PATIENCE, || {
        stage.ensure_dead(victim)
    })?;
    stage.revive(victim, death)?;

    let last = report.last_lost(dead).context("nobody has noticed it")?;
    Ok(Loss {
        last,
        lost: report.lost(),
        stall: report.stall(),
    })
}
