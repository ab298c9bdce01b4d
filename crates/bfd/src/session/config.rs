//! What a session wants.

use std::num::NonZeroU8;
use std::time::Duration;

use crate::authentication::Authentication;

/// What a session wants of itself and of its peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How fast packets follow each other.
    pub timing: Timing,
    /// Wait for the peer to speak first.
    pub passive: bool,
    /// We live on when our control plane dies (the C bit): the peer may then
    /// take our silence for the death of the path.
    pub independent: bool,
    /// The lowest TTL or hop limit that packets over several hops may arrive with.
    /// Over a single hop it is 255, whatever stands here.
    pub min_ttl: u8,
    /// How packets of both sides are authenticated.
    pub authentication: Option<Authentication>,
}

/// How fast packets follow each other, as far as this side has a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    desired_min_tx: Duration,
    required_min_rx: Duration,
    multiplier: NonZeroU8,
}

/// Why a session cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An interval is no whole number of microseconds from 1 to 2^32 - 1.
    #[error("{0:?} is no interval of BFD: whole microseconds, at least 1, at most 4294967295")]
    Interval(Duration),
    /// The multiplier is 0.
    #[error("a detection multiplier of 0 allows for no interval at all")]
    Multiplier,
}

impl Config {
    /// A session with that timing that speaks first, takes packets from any
    /// distance if it goes over several hops, is not authenticated and dies with
    /// its control plane.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            passive: false,
            independent: false,
            min_ttl: 0,
            authentication: None,
        }
    }
}

impl Timing {
    /// We send each `desired_min_tx` or slower, and can receive each
    /// `required_min_rx`. Our silence of `multiplier` intervals tells the peer
    /// that we are gone.
    ///
    /// # Errors
    /// If a number does not fit into a packet.
    pub fn new(
        desired_min_tx: Duration,
        required_min_rx: Duration,
        multiplier: u8,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            desired_min_tx: interval(desired_min_tx)?,
            required_min_rx: interval(required_min_rx)?,
            multiplier: NonZeroU8::new(multiplier).ok_or(ConfigError::Multiplier)?,
        })
    }

    /// The shortest interval between our packets.
    #[must_use]
    pub fn desired_min_tx(&self) -> Duration {
        self.desired_min_tx
    }

    /// The shortest interval between the peer's packets.
    #[must_use]
    pub fn required_min_rx(&self) -> Duration {
        self.required_min_rx
    }

    /// So many of our intervals make the peer's detection time.
    #[must_use]
    pub fn multiplier(&self) -> NonZeroU8 {
        self.multiplier
    }
}

fn interval(interval: Duration) -> Result<Duration, ConfigError> {
    let fits = (1..=u128::from(u32::MAX)).contains(&interval.as_micros());
    let whole = interval.subsec_nanos().is_multiple_of(1000);
    if fits && whole {
        Ok(interval)
    } else {
        Err(ConfigError::Interval(interval))
    }
}
