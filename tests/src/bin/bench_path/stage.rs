//! The lab of the benchmark: a client, one host in the middle and a web server,
//! with a wire for each way of having that host in between.
//!
//! ```text
//!            203.0.113.0/26             192.0.2.0/26
//!  client plain0 ------- front0 host back0 ------- plain0 backend
//!         vip0 --------- front1      back1 ------- eth0
//!            203.0.113.64/26            192.0.2.64/26
//!         straight0 ------------------------------ straight0
//!                       203.0.113.128/26
//! ```
//!
//! vipd is attached to `front1` alone and the decapsulator to the backend's
//! `eth0` alone, so the other ways are those of a host that has never heard of
//! either. All wires have the same offloads: no checksums, no segmentation,
//! receive aggregation on.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{Decapsulator, Host, Lab, Nginx, Process, Vipd, ask, connect, wait_until};

/// An IPIP header fits over the client's 1500.
const MTU: u16 = 1600;

/// How the client reaches the web server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a wire between the two, without any host in the middle.
    Straight,
    /// The host's kernel routes.
    Routed,
    /// vipd forwards, and the host's kernel routes the answers.
    Vipd(Mode),
    /// vipd forwards, and the answers go by the wire between backend and client.
    VipdBypassed(Mode),
    /// HAProxy on the host relays in TCP mode.
    Haproxy,
}

/// How vipd forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    L2Dsr,
    Ipip,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2Dsr => "l2-dsr",
            Self::Ipip => "ipip",
        }
    }

    /// The backend's address: on the wire for that mode.
    const fn backend(self) -> Ipv4Addr {
        match self {
            Self::L2Dsr => Ipv4Addr::new(192, 0, 2, 21),
            Self::Ipip => Ipv4Addr::new(192, 0, 2, 85),
        }
    }
}

impl Way {
    /// What the client asks.
    pub const fn address(self) -> Ipv4Addr {
        match self {
            Self::Straight => Ipv4Addr::new(203, 0, 113, 140),
            Self::Routed => Mode::L2Dsr.backend(),
            Self::Vipd(Mode::L2Dsr) => Ipv4Addr::new(198, 51, 100, 1),
            Self::Vipd(Mode::Ipip) => Ipv4Addr::new(198, 51, 100, 2),
            Self::VipdBypassed(Mode::L2Dsr) => Ipv4Addr::new(198, 51, 100, 3),
            Self::VipdBypassed(Mode::Ipip) => Ipv4Addr::new(198, 51, 100, 4),
            Self::Haproxy => Ipv4Addr::new(198, 51, 100, 9),
        }
    }

    /// Whether answers go by the wire between backend and client.
    const fn answers_straight(self) -> bool {
        matches!(self, Self::Straight | Self::VipdBypassed(_))
    }
}

const FORWARDED: [Way; 4] = [
    Way::Vipd(Mode::L2Dsr),
    Way::Vipd(Mode::Ipip),
    Way::VipdBypassed(Mode::L2Dsr),
    Way::VipdBypassed(Mode::Ipip),
];

/// Everything that runs.
pub struct Stage {
    pub client: Host,
    backend: Host,
    pub server: Nginx,
    pub agent: Vipd,
    pub haproxy: Process,
}

impl Stage {
    /// Builds it, and returns when every way leads to the web server.
    pub fn build(lab: &Lab) -> Result<Self> {
        let hosts = lab.add_hosts(&["client", "host", "backend"])?;
        let [client, host, backend] = <[Host; 3]>::try_from(hosts)
            .ok()
            .context("a host for each name")?;
        wire(&client, &host, &backend)?;
        Decapsulator::attach(&backend, &["192.0.2.65/32"])?;
        let server = Nginx::start(&backend)?;
        let agent = Vipd::start(&host, &vipd_config(&host))?;
        let config = host.write("haproxy.cfg", HAPROXY)?;
        // -db: one process, in the foreground.
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(config);
        let haproxy = host.spawn("haproxy", &mut haproxy)?;
        Ok(Self {
            client,
            backend,
            server,
            agent,
            haproxy,
        })
    }

    /// Waits until this way leads to the web server, and makes sure that its
    /// answers take the wire that they should.
    pub fn ensure_way(&self, way: Way) -> Result<()> {
        let target = (way.address(), 80).into();
        let sentence = format!("{way:?} leads to the web server");
        wait_until(&sentence, Duration::from_secs(10), || {
            let name = ask(&self.client, target)?;
            ensure!(name == "backend", "{name} answered");
            Ok(())
        })?;
        const QUESTIONS: u64 = 10;
        let before = self.sent_straight()?;
        for _ in 0..QUESTIONS {
            ask(&self.client, target)?;
        }
        let sent = self.sent_straight()? - before;
        ensure!(
            (sent >= QUESTIONS) == way.answers_straight(),
            "{way:?}: {sent} packets of {QUESTIONS} answers went straight to the client"
        );
        Ok(())
    }

    /// Packets that the backend has sent by the wire to the client.
    fn sent_straight(&self) -> Result<u64> {
        let words = ["-json", "-statistics", "link", "show", "straight0"];
        let told: Value = serde_json::from_str(&self.backend.run("ip", &words)?)?;
        told[0]["stats64"]["tx"]["packets"]
            .as_u64()
            .with_context(|| format!("ip told {told}"))
    }
}

fn wire(client: &Host, host: &Host, backend: &Host) -> Result<()> {
    let wires = [
        ((client, "plain0"), (host, "front0")),
        ((client, "vip0"), (host, "front1")),
        ((host, "back0"), (backend, "plain0")),
        ((host, "back1"), (backend, "eth0")),
        ((client, "straight0"), (backend, "straight0")),
    ];
    for (a, b) in wires {
        connect(a, b, MTU)?;
        for (host, interface) in [a, b] {
            // Also what lets a veth take frames that XDP has redirected.
            host.run("ethtool", &["-K", interface, "gro", "on"])?;
        }
    }
    for host in [client, host] {
        // A connection per request wants many ports.
        host.sysctl(&[("net/ipv4/ip_local_port_range", "2000 65000")])?;
    }
    host.sysctl(&[("net/ipv4/ip_forward", "1")])?;
    client.ip("addr add 203.0.113.10/26 dev plain0\n\
         addr add 203.0.113.74/26 dev vip0\n\
         addr add 203.0.113.138/26 dev straight0\n\
         link set dev plain0 mtu 1500\n\
         link set dev vip0 mtu 1500\n\
         link set dev straight0 mtu 1500\n\
         route add 192.0.2.0/26 via 203.0.113.1\n\
         route add 198.51.100.0/29 via 203.0.113.65\n\
         route add 198.51.100.8/29 via 203.0.113.1\n")?;
    host.ip(&format!(
        "addr add 203.0.113.1/26 dev front0\n\
         addr add 203.0.113.65/26 dev front1\n\
         addr add 192.0.2.1/26 dev back0\n\
         addr add 192.0.2.65/26 dev back1\n\
         addr add {}/32 dev lo\n",
        Way::Haproxy.address()
    ))?;
    let vips: String = FORWARDED
        .iter()
        .map(|way| format!("addr add {}/32 dev lo\n", way.address()))
        .collect();
    backend.ip(&format!(
        "{vips}addr add 192.0.2.21/26 dev plain0\n\
         addr add 192.0.2.85/26 dev eth0\n\
         addr add {}/26 dev straight0\n\
         route add default via 192.0.2.1\n\
         route add 203.0.113.64/26 via 203.0.113.138 dev straight0 table 100\n",
        Way::Straight.address()
    ))?;
    let rules: String = FORWARDED
        .iter()
        .filter(|way| way.answers_straight())
        .map(|way| format!("rule add from {} lookup 100\n", way.address()))
        .collect();
    backend.ip(&rules)
}

fn vipd_config(host: &Host) -> String {
    let (dir, pins) = (host.dir(), host.pins().join("vipd"));
    let mut text = format!(
        "[node]\nname = \"host\"\n\
         [control]\nsocket = \"{}/vipd.sock\"\n\
         [dataplane]\ninterfaces = [\"front1\"]\npin_path = \"{}\"\n",
        dir.display(),
        pins.display()
    );
    for mode in [Mode::L2Dsr, Mode::Ipip] {
        let (name, backend) = (mode.name(), mode.backend());
        let [through, bypassed] = [Way::Vipd(mode), Way::VipdBypassed(mode)].map(Way::address);
        text += &format!(
            "[[service]]\nname = \"{name}\"\nvips = [\"{through}\", \"{bypassed}\"]\n\
             protocol = \"tcp\"\nport = 80\nmode = \"{name}\"\n\
             [service.check]\ntype = \"http\"\npath = \"/healthz\"\n\
             [[service.backend]]\nname = \"backend\"\naddress = \"{backend}\"\n"
        );
    }
    text
}

const HAPROXY: &str = "\
global
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen web
    bind 198.51.100.9:80
    server backend 192.0.2.21:80
";
