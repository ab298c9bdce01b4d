//! How a lab test runs: few at a time, and with the logs when it fails.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Condvar, Mutex, PoisonError},
};

use anyhow::Result;
use vipd_tests::Lab;

/// Labs that stand at the same time; each is a dozen busy processes.
const LABS: usize = 3;

/// Runs `test` in a lab of its own, and prints the lab's logs if it fails.
pub fn in_lab(test: impl FnOnce(&Lab) -> Result<()>) {
    let _permit = Permit::wait();
    let lab = Lab::new().expect("a lab can be made");
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&lab)));
    if !matches!(outcome, Ok(Ok(()))) {
        eprintln!("{}", lab.logs());
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => resume_unwind(panic),
    }
}

static FREE: Mutex<usize> = Mutex::new(LABS);
static FREED: Condvar = Condvar::new();

struct Permit;

impl Permit {
    fn wait() -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = FREED
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREED.notify_one();
    }
}
