//! A backend, and its last check, in the status.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::Bfd;

/// What [`Backend::state`] can be for a backend that is checked.
pub const BACKEND_STATES: [&str; 5] = ["unknown", "up", "going down", "down", "going up"];

/// A backend of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backend {
    /// Name.
    pub name: String,
    /// Address.
    pub address: IpAddr,
    /// Weight.
    pub weight: u16,
    /// `active`, `backup` or `sorry`.
    #[serde(default)]
    pub role: String,
    /// What checks say: `unknown`, `up`, `going down`, `down`, `going up`; or
    /// `leaving`, when nobody checks any more.
    pub state: String,
    /// What it means for flows: `up`, `draining` or `failing` (no new flows,
    /// old ones stay), `down`.
    pub standing: String,
    /// Whether the operator has drained it, dead or alive.
    pub drained: bool,
    /// Whether the operator has it serve nothing, whatever checks say: it is
    /// disabled, or the deadline of its drain has come.
    #[serde(default)]
    pub disabled: bool,
    /// Whether it takes new flows.
    pub available: bool,
    /// How much of its share of new flows it takes, in percent: less than 100
    /// while it starts slowly.
    #[serde(default = "whole")]
    pub share_percent: u32,
    /// How long it has been in this state.
    pub since_seconds: f64,
    /// The last check.
    pub check: Option<Check>,
    /// BFD to it, if it is to have it.
    #[serde(default)]
    pub bfd: Option<Bfd>,
    /// Ring slots it owns.
    pub slots: u32,
    /// Flows that are recorded for it, live and open.
    pub flows: u64,
    /// Recorded flows of which a FIN or RST of the client was seen. It may have
    /// closed its own side only; they end with the idle time.
    pub flows_closing: u64,
    /// Packets forwarded to it.
    pub packets: u64,
    /// Bytes forwarded to it.
    pub bytes: u64,
}

/// The share of a backend that does not start slowly.
const fn whole() -> u32 {
    100
}

/// The last check of a backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// In HAProxy's words.
    pub code: String,
    /// Status in the protocol's own numbers.
    pub status: Option<u16>,
    /// How long it took.
    pub duration_seconds: f64,
    /// How long its parts took.
    #[serde(default)]
    pub phases: CheckPhases,
    /// When the first certificate that the backend showed expires, in seconds
    /// since 1970 UTC.
    #[serde(default)]
    pub certificate_expiry: Option<u64>,
    /// More in plain words.
    pub detail: String,
}

/// How long the parts of a check took, as far as it came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckPhases {
    /// Until the connection was there, or was given up.
    pub connect_seconds: Option<f64>,
    /// The TLS handshake.
    pub tls_seconds: Option<f64>,
    /// From the question to the end of the answer.
    pub answer_seconds: Option<f64>,
}

impl Check {
    /// In one line: `L7OK in 2.1 ms: HTTP status 200`.
    pub(super) fn words(&self) -> String {
        let took = self.duration_seconds * 1000.0;
        let mut words = format!("{} in {took:.1} ms", self.code);
        if !self.detail.is_empty() {
            words = words + ": " + &self.detail;
        }
        if let Some(expiry) = self.certificate_expiry {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default().as_secs();
            let days = |seconds| seconds / 86_400;
            words += &match expiry.checked_sub(now) {
                Some(left) => format!("; certificate for {} more days", days(left)),
                None => format!("; certificate expired {} days ago", days(now - expiry)),
            };
        }
        words
    }
}

impl CheckPhases {
    /// Those that were begun, by name, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("connect", self.connect_seconds),
            ("tls", self.tls_seconds),
            ("answer", self.answer_seconds),
        ];
        all.into_iter()
            .filter_map(|(name, seconds)| seconds.map(|seconds| (name, seconds)))
    }
}

impl Backend {
    /// Health, and what the operator wants of it, in few words.
    pub(super) fn words(&self) -> String {
        let words = match (self.standing.as_str(), self.state.as_str()) {
            ("up", "up") if !self.available => "standby",
            // The check's doubts say more.
            ("up" | "down", state) | ("failing", state @ "going up") => state,
            (standing, _) => standing,
        };
        if self.disabled {
            return format!("{}, disabled", self.state);
        }
        if self.drained && self.standing != "draining" {
            format!("{words}, drained")
        } else {
            words.to_owned()
        }
    }

    /// What there is to say besides its last check.
    pub(super) fn remarks(&self) -> String {
        let slow = (self.available && self.share_percent < 100)
            .then(|| format!(" · slow start {} %", self.share_percent));
        let bfd = self
            .bfd
            .as_ref()
            .map(|bfd| format!(" · BFD {}", bfd.words()));
        [slow, bfd].into_iter().flatten().collect()
    }

    /// Open flows, and behind a plus those that are closing.
    pub(super) fn recorded(&self) -> String {
        match self.flows_closing {
            0 => self.flows.to_string(),
            closing => format!("{}+{closing}", self.flows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_that_are_closing_are_shown_beside_the_open_ones() {
        for (flows, flows_closing, expected) in [(0, 0, "0"), (3, 0, "3"), (3, 22, "3+22")] {
            let backend = Backend {
                flows,
                flows_closing,
                ..backend()
            };
            assert_eq!(backend.recorded(), expected);
        }
    }

    #[test]
    fn a_slow_start_and_bfd_stand_beside_the_last_check() {
        let bfd = || Some(Bfd::unknown("nobody is reached".to_owned(), 0));
        for (available, share_percent, bfd, remarks) in [
            (true, 100, None, ""),
            (true, 40, None, " · slow start 40 %"),
            (false, 40, None, ""),
            (true, 100, bfd(), " · BFD unknown: nobody is reached"),
            (
                true,
                40,
                bfd(),
                " · slow start 40 % · BFD unknown: nobody is reached",
            ),
        ] {
            let backend = Backend {
                available,
                share_percent,
                bfd,
                ..backend()
            };
            assert_eq!(backend.remarks(), remarks);
        }
    }

    fn backend() -> Backend {
        Backend {
            name: "b1".to_owned(),
            address: [192, 0, 2, 21].into(),
            weight: 1,
            role: "active".to_owned(),
            state: "up".to_owned(),
            standing: "draining".to_owned(),
            drained: true,
            disabled: false,
            available: false,
            share_percent: 100,
            since_seconds: 1.0,
            check: None,
            bfd: None,
            slots: 0,
            flows: 0,
            flows_closing: 0,
            packets: 0,
            bytes: 0,
        }
    }
}
