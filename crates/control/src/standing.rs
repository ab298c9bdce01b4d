//! What a backend's state means for flows.

use std::fmt;

/// Whether a backend gets new flows, and whether it keeps the old ones. Any
/// standing may follow any other.
///
/// | standing  | new flows | old flows |
/// |-----------|-----------|-----------|
/// | available | yes       | yes       |
/// | draining  | no        | yes       |
/// | failing   | no        | yes       |
/// | dead      | no        | no        |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Healthy: it takes new flows.
    Available,
    /// Healthy, but drained by the operator: it keeps the flows it has.
    Draining,
    /// Fails its checks but answers at layer 4: a connection that works is
    /// better left alone. HAProxy and IPVS call it quiescent.
    Failing,
    /// Does not answer at layer 4, or nobody has asked yet: it serves nothing,
    /// and its flows have ended.
    Dead,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 4] = [Self::Available, Self::Draining, Self::Failing, Self::Dead];

    /// Whether new flows go to it.
    #[must_use]
    pub const fn takes_flows(self) -> bool {
        match self {
            Self::Available => true,
            Self::Draining | Self::Failing | Self::Dead => false,
        }
    }

    /// Whether flows that it has stay with it.
    #[must_use]
    pub const fn keeps_flows(self) -> bool {
        match self {
            Self::Available | Self::Draining | Self::Failing => true,
            Self::Dead => false,
        }
    }

    /// The same backend once the operator has drained it.
    #[must_use]
    pub const fn drained(self) -> Self {
        match self {
            Self::Available | Self::Draining => Self::Draining,
            Self::Failing => Self::Failing,
            Self::Dead => Self::Dead,
        }
    }

    /// Its name for people and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Available => "up",
            Self::Draining => "draining",
            Self::Failing => "failing",
            Self::Dead => "down",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}
