//! In what state something is announced. The decision picks the state; what
//! each router is told of it is a matter of the configuration's rules.

/// The state in which a prefix is announced, the worst first. What each means by
/// itself, unless rules name it:
///
/// | state | what is so | what routers hear |
/// |---|---|---|
/// | down | too few backends are healthy | it is withdrawn |
/// | disabled | the operator or a file has said so | it is withdrawn |
/// | doubt | nobody answers, and it may be our own network | a way that is about to go |
/// | maintenance | well, on a host that is about to leave | a way that is about to go |
/// | degraded | alive, with fewer backends than is good | the same as up |
/// | up | alive | it is announced |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Too few backends are healthy, and it is announced all the same, so that
    /// packets find a way when everybody is down (fail open).
    Down,
    /// Taken out by the operator or by a file, and announced all the same; who is
    /// healthy still serves what arrives.
    Disabled,
    /// All backends fell silent at once, so that our own network is the likelier
    /// cause; packets go where they went.
    Doubt,
    /// Alive, on a host that is about to leave (RFC 8326).
    Maintenance,
    /// Alive, but fewer backends serve than is good, or only a sorry backend.
    Degraded,
    /// Alive.
    Up,
}

impl State {
    /// All of them, the best first.
    pub const ALL: [Self; 6] = [
        Self::Up,
        Self::Degraded,
        Self::Maintenance,
        Self::Doubt,
        Self::Disabled,
        Self::Down,
    ];

    /// A word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Maintenance => "maintenance",
            Self::Doubt => "doubt",
            Self::Disabled => "disabled",
            Self::Down => "down",
        }
    }

    /// Whether it is withdrawn unless a rule that names the state announces it.
    #[must_use]
    pub const fn is_withdrawn(self) -> bool {
        match self {
            Self::Down | Self::Disabled => true,
            Self::Doubt | Self::Maintenance | Self::Degraded | Self::Up => false,
        }
    }

    /// Whether routers are asked to prefer any other way (RFC 8326), unless a
    /// rule that names the state says something else.
    #[must_use]
    pub const fn is_leaving(self) -> bool {
        match self {
            Self::Doubt | Self::Maintenance => true,
            Self::Down | Self::Disabled | Self::Degraded | Self::Up => false,
        }
    }

    /// Whether enough backends serve, be the host in maintenance or not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        self >= Self::Maintenance
    }
}
