//! Where the data plane lives while no agent runs: a directory on the BPF
//! file system, verified before use.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapType};
use rustix::{fs::FlockOperation, process::geteuid};
use thiserror::Error;
use tracing::warn;
use vipd_abi::{Counts, LAYOUT, Plane, map};

/// `BPF_F_MMAPABLE` (include/uapi/linux/bpf.h).
const MMAPABLE: u32 = 1 << 10;
/// Mode bits: group or others may write; only owners remove from a directory.
const WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// The directory of one data plane of this layout.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// The pins are this process's alone while this lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] fs::File);

/// Takes away again what has been pinned since this was made, unless it is
/// kept.
#[derive(Debug)]
pub struct Attempt {
    pins: Pins,
    before: Vec<PathBuf>,
    kept: bool,
}

/// Why the pins cannot be used.
#[derive(Debug, Error)]
pub enum PinsError {
    /// The directory is not on a BPF file system.
    #[error(
        "{0} is not on a BPF file system, so nothing can be pinned there; \
         mount one with `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`"
    )]
    NotBpffs(PathBuf),
    /// Others than this process's user could change the pins.
    #[error("{path} {trouble}, who could change or remove what is pinned: `{remedy}` mends that")]
    Exposed {
        /// The directory or pin.
        path: PathBuf,
        /// Who may write it.
        trouble: String,
        /// The command that mends it.
        remedy: String,
    },
    /// The directory could not be made or read.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An agent runs, or another command is at work.
    #[error("another vipd uses {0}; stop it first (see `vipd status`)")]
    Busy(PathBuf),
    /// Another version of vipd has left its data plane.
    #[error(
        "{0} holds a data plane of another layout, and this vipd uses {LAYOUT}; \
         stop the vipd that made it and run its `vipd unload`"
    )]
    OtherLayout(PathBuf),
    /// A pinned map is not what this version would make.
    #[error(
        "the pinned map {path} has {found}, but this vipd needs {wanted}; \
         `vipd unload` takes the old data plane away"
    )]
    Mismatch {
        /// The pin.
        path: PathBuf,
        /// Type and sizes found.
        found: String,
        /// Type and sizes needed.
        wanted: String,
    },
    /// A pinned map could not be read.
    #[error("cannot read the pinned map {path}: {message}")]
    Unreadable {
        /// The pin.
        path: PathBuf,
        /// What was said.
        message: String,
    },
}

impl Pins {
    /// The pins under `root`, by default `/sys/fs/bpf/vipd`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The directory of this layout.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.root.join(LAYOUT)
    }

    /// Where a map is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Where the program is pinned.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.directory().join("program")
    }

    /// Where the link to an interface is pinned. By its index: the name may
    /// change, and an interface made anew has another index.
    #[must_use]
    pub fn link(&self, ifindex: u32) -> PathBuf {
        self.directory().join(format!("link-{ifindex}"))
    }

    /// Pins of links found.
    #[must_use]
    pub fn links(&self) -> Vec<PathBuf> {
        self.files()
            .into_iter()
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("link-"))
            })
            .collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.directory())
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    }

    /// Makes the directory if need be.
    ///
    /// # Errors
    ///
    /// When it is not on a BPF file system, others may write it, or it holds
    /// another layout.
    pub fn prepare(&self) -> Result<(), PinsError> {
        let existing = self
            .root
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        self.require_bpffs(existing)?;
        self.require_ours()?;
        let directory = self.directory();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(in_directory(&directory))?;
        self.inspect()
    }

    /// As [`Pins::prepare`], and keeps every other vipd, of whatever layout,
    /// away while the lock lives; the kernel lets go of it when the process ends,
    /// however it ends.
    ///
    /// # Errors
    ///
    /// The same, and when another has it.
    pub fn take(&self) -> Result<Lock, PinsError> {
        self.prepare()?;
        self.lock()
    }

    /// As [`Pins::take`], but makes nothing: `None` when there is no such place.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn take_existing(&self) -> Result<Option<Lock>, PinsError> {
        if !self.root.exists() {
            return Ok(None);
        }
        self.require_bpffs(&self.root)?;
        self.inspect()?;
        self.lock().map(Some)
    }

    fn lock(&self) -> Result<Lock, PinsError> {
        let file = fs::File::open(&self.root).map_err(in_directory(&self.root))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(PinsError::Busy(self.root.clone())),
            Err(error) => Err(in_directory(&self.root)(error.into())),
        }
    }

    fn require_bpffs(&self, existing: &Path) -> Result<(), PinsError> {
        if is_bpffs(existing).map_err(in_directory(existing))? {
            return Ok(());
        }
        Err(PinsError::NotBpffs(self.root.clone()))
    }

    fn inspect(&self) -> Result<(), PinsError> {
        self.require_ours()?;
        let siblings = fs::read_dir(&self.root).map_err(in_directory(&self.root))?;
        for sibling in siblings.flatten() {
            if sibling.path() != self.directory() {
                return Err(PinsError::OtherLayout(sibling.path()));
            }
        }
        Ok(())
    }

    /// Whoever may write a directory can put other pins into it, or take ours
    /// away.
    fn require_ours(&self) -> Result<(), PinsError> {
        let user = geteuid().as_raw();
        let own = [self.root.clone(), self.directory()];
        for path in own.into_iter().chain(self.files()) {
            // Not of what a symbolic link leads to.
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => require_safe(&path, &found.map_err(in_directory(&path))?, &[user], 0)?,
            }
        }
        let above = self.root.ancestors().skip(1);
        for path in above.filter(|path| path.exists()) {
            if !is_bpffs(path).map_err(in_directory(path))? {
                break;
            }
            let found = fs::metadata(path).map_err(in_directory(path))?;
            require_safe(path, &found, &[user, 0], STICKY)?;
        }
        Ok(())
    }

    /// From now on what is pinned is taken away again, unless it is kept.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt {
            pins: self.clone(),
            before: self.files(),
            kept: false,
        }
    }

    /// Compares every map that is already pinned with what this version
    /// makes. Using a map of other sizes would corrupt memory.
    ///
    /// # Errors
    ///
    /// The first difference.
    pub fn verify(&self, processors: u32) -> Result<(), PinsError> {
        for shape in shapes(processors) {
            let path = self.map(shape.name);
            if !path.exists() {
                continue;
            }
            let unreadable = |error: &dyn std::fmt::Display| PinsError::Unreadable {
                path: path.clone(),
                message: error.to_string(),
            };
            let data = MapData::from_pin(&path).map_err(|e| unreadable(&e))?;
            let info = data.info().map_err(|e| unreadable(&e))?;
            let found = Found {
                array: info.map_type().is_ok_and(|t| t == MapType::Array),
                key: info.key_size(),
                value: info.value_size(),
                entries: info.max_entries(),
                flags: info.map_flags(),
            };
            let wanted = Found {
                array: true,
                key: 4,
                value: shape.value,
                entries: shape.entries,
                flags: MMAPABLE,
            };
            if found != wanted {
                return Err(PinsError::Mismatch {
                    path,
                    found: found.to_string(),
                    wanted: wanted.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Removes every pin; with the last reference the kernel detaches the
    /// program. Says what was removed.
    ///
    /// # Errors
    ///
    /// When a pin cannot be removed.
    pub fn remove(&self) -> io::Result<Vec<PathBuf>> {
        self.remove_but(&[])
    }

    fn remove_but(&self, kept: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        // Links first: no packet then finds a program without its maps.
        let mut files = self.files();
        files.retain(|path| !kept.contains(path));
        files.sort_by_key(|path| !path.to_string_lossy().contains("/link-"));
        for path in files {
            fs::remove_file(&path)?;
            removed.push(path);
        }
        for directory in [self.directory(), self.root.clone()] {
            match fs::remove_dir(&directory) {
                Ok(()) => {}
                // Other pins may be beside those.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

impl Attempt {
    /// What has been pinned stays.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.pins.remove_but(&self.before)
        {
            warn!("{} stays behind: {error}", self.pins.directory().display());
        }
    }
}

/// What to say of a directory that cannot be used.
fn in_directory(path: &Path) -> impl FnOnce(io::Error) -> PinsError + use<> {
    let path = path.to_owned();
    move |source| PinsError::Directory { path, source }
}

/// Fails if others than `owners` may write there and none of the bits `but`
/// is set.
fn require_safe(
    path: &Path,
    found: &fs::Metadata,
    owners: &[u32],
    but: u32,
) -> Result<(), PinsError> {
    let mode = found.mode();
    let writable = mode & WRITABLE != 0 && mode & but == 0 && !found.is_symlink();
    let (trouble, remedy) = if !owners.contains(&found.uid()) {
        (format!("belongs to user {}", found.uid()), "rm -r")
    } else if writable {
        let mode = mode & 0o7777;
        (
            format!("is writable by others (mode {mode:04o})"),
            "chmod go-w",
        )
    } else {
        return Ok(());
    };
    Err(PinsError::Exposed {
        path: path.to_owned(),
        trouble,
        remedy: format!("{remedy} {}", path.display()),
    })
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(path)?.f_type == libc::BPF_FS_MAGIC)
}

/// A map as this version makes it.
struct Shape {
    name: &'static str,
    value: u32,
    entries: u32,
}

fn shapes(processors: u32) -> [Shape; 2] {
    fn shape<T>(name: &'static str, entries: u32) -> Shape {
        let value = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
        Shape {
            name,
            value,
            entries,
        }
    }
    [
        shape::<Plane>(map::PLANE, 1),
        shape::<Counts>(map::COUNTS, processors),
    ]
}

#[derive(PartialEq, Eq)]
struct Found {
    array: bool,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.array { "array" } else { "other type" };
        let Self {
            key,
            value,
            entries,
            flags,
            ..
        } = self;
        write!(
            f,
            "({kind}, key {key}, value {value}, {entries} entries, flags {flags:#x})"
        )
    }
}
