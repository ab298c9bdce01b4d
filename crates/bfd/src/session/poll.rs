//! Poll sequences: how a change of our intervals is agreed (RFC 5880 sections
//! 6.5 and 6.8.3).

/// Where the poll sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poll {
    /// There is none.
    Idle,
    /// It begins after so many more packets, so that an answer to the one before
    /// is not taken for one to this.
    Waiting(u8),
    /// Each packet asks for an answer.
    Running {
        /// Our intervals have changed since it began: another one must follow.
        again: bool,
    },
}

/// What an answer of the peer's means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It knows our intervals; they are in force now.
    Agreed,
    /// It does not know them yet.
    NotYet,
}

impl Poll {
    /// Our intervals have changed.
    pub(super) fn start(&mut self) {
        *self = match *self {
            Self::Idle => Self::Running { again: false },
            Self::Waiting(packets) => Self::Waiting(packets),
            Self::Running { .. } => Self::Running { again: true },
        };
    }

    /// The session went down: there is nobody to agree with.
    pub(super) fn stop(&mut self) {
        *self = Self::Idle;
    }

    /// The peer has answered.
    pub(super) fn answered(&mut self) -> Answer {
        match *self {
            Self::Idle | Self::Waiting(_) => Answer::NotYet,
            Self::Running { again: true } => {
                *self = Self::Waiting(2);
                Answer::NotYet
            }
            Self::Running { again: false } => {
                *self = Self::Idle;
                Answer::Agreed
            }
        }
    }

    /// Whether the periodic packet that is sent now asks for an answer.
    pub(super) fn next_packet(&mut self) -> bool {
        match *self {
            Self::Idle => false,
            Self::Waiting(0) => {
                *self = Self::Running { again: false };
                true
            }
            Self::Waiting(packets) => {
                *self = Self::Waiting(packets - 1);
                false
            }
            Self::Running { .. } => true,
        }
    }

    pub(super) fn is_idle(self) -> bool {
        self == Self::Idle
    }
}
