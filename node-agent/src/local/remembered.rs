//! What is known of local services when an agent is started again: which
//! addresses it has bound, and how the servers were that they depend on. Of what is
//! forwarded the pinned maps tell; of this only a file does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tracing::warn;
use vipd_control::{
    decide::ServicePlan,
    health::Initial,
    model::{Backend, Service},
    standing::Standing,
};

use super::Local;
use crate::{engine::Decision, state_file::StateFile};

/// Changes that follow each other by less are written together.
const SETTLE: Duration = Duration::from_millis(200);

/// What the file says, as this agent goes by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Addresses that were bound by vipd, each on an interface.
    pub bound: BTreeSet<(IpAddr, Arc<str>)>,
    /// Whether each server was up, by service and address.
    up: BTreeMap<String, BTreeMap<IpAddr, bool>>,
}

/// The file itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// The kernel's id of its run: bound addresses and servers end with it.
    boot: String,
    bound: Vec<Place>,
    services: BTreeMap<String, BTreeMap<IpAddr, bool>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    address: IpAddr,
    interface: String,
}

impl Remembered {
    /// What an agent before has left in the directory, if this host has not been
    /// started anew since. What cannot be read is told, and nothing.
    #[must_use]
    pub fn read(directory: &Path) -> Self {
        let written = file(directory).read::<Written>();
        let written = written.unwrap_or_else(|error| {
            warn!("{error}; started without what an agent before knew of local services");
            None
        });
        let written = written.filter(|written| written.boot == boot());
        written.map_or_else(Self::default, |written| Self {
            bound: (written.bound.into_iter())
                .map(|place| (place.address, place.interface.into()))
                .collect(),
            up: written.services,
        })
    }

    /// Whether an agent before serves addresses of this host to this day.
    #[must_use]
    pub fn has_served(&self) -> bool {
        let mut servers = self.up.values().flat_map(BTreeMap::values);
        servers.any(|up| *up)
    }

    /// What is believed of a server before its first check.
    #[must_use]
    pub fn initial(&self, service: &Service, backend: &Backend) -> Option<Initial> {
        let up = *self.up.get(&*service.name)?.get(&backend.address)?;
        Some(if up { Initial::Up } else { Initial::Down })
    }
}

/// Forgets it all: the addresses are taken away, and nobody looks after the servers
/// any more.
pub fn forget(directory: &Path) {
    let file = file(directory);
    if let Err(error) = fs::remove_file(file.path())
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!("{}: {error}", file.path().display());
    }
}

/// Keeps the file in line with what is known.
pub struct Keeper {
    /// What is decided.
    pub decision: watch::Receiver<Decision>,
    /// What is bound.
    pub local: watch::Receiver<Arc<Local>>,
}

impl Keeper {
    /// Runs until the agent ends. A host without local services gets no file.
    pub async fn run(mut self, directory: Arc<Path>, remembered: Remembered) {
        let file = file(&directory);
        let mut last = (!remembered.up.is_empty() || !remembered.bound.is_empty())
            .then(|| Written::of(remembered.bound, remembered.up));
        let mut told = false;
        loop {
            let bound = self.local.borrow_and_update().bound.clone();
            let desired = Arc::clone(&self.decision.borrow_and_update().desired);
            let known = self.decision.borrow().known;
            let local = desired.services.iter().filter(|plan| !plan.forwards());
            let services = local.map(|plan| (plan.service.name.to_string(), up(plan)));
            let new = Written::of(bound, services.collect());
            let is_empty = new.bound.is_empty() && new.services.is_empty();
            // Before anything is known the file says more.
            let is_news = known && last.as_ref() != Some(&new) && !(last.is_none() && is_empty);
            if is_news {
                last = Some(new.clone());
                let file = file.clone();
                let written = spawn_blocking(move || file.write(&new)).await;
                match written {
                    Ok(Err(error)) if !told => {
                        told = true;
                        warn!("{error}; an agent that is started again will know nothing of it");
                    }
                    Ok(Err(_)) | Err(_) => {}
                    Ok(Ok(())) => told = false,
                }
            }
            tokio::select! {
                changed = self.decision.changed() => if changed.is_err() { return },
                changed = self.local.changed() => if changed.is_err() { return },
            }
            sleep(SETTLE).await;
        }
    }
}

impl Written {
    fn of(
        bound: BTreeSet<(IpAddr, Arc<str>)>,
        services: BTreeMap<String, BTreeMap<IpAddr, bool>>,
    ) -> Self {
        let bound = bound.into_iter();
        Self {
            boot: boot(),
            bound: bound
                .map(|(address, interface)| Place {
                    address,
                    interface: interface.to_string(),
                })
                .collect(),
            services,
        }
    }
}

fn up(plan: &ServicePlan) -> BTreeMap<IpAddr, bool> {
    let backends = plan.service.backends.iter().zip(&plan.standing);
    backends
        .map(|(backend, standing)| {
            let up = matches!(standing, Standing::Available | Standing::Draining);
            (backend.address, up)
        })
        .collect()
}

fn file(directory: &Path) -> StateFile {
    StateFile::new(directory, "local.json", 1)
}

/// The kernel's id of its present run.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(boot: &str) -> Written {
        let address = IpAddr::from([198, 51, 100, 10]);
        Written {
            boot: boot.to_owned(),
            bound: vec![Place {
                address,
                interface: "lo".into(),
            }],
            services: BTreeMap::from([("web".to_owned(), BTreeMap::from([(address, true)]))]),
        }
    }

    #[test]
    fn what_an_agent_before_knew_holds_until_the_host_is_started_anew() {
        let directory = std::env::temp_dir().join(format!("vipd-local-{}", std::process::id()));
        let address = IpAddr::from([198, 51, 100, 10]);
        let service = Service::new("web", vec![address.into()], Vec::new());
        let backend = Backend::new("local", address, 1);
        for (sentence, boot, served, initial) in [
            (
                "the same run of the kernel",
                boot(),
                true,
                Some(Initial::Up),
            ),
            ("another", "another".to_owned(), false, None),
        ] {
            file(&directory).write(&written(&boot)).expect("written");
            let read = Remembered::read(&directory);
            assert_eq!(read.has_served(), served, "{sentence}: {read:#?}");
            assert_eq!(read.bound.is_empty(), !served, "{sentence}: {read:#?}");
            assert_eq!(read.initial(&service, &backend), initial, "{sentence}");
        }
        fs::remove_dir_all(&directory).expect("its directory goes");
        assert_eq!(
            Remembered::read(&directory),
            Remembered::default(),
            "no file"
        );
    }
}
