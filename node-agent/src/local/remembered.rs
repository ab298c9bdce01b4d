//! What is known of local services when an agent is started again: which
//! addresses it has bound, and how the servers were that they depend on. Of what is
//! forwarded the pinned maps tell; of this only a file does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tracing::{debug, warn};
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
    /// started anew since. How the servers were is believed if that was true not
    /// longer ago than `fresh`. What cannot be read is told, and nothing.
    #[must_use]
    pub fn read(directory: &Path, fresh: Duration) -> Self {
        let file = file(directory);
        let written = file.read::<Written>();
        let written = written.unwrap_or_else(|error| {
            warn!("{error}; started without what an agent before knew of local services");
            None
        });
        let written = written.filter(|written| written.boot == boot());
        let age = fs::metadata(file.path()).and_then(|metadata| metadata.modified());
        // One of the future is of a clock that was wrong.
        let age = age.map(|at| at.elapsed().unwrap_or_default());
        let is_fresh = age.is_ok_and(|age| age <= fresh);
        written.map_or_else(Self::default, |written| Self {
            bound: (written.bound.into_iter())
                .map(|place| (place.address, place.interface.into()))
                .collect(),
            up: if is_fresh {
                written.services
            } else {
                BTreeMap::new()
            },
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
    /// How often the file is marked as true to this day, and what could not be
    /// written is tried again.
    pub every: Duration,
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
            let has_file = known && last.is_some();
            if is_news || has_file {
                let file = file.clone();
                let attempt = new.clone();
                let written = spawn_blocking(move || match is_news {
                    true => file.write(&attempt),
                    false => {
                        touch(&file);
                        Ok(())
                    }
                });
                match written.await {
                    Ok(Err(error)) if !told => {
                        told = true;
                        warn!("{error}; an agent that is started again will know nothing of it");
                    }
                    Ok(Err(_)) | Err(_) => {}
                    Ok(Ok(())) if is_news => {
                        told = false;
                        last = Some(new);
                    }
                    Ok(Ok(())) => {}
                }
            }
            tokio::select! {
                changed = self.decision.changed() => if changed.is_err() { return },
                changed = self.local.changed() => if changed.is_err() { return },
                () = sleep(self.every), if has_file || is_news => {}
            }
            sleep(SETTLE).await;
        }
    }
}

/// Says that what the file has is true to this day. If that fails it is believed for
/// a shorter time.
fn touch(file: &StateFile) {
    let opened = fs::File::options().append(true).open(file.path());
    if let Err(error) = opened.and_then(|file| file.set_modified(SystemTime::now())) {
        debug!("{}: {error}", file.path().display());
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

    /// A directory of a test's own, that goes with it.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("vipd-local-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_an_agent_before_knew_holds_for_a_while_and_for_this_run_of_the_host() {
        const FRESH: Duration = Duration::from_secs(120);
        let folder = Folder::new("knew");
        let address = IpAddr::from([198, 51, 100, 10]);
        let service = Service::new("web", vec![address.into()], Vec::new());
        let backend = Backend::new("local", address, 1);
        for (sentence, boot, age, bound, initial) in [
            ("a moment ago", boot(), 1, true, Some(Initial::Up)),
            ("still to come", boot(), -3600, true, Some(Initial::Up)),
            ("too long ago for the servers", boot(), 130, true, None),
            ("another run", "another".to_owned(), 1, false, None),
        ] {
            file(&folder.0).write(&written(&boot)).expect("written");
            let now = SystemTime::now();
            let distance = Duration::from_secs(i64::unsigned_abs(age));
            let at = if age < 0 {
                now + distance
            } else {
                now - distance
            };
            let path = file(&folder.0).path().to_owned();
            let opened = fs::File::options().append(true).open(path);
            let opened = opened.expect("it is there");
            opened.set_modified(at).expect("it is ours");
            let read = Remembered::read(&folder.0, FRESH);
            assert_eq!(
                read.has_served(),
                initial.is_some(),
                "{sentence}: {read:#?}"
            );
            assert_eq!(!read.bound.is_empty(), bound, "{sentence}: {read:#?}");
            assert_eq!(read.initial(&service, &backend), initial, "{sentence}");
        }
        let none = Folder::new("none");
        assert_eq!(
            Remembered::read(&none.0, FRESH),
            Remembered::default(),
            "no file"
        );
    }

    /// The file as it was left, if there is one.
    fn read(folder: &Folder) -> Option<Written> {
        file(&folder.0).read().expect("nothing or all of it")
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_later_and_kept_fresh() {
        let folder = Folder::new("later");
        // In the place of the directory stands a file.
        fs::write(&folder.0, "").expect("a file");
        let address = IpAddr::from([198, 51, 100, 10]);
        let (_decision, decision) = watch::channel(Decision {
            known: true,
            ..Decision::default()
        });
        let (_local, local) = watch::channel(Arc::new(Local {
            bound: BTreeSet::from([(address, "lo".into())]),
            ..Local::default()
        }));
        let every = Duration::from_millis(10);
        let keeper = Keeper {
            decision,
            local,
            every,
        };
        let directory: Arc<Path> = folder.0.as_path().into();
        let task = tokio::spawn(keeper.run(directory, Remembered::default()));
        sleep(SETTLE * 2).await;
        fs::remove_file(&folder.0).expect("it is still a file");
        let mut waited = 0;
        while !folder.0.join("local.json").exists() && waited < 100 {
            sleep(SETTLE).await;
            waited += 1;
        }
        let found = read(&folder).expect("it was written");
        assert_eq!(found.bound[0].address, address);
        let path = folder.0.join("local.json");
        let modified = || fs::metadata(&path).and_then(|data| data.modified());
        let old = SystemTime::now() - Duration::from_secs(3600);
        let opened = fs::File::options().append(true).open(&path);
        let opened = opened.expect("it is there");
        opened.set_modified(old).expect("it is ours");
        let mut waited = 0;
        while modified().expect("a time") <= old + SETTLE && waited < 100 {
            sleep(SETTLE).await;
            waited += 1;
        }
        assert!(modified().expect("a time") > old + SETTLE, "touched");
        task.abort();
    }
}
