//! What one health check found: a code in HAProxy's words, and the details.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

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
    /// The answer is as expected only in maintenance (HAProxy's conditional).
    L7OkConditional,
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
    /// More in plain words, may be empty.
    pub detail: String,
}

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
    pub const ALL: [Self; 15] = [
        Self::SockErr,
        Self::L4Ok,
        Self::L4Timeout,
        Self::L4Con,
        Self::L6Ok,
        Self::L6Timeout,
        Self::L6Response,
        Self::L7Ok,
        Self::L7OkConditional,
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
            Self::L4Ok | Self::L6Ok | Self::L7Ok | Self::L7OkConditional | Self::ProcOk => true,
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
            | Self::L7OkConditional
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
            Self::L7OkConditional => "L7OKC",
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

impl CheckResult {
    /// Whether the backend passed.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.code.is_success()
    }
}

/// `L7STS 503 in 2.1 ms: Service Unavailable`.
impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        write!(f, " in {:.1} ms", self.duration.as_secs_f64() * 1e3)?;
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
            let says_ok = word.ends_with("OK") || word == "L7OKC";
            assert_eq!(code.is_success(), says_ok, "{word}");
        }
    }

    #[test]
    fn a_result_reads_as_a_sentence() {
        let check = |code, status, detail: &str, expected| {
            let duration = Duration::from_micros(2_140);
            let detail = detail.to_owned();
            let result = CheckResult {
                code,
                status,
                duration,
                detail,
            };
            assert_eq!(result.to_string(), expected);
        };
        check(CheckCode::L4Ok, None, "", "L4OK in 2.1 ms");
        check(
            CheckCode::L7Status,
            Some(503),
            "Service Unavailable",
            "L7STS 503 in 2.1 ms: Service Unavailable",
        );
    }
}
