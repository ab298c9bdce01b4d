//! Two balancers with vipd before two backends: BFD at 50 ms three times, and
//! graceful restart.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use vipd::bfd::protocol::State;
use vipd_tests::{AgentConfig, Bfd, Decapsulator, Host, Machine, Rack, UdpEcho, Vipd};

use super::{LOCAL_AS, PORT, Pair, ROUTER_AS, ensure_routes, target};

/// The interval between BFD packets; a router waits for three of them.
const INTERVAL: Duration = Duration::from_millis(50);
const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// So long a hold time that it is BFD that notices.
const PEER: &str = "hold_time = \"30s\"\nconnect_retry = \"1s\"\n[bgp.peer.bfd]\n\
                    min_tx = \"50ms\"\nmin_rx = \"50ms\"\nmultiplier = 3\n";

/// Two agents, each with a BFD process.
pub struct VipdPair {
    pub agents: Vec<Vipd>,
    bfds: Vec<Bfd>,
    machines: Vec<Machine>,
    router: Host,
    /// Which of them dies next.
    turn: usize,
    _echoes: Vec<UdpEcho>,
}

impl VipdPair {
    /// For BIRD, its side of BFD.
    pub const BIRD_BFD: &str = "protocol bfd { interface \"*\" { min rx interval 50 ms; \
                                min tx interval 50 ms; multiplier 3; }; }\n";
    /// For BIRD, its side of a session. It does what RFC 8326 asks of it.
    pub const BIRD_SESSION: &str = "bfd on; hold time 30; ipv4 { import filter { \
                                    if (65535, 0) ~ bgp_community then bgp_local_pref = 0; \
                                    accept; }; export none; };";
    /// The service, and one of its backends.
    pub const BACKEND: &str = "echo/b1";

    /// On these machines of the rack.
    pub fn start(rack: &Rack, machines: &[Machine]) -> Result<Self> {
        rack.bind_vips(&[VIP.into()])?;
        let mut echoes = Vec::new();
        for backend in &rack.backends {
            Decapsulator::attach(&backend.host, &["192.0.2.0/24"])?;
            echoes.push(UdpEcho::start(&backend.host, VIP.into(), PORT)?);
        }
        let config = AgentConfig {
            dataplane: "on_stop = \"keep\"\n".to_owned(),
            local_as: LOCAL_AS,
            router_as: ROUTER_AS,
            peer: PEER.to_owned(),
            ..AgentConfig::default()
        };
        let config = config.udp_service("echo", (VIP.into(), PORT), "ipip", &rack.backends);
        let (mut bfds, mut agents) = (Vec::new(), Vec::new());
        for machine in machines {
            let text = config.text(machine);
            bfds.push(Bfd::start(&machine.host, &text)?);
            agents.push(Vipd::start(&machine.host, &text)?);
        }
        Ok(Self {
            agents,
            bfds,
            machines: machines.to_vec(),
            router: rack.router.clone(),
            turn: 0,
            _echoes: echoes,
        })
    }
}

impl Pair for VipdPair {
    fn name(&self) -> &'static str {
        "vipd, BFD 50 ms x 3"
    }

    fn target(&self) -> SocketAddr {
        target(VIP)
    }

    fn ready(&self) -> Result<Machine> {
        for bfd in &self.bfds {
            let session = bfd.ensure("router", State::Up)?;
            let agreed = [
                session.transmit_interval_seconds,
                session.detection_time_seconds,
            ];
            let agreed = agreed.map(|it| it.map(Duration::from_secs_f64));
            let wanted = [Some(INTERVAL), Some(3 * INTERVAL)];
            ensure!(agreed == wanted, "{session:?}");
        }
        ensure_routes(&self.router, VIP, &self.machines)?;
        let victim = self.machines.get(self.turn % self.machines.len());
        victim.cloned().context("there is no machine")
    }

    fn revived(&mut self) {
        self.turn += 1;
    }
}
