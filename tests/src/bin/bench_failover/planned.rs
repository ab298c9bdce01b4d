//! What operators do on purpose, and what a graceful restart is for: no packet may
//! be lost.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{Bird, Rack, Vipd, wait_until};

use crate::{
    pairs::{Pair as _, VipdPair},
    stream::Stream,
};

const PATIENCE: Duration = Duration::from_secs(40);
/// How long a killed agent is away, and a backend drained.
const AWAY: Duration = Duration::from_secs(1);
/// BIRD's words while it keeps the routes of an agent that is away.
const KEPT: &str = "Neighbor graceful restart active";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A backend is drained on both balancers, and taken back.
    Drain,
    /// A balancer is taken out of service by `vipd maint`, and started again.
    Maintenance,
    /// An agent is stopped, with its data plane kept, and another one started.
    Upgrade,
    /// An agent is killed, and started again.
    Kill,
}

/// What became of the packets meanwhile.
pub struct Outcome {
    pub sent: usize,
    pub lost: usize,
}

impl Plan {
    pub const ALL: [Self; 4] = [Self::Drain, Self::Maintenance, Self::Upgrade, Self::Kill];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Drain => "a backend is drained",
            Self::Maintenance => "a balancer leaves for maintenance",
            Self::Upgrade => "an agent is replaced (on_stop = keep)",
            Self::Kill => "an agent is killed (SIGKILL)",
        }
    }

    /// Carries it out at the first balancer, whose session of the router has the
    /// name of its host, while a client counts its packets.
    pub fn carry_out(self, rack: &Rack, router: &Bird, pair: &mut VipdPair) -> Result<Outcome> {
        let ready = |pair: &VipdPair| {
            wait_until("both balancers serve", PATIENCE, || pair.ready()).context(self.name())
        };
        ready(pair)?;
        let stream = Stream::start(&rack.client, pair.target());
        stream.wait_until_calm(Instant::now())?;
        let first = rack.balancers.first().context("no balancer")?;
        let session = first.host.name();
        let event = Instant::now();
        self.happen(&mut pair.agents, &|| {
            let said = router.birdc(&format!("show protocols all {session}"))?;
            ensure!(said.contains(KEPT), "BIRD does not keep the routes: {said}");
            Ok(())
        })?;
        wait_until("the router has its session again", PATIENCE, || {
            router.ensure_established(session)?;
            let said = router.birdc(&format!("show protocols all {session}"))?;
            ensure!(!said.contains(KEPT), "{said}");
            Ok(())
        })?;
        ready(pair)?;
        stream.wait_until_calm(Instant::now())?;
        let report = stream.finish()?;
        let (sent, lost) = (report.sent(), report.lost());
        eprintln!("    {}: {lost} of {sent} packets lost", self.name());
        if lost > 0 {
            eprintln!("{}\n    {}", rack.client.lab().logs(), report.losses(event));
        }
        Ok(Outcome { sent, lost })
    }

    fn happen(self, agents: &mut [Vipd], ensure_kept: &dyn Fn() -> Result<()>) -> Result<()> {
        if self == Self::Drain {
            for agent in &*agents {
                agent.drain(VipdPair::BACKEND, &[])?;
            }
            sleep(AWAY);
            for agent in &*agents {
                agent.undrain(VipdPair::BACKEND)?;
            }
            return Ok(());
        }
        let agent = agents.first_mut().context("no agent")?;
        match self {
            Self::Drain => {}
            Self::Maintenance => {
                agent.command("maint", &[])?;
                agent.process().wait(PATIENCE)?;
            }
            Self::Upgrade => {
                agent.process().terminate(PATIENCE)?;
                wait_until("the router keeps its routes", PATIENCE, ensure_kept)?;
            }
            Self::Kill => {
                agent.process().kill()?;
                sleep(AWAY);
                ensure_kept()?;
            }
        }
        agent.start_again()
    }
}
