//! Services and their backends, as they are written.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use toml::de::DeValue;
use vipd_control::model::{Ports, Protocol, Role, Share, Vip};

use super::{
    super::{
        bfd::{ServiceBfd, Switch},
        needs::Percent,
        report::{Report, Span},
        table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
        text::{InterfaceName, Name},
        track::TrackName,
        value::{Int, read_word, words},
    },
    Bind, Check, Port, VipsFrom,
};

table! {
    /// A service: one protocol and its ports on one or more virtual addresses,
    /// spread over its backends.
    ///
    /// Several services may share an address. A packet is for the narrowest one
    /// that wants it: of the services on its very address that on one port
    /// before that on a range, and a range before any port; if none of them
    /// wants the port, of those on the longest prefix that holds the address,
    /// and so on to shorter ones.
    ///
    /// ```toml
    /// [[service]]
    /// name = "web"
    /// vips = ["198.51.100.10", "2001:db8:100::10"]
    /// protocol = "tcp"
    /// port = 80
    /// mode = "ipip"
    /// ```
    Service = "[[service]]" {
        /// Name in status, logs and metrics. Unique among services.
        name: Name, required;
        /// Virtual addresses and prefixes of them, without a bit after the
        /// prefix. Prefixes can have 8 different lengths per address family. A
        /// packet is compared with the port ranges of its address and of all
        /// prefixes around it, 32 at most: services on a prefix and services with
        /// port ranges count, those on one port of one address do not.
        vips: Vec<At<Vip>>, unless "vips_from";
        /// Layer-4 protocol.
        protocol: Protocol, required;
        /// Layer-4 port, a range of them like `"8000-8999"`, or `"any"`;
        /// backends get the packet with the same port.
        port: Ports, required;
        /// How a packet reaches its backend. `"ipip"`: in an IPv4 or IPv6
        /// header to the backend's address, over any number of hops; `"gue"`:
        /// the same with a UDP header between (Generic UDP Encapsulation,
        /// variant 1), which networks spread better; `"l2-dsr"`: unchanged on
        /// the backend's link. In all these cases the backend holds the virtual
        /// address, for example on `lo`, and answers the client directly.
        /// `"local"`: nothing is forwarded, this host serves the address itself;
        /// it is checked, bound and announced. An address is either forwarded or
        /// local, and a prefix cannot be local.
        mode: ModeName, required;
        /// UDP port at which backends take packets; `gue` only.
        gue_port: Port, optional "6080";
        /// For so long without a packet a flow is remembered when a change
        /// gives its part of the ring to another backend, and stays where it
        /// is; at most `"1h"`. `"0s"`: flows move at once. Time in which no
        /// agent runs does not count.
        flow_idle: Duration, optional "`\"5m\"` for TCP, `\"0s\"` for UDP";
        /// How many of the active backends must be healthy for the addresses to be
        /// announced: a number, or a percentage that is rounded up. Below it
        /// backups serve too, where there are any, and count.
        min_healthy: Share, default "1";
        /// How much of the active backends' weight the healthy ones must have
        /// besides.
        min_weight: Percent, optional "any";
        /// How many must be healthy again once they were fewer than `min_healthy`
        /// or lighter than `min_weight`. More than that keeps a service that
        /// hovers about the minimum from flapping.
        recover_healthy: Share, optional "as `min_healthy`";
        /// The same of the weight.
        recover_weight: Percent, optional "as `min_weight`";
        /// With fewer healthy backends the addresses are announced in the state
        /// `"degraded"`, which `[[bgp.rule]]` gives a meaning to.
        degraded_below: Share, optional "never degraded";
        /// Services that must not be down or disabled, or this one is down with
        /// them. Services that track each other live and die together.
        track: Vec<At<Name>>, default "[]";
        /// While this file is there the service is disabled: its addresses are
        /// withdrawn, or announced in the state `"disabled"` where a rule says
        /// so, and what still arrives is forwarded as before. It is looked for
        /// each second.
        disable_file: PathBuf, optional "nothing disables it";
        /// What this host must have for the addresses to be announced.
        depends: Depends, default "{}";
        /// Slots of the table that spreads flows over backends, a power of two
        /// and at least 8 per backend. More slots spread more evenly.
        ring_size: Int<u32, 1, 1_048_576>, optional "chosen by the number of backends";
        /// How backends are checked.
        check: Check, default "{ type = \"tcp\" }";
        /// BFD to each backend; `true` takes all defaults.
        bfd: Switch<ServiceBfd>, optional "none";
        /// A backend that comes back from being down gets a tenth of its share
        /// at first, and the whole after this time, in ten steps; at most
        /// `"1h"`. It has the whole at once while no other backend has.
        slow_start: Duration, default "\"0s\"";
        /// The servers. In mode `local` the programs on this host that the
        /// addresses depend on, at whatever address they listen.
        backend: Vec<At<Backend>>, optional "in mode `local` one called `local`, which is asked at the first of `vips`, or with `vips_from` alone at `127.0.0.1`; other modes need at least one";
        /// Who binds the addresses on this host, and where; `local` only.
        bind: Switch<Bind>, optional "vipd binds them, on an interface of its own";
        /// Addresses besides `vips` that others bind on an interface of this host;
        /// `local` only.
        vips_from: VipsFrom, optional "none";
    }
}

table! {
    /// What this host must have for the addresses of the service to be announced;
    /// while it lacks some of it they are withdrawn, whatever rules say. The kernel
    /// tells when it changes.
    ///
    /// ```toml
    /// [service.depends]
    /// interfaces = ["eth1"]
    /// routes = ["203.0.113.1"]
    /// ```
    Depends = "[service.depends]" {
        /// Interfaces that must be up and have a carrier.
        interfaces: Vec<At<InterfaceName>>, default "[]";
        /// Addresses that a route must lead to. One far away stands for the default
        /// route.
        routes: Vec<At<IpAddr>>, default "[]";
    }
}

table! {
    /// A server of the service. It follows its `[[service]]`.
    ///
    /// ```toml
    /// [[service.backend]]
    /// name = "b1"
    /// address = "2001:db8:2::21"
    ///
    /// [[service.backend]]
    /// name = "b2"
    /// address = "2001:db8:2::22"
    /// weight = 2
    /// ```
    Backend = "[[service.backend]]" {
        /// Name in status, logs and metrics. Unique in the service.
        name: Name, required;
        /// Where its packets go and its checks ask; no two backends of a service
        /// share one. Mode `l2-dsr`: of the
        /// family of the virtual addresses; mode `ipip`: IPv6 backends take
        /// both families, IPv4 backends IPv4 only; mode `gue`: all take both;
        /// mode `local`: any, also `127.0.0.1`.
        address: IpAddr, required;
        /// Share of the traffic relative to the other backends. 0: none.
        weight: Int<u16, 0, 256>, default "1";
        /// `"SERVICE/BACKEND"`: it has the health of that backend, for example
        /// of the same server in another service, and is not checked itself.
        track: TrackName, optional "it is checked";
        /// `"active"`: it serves; `"backup"`: it serves beside the active ones
        /// while too few of them are healthy (`min_healthy`, `min_weight`);
        /// `"sorry"`: it serves alone while all of those together are too few,
        /// and the addresses stay announced, in the state `"degraded"`.
        role: Role, default "\"active\"";
    }
}

/// How packets reach backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeName {
    /// On the link.
    L2Dsr,
    /// In IP.
    Ipip,
    /// In UDP.
    Gue,
    /// Not at all: this host serves the address.
    Local,
}
words! { ModeName {
    "l2-dsr" => Self::L2Dsr,
    "ipip" => Self::Ipip,
    "gue" => Self::Gue,
    "local" => Self::Local,
} }
