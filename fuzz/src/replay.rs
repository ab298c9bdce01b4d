//! Feeds what is in `fuzz/corpus/` to a check, without a fuzzer.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

/// Runs `check` on every file of the target's corpus, and on each of its
/// beginnings. What panics is named.
pub fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|directory| directory.join("fuzz/corpus").join(target))
        .find(|directory| directory.is_dir())
        .unwrap_or_else(|| panic!("fuzz/corpus/{target} is missing"));
    let mut files = 0;
    for entry in fs::read_dir(corpus).expect("the corpus can be read") {
        let path = entry.expect("the corpus can be read").path();
        let bytes = fs::read(&path).expect("the corpus can be read");
        // A few hundred cuts are enough of a long file.
        let step = bytes.len() / 500 + 1;
        for len in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
            let run = AssertUnwindSafe(|| check(&bytes[..len]));
            assert!(
                panic::catch_unwind(run).is_ok(),
                "{target} fails with the first {len} bytes of {}",
                path.display()
            );
        }
        files += 1;
    }
    assert!(files > 0, "the corpus of {target} is empty");
}
