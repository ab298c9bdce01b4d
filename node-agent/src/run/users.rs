//! Who programs run as: looked up once, and then kept for a while. The host may ask the
//! network for it, and be given no answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

use super::identity::Identity;
use crate::{questions::Questions, repeats::Repeats};

/// So long a user is who he was; then he is looked up again.
const KEPT: Duration = Duration::from_secs(60);

/// Users who are looked up at once.
const MOST_AT_ONCE: usize = 8;

/// Looks up a user by his name; the error says why there is none, or he cannot be had.
pub type LookUp = fn(&str) -> Result<Identity, String>;

/// The users of programs.
#[derive(Clone, Debug)]
pub struct Users(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    look_ups: Questions<Asked, Result<Identity, String>>,
    known: Mutex<Known>,
}

/// A user's name, and of which generation the answer is to be: what was asked before a
/// reload is not taken for an answer after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    generation: u64,
    name: String,
}

#[derive(Debug, Default)]
struct Known {
    generation: u64,
    /// Who each is, and when that was asked last.
    users: HashMap<String, (Identity, Instant)>,
    /// What was told of users who are not found again.
    told: Repeats,
}

impl Users {
    /// Those of this host, looked up in this way.
    pub fn new(look_up: LookUp) -> Self {
        let look_ups = Questions::new(MOST_AT_ONCE, move |asked: &Asked| look_up(&asked.name));
        Self(Arc::new(Inner {
            look_ups,
            known: Mutex::default(),
        }))
    }

    /// Who that user is. One who is known is asked for again after a while, and nobody
    /// waits for that; who is not found then stays who he was until a reload, for what
    /// knows the users may just be starting again.
    ///
    /// # Errors
    ///
    /// Why a program cannot be his, in plain words.
    pub async fn identity(&self, name: &str, until: Instant) -> Result<Identity, String> {
        let now = Instant::now();
        let (generation, known, is_old) = {
            let mut known = self.known();
            let generation = known.generation;
            let user = known.users.get_mut(name);
            user.map_or((generation, None, false), |(identity, asked)| {
                let is_old = now.duration_since(*asked) >= KEPT;
                if is_old {
                    *asked = now;
                }
                (generation, Some(identity.clone()), is_old)
            })
        };
        let asked = Asked {
            generation,
            name: name.to_owned(),
        };
        let Some(identity) = known else {
            return self.look_up(asked, until).await;
        };
        if is_old {
            let users = self.clone();
            tokio::spawn(async move { users.look_up(asked, now + KEPT).await });
        }
        Ok(identity)
    }

    /// Nobody is known any more.
    pub fn forget(&self) {
        let mut known = self.known();
        known.generation += 1;
        known.users.clear();
    }

    async fn look_up(&self, asked: Asked, until: Instant) -> Result<Identity, String> {
        let answer = self.0.look_ups.ask(&asked, until).await;
        let Asked { generation, name } = asked;
        let Ok(found) = answer else {
            return Err(format!(
                "cannot look up the user {name}: what knows the users of this host (see \
                 nsswitch.conf) does not answer in time"
            ));
        };
        let mut known = self.known();
        let now = Instant::now();
        match &found {
            _ if known.generation != generation => {}
            Ok(identity) => {
                known.users.insert(name, (identity.clone(), now));
            }
            Err(error) if known.users.contains_key(&name) => {
                if known.told.note(error, now).is_some() {
                    warn!("{error}; programs of {name} run as before, until a reload");
                }
            }
            Err(_) => {}
        }
        found
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        let known = &self.0.known;
        known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::time::timeout;

    use super::*;
    use crate::{
        questions::tests::{Hung, PATIENCE},
        run::tests::own_name,
    };

    #[tokio::test]
    async fn a_user_is_looked_up_once_and_anew_after_a_reload() {
        static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);
        let users = Users::new(|name| {
            LOOKED_UP.fetch_add(1, Ordering::Relaxed);
            Identity::of(name)
        });
        let check = async |sentence: &str, times: usize| {
            let found = users.identity(&own_name(), Instant::now() + PATIENCE).await;
            assert!(found.is_ok(), "{sentence}: {found:?}");
            assert_eq!(LOOKED_UP.load(Ordering::Relaxed), times, "{sentence}");
        };
        check("the first time", 1).await;
        check("known", 1).await;
        users.forget();
        check("after a reload", 2).await;
        check("known again", 2).await;
    }

    #[tokio::test]
    async fn who_is_known_and_not_found_again_stays_who_he_was_until_a_reload() {
        static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);
        let users = Users::new(|name| match LOOKED_UP.fetch_add(1, Ordering::Relaxed) {
            0 => Identity::of(name),
            _ => Err(format!("there is no user {name} on this host")),
        });
        let (name, until) = (own_name(), Instant::now() + PATIENCE);
        let first = users.identity(&name, until).await;
        assert!(first.is_ok(), "{first:?}");
        for time in 1..=3 {
            let asked = Asked {
                generation: 0,
                name: name.clone(),
            };
            assert!(users.look_up(asked, until).await.is_err(), "{time}");
            assert_eq!(users.identity(&name, until).await, first, "{time}");
        }
        users.forget();
        assert!(users.identity(&name, until).await.is_err());
    }

    #[tokio::test]
    async fn who_cannot_be_looked_up_is_waited_for_no_longer_than_there_is_time() {
        // It has the name of a user that nobody can tell of.
        let users = Users::new(|name| match File::open(name) {
            Ok(_) => Err("there is no such user".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        let hung = Hung::new("user");
        let name = hung.path().display().to_string();
        let until = Instant::now() + Duration::from_millis(50);
        let found = timeout(PATIENCE, users.identity(&name, until)).await;
        let found = found.expect("he is waited for");
        let words = format!("cannot look up the user {name}: what knows the users");
        assert!(
            found.as_ref().is_err_and(|error| error.starts_with(&words)),
            "{found:?}"
        );
    }
}
