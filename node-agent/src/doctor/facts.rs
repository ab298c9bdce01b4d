//! What there is to judge beyond what is looked at when the agent starts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    num::NonZero,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use rtnetlink::packet_route::AddressFamily;
use rustix::{fs::statfs, net::sockopt::socket_peercred};
use socket2::{Domain, Socket, Type};
use tokio::task::spawn_blocking;
use vipd_bfd::sessions::Hops;

use super::{
    attached::{self, Attached},
    firewall::{self, Blocked, Port},
    reach::{self, Reached},
};
use crate::{
    bfd,
    config::{Bgp, Binding, Config},
    netlink::{Error, Netlink, address::Address, link::Link},
    preflight::{
        self,
        facts::{in_force, read_number},
    },
    speaker::sockopt::set_password,
};

/// `f_type` of a BPF file system (linux/magic.h: `BPF_FS_MAGIC`).
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// Where a BPF file system usually is.
const BPF_FS: &str = "/sys/fs/bpf";
/// Ports of BFD over one hop and over several (RFC 5881, RFC 5883).
const BFD: u16 = 3784;
const BFD_MULTIHOP: u16 = 4784;

/// This host, and who answers from it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Version of the kernel, as far as it is understood.
    pub kernel: Option<(u32, u32)>,
    /// Whether the kernel interprets BPF programs.
    pub interpreted: bool,
    /// Where a BPF file system is missing.
    pub no_bpf_fs: Option<PathBuf>,
    /// What XDP programs run on the interfaces of the configuration.
    pub attached: Vec<Attached>,
    /// Settings by which this host forwards packets for others, that are on.
    pub forwarding: Vec<&'static str>,
    /// Virtual addresses on this host.
    pub bound: Vec<Bound>,
    /// Settings by which routes with several next hops spread by addresses only,
    /// where there are such routes.
    pub by_addresses: Vec<&'static str>,
    /// Why there are no TCP MD5 signatures, where a peer wants them.
    pub no_md5: Option<String>,
    /// Ports that routers and backends send to, and whose packets are dropped.
    pub blocked: Vec<Blocked>,
    /// Why that is not known, or not all of it.
    pub filter_unread: Vec<String>,
    /// A port that another program than the agent listens at.
    pub taken: Option<u16>,
    /// The agent that runs.
    pub agent: Option<Agent>,
    /// Sockets that checks may need together.
    pub sockets: u64,
    /// Why the BFD process cannot be reached, where a peer or a backend has BFD.
    pub no_bfd: Option<String>,
    /// Who answers at the end of the ways.
    pub reached: Vec<Reached>,
    /// Why that could not be found out.
    pub not_asked: Option<String>,
    /// Neighbours that were set by hand, and the interface of each.
    pub fixed: Vec<(String, IpAddr)>,
}

/// A virtual address on an interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The address.
    pub vip: IpAddr,
    /// An interface by which neighbours ask for addresses.
    pub interface: String,
    /// Whether the address is on that interface itself, and if so, by whose will.
    pub on_it: Option<Placed>,
    /// Which requests are answered there (ip-sysctl, `arp_ignore`).
    pub arp_ignore: u8,
    /// Which addresses are told there (ip-sysctl, `arp_announce`).
    pub arp_announce: u8,
}

/// By whose will an address is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The configuration names the interface.
    Configured,
    /// Somebody has, and the service takes its addresses from there.
    Taken,
    /// Somebody has put it there.
    ByOthers,
}

/// A running agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its process number.
    pub pid: u32,
    /// Files that it may have open.
    pub files: Option<u64>,
}

impl Facts {
    /// What there is beyond `plain`.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn gather(
        config: &Config,
        netlink: &Netlink,
        plain: &preflight::facts::Facts,
    ) -> Result<Self, Error> {
        let addresses = netlink.addresses().await?;
        let links = netlink.links().await?;
        let name = |ifindex| links.get(&ifindex).map(|link| link.name.clone());
        let fixed = netlink.fixed_neighbours().await?;
        let agent = agent(&config.control_socket);
        let inquiries = reach::inquiries(config, &plain.ways, &links, &addresses);
        let asked = spawn_blocking(|| reach::ask(inquiries)).await;
        let (reached, not_asked) = match asked.map_err(io::Error::other).flatten() {
            Ok(reached) => (reached, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let listen = config.bgp.as_ref().and_then(|bgp| bgp.listen);
        let listen = listen.map(NonZero::get);
        let (blocked, filter_unread) = filter(&ports(config)).await;
        Ok(Self {
            kernel: kernel(),
            interpreted: read_number("/proc/sys/net/core/bpf_jit_enable") == Some(0),
            no_bpf_fs: config
                .dataplane
                .as_ref()
                .and_then(|dataplane| no_bpf_fs(&dataplane.pin_path)),
            attached: attached::look(config, &links),
            forwarding: forwarding(),
            bound: bound(config, &addresses, &links),
            by_addresses: by_addresses(netlink).await?,
            no_md5: config.bgp.as_ref().and_then(no_md5),
            blocked,
            filter_unread,
            taken: listen.filter(|port| agent.is_none() && is_taken(*port)),
            agent,
            sockets: sockets(config),
            no_bfd: no_bfd(config),
            reached,
            not_asked,
            fixed: fixed
                .into_iter()
                .filter_map(|(ifindex, address)| Some((name(ifindex)?, address)))
                .collect(),
        })
    }
}

fn kernel() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Where a BPF file system should be mounted for these pins, if it is not.
fn no_bpf_fs(pins: &Path) -> Option<PathBuf> {
    let there = pins.ancestors().find(|path| path.exists())?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the kernel's magic numbers are 32 bits in a signed word"
    )]
    let magic = statfs(there).ok()?.f_type as u32;
    if magic == BPF_FS_MAGIC {
        return None;
    }
    Some(if pins.starts_with(BPF_FS) {
        BPF_FS.into()
    } else {
        pins.parent().unwrap_or(pins).to_owned()
    })
}

fn forwarding() -> Vec<&'static str> {
    let settings = [
        "net.ipv4.conf.all.forwarding",
        "net.ipv6.conf.all.forwarding",
    ];
    settings.into_iter().filter(|name| is_on(name)).collect()
}

/// Virtual addresses here, each with the interfaces by which neighbours may ask for
/// it.
fn bound(config: &Config, addresses: &[Address], links: &BTreeMap<u32, Link>) -> Vec<Bound> {
    let services = config.model.services.iter();
    let vips: Vec<_> = services.flat_map(|service| &service.vips).collect();
    let here: BTreeSet<_> = addresses.iter().map(|found| found.address).collect();
    let is_vip = |address: &IpAddr| vips.iter().any(|vip| vip.contains((*address).into()));
    let mut bound = Vec::new();
    for vip in here.into_iter().filter(is_vip) {
        for link in links.values().filter(|link| link.arp && link.up) {
            let found = |it: &Address| (it.address, it.ifindex) == (vip, link.ifindex);
            let placed = match config.bindings.get(&vip.into()) {
                Some(Binding::At(place)) => match &place.interface {
                    Some(name) if name.as_str() == link.name => Placed::Configured,
                    _ => Placed::ByOthers,
                },
                Some(Binding::Taken(_)) => Placed::Taken,
                _ => Placed::ByOthers,
            };
            bound.push(Bound {
                vip,
                interface: link.name.clone(),
                on_it: addresses.iter().any(found).then_some(placed),
                arp_ignore: in_force(&link.name, "arp_ignore"),
                arp_announce: in_force(&link.name, "arp_announce"),
            });
        }
    }
    bound
}

async fn by_addresses(netlink: &Netlink) -> Result<Vec<&'static str>, Error> {
    let families = [
        (AddressFamily::Inet, "net.ipv4.fib_multipath_hash_policy"),
        (AddressFamily::Inet6, "net.ipv6.fib_multipath_hash_policy"),
    ];
    let mut found = Vec::new();
    for (family, setting) in families {
        if setting_of(setting) == Some(0) && netlink.multipath_routes(family).await? > 0 {
            found.push(setting);
        }
    }
    Ok(found)
}

fn no_md5(bgp: &Bgp) -> Option<String> {
    let mut peers = bgp.peers.iter();
    let (peer, password) = peers.find_map(|peer| Some((peer, peer.password.as_ref()?)))?;
    // One that cannot be read is told of when the configuration is.
    let secret = password.read().ok()?;
    let address = peer.address.ip();
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let set = Socket::new(domain, Type::STREAM, None)
        .and_then(|socket| set_password(&socket, address, Some(&secret)));
    set.err().map(|error| error.to_string())
}

/// Ports that others send to, and who.
fn ports(config: &Config) -> Vec<Port> {
    let peers = || config.bgp.iter().flat_map(|bgp| &bgp.peers);
    let sessions =
        peers().filter_map(|peer| Some((peer.address.ip(), &peer.bfd.as_ref()?.session)));
    let backends = config.backend_bfd.iter();
    let sessions = sessions.chain(backends.map(|(address, bfd)| (*address, &bfd.session)));
    let sessions: Vec<_> = sessions.collect();
    let over = |hops| {
        let all = sessions
            .iter()
            .filter(move |(_, session)| session.hops == hops);
        all.map(|(address, _)| *address).collect()
    };
    let listen = config.bgp.as_ref().and_then(|bgp| bgp.listen);
    let bgp = listen.map(|port| ("tcp", port.get(), peers().map(|p| p.address.ip()).collect()));
    let bfd = [
        ("udp", BFD, over(Hops::Single)),
        ("udp", BFD_MULTIHOP, over(Hops::Multi)),
    ];
    let ports = bgp
        .into_iter()
        .chain(bfd)
        .map(|(protocol, number, senders)| Port {
            protocol,
            number,
            senders,
        });
    ports.filter(|port| !port.senders.is_empty()).collect()
}

/// What the packet filter does to what comes to these ports, and what of that is
/// not known.
async fn filter(ports: &[Port]) -> (Vec<Blocked>, Vec<String>) {
    let mut unread = Vec::new();
    if ports.is_empty() {
        return (Vec::new(), unread);
    }
    if firewall::has_legacy() {
        unread.push("there are rules of `iptables-legacy`, which `nft` does not show".to_owned());
    }
    match firewall::ruleset().await {
        Ok(ruleset) => (firewall::blocked(&ruleset, ports), unread),
        Err(error) => {
            unread.push(error);
            (Vec::new(), unread)
        }
    }
}

/// A packet filter may leave us without an answer.
fn is_taken(port: u16) -> bool {
    const PATIENCE: Duration = Duration::from_millis(200);
    let here = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut here = here
        .map(|address: IpAddr| SocketAddr::new(address, port))
        .into_iter();
    here.any(|address| TcpStream::connect_timeout(&address, PATIENCE).is_ok())
}

/// Who serves the control socket.
fn agent(socket: &Path) -> Option<Agent> {
    let stream = UnixStream::connect(socket).ok()?;
    let pid = socket_peercred(&stream).ok()?.pid.as_raw_nonzero().get();
    let pid = u32::try_from(pid).ok()?;
    Some(Agent {
        pid,
        files: files(pid).ok().flatten(),
    })
}

/// `Max open files  SOFT  HARD  files` of /proc/PID/limits; the agent raises the
/// first to the second.
fn files(pid: u32) -> io::Result<Option<u64>> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"));
    Ok(line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()))
}

/// A socket for each check, and some for all else.
fn sockets(config: &Config) -> u64 {
    const ELSE: u64 = 200;
    let services = config.model.services.iter();
    let backends: usize = services.map(|service| service.backends.len()).sum();
    ELSE + backends as u64
}

fn no_bfd(config: &Config) -> Option<String> {
    if !config.has_bfd() {
        return None;
    }
    let asked = bfd::show::ask(&config.bfd_socket);
    asked.err().map(|error| format!("{error:#}"))
}

fn is_on(setting: &str) -> bool {
    setting_of(setting) == Some(1)
}

fn setting_of(name: &str) -> Option<u8> {
    read_number(&format!("/proc/sys/{}", name.replace('.', "/")))
}

#[cfg(test)]
mod tests {
    use super::{
        Placed::{ByOthers, Configured, Taken},
        *,
    };
    use crate::{
        config::Found,
        netlink::{address::Usability, link::Xdp},
    };

    const LOCAL: &str = r#"
[[service]]
name = "web"
vips = ["198.51.100.10"]
protocol = "tcp"
port = 80
mode = "local"
[service.bind]
interface = "eth0"
"#;

    fn config(text: &str) -> Config {
        let parsed = Config::parse(text, "vipd.toml");
        parsed.expect("a good file").0
    }

    #[test]
    fn ports_are_those_of_peers_and_of_backends_with_who_sends_to_them() {
        let backend = r#"
[dataplane]
interfaces = ["eth0"]
[[service]]
name = "web"
vips = ["198.51.100.10"]
protocol = "tcp"
port = 80
mode = "ipip"
bfd = true
[[service.backend]]
name = "b1"
address = "192.0.2.21"
"#;
        let bgp = r#"
[bgp]
local_as = 64500
router_id = "192.0.2.11"
[[bgp.peer]]
name = "tor1"
address = "192.0.2.1"
as = 64501
"#;
        let peer_with_bfd = format!("{bgp}bfd = true\n");
        for (sentence, text, expected) in [
            ("neither", LOCAL.to_owned(), &[][..]),
            ("BGP", bgp.to_owned(), &["tcp 179 of 192.0.2.1"]),
            (
                "BFD to a peer",
                peer_with_bfd.clone(),
                &["tcp 179 of 192.0.2.1", "udp 3784 of 192.0.2.1"],
            ),
            (
                "BFD to a backend alone",
                backend.to_owned(),
                &["udp 4784 of 192.0.2.21"],
            ),
            (
                "BFD to both",
                peer_with_bfd + backend,
                &[
                    "tcp 179 of 192.0.2.1",
                    "udp 3784 of 192.0.2.1",
                    "udp 4784 of 192.0.2.21",
                ],
            ),
        ] {
            let ports = ports(&config(&text)).into_iter().map(|port| {
                let senders: Vec<_> = port.senders.iter().map(IpAddr::to_string).collect();
                format!(
                    "{} {} of {}",
                    port.protocol,
                    port.number,
                    senders.join(", ")
                )
            });
            assert_eq!(ports.collect::<Vec<_>>(), expected, "{sentence}");
        }
    }

    #[test]
    fn neighbours_ask_for_an_address_by_all_interfaces_that_speak_arp() {
        let link = |ifindex, name: &str, arp, up| Link {
            ifindex,
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            up,
            arp,
            carrier: up,
            ours: false,
            xdp: Xdp::None,
        };
        let links = [
            link(1, "lo", false, true),
            link(2, "eth0", true, true),
            link(3, "eth1", true, true),
            link(4, "eth2", true, false),
            link(5, "vipd0", false, true),
        ];
        let links = links.into_iter().map(|link| (link.ifindex, link)).collect();
        let address = |last, ifindex| Address {
            address: [198, 51, 100, last].into(),
            ifindex,
            label: None,
            usability: Usability::Usable,
            permanent: true,
            marked: false,
        };
        let configured = config(LOCAL);
        let elsewhere = config(&LOCAL.replace("\"eth0\"", "\"eth1\""));
        let watched =
            config(&LOCAL.replace("[service.bind]\ninterface = \"eth0\"", "bind = false"));
        let text = LOCAL.replace("[service.bind]", "[service.vips_from]");
        let text = text.replace("vips = [\"198.51.100.10\"]\n", "");
        let found = Found {
            interface: "eth0".into(),
            address: [198, 51, 100, 10].into(),
            label: None,
        };
        let taken = Config::parse_found(&text, "vipd.toml", &[found]);
        let taken = taken.expect("a good file").0;
        for (sentence, config, addresses, expected) in [
            ("it is not here", &configured, vec![address(11, 2)], vec![]),
            (
                "it is where nobody asks",
                &configured,
                vec![address(10, 5)],
                vec![("eth0", None), ("eth1", None)],
            ),
            (
                "it is where it is configured",
                &configured,
                vec![address(10, 2)],
                vec![("eth0", Some(Configured)), ("eth1", None)],
            ),
            (
                "it is elsewhere too",
                &elsewhere,
                vec![address(10, 2), address(10, 3)],
                vec![("eth0", Some(ByOthers)), ("eth1", Some(Configured))],
            ),
            (
                "others have bound it",
                &watched,
                vec![address(10, 2)],
                vec![("eth0", Some(ByOthers)), ("eth1", None)],
            ),
            (
                "the service takes it from there",
                &taken,
                vec![address(10, 2)],
                vec![("eth0", Some(Taken)), ("eth1", None)],
            ),
        ] {
            let bound = bound(config, &addresses, &links);
            let found: Vec<_> = bound.iter().map(|it| (&*it.interface, it.on_it)).collect();
            assert_eq!(found, expected, "{sentence}");
        }
    }
}
