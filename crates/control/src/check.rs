//! What one health check found: a code in HAProxy's words, and the details.

use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

/// Outcome of a check in the words of HAProxy's `show stat`, so that what is
/// known about those words stays true. L4 is the connection, L6 is TLS, L7 is
/// what is spoken on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckCode {
    /// The check could not be made on our side: no socket, no source address,
    /// no port. Says nothing of the backend.
    SockErr,
    /// The connection was accepted and nothing more was asked.
    L4Ok,
    /// No answer to the connection attempt in time.
    L4Timeout,
    /// The connection was refused, or the host or network is unreachable.
    L4Con,
    /// TLS was agreed and nothing more was asked.
    L6Ok,
    /// No answer to the TLS handshake in time.
    L6Timeout,
    /// The TLS handshake failed or the certificate is not acceptable.
    L6Response,
    /// The answer is as expected.
    L7Ok,
    /// No complete answer in time.
    L7Timeout,
    /// The answer is not of the protocol, or ended early.
    L7Response,
    /// The answer is valid and says no, for example HTTP 503.
    L7Status,
    /// The check program ended with success.
    ProcOk,
    /// The check program did not end in time.
    ProcTimeout,
    /// The check program failed or could not be started.
    ProcErr,
}

/// Result of one check of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// What was found.
    pub code: CheckCode,
    /// Status in the protocol's own numbers, for example the HTTP status.
    pub status: Option<u16>,
    /// From the start of the check to its result.
    pub duration: Duration,
    /// How much of that each part took.
    pub phases: Phases,
    /// When the first certificate of those that were shown expires, in seconds
    /// since 1970 UTC.
    pub certificate_expiry: Option<NonZeroU64>,
    /// Whether the backend, or somebody on the way, has refused it: nobody serves,
    /// and the network works.
    pub refused: bool,
    /// More in plain words, may be empty.
    pub detail: String,
}

/// How long each part of a check took, as far as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Until the connection was there, or was given up.
    pub connect: Took,
    /// The TLS handshake.
    pub tls: Took,
    /// From the question to the end of the answer.
    pub answer: Took,
}

/// How long something took, if it was begun: whole microseconds, at least one, at
/// most 71 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took(Option<NonZeroU32>);

/// A result together with what it is about; what a probe hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Name of the service.
    pub service: Arc<str>,
    /// The backend, by its identity within the service: the address.
    pub backend: IpAddr,
    /// What was found.
    pub result: CheckResult,
}

impl CheckCode {
    /// Every code, in the order of the layers.
    pub const ALL: [Self; 14] = [
        Self::SockErr,
        Self::L4Ok,
        Self::L4Timeout,
        Self::L4Con,
        Self::L6Ok,
        Self::L6Timeout,
        Self::L6Response,
        Self::L7Ok,
        Self::L7Timeout,
        Self::L7Response,
        Self::L7Status,
        Self::ProcOk,
        Self::ProcTimeout,
        Self::ProcErr,
    ];

    /// Whether the backend passed.
    #[must_use]
    pub const fn is_success(self) -> bool {
        match self {
            Self::L4Ok | Self::L6Ok | Self::L7Ok | Self::ProcOk => true,
            Self::SockErr
            | Self::L4Timeout
            | Self::L4Con
            | Self::L6Timeout
            | Self::L6Response
            | Self::L7Timeout
            | Self::L7Response
            | Self::L7Status
            | Self::ProcTimeout
            | Self::ProcErr => false,
        }
    }

    /// Whether nothing answered at layer 4. All else that can fail fails above
    /// it, on a host that takes connections; a check program does not tell,
    /// and gets the benefit of the doubt.
    #[must_use]
    pub const fn is_silence(self) -> bool {
        match self {
            Self::L4Timeout | Self::L4Con => true,
            Self::SockErr
            | Self::L4Ok
            | Self::L6Ok
            | Self::L6Timeout
            | Self::L6Response
            | Self::L7Ok
            | Self::L7Timeout
            | Self::L7Response
            | Self::L7Status
            | Self::ProcOk
            | Self::ProcTimeout
            | Self::ProcErr => false,
        }
    }

    /// HAProxy's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SockErr => "SOCKERR",
            Self::L4Ok => "L4OK",
            Self::L4Timeout => "L4TOUT",
            Self::L4Con => "L4CON",
            Self::L6Ok => "L6OK",
            Self::L6Timeout => "L6TOUT",
            Self::L6Response => "L6RSP",
            Self::L7Ok => "L7OK",
            Self::L7Timeout => "L7TOUT",
            Self::L7Response => "L7RSP",
            Self::L7Status => "L7STS",
            Self::ProcOk => "PROCOK",
            Self::ProcTimeout => "PROCTOUT",
            Self::ProcErr => "PROCERR",
        }
    }
}

impl fmt::Display for CheckCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Duration> for Took {
    fn from(duration: Duration) -> Self {
        let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        Self(Some(NonZeroU32::new(micros).unwrap_or(NonZeroU32::MIN)))
    }
}

impl Took {
    /// The time; `None` when it was not begun.
    #[must_use]
    pub fn get(self) -> Option<Duration> {
        self.0
            .map(|micros| Duration::from_micros(micros.get().into()))
    }
}

impl Phases {
    /// Those that were begun, in their order, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let all = [
            ("connect", self.connect),
            ("tls", self.tls),
            ("answer", self.answer),
        ];
        all.into_iter()
            .filter_map(|(name, took)| took.get().map(|took| (name, took)))
    }
}

impl CheckResult {
    /// A result of which no more is known.
    #[must_use]
    pub const fn new(code: CheckCode, duration: Duration) -> Self {
        Self {
            code,
            status: None,
            duration,
            phases: Phases {
                connect: Took(None),
                tls: Took(None),
                answer: Took(None),
            },
            certificate_expiry: None,
            refused: false,
            detail: String::new(),
        }
    }

    /// Whether the backend passed.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.code.is_success()
    }
}

/// `L7STS 503 in 2.1 ms (connect 0.3, answer 1.8): Service Unavailable`.
impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        let millis = |took: Duration| took.as_secs_f64() * 1e3;
        write!(f, " in {:.1} ms", millis(self.duration))?;
        if self.phases.iter().count() > 1 {
            for (i, (name, took)) in self.phases.iter().enumerate() {
                let before = if i == 0 { " (" } else { ", " };
                write!(f, "{before}{name} {:.1}", millis(took))?;
            }
            write!(f, ")")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_alone_tells_success() {
        for code in CheckCode::ALL {
            let word = code.to_string();
            assert_eq!(code.is_success(), word.ends_with("OK"), "{word}");
        }
    }

    #[test]
    fn a_result_reads_as_a_sentence() {
        let check = |code, status, detail: &str, expected| {
            let duration = Duration::from_micros(2_140);
            let result = CheckResult {
                status,
                detail: detail.to_owned(),
                ..CheckResult::new(code, duration)
            };
            assert_eq!(result.to_string(), expected);
        };
        check(CheckCode::L4Ok, None, "", "L4OK in 2.1 ms");
        let phases = Phases {
            connect: Duration::from_micros(300).into(),
            tls: Took::default(),
            answer: Duration::from_micros(1_840).into(),
        };
        let result = CheckResult {
            phases,
            ..CheckResult::new(CheckCode::L7Ok, Duration::from_micros(2_140))
        };
        let expected = "L7OK in 2.1 ms (connect 0.3, answer 1.8)";
        assert_eq!(result.to_string(), expected);
        check(
            CheckCode::L7Status,
            Some(503),
            "Service Unavailable",
            "L7STS 503 in 2.1 ms: Service Unavailable",
        );
    }

    #[test]
    fn a_part_that_was_begun_took_some_time() {
        let check = |duration, expected| {
            let took = Took::from(duration);
            assert_eq!(took.get(), Some(expected), "{duration:?}");
        };
        let micros = Duration::from_micros;
        check(Duration::ZERO, micros(1));
        check(Duration::from_nanos(2_900), micros(2));
        check(Duration::from_secs(1), micros(1_000_000));
        check(Duration::from_secs(5_000), micros(u32::MAX.into()));
        assert_eq!(Took::default().get(), None);
    }

    #[test]
    fn a_result_is_small_since_every_backend_has_one() {
        assert!(size_of::<CheckResult>() <= 72);
    }
}
