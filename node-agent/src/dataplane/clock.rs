//! The clocks that packets go by: see [`Tick`].

use std::{
    io,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use vipd_abi::Tick;

use super::mapped::Mapped;

/// The flows' clock, in the memory that packets read.
pub struct Clock(Mapped<u64>);

impl Clock {
    /// The clock in this word, which goes on where it stood.
    #[must_use]
    pub fn new(word: Mapped<u64>) -> Self {
        let clock = Self(word);
        if clock.0.load(0) == 0 {
            clock.0.publish(0, 1);
        }
        clock
    }

    /// The present moment.
    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick::from_word(self.0.load(0))
    }

    fn advance(&self) {
        self.0.publish(0, self.0.load(0) + 1);
    }
}

/// Moves the clock on until it is dropped.
pub struct Ticker {
    /// Its end ends the thread.
    _alive: Sender<()>,
}

impl Ticker {
    /// Starts the thread. When it gets no processor time, the clock loses that
    /// time, so flows live longer rather than shorter.
    ///
    /// # Errors
    ///
    /// When the system has no more threads.
    pub fn start(clock: Arc<Clock>) -> io::Result<Self> {
        const LENGTH: Duration = Duration::from_nanos(1 << Tick::SHIFT);
        let (alive, stopped) = channel::<()>();
        thread::Builder::new()
            .name("clock".to_owned())
            .spawn(move || {
                let mut next = Instant::now() + LENGTH;
                loop {
                    let wait = next.saturating_duration_since(Instant::now());
                    if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                    clock.advance();
                    next = (next + LENGTH).max(Instant::now());
                }
            })?;
        Ok(Self { _alive: alive })
    }
}

/// The present moment by the kernel's clock.
#[must_use]
pub fn coarse() -> Tick {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Tick::from_nanos(seconds * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_where_it_stood_and_stands_when_nobody_moves_it() {
        let word = Mapped::anonymous(1).expect("memory");
        let clock = Arc::new(Clock::new(word));
        assert_eq!(clock.tick(), Tick(1), "0 stands for never");
        let ticker = Ticker::start(Arc::clone(&clock)).expect("a thread");
        while clock.tick() < Tick(3) {
            thread::yield_now();
        }
        drop(ticker);
        while Arc::strong_count(&clock) > 1 {
            thread::yield_now();
        }
        let stood = clock.tick();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(clock.tick(), stood);
        let Some(Clock(word)) = Arc::into_inner(clock) else {
            panic!("nobody else has it");
        };
        assert_eq!(Clock::new(word).tick(), stood);
    }
}
