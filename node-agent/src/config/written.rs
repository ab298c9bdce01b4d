//! The file as it is written: its tables, keys and defaults, each with what it
//! means. `docs/configuration.md` is made from here.

mod check;
mod damping;
mod doubt;
mod hook;
mod local;
mod policy;
mod service;
mod state;
mod vips_from;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use toml::de::DeValue;

pub use self::{
    check::{Check, CheckType, Dns, Exchange, Http, Presence, Tls, Transport},
    damping::Damping,
    doubt::Doubt,
    hook::Hook,
    local::Bind,
    policy::{Aggregate, Rule},
    service::{Backend, Depends, ModeName, Service},
    state::State,
    vips_from::VipsFrom,
};
use super::{
    bfd::{Bfd, BgpPeerBfd, Switch},
    community::Community,
    report::{Report, Span},
    routing::{Asn, HoldTime, NextHop},
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
    text::{InterfaceName, Name},
    value::{Int, read_word, words},
};

table! {
    /// The tables of the file. An empty file is legal and serves nothing.
    File = "" {
        /// This node.
        node: Node, default "{}";
        /// Forwarding.
        dataplane: Dataplane, optional "nothing is forwarded; services need it, unless this host serves them itself";
        /// The control socket.
        control: Control, default "{}";
        /// The metrics.
        metrics: Metrics, default "{}";
        /// The log.
        log: Log, default "{}";
        /// How the agent stops.
        stop: Stop, default "{}";
        /// What is kept for the next agent.
        state: State, default "{}";
        /// Announcing to routers.
        bgp: Bgp, optional "nothing is announced";
        /// The BFD process.
        bfd: Bfd, default "{}";
        /// When our own network is in doubt.
        doubt: Doubt, default "{}";
        /// What is served.
        service: Vec<At<Service>>, default "[]";
        /// Programs that are run when something changes its state.
        hook: Vec<At<Hook>>, default "[]";
    }
}

table! {
    /// Who this node is.
    ///
    /// ```toml
    /// [node]
    /// name = "lb1"
    /// cluster_secret_file = "cluster.secret"
    /// ```
    Node = "[node]" {
        /// Name of this node in status, logs and metrics.
        name: Name, optional "the host name";
        /// File with the secret that keys the flow hash, so that nobody can
        /// aim all flows at one backend. The same on every node that announces
        /// the same addresses, or they spread flows differently. Another one
        /// breaks established connections; a reload refuses it.
        cluster_secret_file: PathBuf, optional "a key that everybody knows";
    }
}

table! {
    /// Where and how packets are forwarded. Required as soon as there is a
    /// service in another mode than `local`.
    ///
    /// ```toml
    /// [dataplane]
    /// interfaces = ["eth0", "eth1"]
    /// xdp_mode = "native"
    /// on_stop = "keep"
    /// ```
    Dataplane = "[dataplane]" {
        /// Interfaces on which packets for the virtual addresses arrive; the
        /// XDP program is attached to each.
        interfaces: Vec<At<InterfaceName>>, required;
        /// `"native"` runs in the driver, `"generic"` in the kernel behind it,
        /// slower, with every driver. Never changed silently: the agent
        /// does not start where the mode is not possible.
        xdp_mode: XdpMode, default "\"native\"";
        /// What becomes of forwarding when the agent stops: `"remove"` takes
        /// it away after the routes are withdrawn, `"keep"` leaves it pinned
        /// and running, for a restart or an upgrade.
        on_stop: OnStop, default "\"remove\"";
        /// Where maps, program and links are pinned, on a BPF file system.
        pin_path: PathBuf, default "\"/sys/fs/bpf/vipd\"";
        /// Outer source address of packets to IPv4 backends in modes `ipip` and
        /// `gue`. Of a prefix, which no host may use, the bits after it are
        /// filled by the flow, so that a backend spreads packets over its
        /// queues.
        tunnel_source_ipv4: Ipv4Net, optional "the source address of the kernel's route to the backend";
        /// The same for IPv6 backends; at most the last 32 bits are filled.
        tunnel_source_ipv6: Ipv6Net, optional "the source address of the kernel's route to the backend";
        /// So many packets per second may be dropped for reasons of this host
        /// (the [verdicts](verdicts.md) `no_headroom` and `inconsistent`, and
        /// `no_next_hop` while there is a way to no backend at all), taken over 10
        /// seconds. With more, forwarded addresses are withdrawn, until it has been
        /// less than half for 30 seconds; longer each time it comes back soon, at
        /// most 10 minutes. Only where another node takes over: what all nodes
        /// suffer from, such as the loss of all backends, would take all away.
        max_drop_rate: Int<u32, 1, 1_000_000_000>, optional "no bound";
    }
}

table! {
    /// The socket through which `vipd status` and other commands speak to the
    /// agent.
    ///
    /// ```toml
    /// [control]
    /// socket = "/run/vipd/vipd.sock"
    /// ```
    Control = "[control]" {
        /// Unix socket, readable and writable for its group. Whoever may use it may
        /// do all that `vipd` can ask of the agent: show the status, but also reload,
        /// drain, capture packets and take the node out of service.
        socket: PathBuf, default "\"/run/vipd/vipd.sock\"";
    }
}

table! {
    /// Metrics for Prometheus, over HTTP at `/metrics`.
    ///
    /// ```toml
    /// [metrics]
    /// listen = "127.0.0.1:9842"
    /// ```
    Metrics = "[metrics]" {
        /// Whether metrics are served at all.
        enabled: bool, default "true";
        /// Where they are served. There is no password: think before you open
        /// it to others.
        listen: SocketAddr, default "\"127.0.0.1:9842\"";
    }
}

table! {
    /// The log, on standard error.
    ///
    /// ```toml
    /// [log]
    /// level = "info"
    /// ```
    Log = "[log]" {
        /// The least important kind of line that is written. The environment
        /// variable `RUST_LOG` overrides it.
        level: LogLevel, default "\"info\"";
    }
}

table! {
    /// How the agent stops: it withdraws its routes, goes on forwarding for a
    /// while, closes its sessions, and then takes forwarding away.
    ///
    /// ```toml
    /// [stop]
    /// linger = "5s"
    /// local = "keep"
    /// ```
    Stop = "[stop]" {
        /// How long packets are still forwarded after the routes are withdrawn.
        /// Longer than the routers need to follow.
        linger: Duration, default "\"2s\"";
        /// What becomes of the addresses of services in mode `local`:
        /// `"remove"` withdraws them and takes away what vipd has bound;
        /// `"keep"` leaves them bound, for a restart or an upgrade, and does not
        /// withdraw them where all routers keep our routes meanwhile (graceful
        /// restart).
        local: OnStop, default "\"remove\"";
    }
}

table! {
    /// The BGP speaker. A virtual address is announced as a host route, a
    /// prefix of them as that prefix, while its services have enough healthy
    /// backends, and withdrawn at once when they have not.
    ///
    /// ```toml
    /// [bgp]
    /// local_as = 64500
    /// router_id = "192.0.2.11"
    /// ```
    Bgp = "[bgp]" {
        /// Our AS number.
        local_as: Asn, required;
        /// Our BGP identifier: an IPv4 address of this node that no other
        /// node shares, so never a virtual address.
        router_id: Ipv4Addr, required;
        /// How long routers may keep our routes while the agent is away, in whole
        /// seconds, at most `"4095s"`. BFD goes down by itself when it is away
        /// for longer.
        restart_time: Duration, default "\"120s\"";
        /// Whether routers may connect to us: at the `source` addresses of the
        /// peers, for peers without one at all addresses. `false` listens
        /// nowhere; then we must be able to connect to each router.
        listen: bool, default "true";
        /// TCP port at which routers may connect to us.
        listen_port: Port, default "179";
        /// The routers we speak to.
        peer: Vec<At<BgpPeer>>, default "[]";
        /// Prefixes that are announced for the virtual addresses inside them.
        aggregate: Vec<At<Aggregate>>, default "[]";
        /// What is announced to whom.
        rule: Vec<At<Rule>>, default "[]";
        /// Whether improvements wait.
        damping: Damping, optional "nothing waits";
    }
}

table! {
    /// One router and the session to it. The session is internal (iBGP) when
    /// `as` is `local_as`, else external (eBGP). Everything said here on
    /// announcements holds for this peer only.
    ///
    /// ```toml
    /// [[bgp.peer]]
    /// name = "tor1"
    /// address = "192.0.2.1"
    /// as = 64501
    /// hold_time = "9s"
    /// password_file = "tor1.md5"
    /// communities = ["64500:100", "no-export"]
    ///
    /// [[bgp.peer]]
    /// name = "tor1-v6"
    /// address = "2001:db8::1"
    /// as = 64501
    /// ```
    BgpPeer = "[[bgp.peer]]" {
        /// Name in status, logs and metrics. Unique among peers.
        name: Name, optional "the address";
        /// Address of the router. Unique among peers.
        address: IpAddr, required;
        /// AS number of the router.
        r#as: Asn, required;
        /// TCP port of the router.
        port: Port, default "179";
        /// Our address of the session, of the same family as `address`.
        source: IpAddr, optional "the kernel chooses";
        /// TTL of our packets: how many hops the router may be away.
        multihop: Int<u8, 1, 255>, optional "1 (eBGP), 64 (iBGP)";
        /// GTSM (RFC 5082): how many hops the router may be away, 1 on our
        /// link. We send with a TTL of 255, as the router must, and drop what
        /// has come farther. Not together with `multihop`.
        ttl_security: Int<u8, 1, 254>, optional "any TTL is taken";
        /// The interface, or VRF, that the session is bound to: packets of the
        /// session neither leave nor come by another.
        interface: InterfaceName, optional "as the routes say";
        /// File with the TCP MD5 password (RFC 2385) of the session, at most
        /// 80 bytes.
        password_file: PathBuf, optional "no password";
        /// Whether we wait for the router to connect and never do so ourselves.
        passive: bool, default "false";
        /// The hold time that we propose, in whole seconds, at least `"3s"`;
        /// the smaller of both sides' counts. `"0s"`: none, a silent router is
        /// never noticed.
        hold_time: HoldTime, default "\"90s\"";
        /// Pause before the second attempt to connect; it grows from there.
        connect_retry: Duration, default "\"5s\"";
        /// Whether the router is watched by BFD, and how; see `[bgp.peer.bfd]`.
        bfd: Switch<BgpPeerBfd>, optional "false";
        /// Whether the router is asked to keep our routes while the agent is away
        /// and packets are forwarded without it (RFC 4724): `"auto"` where BFD
        /// watches, so that a host that dies is noticed all the same; `"always"`;
        /// or `"off"`. The router must be told to help, too.
        graceful_restart: GracefulRestart, default "\"auto\"";
        /// The most prefixes of each family that the router may announce. None is
        /// ever used, and without a limit none is remembered.
        max_prefixes: Int<u32, 1, 4_294_967_295>, optional "no limit";
        /// Address families of the routes in this session.
        families: Vec<At<Family>>, optional "that of `address`, and the other one when its next hop is given";
        /// Next hop of IPv4 routes: `"self"` is our address of the session.
        next_hop_ipv4: NextHop<Ipv4Addr>, optional "`\"self\"`; must be given over an IPv6 session";
        /// Next hop of IPv6 routes: `"self"` is our address of the session.
        next_hop_ipv6: NextHop<Ipv6Addr>, optional "`\"self\"`; must be given over an IPv4 session";
        /// MULTI_EXIT_DISC: among routes by the same neighbour AS, routers take
        /// the one with the lowest.
        med: Number, optional "none is sent";
        /// LOCAL_PREF, iBGP only: routers take the highest.
        local_preference: Number, optional "100 (iBGP)";
        /// Communities: standard (RFC 1997) as `"AS:number"`, large (RFC 8092)
        /// as `"AS:number:number"`, extended (RFC 4360) as `"rt:AS:number"`
        /// (route target) or `"soo:AS:number"` (site of origin), with an IPv4
        /// address instead of the AS where wanted, or as its octets like
        /// `"generic:0x03060000:0x00000064"`, or by name: `no-export`,
        /// `no-advertise`, `no-export-subconfed`, `no-peer`,
        /// `graceful-shutdown`, `blackhole`, `accept-own`, `llgr-stale`,
        /// `no-llgr`.
        communities: Vec<At<Community>>, default "[]";
        /// How many more times our AS stands in the AS path, eBGP only: each
        /// makes the route look farther away.
        prepend: Int<u8, 0, 16>, default "0";
        /// Whether the world is behind it, which filters what is longer than
        /// /24 (IPv4) and /48 (IPv6): `vipd check` warns of that. eBGP only.
        upstream: bool, default "false";
    }
}

/// A TCP or UDP port.
pub type Port = NonZeroU16;

/// Any 32-bit number.
pub type Number = Int<u32, 0, 4_294_967_295>;

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel, behind the driver.
    Generic,
}
words! { XdpMode { "native" => Self::Native, "generic" => Self::Generic, } }

/// What becomes of the data plane when the agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// It is taken away.
    Remove,
    /// It stays pinned and goes on forwarding.
    Keep,
}
words! { OnStop { "remove" => Self::Remove, "keep" => Self::Keep, } }

/// The least important kind of line that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing works as it should.
    Error,
    /// And: something may not.
    Warn,
    /// And: what an operator follows.
    Info,
    /// And: why.
    Debug,
    /// And: every step.
    Trace,
}
words! { LogLevel {
    "error" => Self::Error,
    "warn" => Self::Warn,
    "info" => Self::Info,
    "debug" => Self::Debug,
    "trace" => Self::Trace,
} }

/// Whether a router is to keep our routes while the agent is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GracefulRestart {
    /// Where BFD watches.
    Auto,
    /// Also where the death of this host would be noticed late.
    Always,
    /// Never.
    Off,
}
words! { GracefulRestart {
    "auto" => Self::Auto,
    "always" => Self::Always,
    "off" => Self::Off,
} }

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}
words! { Family { "ipv4" => Self::Ipv4, "ipv6" => Self::Ipv6, } }
