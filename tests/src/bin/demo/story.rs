//! The story: the lab is built, works, loses a backend, an agent and a
//! balancer, one after the other, and then has a backend drained.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{AgentConfig, Lab, Nginx, Probes, QUICK, Rack, Site, Size, Vipd, host_prefix};

use crate::{
    scene::{self, HELD},
    score_card::{AgentKill, BackendDrain, BackendKill, NodeKill, ScoreCard, ms},
    screen::Screen,
};

const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

const INTRODUCTION: &str = "\
A virtual IP (VIP) is one address that many servers answer for. Two load
balancers run vipd: its XDP program spreads the VIP's connections over three
web servers, its agent checks those servers and tells the router by BGP where
the VIP is to be found. All hosts are network namespaces of this machine, and
no packet leaves it.

                     client 203.0.113.10
                        |
                     router 192.0.2.1          BIRD, AS 64501, spreads
                        |                      over lb1 and lb2 (ECMP)
     -----+---------+---+-----+---------+---------+-----  192.0.2.0/24
          |         |         |         |         |
         lb1       lb2        b1        b2        b3
         .11       .12        .21       .22       .23
        vipd      vipd       nginx     nginx     nginx    VIP on lo:
          AS 64500                                        198.51.100.10

    request   client > router > lb1 or lb2 > (tunnel) > b1, b2 or b3
    answer    b1, b2 or b3 > router > client; the balancers do not see it";

/// Tells the story; returns what was measured and what still stands.
pub fn tell<'a>(lab: &Lab, screen: &'a Screen) -> Result<(ScoreCard, Stage<'a>)> {
    screen.heading("vipd: a virtual IP that survives");
    screen.say(INTRODUCTION);
    let (mut stage, bgp_established) = Stage::set(lab, screen)?;
    stage.ask_around()?;
    let card = ScoreCard {
        bgp_established,
        backend_kill: stage.kill_backend()?,
        agent_kill: stage.kill_agent()?,
        node_kill: stage.kill_node()?,
        backend_drain: stage.drain_backend()?,
    };
    Ok((card, stage))
}

/// Where the story plays.
pub struct Stage<'a> {
    screen: &'a Screen,
    site: Site,
}

impl<'a> Stage<'a> {
    /// Builds the lab; returns it and how long BGP took.
    fn set(lab: &Lab, screen: &'a Screen) -> Result<(Self, Duration)> {
        screen.heading("The lab is built");
        let size = Size {
            balancers: 2,
            backends: 3,
        };
        let mut site = Site::without_agents(lab, size, &[VIP.into()])?;
        screen.say("The web servers and the router run. Now vipd starts on both balancers.");

        let start = Instant::now();
        let config = AgentConfig {
            // Short, so that the ring is at rest soon after b2 is back.
            service: "flow_idle = \"2s\"\n".to_owned(),
            check: QUICK.to_owned(),
            ..AgentConfig::default()
        };
        let config = config.service("web", VIP.into(), "ipip", &site.rack.backends);
        site.start_agents(&config)?;
        site.wait_for_sessions()?;
        let bgp_established = start.elapsed();
        site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
        screen.say(&format!(
            "After {} ms both BGP sessions stand. The router is the witness:",
            ms(bgp_established)
        ));
        let stage = Self { screen, site };
        stage.show_routes()?;
        Ok((stage, bgp_established))
    }

    /// Shows that the VIP works and that all backends take part.
    fn ask_around(&self) -> Result<()> {
        self.screen.heading("Requests through the VIP");
        let probes = Probes::start(&self.site.rack.client, vip());
        sleep(Duration::from_millis(1500));
        let report = probes.finish()?;
        ensure!(
            report.failures().next().is_none(),
            "requests fail: {:?}",
            report.by_failure()
        );
        let shares = report.by_backend();
        ensure!(shares.len() == 3, "not all backends answer: {shares:?}");
        let shares: Vec<_> = shares
            .iter()
            .map(|(name, answers)| format!("{name} answered {answers}"))
            .collect();
        self.screen.say(&format!(
            "{} connections to {VIP}, one every 4 ms:\n{}.",
            report.attempts.len(),
            shares.join(", ")
        ));
        self.screen.say(&format!(
            "From now on the client goes on like this and also holds {HELD} connections\n\
             open, each asking every 100 to 200 ms; 15 s after each blow they are judged."
        ));
        Ok(())
    }

    /// (1) nginx is killed: refused connections, and resets for those on it.
    fn kill_backend(&mut self) -> Result<BackendKill> {
        self.screen.heading("1. A backend is killed");
        self.screen.say(
            "nginx on b2 gets SIGKILL. vipd asks each backend every 150 ms and takes one\n\
             out after 3 bad answers. Connections to b2 are lost with it; no other may be.",
        );
        let mut detected = Duration::ZERO;
        let Self { screen, site } = self;
        let client = site.rack.client.clone();
        let measured = scene::measure(&client, vip(), screen, |event| {
            site.servers[1].kill()?;
            site.wait_for_backend("b2", false)?;
            detected = event.elapsed();
            screen.say(&format!(
                "After {} ms both balancers have taken b2 out.",
                ms(detected)
            ));
            Ok(())
        })?;

        let result = BackendKill {
            detected,
            last_failure: measured.last_failure(),
            attempted: measured.new.attempts.len(),
            failed: measured.new.failures().count(),
            established_on_others_broken: measured.held.broken_elsewhere("b2").count(),
        };
        let on_b2 = measured.held.by_backend().get("b2").copied().unwrap_or(0);
        screen.say(&format!(
            "Of {} new connections {} failed, the last one begun {} ms after the kill.\n\
             Of {HELD} long-lived ones {on_b2} were on b2 and died with it; of the other {}\n\
             {} broke.",
            result.attempted,
            result.failed,
            ms(result.last_failure),
            HELD - on_b2,
            result.established_on_others_broken,
        ));

        site.servers[1] = Nginx::start(&site.rack.backends[1].host)?;
        site.wait_for_backend("b2", true)?;
        screen.say("nginx on b2 was started again, and both balancers have taken it back.");
        Ok(result)
    }

    /// (2) The agent dies, its XDP program does not.
    fn kill_agent(&mut self) -> Result<AgentKill> {
        self.screen.heading("2. The agent on lb1 is killed");
        self.screen.say(
            "vipd on lb1 gets SIGKILL. Its XDP program and tables are pinned in the kernel\n\
             and go on forwarding. Its BGP session is lost, so the router turns to lb2,\n\
             which sends each connection to the same backend as lb1 did. A second later the\n\
             agent is started again.",
        );
        let Self { screen, site } = self;
        // b2 has its part of the ring back for good.
        site.wait_until_settled()?;
        let client = site.rack.client.clone();
        let measured = scene::measure(&client, vip(), screen, |event| {
            site.agents[0].process().kill()?;
            site.wait_for_routes(VIP.into(), &site.rack.balancers[1..])?;
            screen.say(&format!(
                "After {} ms the router has left lb1.",
                ms(event.elapsed())
            ));
            sleep(Duration::from_secs(1).saturating_sub(event.elapsed()));
            site.agents[0].start_again()?;
            site.wait_for_routes(VIP.into(), &site.rack.balancers)?;
            screen.say(&format!(
                "After {} ms the new agent has adopted the tables, and the router is back.",
                ms(event.elapsed())
            ));
            Ok(())
        })?;
        let result = AgentKill {
            failed: measured.new.failures().count(),
            established_broken: measured.held.broken().count(),
        };
        screen.say(&format!(
            "Of {} new connections {} failed; of {HELD} long-lived ones {} broke.",
            measured.new.attempts.len(),
            result.failed,
            result.established_broken,
        ));
        Ok(result)
    }

    /// (3) A balancer's packets vanish while its carrier stays.
    fn kill_node(&self) -> Result<NodeKill> {
        self.screen.heading("3. A balancer dies silently");
        self.screen.say(
            "All packets of lb2 vanish; its link stays up, so nobody is told. The router\n\
             finds out when it has heard nothing for 3 s, the BGP hold time. Until then it\n\
             goes on sending half of the connections to lb2.",
        );
        let Self { screen, site } = self;
        let (lb1, lb2) = site.rack.balancers.split_at(1);
        let measured = scene::measure(&site.rack.client, vip(), screen, |event| {
            site.rack.unplug_silently(&lb2[0])?;
            site.wait_for_routes(VIP.into(), lb1)?;
            screen.say(&format!(
                "After {} ms the router has given up lb2:",
                ms(event.elapsed())
            ));
            self.show_routes()
        })?;
        let result = NodeKill {
            gap: measured.gap,
            established_total: measured.held.connections.len(),
            established_broken: measured.held.broken().count(),
        };
        screen.say(&format!(
            "Of {} new connections {} failed, the last one begun {} ms after the death.\n\
             Those that met lb1 did not notice: the longest time without a success was\n\
             {} ms. Of {} long-lived connections {} broke; lb1 knows by the same hash as\n\
             lb2 which backend each belongs to.",
            measured.new.attempts.len(),
            measured.new.failures().count(),
            ms(measured.last_failure()),
            ms(result.gap),
            result.established_total,
            result.established_broken,
        ));
        Ok(result)
    }

    /// (4) A backend is drained, as before maintenance.
    fn drain_backend(&self) -> Result<BackendDrain> {
        self.screen.heading("4. A backend is drained");
        let Self { screen, site } = self;
        let Rack {
            client, balancers, ..
        } = &site.rack;
        site.rack.plug_in(&balancers[1])?;
        site.wait_for_routes(VIP.into(), balancers)?;
        site.wait_until_settled()?;
        screen.say(
            "lb2 is well again. b3 is to be maintained, so both balancers are told to drain\n\
             it: from then on it gets no new connections, and keeps those that it has.",
        );
        let measured = scene::measure(client, vip(), screen, |event| {
            site.drain("web/b3", true)?;
            screen.say(&format!(
                "After {} ms both balancers have taken the order:",
                ms(event.elapsed())
            ));
            sleep(Duration::from_secs(2));
            screen.quote("vipd status", &self.drained_backend()?);
            Ok(())
        })?;
        let result = BackendDrain {
            failed: measured.new.failures().count(),
            established_broken: measured.held.broken().count(),
        };
        let late = measured.new.since(measured.event + Duration::from_secs(1));
        let still_new = late.by_backend().get("b3").copied().unwrap_or(0);
        ensure!(still_new == 0, "b3 got {still_new} new connections");
        let on_b3 = measured.held.by_backend().get("b3").copied().unwrap_or(0);
        ensure!(on_b3 > 0, "nothing was on b3");
        screen.say(&format!(
            "Of {} new connections {} failed, and none went to b3. Of {HELD} long-lived\n\
             ones {} broke; {on_b3} stayed on b3 to the end.",
            measured.new.attempts.len(),
            result.failed,
            result.established_broken,
        ));
        site.drain("web/b3", false)?;
        screen.say("b3 was undrained, and gets new connections again.");
        Ok(result)
    }

    /// What lb1 says of b3.
    fn drained_backend(&self) -> Result<String> {
        let status = self.site.agents[0].status()?;
        let backend = status["services"][0]["backends"].as_array();
        let backend = backend.and_then(|all| all.iter().find(|backend| backend["name"] == "b3"));
        let backend = backend.context("b3 is there")?;
        Ok(format!(
            "b3  {}  {} flows",
            backend["standing"].as_str().unwrap_or_default(),
            backend["flows"]
        ))
    }

    /// Leaves the lab standing, all of it well, and says what to try in it.
    pub fn leave_standing(self, lab: &Lab) -> Result<()> {
        let (client, router) = (&self.site.rack.client, &self.site.rack.router);
        let lb1 = &self.site.rack.balancers[0].host;
        let vipd = Vipd::binary()?;
        self.screen.heading("The lab is left standing. Try:");
        self.screen.say(&format!(
            "  ip netns exec {} curl {VIP}\n  \
               birdc -s {}/bird.ctl show route all\n  \
               {} status --socket {}/vipd.sock\n  \
               less {}/vipd.log\n  \
               ip -n {} link set lb1 nomaster     (lb1 dies silently)\n\
             The next demo takes it away, or, when you have seen enough:\n  \
               {} --clean",
            client.netns_name(),
            router.dir().display(),
            vipd.display(),
            lb1.dir().display(),
            lb1.dir().display(),
            self.site.rack.switch.netns_name(),
            env::current_exe()?.display(),
        ));
        lab.keep()
    }

    fn show_routes(&self) -> Result<()> {
        let command = format!("show route {}", host_prefix(VIP.into()));
        self.screen.quote(
            &format!("birdc {command}"),
            &self.site.router.birdc(&command)?,
        );
        Ok(())
    }
}

fn vip() -> SocketAddr {
    (VIP, 80).into()
}
