//! What is said on the socket of the BFD process: one JSON object per line, both
//! ways.
//!
//! A client asks with a [`Request`] and gets [`Message`]s. Each request has one
//! answer, in order; whoever has sent [`Request::Attend`] gets
//! [`Message::Changed`] and [`Message::Status`] in between.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What both sides go by. It is another one when one side cannot understand the
/// other any more: the process outlives upgrades of the agent.
pub const VERSION: u32 = 1;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The client is the agent, and lives as long as this connection. Takes back
    /// what an earlier agent wanted by [`Request::AdminDown`]. Answered with
    /// [`Message::Status`].
    Attend,
    /// Answered with [`Message::Status`].
    Status,
    /// Read the configuration anew. Answered with [`Message::Reloaded`].
    Reload,
    /// Hold sessions administratively down, or no longer. Answered with
    /// [`Message::Done`].
    AdminDown {
        /// The peers; `None`: all, also those to come.
        peers: Option<Vec<IpAddr>>,
        /// Whether they are to be down.
        down: bool,
    },
}

/// What the process says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum Message {
    /// How everything is. Agents get it unasked too, when sessions come or go.
    Status(Status),
    /// A session is now like this.
    Changed {
        /// The session.
        session: Box<Session>,
    },
    /// What came of a reload.
    Reloaded {
        /// Whether the new configuration is in force.
        applied: bool,
        /// Errors, or what has changed, in words.
        messages: Vec<String>,
    },
    /// It is done.
    Done,
    /// The line was no request.
    Refused {
        /// Why.
        why: String,
    },
}

/// How the process is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its [`VERSION`].
    pub version: u32,
    /// Its sessions, by peer.
    pub sessions: Vec<Session>,
    /// Whether an agent is connected.
    pub agent: bool,
    /// Packets that were for no session, by reason.
    pub discarded: BTreeMap<String, u64>,
    /// The longest time that the process itself came too late, in seconds.
    pub worst_delay_seconds: f64,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            version: VERSION,
            sessions: Vec::new(),
            agent: false,
            discarded: BTreeMap::new(),
            worst_delay_seconds: 0.0,
        }
    }
}

/// State of a session, as in RFC 5880.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Held down by an operator, here.
    AdminDown,
    /// The peer is not heard, does not hear us, or is not to come.
    Down,
    /// We hear the peer; it does not know yet.
    Init,
    /// Each hears the other.
    Up,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Name of the BGP peer.
    pub name: String,
    /// Address of the peer.
    pub remote: IpAddr,
    /// Our address, if it is given.
    pub local: Option<IpAddr>,
    /// The interface it goes by, as far as that is known.
    pub interface: Option<String>,
    /// Whether it may go over several hops.
    pub multihop: bool,
    /// Its state.
    pub state: State,
    /// Why it is not up; empty when it is.
    pub why: String,
    /// For how long it has been in this state, in seconds.
    pub for_seconds: f64,
    /// What the peer is told of why we last went down.
    pub diagnostic: String,
    /// What the peer says; `None` while it is not heard.
    pub peer: Option<Peer>,
    /// Between two of our packets, in seconds, before up to a quarter is taken off.
    pub transmit_interval_seconds: Option<f64>,
    /// After so long a silence the peer is given up, in seconds.
    pub detection_time_seconds: Option<f64>,
    /// Packets sent.
    pub sent: u64,
    /// Packets that could not be sent.
    pub unsent: u64,
    /// Packets received and taken.
    pub received: u64,
    /// Packets received and discarded, by reason.
    pub discarded: BTreeMap<String, u64>,
    /// How often it came up.
    pub ups: u64,
    /// How often it went down.
    pub downs: u64,
    /// Why it last went down, in words; kept while it is up.
    pub last_down: Option<String>,
    /// Why packets do not pass any more, once they did. Not by anybody's will, nor
    /// by anything of this host: it says something of the peer.
    #[serde(default)]
    pub lost: Option<String>,
    /// The worst gap between two of our packets since the start.
    pub worst_gap: Gap,
    /// The same of the last minute.
    pub worst_gap_last_minute: Gap,
}

/// What a peer says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its state.
    pub state: State,
    /// Why it last went down.
    pub diagnostic: String,
    /// Its shortest interval between packets, in seconds.
    pub min_tx_seconds: f64,
    /// The shortest interval between ours that it can take, in seconds.
    pub min_rx_seconds: f64,
    /// Its detection multiplier.
    pub multiplier: u8,
    /// Whether its BFD outlives its control plane.
    pub independent: bool,
}

/// The time between two of our packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// What it was, in seconds.
    pub real_seconds: f64,
    /// What it should have been, in seconds.
    pub expected_seconds: f64,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

impl From<vipd_bfd::State> for State {
    fn from(state: vipd_bfd::State) -> Self {
        match state {
            vipd_bfd::State::AdminDown => Self::AdminDown,
            vipd_bfd::State::Down => Self::Down,
            vipd_bfd::State::Init => Self::Init,
            vipd_bfd::State::Up => Self::Up,
        }
    }
}

impl From<vipd_bfd::Gap> for Gap {
    fn from(gap: vipd_bfd::Gap) -> Self {
        Self {
            real_seconds: gap.real.as_secs_f64(),
            expected_seconds: gap.expected.as_secs_f64(),
        }
    }
}

/// Why what the process has said is not understood.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// It goes by another version of the protocol.
    #[error(
        "it is of another version than this program (protocol {0}, here {VERSION}): `systemctl \
         restart vipd-bfd` when the node is drained, since routers drop BGP at that"
    )]
    Version(u32),
    /// It is no message.
    #[error("it says what is no message: {0}")]
    Message(#[from] serde_json::Error),
}

/// A line of the process's.
///
/// # Errors
///
/// When it is not understood. The version is looked at before all else.
pub fn read(line: &[u8]) -> Result<Message, Unreadable> {
    /// What a message of any version has.
    #[derive(Deserialize)]
    struct Head {
        message: String,
        /// Of a status. Before it was told, it was 0.
        #[serde(default)]
        version: u32,
    }
    let head: Head = serde_json::from_slice(line)?;
    if head.message == "status" && head.version != VERSION {
        return Err(Unreadable::Version(head.version));
    }
    Ok(serde_json::from_slice(line)?)
}

/// A message as a line.
#[must_use]
pub fn line(message: &impl Serialize) -> Vec<u8> {
    // Nothing here is a map with keys that are no strings, or fails by itself.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_another_version_is_told_as_such_whatever_else_is_in_it() {
        let good = line(&Message::Status(Status::default()));
        assert!(matches!(read(&good), Ok(Message::Status(_))), "{good:?}");
        for (sentence, text, version) in [
            (
                "before versions were told",
                r#"{"message": "status", "sessions": [{"name": "router"}]}"#,
                0,
            ),
            (
                "a later one",
                r#"{"message": "status", "version": 7, "tables": 1}"#,
                7,
            ),
        ] {
            let told = read(text.as_bytes());
            assert!(
                matches!(told, Err(Unreadable::Version(found)) if found == version),
                "{sentence}: {told:?}"
            );
        }
        let nonsense = read(br#"{"message": "status", "version": 1}"#);
        assert!(
            matches!(nonsense, Err(Unreadable::Message(_))),
            "{nonsense:?}"
        );
    }
}
