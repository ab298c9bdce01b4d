//! Waiting for a state, bounded in time.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// How long a program may take to start and answer. Where several start at once on a
/// busy machine, and each of them waits for the kernel's verifier, it has been 6 s.
pub(crate) const STARTING: Duration = Duration::from_secs(60);

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` is content, and returns what it saw.
///
/// `look` tells what it sees instead by its error; when the time is up that
/// last sight is part of the failure, after `sentence`, which says what was
/// waited for.
pub fn wait_until<T>(
    sentence: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(last_seen) if Instant::now() >= deadline => {
                return Err(last_seen).with_context(|| {
                    format!("waited {within:?} in vain until {sentence}; last seen")
                });
            }
            Err(_) => sleep(PAUSE),
        }
    }
}
