//! Questions to this host that may never be answered, as whether a file is there on a
//! file system that hangs.
//!
//! Each is put once at a time, on a thread of its own, however many wait for the answer
//! and however often they ask; and only so many are put at once. So what hangs costs a
//! thread, and nobody waits for it longer than he likes.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::timeout_at,
};

/// Questions of one kind, and those of them that are open.
pub struct Questions<Q, A> {
    put: Arc<dyn Fn(&Q) -> A + Send + Sync>,
    room: Arc<Semaphore>,
    open: Open<Q, A>,
}

type Open<Q, A> = Arc<Mutex<HashMap<Q, watch::Receiver<Stage<A>>>>>;

/// How far a question has come.
#[derive(Clone)]
enum Stage<A> {
    /// It waits for others that are put.
    Waiting,
    /// It has been put.
    Put,
    /// This is the answer.
    Answered(A),
}

/// Why there is no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The host gives none.
    Unanswered,
    /// So many others have none that this was not put.
    Crowded,
}

impl<Q, A> Questions<Q, A>
where
    Q: Clone + Eq + Hash + Send + 'static,
    A: Clone + Send + Sync + 'static,
{
    /// Questions that are put by calling `put`, at most so many at once.
    pub fn new(most: usize, put: impl Fn(&Q) -> A + Send + Sync + 'static) -> Self {
        Self {
            put: Arc::new(put),
            room: Arc::new(Semaphore::new(most)),
            open: Arc::default(),
        }
    }

    /// The answer, if there is one in time. A question that is open already is not put
    /// again: its answer is waited for.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn ask(&self, question: &Q, until: Instant) -> Result<A, Silence> {
        let mut stage = {
            let mut open = lock(&self.open);
            let known = open.get(question).cloned();
            known.unwrap_or_else(|| {
                let stage = self.put(question);
                open.insert(question.clone(), stage.clone());
                stage
            })
        };
        {
            let answered = stage.wait_for(|stage| matches!(stage, Stage::Answered(_)));
            if let Ok(Ok(stage)) = timeout_at(until.into(), answered).await
                && let Stage::Answered(answer) = &*stage
            {
                return Ok(answer.clone());
            }
        }
        Err(match &*stage.borrow() {
            Stage::Waiting => Silence::Crowded,
            Stage::Put | Stage::Answered(_) => Silence::Unanswered,
        })
    }

    /// Puts a question as soon as there is room. It stays open until it is answered.
    fn put(&self, question: &Q) -> watch::Receiver<Stage<A>> {
        let (told, stage) = watch::channel(Stage::Waiting);
        let (put, question) = (Arc::clone(&self.put), question.clone());
        let (room, open) = (Arc::clone(&self.room), Arc::clone(&self.open));
        tokio::spawn(async move {
            let Ok(room) = room.acquire_owned().await else {
                return;
            };
            told.send_replace(Stage::Put);
            let asked = question.clone();
            let answer = spawn_blocking(move || put(&asked)).await;
            drop(room);
            // First, or who asks now would be told an answer to an earlier question.
            lock(&open).remove(&question);
            if let Ok(answer) = answer {
                told.send_replace(Stage::Answered(answer));
            }
        });
        stage
    }
}

fn lock<T>(open: &Mutex<T>) -> MutexGuard<'_, T> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Q, A> fmt::Debug for Questions<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = lock(&self.open).len();
        f.debug_struct("Questions").field("open", &open).finish()
    }
}

#[cfg(test)]
pub mod tests {
    use std::{
        fs::{self, File, OpenOptions},
        path::{Path, PathBuf},
        process,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// Long enough for whatever is to happen.
    pub const PATIENCE: Duration = Duration::from_secs(20);

    /// A place at which nothing answers: whoever opens it for reading waits until this
    /// is dropped.
    pub struct Hung(PathBuf);

    impl Hung {
        /// One of that name, unique among tests.
        pub fn new(name: &str) -> Self {
            let name = format!("vipd-hung-{name}-{}", process::id());
            let path = std::env::temp_dir().join(name);
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, &path, FileType::Fifo, mode, 0).expect("make a FIFO");
            Self(path)
        }

        /// Where it is.
        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Hung {
        fn drop(&mut self) {
            // Both ends: it waits for nobody, and those that wait go on.
            let both = OpenOptions::new().read(true).write(true).open(&self.0);
            fs::remove_file(&self.0).expect("remove the FIFO");
            drop(both);
        }
    }

    static PUT: AtomicUsize = AtomicUsize::new(0);

    fn open(path: &PathBuf) -> bool {
        PUT.fetch_add(1, Ordering::Relaxed);
        File::open(path).is_ok()
    }

    #[tokio::test]
    async fn what_is_not_answered_holds_one_thread_and_nobody_up() {
        let questions = Questions::new(2, open);
        let (first, second) = (Hung::new("first"), Hung::new("second"));
        let there = PathBuf::from("/dev/null");
        let soon = || Instant::now() + Duration::from_millis(20);
        for _ in 0..10 {
            let found = questions.ask(&first.path().to_owned(), soon()).await;
            assert_eq!(found, Err(Silence::Unanswered));
        }
        assert_eq!(PUT.load(Ordering::Relaxed), 1, "it is put once");
        let found = questions.ask(&there, Instant::now() + PATIENCE).await;
        assert_eq!(found, Ok(true), "others are answered meanwhile");
        let found = questions.ask(&second.path().to_owned(), soon()).await;
        assert_eq!(found, Err(Silence::Unanswered));
        let found = questions.ask(&there, soon()).await;
        assert_eq!(found, Err(Silence::Crowded), "no more than two are put");
        let gone = first.path().to_owned();
        drop(first);
        let found = questions.ask(&there, Instant::now() + PATIENCE).await;
        assert_eq!(found, Ok(true), "there is room again");
        let found = questions.ask(&gone, Instant::now() + PATIENCE).await;
        assert_eq!(found, Ok(false), "who asks again is told how it is now");
    }
}
