//! How far a check has come, and when: what there is to tell when its time is
//! over, and how long each part of it took.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use vipd_control::check::{CheckCode, Phases};

use super::check::Outcome;

/// What a check waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What is read on this host before anything is asked.
    Files,
    /// The connection.
    Connect,
    /// The end of the TLS handshake.
    Handshake,
    /// The answer to what was asked in the connection.
    Answer,
    /// The reply to a datagram.
    Reply,
    /// The end of a program.
    Program,
}

/// How far a check has come.
#[derive(Debug)]
pub struct Progress {
    stage: Stage,
    since: Instant,
    phases: Phases,
    /// When the first certificate of those that were shown expires.
    pub certificate_expiry: Option<NonZeroU64>,
    /// What is told with the result, whatever that is.
    pub remark: Option<&'static str>,
    /// What is told of the present stage should the time be over.
    pub so_far: Option<String>,
}

impl Progress {
    /// A check that starts with a connection.
    pub fn new(now: Instant) -> Self {
        Self {
            stage: Stage::Connect,
            since: now,
            phases: Phases::default(),
            certificate_expiry: None,
            remark: None,
            so_far: None,
        }
    }

    /// What the check starts with, if not with a connection.
    pub fn begin(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// What is waited for has come; now it is this.
    pub fn enter(&mut self, stage: Stage) {
        let now = Instant::now();
        self.leave(now - self.since);
        self.stage = stage;
        self.since = now;
        self.so_far = None;
    }

    /// The parts, of a check that ends now.
    pub fn end(&mut self, now: Instant) -> Phases {
        self.leave(now - self.since);
        self.phases
    }

    fn leave(&mut self, took: Duration) {
        let phase = match self.stage {
            Stage::Files => return,
            Stage::Connect => &mut self.phases.connect,
            Stage::Handshake => &mut self.phases.tls,
            Stage::Answer | Stage::Reply | Stage::Program => &mut self.phases.answer,
        };
        *phase = took.into();
    }

    /// The check's time is over.
    pub fn timed_out(&mut self) -> Outcome {
        let (code, words) = match self.stage {
            Stage::Files => (
                CheckCode::SockErr,
                "the certificates of those who are trusted are not read yet",
            ),
            Stage::Connect => (CheckCode::L4Timeout, "no answer to the connection"),
            Stage::Handshake => (CheckCode::L6Timeout, "no answer to the TLS handshake"),
            Stage::Answer => (CheckCode::L7Timeout, "no complete answer"),
            Stage::Reply => (CheckCode::L4Timeout, "no reply"),
            Stage::Program => (CheckCode::ProcTimeout, "the program has not ended"),
        };
        let so_far = self.so_far.take();
        Outcome::with(code, so_far.unwrap_or_else(|| words.to_owned()))
    }
}
