//! The agent and `vipd bfd` on one host: what a reload or another agent changes,
//! and what it must not touch.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use vipd::bfd::protocol::State;
use vipd_tests::{
    AgentConfig, BFD_TIMING, BIRD_BFD_TIMING, Bfd, Bird, BirdBfd, BirdSession, Lab, ROUTER_IPV4,
    ROUTER_IPV6, Rack, Vipd, wait_until,
};

use crate::support::{SMALL, VIP, in_lab, wait_for_peer};

const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than the BFD process takes to look at the interfaces, and to lose a
/// session.
const A_WHILE: Duration = Duration::from_secs(4);

#[test]
fn interfaces_come_and_go_with_reloads_and_with_another_agent_and_no_session_sees_it() {
    in_lab(|lab| {
        let mut scene = Scene::start(lab, "")?;
        let (one, two) = (scene.text(&["eth0"]), scene.text(&["eth0", "extra0"]));
        let before = scene.stands()?;

        scene.agent.reload(&two)?;
        ensure!(scene.has_xdp("extra0")?, "it is attached");
        scene.ensure_untouched("an interface has come", &before)?;
        scene.agent.reload(&one)?;
        scene.wait_for_detached()?;
        scene.ensure_untouched("an interface has gone", &before)?;

        scene.bfd.reload(&two)?;
        scene.ensure_untouched("BFD knew of it before the agent", &before)?;
        scene.agent.reload(&two)?;
        scene.ensure_untouched("the agent knows of it too", &before)?;

        // BGP ends with the agent; BFD must not.
        scene.agent.process().kill()?;
        scene.host().write("vipd.toml", &one)?;
        scene.agent.start_again()?;
        scene.wait_for_detached()?;
        scene.ensure_bfd_untouched("another agent knows of one less", &before)?;

        scene.agent.process().kill()?;
        scene.host().write("vipd.toml", &two)?;
        scene.agent.start_again()?;
        ensure!(scene.has_xdp("extra0")?, "it is attached");
        scene.ensure_bfd_untouched("another agent knows of one more", &before)
    });
}

#[test]
fn the_loss_of_the_program_on_an_interface_that_came_with_a_reload_is_seen() {
    in_lab(|lab| {
        let mut scene = Scene::start(lab, "")?;
        scene.agent.reload(&scene.text(&["eth0", "extra0"]))?;
        scene.agent.process().kill()?;
        scene.host().ip("link del extra0\n")?;
        let reason = "no XDP program is attached to extra0";
        scene.bfd.wait_for_reason("router", reason)?;
        Ok(())
    });
}

#[test]
fn bfd_that_the_last_peer_loses_ends_at_once_by_a_reload_and_by_another_agent() {
    in_lab(|lab| {
        let mut scene = Scene::start(lab, "")?;
        let with = scene.text(&["eth0"]);
        let without = AgentConfig::default()
            .udp_service("four", (VIP.into(), 53), "l2-dsr", &scene.rack.backends)
            .text(&scene.rack.balancers[0]);
        let answer = scene.agent.reload(&without)?;
        ensure!(answer.contains("BFD with router: removed"), "{answer}");
        scene.wait_for_sessions(&[])?;
        wait_until("the agent is not needed", PATIENCE, || {
            ensure!(!scene.bfd.status()?.agent, "it is connected");
            Ok(())
        })?;

        scene.agent.reload(&with)?;
        scene.bfd.wait_for("router", State::Up)?;
        scene.agent.process().kill()?;
        scene.host().write("vipd.toml", &without)?;
        scene.agent.start_again()?;
        scene.wait_for_sessions(&[])?;
        wait_until("it is told", PATIENCE, || {
            let log = scene.agent.log();
            ensure!(log.contains("BFD with router: removed"), "{log}");
            Ok(())
        })
    });
}

#[test]
fn a_peer_that_another_agent_has_more_gets_its_session() {
    in_lab(|lab| {
        let mut scene = Scene::start(lab, "")?;
        let before = scene.stands()?;
        let balancer = &scene.rack.balancers[0];
        let six = format!(
            "[[bgp.peer]]\nname = \"six\"\naddress = \"{ROUTER_IPV6}\"\nas = 64501\n\
             source = \"{}\"\nbfd = true\n",
            balancer.ipv6
        );
        scene.agent.process().kill()?;
        let text = scene.text(&["eth0"]) + &six;
        scene.host().write("vipd.toml", &text)?;
        scene.agent.start_again()?;
        scene.wait_for_sessions(&["router", "six"])?;
        scene.ensure_bfd_untouched("another peer has come", &before)
    });
}

#[test]
fn a_bfd_process_that_does_not_answer_keeps_nobody_waiting_and_loses_nothing() {
    in_lab(|lab| {
        let mut scene = Scene::start(lab, "min_rx = \"5s\"\n")?;
        let (one, two) = (scene.text(&["eth0"]), scene.text(&["eth0", "extra0"]));
        scene.agent.reload(&two)?;
        scene.bfd.process().freeze()?;
        let answer = scene.agent.reload(&one);
        let attached = scene.has_xdp("extra0");
        scene.bfd.process().signal(Signal::CONT)?;
        let answer = answer?;
        ensure!(answer.contains("has not answered within"), "{answer}");
        ensure!(answer.contains("XDP stays where it was"), "{answer}");
        ensure!(attached?, "it was taken off");

        scene.agent.reload(&one)?;
        scene.wait_for_detached()
    });
}

/// A router with BGP and BFD, an agent, a BFD process, and one interface more.
struct Scene {
    bird: Bird,
    bfd: Bfd,
    agent: Vipd,
    config: AgentConfig,
    rack: Rack,
}

/// What the router says of both sessions.
type Standing = (BirdSession, BirdBfd);

impl Scene {
    fn start(lab: &Lab, further: &str) -> Result<Self> {
        let rack = Rack::build(lab, SMALL)?;
        let balancer = &rack.balancers[0];
        balancer
            .host
            .ip("link add extra0 type veth peer name extra1\n\
             link set extra0 up\nlink set extra1 up\n")?;
        // Without a neighbour of its own BIRD's session would come and go with BGP.
        let bfd = format!(
            "protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; \
             neighbor {} dev \"rack0\" local {ROUTER_IPV4}; }}\n",
            balancer.ipv4
        );
        let router =
            Bird::router_config(64501) + &bfd + &Bird::sessions(&rack.balancers, 64500, "bfd on;");
        let bird = Bird::start(&rack.router, &router)?;
        let mut config =
            AgentConfig::default().udp_service("four", (VIP.into(), 53), "l2-dsr", &rack.backends);
        config.peer += &format!("[bgp.peer.bfd]\n{BFD_TIMING}");
        if !further.is_empty() {
            config.peer = config.peer.replace("min_rx = \"100ms\"\n", further);
        }
        let text = config.text(balancer);
        let bfd = Bfd::start(&balancer.host, &text)?;
        let agent = Vipd::start(&balancer.host, &text)?;
        bfd.wait_for("router", State::Up)?;
        wait_for_peer(&agent, "it stands", |peer| peer["state"] == "Established")?;
        // BFD may have come up after BGP, and is told to BGP a moment later.
        sleep(A_WHILE);
        Ok(Self {
            bird,
            bfd,
            agent,
            config,
            rack,
        })
    }

    fn host(&self) -> &vipd_tests::Host {
        &self.rack.balancers[0].host
    }

    /// The configuration with the program on these interfaces.
    fn text(&self, interfaces: &[&str]) -> String {
        self.config.text(&self.rack.balancers[0]).replace(
            "interfaces = [\"eth0\"]",
            &format!("interfaces = {interfaces:?}"),
        )
    }

    fn stands(&self) -> Result<Standing> {
        let bgp = self.bird.ensure_established("lb1")?;
        let bfd = self.bird.bfd(&self.rack.balancers[0].ipv4.to_string())?;
        ensure!(bfd.state == "Up", "{bfd:?}");
        Ok((bgp, bfd))
    }

    /// After a while both sessions stand since the same time.
    fn ensure_untouched(&self, sentence: &str, before: &Standing) -> Result<()> {
        self.ensure_bfd_untouched(sentence, before)?;
        let (bgp, _) = self.stands().context(sentence.to_owned())?;
        let same = same_time(bgp.since, before.0.since);
        ensure!(same, "{sentence}: {bgp:?}, before {before:?}");
        Ok(())
    }

    /// The same of BFD alone.
    fn ensure_bfd_untouched(&self, sentence: &str, before: &Standing) -> Result<()> {
        sleep(A_WHILE);
        let there = self.bird.bfd(&self.rack.balancers[0].ipv4.to_string())?;
        let here = self.bfd.session("router")?;
        let same = there.state == "Up" && same_time(there.since, before.1.since);
        ensure!(
            same && here.downs == 0,
            "{sentence}: {there:?}, before {before:?}; {here:?}"
        );
        Ok(())
    }

    fn wait_for_sessions(&self, names: &[&str]) -> Result<()> {
        wait_until(&format!("sessions: {names:?}"), PATIENCE, || {
            let status = self.bfd.status()?;
            let sessions = status.sessions.iter();
            let mut found: Vec<_> = sessions.map(|it| it.name.as_str()).collect();
            found.sort_unstable();
            ensure!(found == names, "{found:?}");
            Ok(())
        })
    }

    fn has_xdp(&self, interface: &str) -> Result<bool> {
        let link = self
            .host()
            .run("ip", &["-details", "link", "show", interface])?;
        Ok(link.contains("prog/xdp"))
    }

    fn wait_for_detached(&self) -> Result<()> {
        wait_until("the program is off extra0", PATIENCE, || {
            ensure!(!self.has_xdp("extra0")?, "it is still attached");
            Ok(())
        })
    }
}

fn same_time(a: Option<Duration>, b: Option<Duration>) -> bool {
    a.zip(b)
        .is_some_and(|(a, b)| a.abs_diff(b) < Duration::from_millis(100))
}
