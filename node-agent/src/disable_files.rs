//! Files that disable a service while they are there.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    sync::{self, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};
use vipd_control::model::Model;

use crate::{looker::Looker, repeats::Repeats};

/// Between two looks at whether the files are there.
const LOOK: Duration = Duration::from_secs(1);

/// How long a look may take. Who does not answer by then is as he was.
const ANSWER: Duration = Duration::from_millis(500);

/// The files that are there.
pub type Present = watch::Receiver<Arc<BTreeSet<PathBuf>>>;

/// Looks for the files that the configuration names.
#[derive(Clone, Debug, Default)]
pub struct DisableFiles(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    looker: Looker,
    named: Mutex<Named>,
    present: watch::Sender<Arc<BTreeSet<PathBuf>>>,
    /// Whose turn it is to look, lest an earlier look undo what a later one has found.
    /// It comes with what was told of files that cannot be looked for.
    turn: sync::Mutex<Repeats>,
}

/// The files by two configurations.
#[derive(Clone, Debug, Default)]
struct Named {
    now: BTreeSet<PathBuf>,
    /// Of the configuration before, by which is decided until the new one is in force.
    before: BTreeSet<PathBuf>,
}

impl DisableFiles {
    /// Those that are there, as they come and go.
    #[must_use]
    pub fn present(&self) -> Present {
        self.0.present.subscribe()
    }

    /// Looks for the files of a configuration from now on, and for those of the one
    /// before. When it returns each of them has been looked for once, or does not answer.
    pub async fn follow(&self, model: &Model) {
        let services = model.services.iter();
        let files = services.filter_map(|service| service.disable_file.clone());
        self.name(files.collect());
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

    fn name(&self, files: BTreeSet<PathBuf>) {
        let mut named = self.0.named();
        named.before = std::mem::replace(&mut named.now, files);
    }

    /// A file that cannot be looked for is as it was.
    async fn look(&self) {
        let mut told = self.0.turn.lock().await;
        let named = self.0.named().clone();
        let before = Arc::clone(&self.0.present.borrow());
        let looks = named.now.union(&named.before).map(async |path| {
            let found = self.0.looker.is_there(path, ANSWER).await;
            (path, found)
        });
        let mut there = BTreeSet::new();
        for (path, found) in join_all(looks).await {
            let is_there = found.unwrap_or_else(|error| {
                let shown = path.display();
                let words = format!("cannot tell whether {shown} is there: {error}");
                if told.note(&words, Instant::now()).is_some() {
                    warn!("{words}; what it disables stays as it is");
                }
                before.contains(path)
            });
            if is_there {
                there.insert(path.clone());
            }
        }
        self.0.present.send_if_modified(|present| {
            for path in there
                .difference(present)
                .filter(|it| named.now.contains(*it))
            {
                warn!("{} is there: what it disables is disabled", path.display());
            }
            for path in present.difference(&there) {
                info!("{} disables nothing any more", path.display());
            }
            let changed = **present != there;
            if changed {
                *present = Arc::new(there);
            }
            changed
        });
    }
}

impl Inner {
    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, path::Path};

    use tokio::time::timeout;

    use super::*;
    use crate::questions::tests::{Hung, PATIENCE};

    /// One that asks who may hang, as the real one does on a file system that does.
    fn by_opening() -> DisableFiles {
        let looker = Looker::by(|path| match fs::File::open(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.to_string()),
        });
        DisableFiles(Arc::new(Inner {
            looker,
            ..Inner::default()
        }))
    }

    fn set(files: &[&Path]) -> BTreeSet<PathBuf> {
        files.iter().map(|file| PathBuf::from(*file)).collect()
    }

    /// What is there when files of these names have been looked for.
    async fn look(files: &DisableFiles, named: &[&Path]) -> BTreeSet<PathBuf> {
        files.name(set(named));
        let looked = timeout(PATIENCE, files.look()).await;
        assert!(looked.is_ok(), "it waits for who does not answer");
        let present = files.present();
        BTreeSet::clone(&present.borrow())
    }

    fn directory(name: &str) -> PathBuf {
        let name = format!("vipd-disable-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory");
        directory
    }

    #[tokio::test]
    async fn a_file_counts_while_it_is_there_and_as_before_while_nobody_can_tell() {
        let directory = directory("counts");
        let file = directory.join("web");
        let beneath = file.join("no directory");
        let both = [&*file, &*beneath];
        let files = DisableFiles::default();
        assert_eq!(look(&files, &both).await, set(&[]));
        fs::write(&file, "").expect("a file");
        assert_eq!(look(&files, &both).await, set(&[&file]));
        files.0.present.send_replace(Arc::new(set(&both)));
        let found = look(&files, &both).await;
        assert_eq!(found, set(&both), "{beneath:?} is not to be told");
        fs::remove_file(&file).expect("it is there");
        assert_eq!(look(&files, &both).await, set(&[]));
        fs::remove_dir(&directory).expect("it is empty");
    }

    #[tokio::test]
    async fn a_file_that_does_not_answer_is_as_before_and_holds_up_no_other() {
        let (directory, hung) = (directory("hung"), Hung::new("disable"));
        let file = directory.join("web");
        fs::write(&file, "").expect("a file");
        let both = [&*file, hung.path()];
        let files = by_opening();
        assert_eq!(look(&files, &both).await, set(&[&file]));
        files.0.present.send_replace(Arc::new(set(&both)));
        assert_eq!(look(&files, &both).await, set(&both));
        fs::remove_file(&file).expect("it is there");
        assert_eq!(look(&files, &both).await, set(&[hung.path()]));
        fs::remove_dir(&directory).expect("it is empty");
    }

    /// Until the new plan is in force is decided by the old one.
    #[tokio::test]
    async fn a_reload_that_renames_a_file_lets_go_of_the_old_one_only_with_the_next() {
        let directory = directory("renamed");
        let (old, new) = (directory.join("old"), directory.join("new"));
        for file in [&old, &new] {
            fs::write(file, "").expect("a file");
        }
        let files = DisableFiles::default();
        assert_eq!(look(&files, &[&old]).await, set(&[&old]));
        assert_eq!(look(&files, &[&new]).await, set(&[&old, &new]));
        assert_eq!(look(&files, &[&new]).await, set(&[&new]));
        fs::remove_dir_all(&directory).expect("it is ours");
    }
}
