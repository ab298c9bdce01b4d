//! An agent that is gone for a while and comes back: a router of each make keeps
//! its routes, no connection fails, and what is not announced again goes.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipd::bfd::protocol::State;
use vipd_tests::{
    AgentConfig, BFD_TIMING, Bfd, Probes, Rack, Vipd, ask, host_prefix, start_servers, wait_until,
};

use super::{
    router::{Make, Router, Terms},
    wait_for_route,
};
use crate::support::{PATIENCE, VIP, VIP6};

/// Longer than the hold time: nothing but graceful restart keeps the routes.
const AWAY: Duration = Duration::from_secs(5);
/// Announced by both agents.
const STAYS: IpAddr = IpAddr::V4(VIP);
/// The next agent is not told to announce them.
const LEFT_OUT: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 11)),
    IpAddr::V6(VIP6),
];

/// What becomes of an agent before the next one starts.
#[derive(Clone, Copy, Debug)]
enum Going {
    Killed,
    Stopped,
}

pub fn killed(make: Make, rack: &Rack) -> Result<()> {
    goes_and_comes(make, rack, Going::Killed)
}

pub fn upgraded(make: Make, rack: &Rack) -> Result<()> {
    goes_and_comes(make, rack, Going::Stopped)
}

/// With BFD, which stays up meanwhile, where the make has it.
fn goes_and_comes(make: Make, rack: &Rack, going: Going) -> Result<()> {
    let _servers = start_servers(rack, &[STAYS])?;
    let terms = Terms {
        helps: true,
        ..Terms::default()
    };
    let router = Router::start(make, rack, &terms)?;
    let balancer = &rack.balancers[0];
    if make == Make::Gobgp {
        rack.route_by_hand(STAYS, balancer)?;
    }
    let next = config(make, rack);
    let first = LEFT_OUT.iter().fold(next.clone(), |config, vip| {
        let name = if vip.is_ipv4() { "four" } else { "six" };
        config.udp_service(name, (*vip, 53), "l2-dsr", &rack.backends)
    });
    let bfd = match make {
        Make::Bird | Make::Frr => Some(Bfd::start(&balancer.host, &first.text(balancer))?),
        Make::Gobgp => None,
    };
    let mut agent = Vipd::start(&balancer.host, &first.text(balancer))?;
    for vip in all() {
        wait_for_route(&router, vip)?;
    }
    if let Some(bfd) = &bfd {
        bfd.wait_for("router", State::Up)?;
    }
    wait_until("the VIP answers", PATIENCE, || {
        ask(&rack.client, (STAYS, 80).into())
    })?;

    let mut watch = Command::new("ip");
    let watch = watch.args(["monitor", "route"]);
    let kernel = rack.router.spawn("routes", watch)?;
    let probes = Probes::start(&rack.client, (STAYS, 80).into());
    sleep(Duration::from_millis(500));
    go(&mut agent, going)?;
    let gone = Instant::now();
    let ensure_kept = || {
        all().try_for_each(|vip| {
            let kept = router.is_kept(&host_prefix(vip))?;
            ensure!(kept, "{vip} is not, after {:?}", gone.elapsed());
            Ok(())
        })
    };
    wait_until("the router keeps the routes", PATIENCE, ensure_kept)?;
    while gone.elapsed() < AWAY {
        ensure_kept()?;
        sleep(Duration::from_millis(100));
    }

    balancer.host.write("vipd.toml", &next.text(balancer))?;
    agent.start_again()?;
    wait_until("the end of all routes is heard", PATIENCE, || {
        router.ensure_established()?;
        for vip in all() {
            let route = router.route(&host_prefix(vip))?;
            ensure!(route.is_some() == (vip == STAYS), "{vip}: {route:?}");
        }
        let kept = router.is_kept(&host_prefix(STAYS))?;
        ensure!(!kept, "{STAYS} is only kept");
        Ok(())
    })?;
    sleep(Duration::from_secs(1));
    probes.finish()?.ensure_all_answered()?;
    let route = router.route(&host_prefix(STAYS))?;
    ensure!(route.is_some(), "{STAYS} has gone after all");
    if let Some(bfd) = &bfd {
        let session = bfd.ensure("router", State::Up)?;
        ensure!((session.ups, session.downs) == (1, 0), "{session:?}");
        for vip in all() {
            let deleted = kernel.log().contains(&format!("Deleted {vip} "));
            ensure!(deleted == (vip != STAYS), "{vip}: {}", kernel.log());
        }
    }
    Ok(())
}

fn all() -> impl Iterator<Item = IpAddr> {
    [STAYS].into_iter().chain(LEFT_OUT)
}

fn go(agent: &mut Vipd, going: Going) -> Result<()> {
    match going {
        Going::Killed => agent.process().kill(),
        Going::Stopped => {
            let status = agent.process().terminate(PATIENCE)?;
            ensure!(status.success(), "{status}");
            Ok(())
        }
    }
}

fn config(make: Make, rack: &Rack) -> AgentConfig {
    let mut config = AgentConfig {
        dataplane: "on_stop = \"keep\"\n".to_owned(),
        ..AgentConfig::default()
    };
    config.peer += &match make {
        Make::Bird | Make::Frr => format!("[bgp.peer.bfd]\n{BFD_TIMING}"),
        // Nobody watches.
        Make::Gobgp => "graceful_restart = \"always\"\n".to_owned(),
    };
    config.service("web", STAYS, "ipip", &rack.backends)
}
