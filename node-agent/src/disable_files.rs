//! Files that disable a service while they are there.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};
use vipd_control::model::Model;

/// Between two looks at whether the files are there.
const LOOK: Duration = Duration::from_secs(1);

/// The files that are there.
pub type Present = watch::Receiver<Arc<BTreeSet<PathBuf>>>;

/// Looks for the files that the configuration names.
#[derive(Clone, Debug, Default)]
pub struct DisableFiles {
    named: watch::Sender<BTreeSet<PathBuf>>,
    present: watch::Sender<Arc<BTreeSet<PathBuf>>>,
}

impl DisableFiles {
    /// Those that are there, as they come and go.
    #[must_use]
    pub fn present(&self) -> Present {
        self.present.subscribe()
    }

    /// Looks for the files of a configuration from now on. When it returns each of
    /// them has been looked for once.
    pub async fn follow(&self, model: &Model) {
        let services = model.services.iter();
        let named = services.filter_map(|service| service.disable_file.clone());
        self.named.send_replace(named.collect());
        self.look().await;
    }

    /// Looks each second, forever.
    pub async fn run(self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    async fn look(&self) {
        let named = self.named.borrow().clone();
        if named.is_empty() && self.present.borrow().is_empty() {
            return;
        }
        let before = Arc::clone(&self.present.borrow());
        // A file may be on a file system that does not answer.
        let found = spawn_blocking(move || present(&named, &before)).await;
        let Ok(found) = found else { return };
        self.present.send_if_modified(|present| {
            let changed = **present != found;
            for path in found.difference(present) {
                warn!("{} is there: what it disables is disabled", path.display());
            }
            for path in present.difference(&found) {
                info!("{} disables nothing any more", path.display());
            }
            if changed {
                *present = Arc::new(found);
            }
            changed
        });
    }
}

/// Which of the files are there. One that cannot be looked for is as it was.
fn present(named: &BTreeSet<PathBuf>, before: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let is_there = |path: &Path| path.try_exists().unwrap_or_else(|_| before.contains(path));
    let there = named.iter().filter(|path| is_there(path));
    there.cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_counts_while_it_is_there_and_as_before_while_nobody_can_tell() {
        let directory = std::env::temp_dir().join(format!("vipd-disable-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join("web");
        let beneath = file.join("no directory");
        let named = BTreeSet::from([file.clone(), beneath.clone()]);
        let nothing = BTreeSet::new();
        assert_eq!(present(&named, &nothing), nothing);
        fs::write(&file, "").expect("a file");
        let there = BTreeSet::from([file.clone()]);
        assert_eq!(present(&named, &nothing), there);
        assert_eq!(
            present(&named, &named),
            named,
            "{beneath:?} is not to be told"
        );
        fs::remove_file(&file).expect("it is there");
        assert_eq!(present(&named, &there), nothing);
        fs::remove_dir(&directory).expect("it is empty");
    }
}
