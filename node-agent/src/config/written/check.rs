//! The check of a service's backends, as it is written.

mod kinds;

use std::{net::IpAddr, time::Duration};

use toml::de::DeValue;
use vipd_control::{health::Initial, model::OnDown};

pub use self::kinds::{Dns, Exchange, File, Http, Icmp, Presence, Program, Tls, Transport};
use super::{
    super::{
        report::{Report, Span},
        table::{
            At, KeyDoc, Keys, Need, Reader, TableDoc, Value,
            choice::{Choice, Word, choice},
            table,
        },
        text::Jitter,
        value::{Int, read_word, words},
    },
    Port,
};

table! {
    /// How each backend of the service is checked. It follows its `[[service]]`.
    /// What the results mean is told in [Checks](checks.md).
    ///
    /// ```toml
    /// [service.check]
    /// type = "http"
    /// path = "/healthz"
    /// host = "www.example.com"
    /// status = ["200", "204"]
    /// interval = "1s"
    /// timeout = "500ms"
    /// ```
    Check = "[service.check]" {
        /// `"tcp"`: the backend accepts a connection, and answers in it what is
        /// expected; `"tls"`: the same within TLS; `"http"`, `"https"`: it answers
        /// a request as expected; `"dns"`: it answers a query; `"udp"`: it answers
        /// a datagram; `"icmp"`: it answers an echo request; `"program"`: a program
        /// says so; `"file"`: a file on this host does; `"none"`: it counts as
        /// healthy always. The keys of each follow below.
        r#type: CheckType, chosen;
        /// Address that is asked for all backends, of the same family as `source`.
        address: IpAddr, optional "the backend's own";
        /// Port that is asked. Must be given where the service has not just one
        /// port, and for a check over TCP of a UDP service.
        port: Port, optional "the service's port";
        /// Our address that asks, of the same family as what is asked.
        source: IpAddr, optional "the kernel chooses";
        /// The check goes the way that traffic takes: to the first of `vips`, wrapped as
        /// traffic is. Each of the others must answer a TCP connection to the service's
        /// port, or an echo where the service is not on TCP ports. See
        /// [Checks](checks.md#on-the-way-of-traffic).
        through: bool, default "false";
        /// With `through`, a packet must arrive that is as large as the largest of a
        /// client that is sent on, so that a link with a smaller MTU is found.
        full_mtu: bool, default "false";
        /// A backend that is up is asked once per interval, at least `"10ms"`.
        /// When in the interval is its own, so that checks are spread evenly.
        interval: Duration, default "\"1s\"";
        /// The same while there is doubt: not asked yet, going up or going down;
        /// at most `interval`. No two checks of a backend run at the same time:
        /// one that takes longer is followed by the next at once.
        fast_interval: Duration, optional "`interval`";
        /// The same while it is down.
        down_interval: Duration, optional "`interval`";
        /// No answer for so long is a failure; not longer than `interval`.
        timeout: Duration, optional "`\"500ms\"`, or `interval` when that is shorter";
        /// Successes in a row that make a backend healthy.
        rise: Int<u32, 1, 1000>, default "2";
        /// Failures in a row that make it unhealthy.
        fall: Int<u32, 1, 1000>, default "3";
        /// A backend that went down stays down for so long at least, at most
        /// `"1h"`.
        hold_down: Duration, default "\"0s\"";
        /// Each check of a backend that is up or down starts early at random, by
        /// up to this fraction of the interval. It adds so much to the longest
        /// time between two checks.
        jitter: Jitter, default "0";
        /// What a backend counts as before its first check. `"unknown"`: it takes
        /// no traffic, and one check decides; `"up"` and `"down"`: `fall` and
        /// `rise` checks change it. One that the data plane has from an earlier
        /// agent is as it was there.
        initial: InitialName, default "\"unknown\"";
        /// What becomes of the flows of a backend that fails its checks. `"keep"`:
        /// they stay, whatever it fails; `"reset"`: they end.
        on_down: OnDownName, optional "they end when it does not answer at layer 4, and stay when it answers and says no";
    }
}

choice! {
    /// The kinds of checks.
    CheckType {
        /// A TCP connection.
        "tcp" => Tcp(Exchange),
        /// A TLS session.
        "tls" => Tls(Tls, Exchange),
        /// An HTTP request.
        "http" => Http(Http),
        /// An HTTP request within TLS.
        "https" => Https(Http, Tls),
        /// A DNS query.
        "dns" => Dns(Dns),
        /// A datagram.
        "udp" => Udp(Exchange),
        /// An echo request.
        "icmp" => Icmp(Icmp) without ["port"],
        /// A program on this host.
        "program" => Program(Program) without ["source"],
        /// A file on this host.
        "file" => File(File) without ["address", "port", "source"],
        /// None at all.
        "none" => None without ["address", "port", "source", "through", "full_mtu"],
    }
}

/// What is believed before the first check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialName(pub Initial);
words! { InitialName {
    "unknown" => Self(Initial::Unknown),
    "up" => Self(Initial::Up),
    "down" => Self(Initial::Down),
} }

/// What becomes of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDownName(pub OnDown);
words! { OnDownName {
    "keep" => Self(OnDown::Keep),
    "reset" => Self(OnDown::Reset),
} }
