//! What `vipd status` shows of the BGP sessions.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use super::{Bfd, ago};

/// What [`Peer::state`] can be besides the states of RFC 4271.
pub const SESSION_FAILED: &str = "failed";

/// The BGP sessions of a node together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// What that means.
    pub state: SessionsState,
    /// Sessions that are established.
    pub established: usize,
    /// Sessions that are configured.
    pub configured: usize,
}

/// How a node is connected to its routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionsState {
    /// All sessions are up.
    Healthy,
    /// Some are not.
    Degraded,
    /// None is: no router hears from this node.
    Isolated,
}

/// A BGP session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Name.
    pub name: String,
    /// Address and port.
    pub address: String,
    /// Its AS.
    pub remote_as: u32,
    /// State by RFC 4271, or `failed` when the session's task has ended by a
    /// defect.
    pub state: String,
    /// How long it has been in that state.
    #[serde(default)]
    pub since_seconds: f64,
    /// How long it has been established, if it is.
    pub uptime_seconds: Option<f64>,
    /// Since when, in seconds since 1970.
    pub start_time_seconds: Option<f64>,
    /// How often it has been established.
    pub established_count: u64,
    /// Prefixes it has been told of, by family.
    pub advertised: BTreeMap<String, usize>,
    /// Prefixes it is to know, as far as the session carries them.
    #[serde(default)]
    pub wanted: usize,
    /// Prefixes it is yet to be told of.
    pub pending: usize,
    /// Prefixes received, over all connections; none is imported.
    #[serde(default)]
    pub prefixes_received: u64,
    /// Prefixes received as withdrawn.
    #[serde(default)]
    pub prefixes_withdrawn: u64,
    /// Agreed hold time.
    pub hold_time_seconds: Option<u64>,
    /// The last thing that went wrong, and what helps.
    pub last_error: Option<String>,
    /// When that was, in seconds since 1970.
    #[serde(default)]
    pub last_error_time_seconds: Option<f64>,
    /// How long ago that was.
    pub last_error_seconds_ago: Option<f64>,
    /// What the kernel's count of dropped segments tells of a session that is
    /// not established.
    #[serde(default)]
    pub hint: Option<String>,
    /// The last NOTIFICATION it sent: why it ended the session.
    #[serde(default)]
    pub notification_received: Option<String>,
    /// How long ago that was.
    #[serde(default)]
    pub notification_received_seconds_ago: Option<f64>,
    /// The last NOTIFICATION we sent.
    #[serde(default)]
    pub notification_sent: Option<String>,
    /// How long ago that was.
    #[serde(default)]
    pub notification_sent_seconds_ago: Option<f64>,
    /// Messages sent, by type.
    pub messages_sent: Messages,
    /// Messages received, by type.
    pub messages_received: Messages,
    /// Routes that this session cannot carry, and why.
    pub unsent: Vec<String>,
    /// BFD, if the peer is to have it.
    #[serde(default)]
    pub bfd: Option<Bfd>,
}

/// Numbers of BGP messages by type.
pub type Messages = BTreeMap<String, u64>;

/// Writes all sessions as a table. Only where a peer has BFD there is a column
/// for it.
pub(super) fn write(peers: &[Peer], out: &mut String) -> fmt::Result {
    let has_bfd = peers.iter().any(|peer| peer.bfd.is_some());
    let bfd = |state: &str| match has_bfd {
        true => format!("  {state:<9}"),
        false => String::new(),
    };
    writeln!(
        out,
        "{:<20} {:<28} {:>10}  {:<12} {:>8}{}  ROUTES",
        "BGP PEER",
        "ADDRESS",
        "AS",
        "STATE",
        "FOR",
        bfd("BFD")
    )?;
    for peer in peers {
        peer.write(&bfd(peer.bfd_state()), out)?;
    }
    Ok(())
}

impl Peer {
    fn write(&self, bfd: &str, out: &mut String) -> fmt::Result {
        let routes: Vec<_> = self
            .advertised
            .iter()
            .map(|(family, count)| format!("{count} {family}"))
            .collect();
        let uptime = self.uptime_seconds.map_or_else(|| "-".to_owned(), ago);
        writeln!(
            out,
            "{:<20} {:<28} {:>10}  {:<12} {uptime:>8}{bfd}  {}",
            self.name,
            self.address,
            self.remote_as,
            self.state,
            routes.join(", ")
        )?;
        for trouble in self.troubles() {
            writeln!(out, "  {trouble}")?;
        }
        Ok(())
    }

    /// Prefixes it has been told of.
    #[must_use]
    pub fn told(&self) -> usize {
        self.advertised.values().sum()
    }

    /// Its address without the port.
    #[must_use]
    pub fn ip(&self) -> String {
        let address: Result<SocketAddr, _> = self.address.parse();
        address.map_or_else(|_| self.address.clone(), |at| at.ip().to_string())
    }

    /// What stands in the column "BFD".
    #[must_use]
    pub fn bfd_state(&self) -> &str {
        self.bfd.as_ref().map_or("-", |bfd| &bfd.state)
    }

    /// That BFD is not up, what went wrong last, and what cannot be sent, in lines.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let bfd = self.bfd.iter().filter(|bfd| !bfd.is_up());
        let bfd = bfd.map(|bfd| format!("BFD is {}", bfd.words()));
        bfd.chain(self.past_troubles()).collect()
    }

    /// What went wrong last, and what cannot be sent, in lines.
    #[must_use]
    pub fn past_troubles(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut add = |name: &str, words: &Option<String>, when: Option<f64>| {
            if let (Some(words), Some(when)) = (words, when) {
                lines.push(format!("{name}, {} ago: {words}", ago(when)));
            }
        };
        add("last error", &self.last_error, self.last_error_seconds_ago);
        let error = self.last_error.as_deref().unwrap_or_default();
        for (name, words, when) in [
            (
                "last NOTIFICATION of the peer",
                &self.notification_received,
                self.notification_received_seconds_ago,
            ),
            (
                "last NOTIFICATION of ours",
                &self.notification_sent,
                self.notification_sent_seconds_ago,
            ),
        ] {
            // The error may be just that.
            if words.as_ref().is_some_and(|words| !error.contains(words)) {
                add(name, words, when);
            }
        }
        lines.extend(self.hint.iter().map(|hint| format!("seen: {hint}")));
        let unsent = self.unsent.iter();
        lines.extend(unsent.map(|route| format!("not sent: {route}")));
        lines
    }
}

impl SessionsState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Degraded, Self::Isolated];
}

impl fmt::Display for SessionsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Isolated => "isolated",
        })
    }
}

impl Sessions {
    /// Those of these peers; `None` if there is none.
    #[must_use]
    pub fn of(peers: &[Peer]) -> Option<Self> {
        let configured = peers.len();
        let up = peers.iter().filter(|peer| peer.uptime_seconds.is_some());
        let established = up.count();
        let state = match established {
            _ if configured == 0 => return None,
            0 => SessionsState::Isolated,
            up if up < configured => SessionsState::Degraded,
            _ => SessionsState::Healthy,
        };
        Some(Self {
            state,
            established,
            configured,
        })
    }

    /// In an operator's words.
    #[must_use]
    pub fn words(&self) -> String {
        let Self {
            state,
            established,
            configured,
        } = self;
        match state {
            SessionsState::Healthy => {
                format!("healthy: {established} of {configured} BGP sessions up")
            }
            SessionsState::Degraded => {
                let down = configured - established;
                format!("degraded: {down} of {configured} BGP sessions down")
            }
            SessionsState::Isolated => {
                format!(
                    "isolated: none of {configured} BGP sessions is up, no router hears from this node"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Peer, Sessions};

    /// A session that is established, or not.
    fn peer(up: bool) -> Peer {
        let peer = serde_json::json!({
            "name": "router", "address": "192.0.2.1:179", "remote_as": 64501,
            "state": if up { "Established" } else { "Active" },
            "uptime_seconds": up.then_some(1.0), "established_count": 1, "advertised": {},
            "pending": 0, "messages_sent": {}, "messages_received": {}, "unsent": [],
        });
        serde_json::from_value(peer).expect("a peer")
    }

    #[test]
    fn a_node_is_as_well_connected_as_it_has_sessions() {
        let cases: [(&[bool], _); 5] = [
            (&[], None),
            (&[true, true], Some("healthy: 2 of 2 BGP sessions up")),
            (&[false, true], Some("degraded: 1 of 2 BGP sessions down")),
            (
                &[false],
                Some("isolated: none of 1 BGP sessions is up, no router hears from this node"),
            ),
            (
                &[false, false],
                Some("isolated: none of 2 BGP sessions is up, no router hears from this node"),
            ),
        ];
        for (up, expected) in cases {
            let peers: Vec<_> = up.iter().map(|up| peer(*up)).collect();
            let words = Sessions::of(&peers).map(|sessions| sessions.words());
            assert_eq!(words.as_deref(), expected, "{up:?}");
        }
    }
}
