//! Whether programs can be run on this host, as far as can be seen without running them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::unistd::User;
use vipd_control::model::Program;

/// How long the host may take to tell of all of them.
const ANSWER: Duration = Duration::from_secs(2);

/// Something that must be there for a program to run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needed {
    /// The program itself.
    Command(PathBuf),
    /// The user who runs it, by his name.
    User(String),
}

impl Needed {
    /// What a program needs.
    pub fn of(program: &Program) -> impl Iterator<Item = Self> {
        let command = program.command.first();
        let command = command.map(|path| Self::Command(path.into()));
        command
            .into_iter()
            .chain([Self::User(program.user.clone())])
    }
}

/// What is wrong, in plain words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Absent(String),
    /// It is a file that nobody may execute.
    NotExecutable(String),
    /// Nobody knows: this host does not tell.
    Unknown(String),
}

impl Fault {
    /// The words.
    #[must_use]
    pub fn words(&self) -> &str {
        let (Self::Absent(words) | Self::NotExecutable(words) | Self::Unknown(words)) = self;
        words
    }
}

/// What of it is not as it must be. Takes two seconds at most: both may be far away,
/// and not answer.
#[must_use]
pub fn lacking(needed: BTreeSet<Needed>) -> BTreeMap<Needed, Fault> {
    lacking_by(needed, fault, ANSWER)
}

fn lacking_by(
    needed: BTreeSet<Needed>,
    fault: fn(&Needed) -> Option<Fault>,
    within: Duration,
) -> BTreeMap<Needed, Fault> {
    let mut lacking = BTreeMap::new();
    let (told, found) = mpsc::channel();
    let asked = needed.clone();
    let look = move || {
        for needed in asked {
            let fault = fault(&needed);
            // Nobody may wait for it any more.
            let _ = told.send(fault);
        }
    };
    // It ends by itself, or hangs in the kernel, where nothing else would end it.
    let looking = thread::Builder::new().spawn(look);
    let until = Instant::now() + within;
    for needed in needed {
        let left = until.saturating_duration_since(Instant::now());
        let fault = match &looking {
            Ok(_) => found
                .recv_timeout(left)
                .map_err(|_| "no answer in time".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match fault {
            Ok(None) => {}
            Ok(Some(fault)) => {
                lacking.insert(needed, fault);
            }
            // Of those behind it nothing is known.
            Err(error) => {
                let words = format!("cannot tell whether {} is there: {error}", needed.shown());
                lacking.insert(needed, Fault::Unknown(words));
                break;
            }
        }
    }
    lacking
}

impl Needed {
    fn shown(&self) -> String {
        match self {
            Self::Command(path) => path.display().to_string(),
            Self::User(name) => format!("the user {name}"),
        }
    }
}

fn fault(needed: &Needed) -> Option<Fault> {
    match needed {
        Needed::Command(path) => not_executable(path),
        Needed::User(name) => match User::from_name(name) {
            Ok(Some(_)) => None,
            Ok(None) => Some(Fault::Absent(format!(
                "there is no user {name} on this host"
            ))),
            Err(error) => Some(Fault::Unknown(format!(
                "cannot look up the user {name}: {error}"
            ))),
        },
    }
}

fn not_executable(path: &Path) -> Option<Fault> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Some(Fault::Absent(format!("{shown} is no file"))),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Some(Fault::NotExecutable(format!("nobody may execute {shown}")))
        }
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Some(Fault::Absent(format!("there is no {shown} on this host")))
        }
        Err(error) => Some(Fault::Unknown(format!("cannot look at {shown}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::questions::tests::{Hung, PATIENCE};

    #[test]
    fn what_a_program_lacks_is_said_in_plain_words() {
        let check = |needed: Needed, expected: Option<&str>| {
            let found = lacking_by([needed.clone()].into(), fault, PATIENCE);
            let found = found.into_values().next();
            assert_eq!(found.as_ref().map(Fault::words), expected, "{needed:?}");
        };
        check(Needed::Command("/bin/sh".into()), None);
        check(Needed::User("root".to_owned()), None);
        check(
            Needed::Command("/no/such/program".into()),
            Some("there is no /no/such/program on this host"),
        );
        check(Needed::Command("/bin".into()), Some("/bin is no file"));
        check(
            Needed::Command("/etc/passwd".into()),
            Some("nobody may execute /etc/passwd"),
        );
        check(
            Needed::User("no-such-user".to_owned()),
            Some("there is no user no-such-user on this host"),
        );
    }

    #[test]
    fn what_does_not_answer_is_told_and_not_waited_for() {
        let hung = Hung::new("fitness");
        let open = |needed: &Needed| match needed {
            Needed::Command(path) => {
                let opened = fs::File::open(path);
                opened.err().map(|it| Fault::Absent(it.to_string()))
            }
            Needed::User(_) => None,
        };
        let hanging = Needed::Command(hung.path().to_owned());
        let needed = [hanging.clone(), Needed::User("no-such-user".to_owned())];
        let started = Instant::now();
        let found = lacking_by(needed.into(), open, Duration::from_millis(200));
        assert!(started.elapsed() < PATIENCE, "it is waited for");
        let silent = format!(
            "cannot tell whether {} is there: no answer in time",
            hung.path().display()
        );
        assert_eq!(found, [(hanging, Fault::Unknown(silent))].into());
    }
}
