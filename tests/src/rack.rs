//! The topology "rack": a client, a router, and a switch with balancers and
//! backends on it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{host::Host, lab::Lab, wait::wait_until};

/// How long a machine that is plugged in may take until it reaches its router.
const PLUGGED: Duration = Duration::from_secs(20);

/// The router's address on the rack side, every rack machine's gateway.
pub const ROUTER_IPV4: Ipv4Addr = rack_ipv4(1);
/// The router's address on the rack side, every rack machine's gateway.
pub const ROUTER_IPV6: Ipv6Addr = rack_ipv6(1);
/// The client's address.
pub const CLIENT_IPV4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The client's address.
pub const CLIENT_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 10);

/// The AS of the balancers.
pub const BALANCERS_AS: u32 = 64500;
/// The AS of the router.
pub const ROUTER_AS: u32 = 64501;

/// The last octet of the first balancer and of the first backend.
const FIRST_BALANCER: u8 = 11;
const FIRST_BACKEND: u8 = 21;
/// An IPIP header (20 or 40 bytes) fits over the client's 1500.
const RACK_MTU: u16 = 1600;

/// How many machines stand in the rack.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// lb1, lb2, ..
    pub balancers: u8,
    /// b1, b2, ..
    pub backends: u8,
}

/// A host of the rack and its addresses.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The namespace.
    pub host: Host,
    /// 192.0.2.x, of a /24.
    pub ipv4: Ipv4Addr,
    /// 2001:db8:1::x, of a /64.
    pub ipv6: Ipv6Addr,
}

/// Client, router, switch, balancers and backends, wired up and routed except
/// for the VIPs, which the balancers announce.
#[derive(Debug)]
pub struct Rack {
    /// [`CLIENT_IPV4`] and [`CLIENT_IPV6`], behind the router.
    pub client: Host,
    /// [`ROUTER_IPV4`] and [`ROUTER_IPV6`]; forwards, with ECMP by ports.
    pub router: Host,
    /// A bridge `br0` whose ports are named after the machines behind them.
    pub switch: Host,
    /// lb1 is 192.0.2.11 and 2001:db8:1::11, and so on.
    pub balancers: Vec<Machine>,
    /// b1 is 192.0.2.21 and 2001:db8:1::21, and so on.
    pub backends: Vec<Machine>,
}

impl Rack {
    /// Builds the rack in a tenth of a second.
    pub fn build(lab: &Lab, size: Size) -> Result<Self> {
        let balancers = (1..=size.balancers).map(|n| (format!("lb{n}"), FIRST_BALANCER + n - 1));
        let backends = (1..=size.backends).map(|n| (format!("b{n}"), FIRST_BACKEND + n - 1));
        let numbered: Vec<(String, u8)> = balancers.chain(backends).collect();

        let mut names = vec!["client", "router", "switch"];
        names.extend(numbered.iter().map(|(name, _)| name.as_str()));
        let mut hosts = lab.add_hosts(&names)?.into_iter();
        let mut next = || hosts.next().context("a host for each name");
        let (client, router, switch) = (next()?, next()?, next()?);
        let mut machines = numbered
            .iter()
            .map(|(_, number)| Machine::new(next()?, *number))
            .collect::<Result<Vec<_>>>()?;
        let backends = machines.split_off(usize::from(size.balancers));
        let rack = Self {
            client,
            router,
            switch,
            balancers: machines,
            backends,
        };
        rack.wire()?;
        Ok(rack)
    }

    /// The machine of that name.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines()
            .find(|machine| machine.host.name() == name)
            .with_context(|| format!("no machine {name} in the rack"))
    }

    /// Silent death of a machine: its carrier stays, its packets vanish, both
    /// ways.
    pub fn unplug_silently(&self, machine: &Machine) -> Result<()> {
        self.set_port(machine, "nomaster")
    }

    /// Undoes [`Rack::unplug_silently`].
    pub fn plug_in(&self, machine: &Machine) -> Result<()> {
        self.switch.ip(&join_bridge(machine.host.name()))?;
        // The switch has forgotten where it is, and asks nobody: it must speak
        // first, as with a link that comes up.
        let router = ROUTER_IPV4.to_string();
        // Either may have just given up to ask for the other's Ethernet address.
        wait_until("the router is reached again", PLUGGED, || {
            let ping = ["-c", "1", "-W", "2", &router];
            machine.host.run("ping", &ping).map(drop)
        })
    }

    /// A pulled cable: the machine loses its carrier.
    pub fn pull_cable(&self, machine: &Machine) -> Result<()> {
        self.set_port(machine, "down")
    }

    /// Undoes [`Rack::pull_cable`].
    pub fn push_cable(&self, machine: &Machine) -> Result<()> {
        self.set_port(machine, "up")
    }

    /// Binds VIPs to the loopback interface of every backend, whence they are
    /// neither answered for by ARP nor announced.
    pub fn bind_vips(&self, vips: &[IpAddr]) -> Result<()> {
        self.backends
            .iter()
            .try_for_each(|backend| backend.bind_vips(vips))
    }

    /// Whether anybody announces the VIP or not, its packets go to this
    /// balancer.
    pub fn route_by_hand(&self, vip: IpAddr, balancer: &Machine) -> Result<()> {
        self.change_route("add", vip, balancer)
    }

    /// Undoes [`Rack::route_by_hand`].
    pub fn unroute_by_hand(&self, vip: IpAddr, balancer: &Machine) -> Result<()> {
        self.change_route("del", vip, balancer)
    }

    fn change_route(&self, change: &str, vip: IpAddr, balancer: &Machine) -> Result<()> {
        let hop = balancer.address_like(vip);
        // Before what a routing daemon puts there.
        self.router
            .ip(&format!("route {change} {vip} via {hop} metric 1\n"))
    }

    fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.balancers.iter().chain(&self.backends)
    }

    fn set_port(&self, machine: &Machine, change: &str) -> Result<()> {
        self.switch
            .ip(&format!("link set {} {change}\n", machine.host.name()))
    }

    /// Cables, addresses and routes.
    fn wire(&self) -> Result<()> {
        connect((&self.client, "eth0"), (&self.router, "client0"), 1500)?;
        connect((&self.router, "rack0"), (&self.switch, "router"), RACK_MTU)?;
        for machine in self.machines() {
            let port = (&self.switch, machine.host.name());
            connect((&machine.host, "eth0"), port, RACK_MTU)?;
        }
        self.set_up_switch()?;
        self.set_up_router()?;
        self.client.ip(&format!(
            "addr add {CLIENT_IPV4}/24 dev eth0\n\
             addr add {CLIENT_IPV6}/64 dev eth0\n\
             route add default via 203.0.113.1\n\
             route add default via 2001:db8:c::1\n"
        ))?;
        // A new connection every few milliseconds wants many ports.
        self.client
            .sysctl(&[("net/ipv4/ip_local_port_range", "2000 65000")])?;
        for machine in self.machines() {
            let Machine { ipv4, ipv6, .. } = machine;
            machine.host.ip(&format!(
                "addr add {ipv4}/24 dev eth0\n\
                 addr add {ipv6}/64 dev eth0\n\
                 route add default via {ROUTER_IPV4}\n\
                 route add default via {ROUTER_IPV6}\n"
            ))?;
        }
        Ok(())
    }

    fn set_up_switch(&self) -> Result<()> {
        let mut batch = format!(
            "link add br0 mtu {RACK_MTU} type bridge stp_state 0 mcast_snooping 0\n\
             link set br0 up\n"
        );
        batch += &join_bridge("router");
        for machine in self.machines() {
            batch += &join_bridge(machine.host.name());
        }
        self.switch.ip(&batch)?;
        // What a balancer sends by XDP_TX is taken over at once only by a veth
        // end that runs an XDP program too. (With GRO alone it is queued there,
        // and waits for the next packet that comes the ordinary way.)
        let pass = pass_object()?;
        for balancer in &self.balancers {
            let port = balancer.host.name();
            self.switch.ip(&format!(
                "link set dev {port} xdpdrv object {} section xdp\n",
                pass.display()
            ))?;
        }
        Ok(())
    }

    fn set_up_router(&self) -> Result<()> {
        self.router.sysctl(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            // ECMP by addresses and ports.
            ("net/ipv4/fib_multipath_hash_policy", "1"),
            ("net/ipv6/fib_multipath_hash_policy", "1"),
        ])?;
        self.router.ip(&format!(
            "addr add 203.0.113.1/24 dev client0\n\
             addr add 2001:db8:c::1/64 dev client0\n\
             addr add {ROUTER_IPV4}/24 dev rack0\n\
             addr add {ROUTER_IPV6}/64 dev rack0\n"
        ))
    }
}

impl Machine {
    fn new(host: Host, number: u8) -> Result<Self> {
        host.sysctl(&[
            ("net/ipv4/conf/all/arp_ignore", "1"),
            ("net/ipv4/conf/all/arp_announce", "2"),
        ])?;
        Ok(Self {
            host,
            ipv4: rack_ipv4(number),
            ipv6: rack_ipv6(number),
        })
    }

    /// The machine's address in the family of `other`.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() {
            self.ipv4.into()
        } else {
            self.ipv6.into()
        }
    }

    /// Binds VIPs to this machine's loopback interface.
    pub fn bind_vips(&self, vips: &[IpAddr]) -> Result<()> {
        let batch: String = vips
            .iter()
            .map(|vip| format!("addr add {vip} dev lo\n"))
            .collect();
        self.host.ip(&batch)
    }
}

/// A port of the switch is plugged in. It gets no frames for unknown others:
/// a network card would drop them, a veth would show them to XDP.
fn join_bridge(port: &str) -> String {
    format!("link set {port} master br0\nlink set {port} type bridge_slave flood off\n")
}

/// The pass-all XDP program.
pub fn pass_object() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/pass");
    path.canonicalize().with_context(|| {
        format!(
            "no XDP object at {}: run `cargo xtask build`",
            path.display()
        )
    })
}

/// Joins two hosts by a veth pair, up, without checksum offload: a frame that
/// leaves by XDP would carry unfinished checksums.
pub fn connect(a: (&Host, &str), b: (&Host, &str), mtu: u16) -> Result<()> {
    let ends = [a, b];
    a.0.ip(&format!(
        "link add name {} mtu {mtu} netns {} type veth peer name {} mtu {mtu} netns {}\n",
        a.1,
        a.0.netns_name(),
        b.1,
        b.0.netns_name(),
    ))?;
    for (host, interface) in ends {
        host.run("ethtool", &["-K", interface, "rx", "off", "tx", "off"])?;
        host.ip(&format!("link set {interface} up\n"))?;
    }
    Ok(())
}

const fn rack_ipv4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// 2001:db8:1::11 for 11: the decimal digits are read as hexadecimal ones.
const fn rack_ipv6(number: u8) -> Ipv6Addr {
    let digits = (number / 10 * 16 + number % 10) as u16;
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, digits)
}
