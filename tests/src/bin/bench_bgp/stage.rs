//! The lab of the benchmark: a router with BIRD, and a host for each speaker.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{Bird, BirdSocket, Lab, Rack, Size, wait_until};

use crate::{
    results::Change,
    speakers::{
        Agent, BirdSpeaker, Exabgp, GobgpSpeaker, LOCAL_AS, ROUTER_AS, ROUTES, Session, Speaker,
    },
};

/// How long all sessions may take to stand.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a change may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at what the router has.
const LOOK: Duration = Duration::from_millis(1);

/// Everything that runs.
pub struct Stage {
    /// The speaker on lb1, and so on; the router's sessions are named after the
    /// hosts.
    pub speakers: Vec<Box<dyn Speaker>>,
    names: Vec<String>,
    socket: BirdSocket,
    _router: Bird,
}

impl Stage {
    /// Builds it, and returns when all sessions stand and nothing is announced.
    pub fn build(lab: &Lab) -> Result<Self> {
        let size = Size {
            balancers: 5,
            backends: 1,
        };
        let rack = Rack::build(lab, size)?;
        let config = router_config() + &Bird::sessions(&rack.balancers, LOCAL_AS, "");
        let router = Bird::start(&rack.router, &config)?;
        let [agent, session, bird, gobgp, exabgp] = rack.balancers.as_slice() else {
            anyhow::bail!("there are {} balancers", rack.balancers.len());
        };
        let speakers: Vec<Box<dyn Speaker>> = vec![
            Box::new(Agent::start(agent, &rack.backends)?),
            Box::new(Session::start(session)?),
            Box::new(BirdSpeaker::start(bird)?),
            Box::new(GobgpSpeaker::start(gobgp)?),
            Box::new(Exabgp::start(exabgp)?),
        ];
        let names: Vec<String> = rack
            .balancers
            .iter()
            .map(|it| it.host.name().to_owned())
            .collect();
        wait_until("all sessions are established", PATIENCE, || {
            names
                .iter()
                .try_for_each(|name| router.ensure_established(name).map(drop))
        })?;
        let mut stage = Self {
            speakers,
            names,
            socket: router.connect()?,
            _router: router,
        };
        for number in 0..stage.speakers.len() {
            stage.wait_for(number, 0)?;
        }
        Ok(stage)
    }

    /// From the order for a change until the router has seen its last route, in
    /// milliseconds.
    pub fn time(&mut self, number: usize, change: Change) -> Result<f64> {
        let (before, after) = match change {
            Change::Announce => (0, ROUTES),
            Change::Withdraw => (ROUTES, 0),
        };
        let there = self.socket.imported(&self.names[number])?;
        let name = self.speakers[number].name();
        ensure!(
            there == before,
            "{name}: {there} routes instead of {before}"
        );
        self.speakers[number].prepare(change)?;
        let start = Instant::now();
        self.speakers[number]
            .order(change)
            .with_context(|| format!("{name}: {change:?}"))?;
        let end = self
            .wait_for(number, after)
            .with_context(|| format!("{name}: {change:?}"))?;
        Ok((end - start).as_secs_f64() * 1e3)
    }

    /// Waits until the router has just so many routes of a speaker.
    fn wait_for(&mut self, number: usize, routes: usize) -> Result<Instant> {
        let start = Instant::now();
        loop {
            let there = self.socket.imported(&self.names[number])?;
            let now = Instant::now();
            if there == routes {
                return Ok(now);
            }
            ensure!(
                now - start < LIMIT,
                "{there} routes after {LIMIT:?} instead of {routes}"
            );
            sleep(LOOK);
        }
    }
}

/// It takes routes in and does nothing with them: the kernel's table would be
/// measured else.
fn router_config() -> String {
    format!(
        "log stderr all;
router id 192.0.2.1;
timeformat protocol iso short ms;
protocol device {{ }}
template bgp balancer {{
    local 192.0.2.1 as {ROUTER_AS};
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    ipv4 {{ import all; export none; }};
}}
"
    )
}
