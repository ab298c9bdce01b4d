//! In what state something is announced. The decision picks the state; what
//! each router is told of it is a matter of the configuration's rules.

/// The state in which a prefix is announced, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Too few backends are healthy, and it is announced all the same, so that
    /// packets find a way when everybody is down (fail open).
    Down,
    /// Alive, on a host that is about to leave (RFC 8326).
    Maintenance,
    /// Alive.
    Up,
}

impl State {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Up, Self::Maintenance, Self::Down];

    /// A word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Maintenance => "maintenance",
            Self::Down => "down",
        }
    }
}
