//! The rack for backends that die: one balancer with vipd before four of them, and
//! a router with BIRD.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use vipd::bfd::protocol::State;
use vipd_tests::{
    AgentConfig, BALANCERS_AS, Bfd, Bird, Decapsulator, Door, Lab, Machine, ROUTER_AS, Rack, Size,
    Vipd, wait_until,
};

use super::Death;

/// What clients ask.
const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// Announced only while all backends are up, so that each death and each return
/// is told to the router.
const WATCHED_VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
const PORT: u16 = 80;
const SERVICE: &str = "farm";
const BACKENDS: u8 = 4;

/// By checks alone.
const CHECKS: &str = "[service.check]\ntype = \"tcp\"\ninterval = \"100ms\"\n\
                      fast_interval = \"30ms\"\ntimeout = \"50ms\"\nrise = 2\nfall = 2\n";
/// By BFD; the checks would notice after seconds.
const BFD: &str = "[service.check]\ntype = \"tcp\"\ninterval = \"1s\"\nfast_interval = \"100ms\"\n\
                   timeout = \"500ms\"\nrise = 1\nfall = 5\n\
                   [service.bfd]\nmin_tx = \"50ms\"\nmin_rx = \"50ms\"\nmultiplier = 3\n\
                   multihop = false\n";
/// After so long without a packet a backend is down.
const DETECTION: Duration = Duration::from_millis(150);

/// Everything that runs.
pub struct Stage {
    pub agent: Vipd,
    bfd: Option<Bfd>,
    _speakers: Vec<Bird>,
    _router: Bird,
    /// One for each backend; none while it refuses.
    doors: Vec<Option<Door>>,
    pub rack: Rack,
}

impl Stage {
    /// Builds it; the backends may still be coming up.
    pub fn build(lab: &Lab, with_bfd: bool) -> Result<Self> {
        let rack = Rack::build(
            lab,
            Size {
                balancers: 1,
                backends: BACKENDS,
            },
        )?;
        let balancer = rack.balancers.first().context("no balancer")?;
        let sessions = Bird::sessions(&rack.balancers, BALANCERS_AS, "hold time 30;");
        let router = Bird::start(&rack.router, &(Bird::router_config(ROUTER_AS) + &sessions))?;
        rack.bind_vips(&[VIP.into()])?;
        let (mut doors, mut speakers) = (Vec::new(), Vec::new());
        for backend in &rack.backends {
            Decapsulator::attach(&backend.host, &["192.0.2.0/24"])?;
            doors.push(Some(Door::open(&backend.host, PORT)?));
            if with_bfd {
                speakers.push(Bird::start(&backend.host, &speaker(backend, balancer))?);
            }
        }
        let config = config(&rack, if with_bfd { BFD } else { CHECKS }).text(balancer);
        let bfd = with_bfd.then(|| Bfd::start(&balancer.host, &config));
        Ok(Self {
            bfd: bfd.transpose()?,
            agent: Vipd::start(&balancer.host, &config)?,
            _speakers: speakers,
            _router: router,
            doors,
            rack,
        })
    }

    pub fn target(&self) -> SocketAddr {
        (VIP, PORT).into()
    }

    /// Waits until all backends are up, for BFD too, and the router knows of it.
    pub fn wait_until_ready(&self, patience: Duration) -> Result<()> {
        wait_until("all backends are up and announced", patience, || {
            for backend in &self.rack.backends {
                self.agent.ensure_backend(backend.host.name(), true)?;
            }
            for vip in [VIP, WATCHED_VIP] {
                let router = &self.rack.router;
                let route = router.run("ip", &["route", "show", &vip.to_string()])?;
                ensure!(route.contains("via"), "{vip} has the route {route:?}");
            }
            self.bfd.as_ref().map_or(Ok(()), ensure_watched)
        })
    }

    /// Fails unless the agent has found this backend down.
    pub fn ensure_dead(&self, backend: usize) -> Result<()> {
        self.agent
            .ensure_backend(self.backend(backend)?.host.name(), false)
    }

    /// Lets a backend die.
    pub fn kill(&mut self, backend: usize, death: Death) -> Result<()> {
        match death {
            Death::Vanished | Death::VanishedWithBfd => {
                self.rack.unplug_silently(self.backend(backend)?)
            }
            Death::Refusing => {
                self.doors[backend] = None;
                Ok(())
            }
        }
    }

    /// Undoes it.
    pub fn revive(&mut self, backend: usize, death: Death) -> Result<()> {
        let machine = self.backend(backend)?;
        match death {
            Death::Vanished | Death::VanishedWithBfd => self.rack.plug_in(machine),
            Death::Refusing => {
                self.doors[backend] = Some(Door::open(&machine.host, PORT)?);
                Ok(())
            }
        }
    }

    fn backend(&self, number: usize) -> Result<&Machine> {
        let backend = self.rack.backends.get(number);
        backend.with_context(|| format!("no backend {number}"))
    }
}

/// Fails unless all backends are watched by BFD, as quickly as they are to be.
fn ensure_watched(bfd: &Bfd) -> Result<()> {
    let sessions = bfd.status()?.sessions;
    ensure!(sessions.len() == usize::from(BACKENDS), "{sessions:?}");
    for session in sessions {
        let detection = session.detection_time_seconds.map(Duration::from_secs_f64);
        let watched = session.state == State::Up && detection == Some(DETECTION);
        ensure!(watched, "{session:?}");
    }
    Ok(())
}

/// The same backends in both services.
fn config(rack: &Rack, check: &str) -> AgentConfig {
    let backends: String = rack
        .backends
        .iter()
        .map(|backend| {
            let (name, address) = (backend.host.name(), backend.ipv4);
            format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n")
        })
        .collect();
    let service = |name, vip, further: &str| {
        format!(
            "\n[[service]]\nname = \"{name}\"\nvips = [\"{vip}\"]\nprotocol = \"tcp\"\n\
             port = {PORT}\nmode = \"ipip\"\n{further}{check}{backends}"
        )
    };
    let all = format!("min_healthy = {BACKENDS}\n");
    AgentConfig {
        peer: "hold_time = \"30s\"\nconnect_retry = \"1s\"\n".to_owned(),
        services: service(SERVICE, VIP, "") + &service("watched", WATCHED_VIP, &all),
        ..AgentConfig::default()
    }
}

/// For BIRD on a backend, which speaks nothing but BFD with the balancer.
fn speaker(backend: &Machine, balancer: &Machine) -> String {
    let (us, them) = (backend.ipv4, balancer.ipv4);
    format!(
        "log stderr all;\nrouter id {us};\nprotocol device {{ }}\n\
         protocol bfd {{\n    interface \"*\" {{ min rx interval 50 ms; min tx interval 50 ms; \
         multiplier 3; }};\n    neighbor {them} dev \"eth0\" local {us};\n}}\n"
    )
}
