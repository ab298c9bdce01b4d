//! What a packet came to: its verdict, and the backend that it counts for.

use vipd_abi::Verdict;

/// One word, so that a function of the program can return it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Outcome(u64);

impl Outcome {
    /// A packet that was sent to the backend with this counter.
    #[inline(always)]
    pub fn sent(verdict: Verdict, counter: u32) -> Self {
        Self(verdict as u64 | u64::from(counter) << 32)
    }

    #[inline(always)]
    pub fn verdict(self) -> Verdict {
        // SAFETY: the lower half was a verdict when it was put in.
        unsafe { core::mem::transmute::<u32, Verdict>(self.0 as u32) }
    }

    /// The backend's counter; 0 is nobody's.
    #[inline(always)]
    pub fn counter(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl From<Verdict> for Outcome {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        Self(verdict as u64)
    }
}
