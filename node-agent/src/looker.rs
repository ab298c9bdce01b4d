//! Whether files are there, by a way on which a file system that does not answer holds up
//! nobody.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::questions::{Questions, Silence};

/// Looks at once. Tokio has eight times as many threads for what blocks.
const MOST_AT_ONCE: usize = 64;

/// Looks whether files are there.
#[derive(Debug)]
pub struct Looker(Questions<PathBuf, Result<bool, String>>);

impl Default for Looker {
    fn default() -> Self {
        Self::by(|path| path.try_exists().map_err(|error| error.to_string()))
    }
}

impl Looker {
    /// One that looks in this way.
    pub(crate) fn by(look: fn(&PathBuf) -> Result<bool, String>) -> Self {
        Self(Questions::new(MOST_AT_ONCE, look))
    }

    /// Whether the file is there.
    ///
    /// # Errors
    ///
    /// Why nobody can tell, in plain words.
    pub async fn is_there(&self, path: &Path, within: Duration) -> Result<bool, String> {
        let until = Instant::now() + within;
        let looked = self.0.ask(&path.to_owned(), until).await;
        looked.unwrap_or_else(|silence| {
            Err(match silence {
                Silence::Unanswered => "its file system does not answer".to_owned(),
                Silence::Crowded => format!(
                    "the file systems of {MOST_AT_ONCE} other files do not answer, and no more \
                     are looked at"
                ),
            })
        })
    }
}
