//! The file that remembers that the node is in maintenance, for the agent that
//! comes after one that dies.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::state_file::{Error, StateFile};

/// Name and format of the file. While it is there the node is in maintenance.
const FILE: (&str, u32) = ("maintenance.json", 1);

/// The file in a directory.
#[derive(Clone, Debug)]
pub struct Mark(StateFile);

/// What it says, for people too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// Who has begun the maintenance; empty when nobody knows.
    by: String,
}

impl Mark {
    /// That in the directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let (name, version) = FILE;
        Self(StateFile::new(directory, name, version))
    }

    /// Whether the node was left in maintenance. A file that cannot be used says so
    /// too: somebody has begun one. Blocks.
    #[must_use]
    pub fn is_set(&self) -> bool {
        match self.0.read::<Written>() {
            Ok(written) => written.is_some(),
            Err(error) => {
                warn!("{error}; taken for a maintenance that was begun");
                if let Err(error) = self.set("") {
                    warn!("{error}; an agent that is started again will not know");
                }
                true
            }
        }
    }

    /// Remembers that somebody has begun a maintenance. Blocks.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn set(&self, by: &str) -> Result<(), Error> {
        self.0.write(&Written { by: by.to_owned() })
    }

    /// Remembers that there is none. Blocks.
    ///
    /// # Errors
    ///
    /// When the file stays.
    pub fn clear(&self) -> Result<(), Error> {
        self.0.remove()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn maintenance_is_remembered_until_it_is_ended() {
        let directory = std::env::temp_dir().join(format!("vipd-mark-{}", std::process::id()));
        let mark = Mark::new(&directory);
        assert!(!mark.is_set(), "there is no file");
        for (sentence, on) in [
            ("it was ended before it began", false),
            ("begun", true),
            ("begun again", true),
            ("ended", false),
            ("begun anew", true),
        ] {
            let done = if on { mark.set("anna") } else { mark.clear() };
            done.expect(sentence);
            assert_eq!(Mark::new(&directory).is_set(), on, "{sentence}");
        }
        fs::write(mark.path(), "damaged").expect("it is written");
        for agent in ["the first agent that sees it", "the next one"] {
            assert!(mark.is_set(), "{agent}");
        }
        fs::remove_dir_all(&directory).expect("its directory goes");
    }
}
