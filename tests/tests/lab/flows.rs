//! Ten thousand established connections through every change there is.
//!
//! lb1 gets all packets of the VIP, whoever announces it, until the end, when
//! the connections move to lb2. What of them breaks must have been on a backend
//! that was killed.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{AgentConfig, Fate, Flow, FlowPlan, FlowReport, Flows, Lab, Nginx, Site, Size};

use crate::support::{VIP, in_lab};

const NUMBER: usize = 10_000;
/// One of so many ends with each change, and another one is opened.
const RENEWED: usize = 100;
/// Longer than any connection is silent.
const MEMORY: &str = "flow_idle = \"8s\"\n";
const PAUSE: Duration = Duration::from_millis(1200);

#[test]
fn ten_thousand_connections_outlive_twenty_changes_a_restart_and_a_move() {
    in_lab(|lab| {
        let mut story = Story::begin(lab, MEMORY)?;
        story.site.wait_until_settled()?;
        story.open()?;
        let opened = Instant::now();

        story.configure("b4 is added", &[1, 1, 1, 1])?;
        story.configure("b2 gets more weight", &[1, 3, 1, 1])?;
        story.drain("b1", true)?;
        story.drain("b1", false)?;
        story.configure("b2 gets its old weight", &[1, 1, 1, 1])?;
        story.drain("b4", true)?;
        story.end_those_on("b4")?;
        story.configure("b4 is removed", &[1, 1, 1])?;
        story.kill("b3")?;
        story.bring_back("b3")?;
        story.configure("b4 is added with double weight", &[1, 1, 1, 2])?;
        story.replace_the_agent()?;
        story.drain("b2", true)?;
        story.configure("b1 gets more weight", &[2, 1, 1, 2])?;
        story.drain("b2", false)?;
        story.silence("b1")?;
        story.plug_in("b1")?;
        story.configure("b1 gets its old weight", &[1, 1, 1, 2])?;
        story.drain("b4", true)?;
        story.end_those_on("b4")?;
        story.configure("b4 is removed", &[1, 1, 1])?;
        story.drain("b3", true)?;
        story.drain("b3", false)?;
        ensure!(story.changes == 20, "{} changes", story.changes);

        // All is as it was at first. What was opened in between may be where
        // only lb1 knows of it.
        story.flows()?.end(|flow| flow.opened > opened)?;
        story.site.wait_until_settled()?;
        story.flows()?.fill()?;
        story.move_to_lb2()?;
        let lived_through = story.judge()?;
        ensure!(
            lived_through >= NUMBER / 5,
            "only {lived_through} connections of the beginning lived to the end"
        );
        Ok(())
    });
}

#[test]
fn without_a_memory_of_flows_a_change_breaks_connections_and_that_is_seen() {
    in_lab(|lab| {
        let mut story = Story::begin(lab, "flow_idle = \"0s\"\n")?;
        story.number = 400;
        story.open()?;
        let config = config(&story.site.rack.backends, story.memory, &[1, 1, 1, 1]);
        story.site.reload(&config)?;
        sleep(Duration::from_secs(5));
        let report = story.flows.take().context("they are open")?.judge()?;
        let broken: Vec<&Flow> = report.broken().collect();
        let opened_before = report.flows.len() - broken.len();
        ensure!(
            (20..250).contains(&broken.len()),
            "{} broke, {opened_before} did not",
            broken.len()
        );
        ensure!(
            broken.iter().all(|flow| flow.backend != "b4"),
            "some broke that were where they belong: {broken:?}"
        );
        Ok(())
    });
}

/// A site, its connections, and what was done to it.
struct Story {
    site: Site,
    number: usize,
    memory: &'static str,
    flows: Option<Flows>,
    changes: usize,
    blows: Vec<Blow>,
    /// What happened, for the report of a failure.
    log: String,
}

/// The connections of one backend are lost.
struct Blow {
    backend: String,
    from: Instant,
    /// A connection that was opened later must live.
    until: Option<Instant>,
}

impl Story {
    fn begin(lab: &Lab, memory: &'static str) -> Result<Self> {
        let size = Size {
            balancers: 2,
            backends: 4,
        };
        let site = Site::build(lab, size, &[VIP.into()], &|rack| {
            config(&rack.backends, memory, &[1, 1, 1])
        })?;
        for backend in ["b1", "b2", "b3"] {
            site.wait_for_backend(backend, true)?;
        }
        let addresses: String = sources()
            .skip(1)
            .map(|address| format!("addr add {address}/24 dev eth0\n"))
            .collect();
        site.rack.client.ip(&addresses)?;
        let story = Self {
            site,
            number: NUMBER,
            memory,
            flows: None,
            changes: 0,
            blows: Vec::new(),
            log: String::new(),
        };
        story
            .site
            .rack
            .route_by_hand(VIP.into(), &story.site.rack.balancers[0])?;
        Ok(story)
    }

    fn open(&mut self) -> Result<()> {
        let plan = FlowPlan {
            sources: sources().map(IpAddr::from).collect(),
            target: (VIP, 80).into(),
            number: self.number,
            pause: PAUSE,
        };
        self.flows = Some(Flows::open(&self.site.rack.client, plan)?);
        self.tell("all connections are open");
        Ok(())
    }

    /// With these weights from b1 on, and no further backends.
    fn configure(&mut self, what: &str, weights: &[u16]) -> Result<()> {
        let config = config(&self.site.rack.backends, self.memory, weights);
        self.site.reload(&config)?;
        self.changed(what)
    }

    fn drain(&mut self, backend: &str, drained: bool) -> Result<()> {
        self.site.drain(&format!("web/{backend}"), drained)?;
        let what = if drained { "drained" } else { "undrained" };
        self.changed(&format!("{backend} is {what}"))
    }

    /// Its web server is killed, and its kernel resets what it had.
    fn kill(&mut self, backend: &str) -> Result<()> {
        self.strike(backend);
        let index = self.index(backend)?;
        self.site.servers[index].kill()?;
        self.site.wait_for_backend(backend, false)?;
        self.changed(&format!("{backend} is killed"))
    }

    fn bring_back(&mut self, backend: &str) -> Result<()> {
        let index = self.index(backend)?;
        self.site.servers[index] = Nginx::start(&self.site.rack.backends[index].host)?;
        self.is_back(backend)
    }

    /// Its packets vanish.
    fn silence(&mut self, backend: &str) -> Result<()> {
        self.strike(backend);
        let machine = self.site.rack.machine(backend)?;
        self.site.rack.unplug_silently(machine)?;
        self.site.wait_for_backend(backend, false)?;
        self.changed(&format!("{backend} falls silent"))
    }

    fn plug_in(&mut self, backend: &str) -> Result<()> {
        let machine = self.site.rack.machine(backend)?;
        self.site.rack.plug_in(machine)?;
        self.is_back(backend)
    }

    fn strike(&mut self, backend: &str) {
        self.blows.push(Blow {
            backend: backend.to_owned(),
            from: Instant::now(),
            until: None,
        });
    }

    fn is_back(&mut self, backend: &str) -> Result<()> {
        // From here on it may get connections that must not break.
        let struck = self.blows.iter_mut().rev();
        let mut struck = struck.filter(|blow| blow.backend == backend);
        struck.next().context("it was struck")?.until = Some(Instant::now());
        self.site.wait_for_backend(backend, true)?;
        self.changed(&format!("{backend} is back"))
    }

    /// lb1's agent is killed, and another one brings its own program.
    fn replace_the_agent(&mut self) -> Result<()> {
        self.site.agents[0].process().kill()?;
        self.site.agents[0].start_again()?;
        self.tell("the agent on lb1 was killed, and replaced with its program");
        Ok(())
    }

    /// The client is done with what it had there.
    fn end_those_on(&mut self, backend: &str) -> Result<()> {
        let ended = self.flows()?.end(|flow| flow.backend == backend)?;
        self.tell(&format!("{ended} connections on {backend} have ended"));
        Ok(())
    }

    /// The router turns to lb2, by BGP.
    fn move_to_lb2(&mut self) -> Result<()> {
        self.site
            .wait_for_routes(VIP.into(), &self.site.rack.balancers)?;
        let rack = &self.site.rack;
        rack.unroute_by_hand(VIP.into(), &rack.balancers[0])?;
        self.site.agents[0]
            .process()
            .terminate(Duration::from_secs(20))?;
        self.site
            .wait_for_routes(VIP.into(), &self.site.rack.balancers[1..])?;
        self.tell("lb1 is stopped, and all is on lb2");
        Ok(())
    }

    /// After each change some connections come and go, and all are many again.
    fn changed(&mut self, what: &str) -> Result<()> {
        self.changes += 1;
        let (mut turn, shift) = (0, self.changes);
        let flows = self.flows()?;
        flows.end(|_| {
            turn += 1;
            turn % RENEWED == shift
        })?;
        flows.fill()?;
        self.tell(what);
        self.nothing_else_broken(&self.flows()?.report())
    }

    /// Each connection gives a last answer. Returns how many lived from the
    /// beginning.
    fn judge(mut self) -> Result<usize> {
        let report = self.flows.take().context("they are open")?.judge()?;
        self.nothing_else_broken(&report)?;
        let first = report.flows.iter().take(self.number);
        Ok(first
            .filter(|flow| matches!(flow.fate, Fate::Ended))
            .count())
    }

    /// What broke must have been on a backend that was killed.
    fn nothing_else_broken(&self, report: &FlowReport) -> Result<()> {
        let lost: Vec<&Flow> = report
            .broken()
            .filter(|flow| !self.is_of_a_blow(flow))
            .collect();
        ensure!(
            lost.is_empty(),
            "{} connections of others broke, of {}:\n{}{:#?}",
            lost.len(),
            report.flows.len(),
            self.log,
            &lost[..lost.len().min(5)]
        );
        Ok(())
    }

    fn is_of_a_blow(&self, flow: &Flow) -> bool {
        let Fate::Broken { at, .. } = flow.fate else {
            return false;
        };
        self.blows.iter().any(|blow| {
            blow.backend == flow.backend
                && blow.from <= at
                && blow.until.is_none_or(|until| flow.opened < until)
        })
    }

    fn flows(&self) -> Result<&Flows> {
        self.flows.as_ref().context("they are open")
    }

    fn index(&self, backend: &str) -> Result<usize> {
        let mut backends = self.site.rack.backends.iter();
        let place = backends.position(|machine| machine.host.name() == backend);
        place.context("no such backend")
    }

    fn tell(&mut self, what: &str) {
        let report = self.flows.as_ref().map(Flows::report).unwrap_or_default();
        let phases = self.site.agents[0].status().unwrap_or_default();
        let phases = &phases["services"][0]["phases"];
        let line = format!(
            "{what}: {:?}, broken {}, not opened {:?}, lb1 {phases}",
            report.open_by_backend(),
            report.broken().count(),
            report.not_opened,
        );
        println!("{line}");
        // Writing into memory cannot fail.
        let _ = writeln!(self.log, "{line}");
    }
}

/// 203.0.113.10 to .13.
fn sources() -> impl Iterator<Item = Ipv4Addr> {
    (10..14).map(|last| Ipv4Addr::new(203, 0, 113, last))
}

fn config(backends: &[vipd_tests::Machine], memory: &str, weights: &[u16]) -> AgentConfig {
    let config = AgentConfig {
        service: memory.to_owned(),
        ..AgentConfig::default()
    };
    let config = config.service("web", VIP.into(), "ipip", &[]);
    let backends = backends.iter().zip(weights);
    backends.fold(config, |config, (backend, weight)| {
        config.backend(backend, VIP.into(), *weight)
    })
}
