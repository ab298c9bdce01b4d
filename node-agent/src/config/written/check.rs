//! The check of a service's backends, as it is written.

use std::{net::IpAddr, time::Duration};

use toml::de::DeValue;

use super::{
    super::{
        report::{Report, Span},
        table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
        text::{HttpHost, HttpPath, Jitter, StatusRange},
        value::{Int, read_word, words},
    },
    Port,
};

table! {
    /// How each backend of the service is checked. It follows its `[[service]]`.
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
        /// `"tcp"`: the backend accepts a connection; `"http"`: it answers a
        /// GET request with an expected status; `"none"`: it counts as healthy
        /// always.
        r#type: CheckType, required;
        /// Port that is asked. Must be given for a UDP service, and for one
        /// that has not just one port.
        port: Port, optional "the service's port";
        /// Our address that asks, of the same family as the backends.
        source: IpAddr, optional "the kernel chooses";
        /// From the start of one check to the start of the next, at least
        /// `"10ms"`.
        interval: Duration, default "\"1s\"";
        /// No answer for so long is a failure; not longer than `interval`.
        timeout: Duration, optional "`\"500ms\"`, or `interval` when that is shorter";
        /// Successes in a row that make a backend healthy.
        rise: Int<u32, 1, 1000>, default "2";
        /// Failures in a row that make it unhealthy.
        fall: Int<u32, 1, 1000>, default "3";
        /// Each interval is stretched or shrunk at random by up to this
        /// fraction of it, so that checks do not fall into step.
        jitter: Jitter, default "0.1";
        /// What is asked for; `http` only.
        path: HttpPath, optional "`\"/\"`";
        /// `Host` header; `http` only.
        host: HttpHost, optional "the backend's address";
        /// Status codes that count as healthy; `http` only.
        status: Vec<At<StatusRange>>, optional "`[\"200-399\"]`";
    }
}

/// The kinds of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckType {
    /// None at all.
    None,
    /// A TCP connection.
    Tcp,
    /// An HTTP request.
    Http,
}
words! { CheckType {
    "tcp" => Self::Tcp,
    "http" => Self::Http,
    "none" => Self::None,
} }
