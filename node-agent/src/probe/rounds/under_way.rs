//! Checks that are under way, and of whom each is, whatever becomes of it.

use std::{collections::HashMap, sync::Arc};

use tokio::task::{self, JoinSet};

use super::{Asked, Target};

/// All checks that are under way.
#[derive(Default)]
pub struct UnderWay {
    tasks: JoinSet<Option<Asked>>,
    pub(super) targets: HashMap<task::Id, Arc<Target>>,
}

/// What has become of a check.
pub enum Ended {
    /// It has a result.
    Asked(Asked),
    /// Its task has failed with these words, and nobody knows what was found.
    Lost(Arc<Target>, String),
    /// It has a result that nobody wants to hear of: the engine has gone.
    Unheard,
}

impl UnderWay {
    /// Starts a check of the target.
    pub fn start(
        &mut self,
        target: Arc<Target>,
        check: impl Future<Output = Option<Asked>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(check).id();
        self.targets.insert(id, target);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Waits for the end of any; `None` when there is none. A wait that is dropped has
    /// lost nothing.
    pub async fn ended(&mut self) -> Option<Ended> {
        loop {
            match self.tasks.join_next_with_id().await? {
                Ok((id, asked)) => {
                    self.targets.remove(&id);
                    return Some(asked.map_or(Ended::Unheard, Ended::Asked));
                }
                Err(error) => {
                    if let Some(target) = self.targets.remove(&error.id()) {
                        return Some(Ended::Lost(target, error.to_string()));
                    }
                }
            }
        }
    }
}
