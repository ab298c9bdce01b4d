//! The file of the overrides: written whenever they have changed, before the
//! operator is answered.

use std::{path::Path, sync::Arc};

use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
};
use tracing::warn;

use super::Overrides;
use crate::state_file::{Error, StateFile};

/// Name and format of the file.
const FILE: (&str, u32) = ("overrides.json", 1);

/// Keeps the overrides in their file. Its clones are one keeper.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: StateFile,
    overrides: watch::Receiver<Arc<Overrides>>,
    /// What the file says.
    written: Mutex<Arc<Overrides>>,
}

impl Keeper {
    /// What the file in the directory says; `None` when there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be used.
    pub fn read(directory: &Path) -> Result<Option<Overrides>, Error> {
        file(directory).read()
    }

    /// One for the file in the directory, which says `written`.
    #[must_use]
    pub fn new(
        directory: &Path,
        written: Overrides,
        overrides: watch::Receiver<Arc<Overrides>>,
    ) -> Self {
        Self(Arc::new(Inner {
            file: file(directory),
            overrides,
            written: Mutex::new(Arc::new(written)),
        }))
    }

    /// Has the file say what is so now.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub async fn save(&self) -> Result<(), Error> {
        let mut written = self.0.written.lock().await;
        let now = Arc::clone(&self.0.overrides.borrow());
        if *written == now {
            return Ok(());
        }
        let (file, state) = (self.0.file.clone(), Arc::clone(&now));
        let done = spawn_blocking(move || file.write(&*state)).await;
        done.unwrap_or_else(|error| {
            Err(Error::Write {
                path: self.0.file.path().to_owned(),
                source: error.into(),
            })
        })?;
        *written = now;
        Ok(())
    }

    /// Runs until nobody orders any more: writes what has changed by itself, such
    /// as names.
    pub async fn run(self) {
        let mut overrides = self.0.overrides.clone();
        overrides.mark_changed();
        while overrides.changed().await.is_ok() {
            overrides.mark_unchanged();
            if let Err(error) = self.save().await {
                warn!("what the operator has ordered would be forgotten by a restart: {error}");
            }
        }
    }
}

fn file(directory: &Path) -> StateFile {
    let (name, version) = FILE;
    StateFile::new(directory, name, version)
}
