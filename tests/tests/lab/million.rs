//! A peer that sends a million routes, again and again: they cost no memory
//! and little time, and hold up nobody else.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{
    AgentConfig, Batch, Bird, Feeder, MOST_PER_UPDATE, Nginx, QUICK, Rack, Vipd, host_prefix,
    usage::{anonymous_memory, cpu_time},
    wait_until,
};

use crate::support::{PATIENCE, SMALL, VIP, in_lab_alone, start_agent};

/// Routes of a round.
const MILLION: u32 = 1_000_000;
/// Rounds that are sent, at most, while a VIP changes its state.
const MOST_ROUNDS: u32 = 1000;
/// Times that it goes and comes back.
const CHANGES: u32 = 3;
/// A check finds a dead or a new server within half a second; the rest is for
/// busy processors.
const IN_TIME: Duration = Duration::from_secs(3);
/// What the agent may take more, in bytes.
const MEMORY: u64 = 20_000_000;

#[test]
fn a_peer_that_sends_a_million_routes_again_and_again_is_taken_without_memory_or_delay() {
    in_lab_alone(|lab| {
        let rack = Rack::build(lab, SMALL)?;
        rack.router.ip("addr add 192.0.2.2/24 dev rack0\n")?;
        let router = Bird::on_router(&rack, "hold time 30;")?;
        let mut server = Some(Nginx::start(&rack.backends[0].host)?);
        let agent = start_agent(&rack, &config(&rack))?;
        let mut feeder = Feeder::accept(&rack.router, ([192, 0, 2, 2], FEEDER_PORT).into())?;
        wait_for_vip(&router, &rack, true)?;

        let before = anonymous_memory(agent.pid())?;
        tell_cost(&agent, &mut feeder)?;

        let there = Batch::announcing(0..MILLION, MOST_PER_UPDATE);
        let gone = Batch::withdrawing(0..MILLION, MOST_PER_UPDATE);
        let enough = AtomicBool::new(false);
        let mut most = before;
        let rounds = thread::scope(|scope| {
            let feeding = scope.spawn(|| -> Result<u32> {
                for round in 0..MOST_ROUNDS {
                    if enough.load(Ordering::Relaxed) {
                        return Ok(round);
                    }
                    feeder.send(&there)?;
                    feeder.send(&gone)?;
                }
                Ok(MOST_ROUNDS)
            });
            let changed = (0..CHANGES).try_for_each(|_| {
                if let Some(mut server) = server.take() {
                    server.kill()?;
                }
                let gone = wait_for_vip(&router, &rack, false)?;
                most = most.max(anonymous_memory(agent.pid())?);
                server = Some(Nginx::start(&rack.backends[0].host)?);
                let back = wait_for_vip(&router, &rack, true)?;
                println!("withdrawn {gone:?} after the server's death, back in {back:?}");
                most = most.max(anonymous_memory(agent.pid())?);
                ensure!(!feeding.is_finished(), "nothing was sent meanwhile");
                Ok(())
            });
            enough.store(true, Ordering::Relaxed);
            // A feeder that has failed is why nothing was sent.
            let rounds = feeding.join().ok().context("the feeder has panicked")??;
            changed.map(|()| rounds)
        })?;
        wait_until_read(&agent, &feeder)?;
        most = most.max(anonymous_memory(agent.pid())?);
        println!(
            "{rounds} more rounds; anonymous memory {:.1} MB before, {:.1} MB at most",
            before as f64 / 1e6,
            most as f64 / 1e6
        );
        ensure!(rounds > 1, "only {rounds} rounds were sent");
        ensure!(most < before + MEMORY, "{before} bytes before, {most} then");
        for name in ["router", "feeder"] {
            let peer = agent.peer(name)?;
            ensure!(peer["established_count"] == 1, "{peer}");
            ensure!(peer["state"] == "Established", "{peer}");
        }
        Ok(())
    });
}

/// Sends a round of small UPDATEs and one of full ones, and prints what they
/// cost the agent.
fn tell_cost(agent: &Vipd, feeder: &mut Feeder) -> Result<()> {
    for (words, per_update) in [("8", 8), ("as many as fit", MOST_PER_UPDATE)] {
        let there = Batch::announcing(0..MILLION, per_update);
        let gone = Batch::withdrawing(0..MILLION, per_update);
        let start = (Instant::now(), cpu_time(agent.pid())?);
        feeder.send(&there)?;
        feeder.send(&gone)?;
        wait_until_read(agent, feeder)?;
        println!(
            "a million routes announced and withdrawn, {words} in an UPDATE: \
             {:?} of the agent's CPU time, {:?} in all",
            cpu_time(agent.pid())? - start.1,
            start.0.elapsed(),
        );
    }
    Ok(())
}

const FEEDER_PORT: u16 = 1790;

/// A VIP that is checked, the router, and the feeder.
fn config(rack: &Rack) -> AgentConfig {
    let mut config = AgentConfig {
        check: QUICK.to_owned(),
        ..AgentConfig::default()
    }
    .service("web", VIP.into(), "l2-dsr", &rack.backends);
    config.peer = config.peer.replace("\"3s\"", "\"30s\"");
    config.peer += &format!(
        "[[bgp.peer]]\nname = \"feeder\"\naddress = \"192.0.2.2\"\nport = {FEEDER_PORT}\n\
         as = 64502\nconnect_retry = \"1s\"\nhold_time = \"30s\"\nfamilies = [\"ipv4\"]\n"
    );
    config
}

/// Waits until the router has the VIP, or has it no more; says how long.
fn wait_for_vip(router: &Bird, rack: &Rack, announced: bool) -> Result<Duration> {
    let start = Instant::now();
    let hops: &[IpAddr] = if announced {
        &[rack.balancers[0].ipv4.into()]
    } else {
        &[]
    };
    let sentence = if announced {
        "the VIP is announced"
    } else {
        "it is withdrawn"
    };
    wait_until(sentence, IN_TIME, || {
        router.ensure_next_hops(&host_prefix(VIP.into()), hops)
    })?;
    Ok(start.elapsed())
}

/// Waits until the agent has read all that was sent.
fn wait_until_read(agent: &Vipd, feeder: &Feeder) -> Result<()> {
    wait_until("all UPDATEs are read", PATIENCE, || {
        let read = &agent.peer("feeder")?["messages_received"]["update"];
        ensure!(*read == feeder.updates(), "{read} of {}", feeder.updates());
        Ok(())
    })
}
