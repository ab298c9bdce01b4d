//! Pins of a test without a lab.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Once,
};

use crate::{owner::Owner, removal::remove_tree};

/// Where the BPF file system is.
const BPFFS: &str = "/sys/fs/bpf";
const PREFIX: &str = "vipd-test-";

/// A place for pins, removed with all of them when this is dropped, or by the
/// next test run if this process is killed before.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A place that nobody else has; `name` tells those of this process apart.
    ///
    /// # Panics
    ///
    /// When /proc is not there.
    #[must_use]
    pub fn new(name: &str) -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| remove_dead(Path::new(BPFFS)));
        let owner = Owner::this().expect("/proc is mounted");
        Self(Path::new(BPFFS).join(format!("{PREFIX}{owner}-{name}")))
    }

    /// The place.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// Removes what dead processes have left there.
fn remove_dead(place: &Path) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            let (owner, _) = Owner::parse(name.strip_prefix(PREFIX)?)?;
            Some(owner)
        });
        if owner.is_some_and(|owner| !owner.is_alive())
            && let Err(error) = remove_tree(&entry.path())
        {
            eprintln!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_have_left_is_removed() {
        let this = Owner::this().unwrap();
        let place = std::env::temp_dir().join(format!("vipd-scratch-{this}"));
        let dead = format!("{PREFIX}{}-1-dead", this.pid());
        let others = [
            format!("{PREFIX}{this}-mine"),
            format!("{PREFIX}something"),
            format!("other-{}-1-dead", this.pid()),
        ];
        for name in others.iter().chain([&dead]) {
            fs::create_dir_all(place.join(name).join("v1")).unwrap();
        }
        remove_dead(&place);
        let left = |name: &String| place.join(name).exists();
        assert!(!left(&dead), "{dead} is left");
        assert!(others.iter().all(left), "of {others:?} some are gone");
        remove_tree(&place).unwrap();
    }
}
