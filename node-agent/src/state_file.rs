//! Small files of what an agent is to know after a restart: JSON, replaced as
//! a whole, so that a reader finds the old state or the new one and nothing
//! between.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A larger file is none of ours.
const MOST_BYTES: u64 = 64 << 20;

/// One file of state, of one format.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
    version: u32,
}

/// Why there is nothing to go by, or why it is not kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what this program writes.
    #[error("{path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It was written by another version of this program.
    #[error("{path} is of format {found}, and this vipd knows format {known}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It cannot be used, and is set aside, so that nobody overwrites it.
    #[error("{why}; it is kept as {aside}")]
    SetAside {
        /// Why.
        why: Box<Self>,
        /// Where it is now.
        aside: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Content<T> {
    version: u32,
    state: T,
}

impl StateFile {
    /// The file of that name in the directory, in a format by number: another
    /// one for each change that an earlier or later program would misread.
    #[must_use]
    pub fn new(directory: &Path, name: &str, version: u32) -> Self {
        Self {
            path: directory.join(name),
            version,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says; `None` when there is no such file.
    ///
    /// # Errors
    /// When it cannot be read, or is not of this format: whoever asks goes on as
    /// if there were none, and says so. The file gets another name then: what comes
    /// in its place is not to overwrite what somebody may still mend, or what a
    /// newer program has written.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        self.load().map_err(|why| match self.set_aside() {
            Ok(aside) => Error::SetAside {
                why: Box::new(why),
                aside,
            },
            // Then nobody can replace it either.
            Err(_) => why,
        })
    }

    fn load<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let failed = |source| Error::Read {
            path: self.path.clone(),
            source,
        };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        file.take(MOST_BYTES)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let damaged = |source| Error::Damaged {
            path: self.path.clone(),
            source,
        };
        // Its format first: the rest may be of another form.
        let Head { version } = serde_json::from_str(&text).map_err(damaged)?;
        if version != self.version {
            return Err(Error::Version {
                path: self.path.clone(),
                found: version,
                known: self.version,
            });
        }
        let content: Content<T> = serde_json::from_str(&text).map_err(damaged)?;
        Ok(Some(content.state))
    }

    /// Replaces what it says, and returns when that would survive a loss of
    /// power. Makes the directory if it is missing. Blocks.
    ///
    /// # Errors
    /// When the file system refuses; then it says what it said before.
    pub fn write<T: Serialize>(&self, state: &T) -> Result<(), Error> {
        self.replace(state).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })
    }

    /// Gives it the first free name behind its own. Nobody else does so meanwhile.
    fn set_aside(&self) -> io::Result<PathBuf> {
        for number in 1_u32.. {
            let mut aside = self.path.clone().into_os_string();
            aside.push(format!(".unusable-{number}"));
            let aside = PathBuf::from(aside);
            if !aside.try_exists()? {
                fs::rename(&self.path, &aside)?;
                return Ok(aside);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Takes the file away. One that is not there is fine. Blocks.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Write {
                path: self.path.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }

    fn replace<T: Serialize>(&self, state: &T) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let content = Content {
            version: self.version,
            state,
        };
        let mut text = serde_json::to_vec_pretty(&content)?;
        text.push(b'\n');
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o640);
        let mut file = options.open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type State = BTreeMap<String, u32>;

    /// A directory that goes with the value.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("vipd-state-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_read_and_replaced_as_a_whole() {
        let scratch = Scratch::new("replaced");
        let file = StateFile::new(&scratch.0.join("below"), "a.json", 1);
        assert_eq!(file.read::<State>().unwrap(), None, "there is none yet");
        for count in [3, 1] {
            let state: State = (0..count).map(|n| (format!("n{n}"), n)).collect();
            file.write(&state).unwrap();
            assert_eq!(file.read().unwrap(), Some(state), "{count} entries");
        }
        let left = fs::read_dir(scratch.0.join("below")).unwrap().count();
        assert_eq!(left, 1, "nothing else is left behind");
    }

    #[test]
    fn what_this_program_has_not_written_is_told_and_no_state() {
        let scratch = Scratch::new("foreign");
        let file = StateFile::new(&scratch.0, "a.json", 2);
        file.write(&State::new()).unwrap();
        for (text, words) in [
            ("", "is damaged"),
            ("{\"version\": 2", "is damaged"),
            ("{\"version\": 2, \"state\": 7}", "is damaged"),
            ("\u{0}", "is damaged"),
            (
                "{\"version\": 1, \"state\": []}",
                "is of format 1, and this vipd knows format 2",
            ),
        ] {
            fs::write(file.path(), text).unwrap();
            let told = file.read::<State>().unwrap_err().to_string();
            assert!(told.contains(words), "{text:?}: {told}");
        }
        fs::write(file.path(), b"\xff").unwrap();
        let told = file.read::<State>().unwrap_err().to_string();
        assert!(told.starts_with("cannot read"), "{told}");
    }

    #[test]
    fn what_cannot_be_used_is_never_overwritten() {
        let scratch = Scratch::new("aside");
        let file = StateFile::new(&scratch.0, "a.json", 2);
        file.write(&State::new()).unwrap();
        let foreign = ["damaged", "{\"version\": 3, \"state\": {}}"];
        for (text, number) in foreign.into_iter().zip(1..) {
            fs::write(file.path(), text).unwrap();
            let told = file.read::<State>().unwrap_err().to_string();
            let name = format!("a.json.unusable-{number}");
            assert!(told.ends_with(&name), "{told}");
            file.write(&State::new()).unwrap();
            assert_eq!(fs::read_to_string(scratch.0.join(name)).unwrap(), text);
            assert_eq!(file.read().unwrap(), Some(State::new()), "{text}");
        }
        file.remove().unwrap();
        file.remove().expect("twice is fine");
        assert_eq!(file.read::<State>().unwrap(), None);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_told() {
        let file = StateFile::new(Path::new("/proc/nowhere"), "a.json", 1);
        let told = file.write(&State::new()).unwrap_err().to_string();
        assert!(
            told.starts_with("cannot write /proc/nowhere/a.json"),
            "{told}"
        );
    }
}
