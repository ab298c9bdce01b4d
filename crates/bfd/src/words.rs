//! The words of the protocol: states, diagnostics, and why a packet is discarded.

use std::fmt;

/// State of a session (RFC 5880 section 4.1, `Sta`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Held down by an operator. Says nothing about the path.
    AdminDown,
    /// The peer is not heard, or does not hear us.
    Down,
    /// We hear the peer; it does not know yet.
    Init,
    /// Each hears the other.
    Up,
}

/// Why the sender last went down (RFC 5880 section 4.1, `Diag`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Diagnostic(u8);

/// Why a received packet has no effect (RFC 5880 section 6.8.6, RFC 5881
/// section 5, RFC 5883 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Discard {
    /// Its TTL or hop limit is not what a packet from there must have.
    #[error("it has come over more hops than the session allows")]
    Ttl,
    /// It is not version 1.
    #[error("its version is not 1")]
    Version,
    /// It, or the length it names, is shorter than a control packet.
    #[error("it is shorter than a control packet")]
    Short,
    /// It names a length that is more than there is.
    #[error("it is shorter than the length it names")]
    Truncated,
    /// Its detection multiplier is 0.
    #[error("its detection multiplier is 0")]
    Multiplier,
    /// It is for many receivers.
    #[error("its multipoint bit is set")]
    Multipoint,
    /// It does not say which session it is from.
    #[error("its own discriminator is 0")]
    MyDiscriminator,
    /// It is in a session, and does not say in which.
    #[error("your discriminator is 0, though its state is neither Down nor AdminDown")]
    YourDiscriminator,
    /// No session is for it.
    #[error("there is no session for it")]
    NoSession,
    /// It is not authenticated and must be.
    #[error("it is not authenticated")]
    NotAuthenticated,
    /// It is authenticated and must not be.
    #[error("it is authenticated, and the session is not")]
    Authenticated,
    /// It is authenticated in another way, or under another key number.
    #[error("it is authenticated by another method, or by a key of another number")]
    OtherKey,
    /// The password or the digest is wrong.
    #[error("its password or digest is wrong")]
    WrongKey,
    /// Its sequence number is not one of those to come.
    #[error("its sequence number is one of the past, or far ahead")]
    Sequence,
    /// We are held down by an operator.
    #[error("the session is administratively down")]
    AdminDown,
}

/// How many packets were discarded, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Discards([u64; Discard::ALL.len()]);

impl State {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    pub(crate) fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Diagnostic {
    /// Nothing has happened.
    pub const NONE: Self = Self(0);
    /// The peer was silent for the detection time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// The peer says that it is down.
    pub const NEIGHBOR_SIGNALED_DOWN: Self = Self(3);
    /// What forwards packets has lost what it knew.
    pub const FORWARDING_PLANE_RESET: Self = Self(4);
    /// Something below, such as the link, reports that the path is gone.
    pub const PATH_DOWN: Self = Self(5);
    /// What lies behind the sender is gone.
    pub const CONCATENATED_PATH_DOWN: Self = Self(6);
    /// An operator wants it so.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);

    /// The diagnostic of that number; only the low 5 bits count.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        Self(number & 0x1f)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            number => return write!(f, "Diagnostic {number}"),
        })
    }
}

impl Discard {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::Ttl,
        Self::Version,
        Self::Short,
        Self::Truncated,
        Self::Multiplier,
        Self::Multipoint,
        Self::MyDiscriminator,
        Self::YourDiscriminator,
        Self::NoSession,
        Self::NotAuthenticated,
        Self::Authenticated,
        Self::OtherKey,
        Self::WrongKey,
        Self::Sequence,
        Self::AdminDown,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttl => "ttl",
            Self::Version => "version",
            Self::Short => "short",
            Self::Truncated => "truncated",
            Self::Multiplier => "multiplier",
            Self::Multipoint => "multipoint",
            Self::MyDiscriminator => "my_discriminator",
            Self::YourDiscriminator => "your_discriminator",
            Self::NoSession => "no_session",
            Self::NotAuthenticated => "not_authenticated",
            Self::Authenticated => "authenticated",
            Self::OtherKey => "other_key",
            Self::WrongKey => "wrong_key",
            Self::Sequence => "sequence",
            Self::AdminDown => "admin_down",
        }
    }
}

impl Discards {
    pub(crate) fn count(&mut self, reason: Discard) {
        self.0[reason as usize] += 1;
    }

    /// Packets discarded for that reason.
    #[must_use]
    pub fn of(&self, reason: Discard) -> u64 {
        self.0[reason as usize]
    }

    /// The reasons for which packets were discarded, and how many.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> {
        let all = Discard::ALL.into_iter().zip(self.0);
        all.filter(|&(_, count)| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_by_itself() {
        for reason in Discard::ALL {
            let mut discards = Discards::default();
            discards.count(reason);
            assert_eq!(discards.iter().collect::<Vec<_>>(), [(reason, 1)]);
        }
    }
}
