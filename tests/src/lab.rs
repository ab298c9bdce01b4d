//! A lab: its identity, its directory, and the end of it all.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{host::Host, interrupt, owner::Owner, removal};

/// `f_type` of a mounted BPF file system (linux/magic.h: `BPF_FS_MAGIC`).
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// A lab of its own: namespaces, processes, files and pins that carry its id.
///
/// Handles are cheap to clone; when the last one goes, so does the lab.
#[derive(Clone, Debug)]
pub struct Lab(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: LabId,
    kept: AtomicBool,
}

impl Lab {
    /// Makes an empty lab, after what dead processes left behind is gone.
    pub fn new() -> Result<Self> {
        preflight()?;
        interrupt::watch();
        removal::remove_dead()?;
        allow_connections()?;

        let _creating = interrupt::creating();
        let id = LabId::next()?;
        fs::create_dir(id.dir()).with_context(|| format!("create {}", id.dir().display()))?;
        fs::create_dir(id.pins()).with_context(|| format!("create {}", id.pins().display()))?;
        Ok(Self(Arc::new(Inner {
            id,
            kept: AtomicBool::new(false),
        })))
    }

    /// Adds hosts by name, each a network namespace with only `lo`, up.
    pub fn add_hosts(&self, names: &[&str]) -> Result<Vec<Host>> {
        let _creating = interrupt::creating();
        Host::create_all(self, names)
    }

    /// The lab's identity, which is part of every name it makes.
    pub fn id(&self) -> &LabId {
        &self.0.id
    }

    /// The lab's directory: configurations, sockets and logs.
    pub fn dir(&self) -> PathBuf {
        self.0.id.dir()
    }

    /// Leaves the lab standing when this process ends, until
    /// [`crate::remove_leftovers`] is called.
    pub fn keep(&self) -> Result<()> {
        fs::write(self.0.id.kept_mark(), "")?;
        self.0.kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether [`Lab::keep`] was called.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// The end of every log in the lab, for the report of a failure.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        collect_logs(&self.dir(), &mut text);
        text
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _not_while_interrupted = interrupt::creating();
        if !self.kept.load(Ordering::Relaxed)
            && let Err(error) = removal::remove(&self.id)
        {
            eprintln!("the lab {} could not be taken away: {error:#}", self.id);
        }
    }
}

/// The name of a lab: `vipd-lab-<pid of its owner>-<its start>-<number>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabId {
    owner: Owner,
    number: u32,
}

impl LabId {
    const PREFIX: &str = "vipd-lab-";

    fn next() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        Ok(Self {
            owner: Owner::this()?,
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Reads the name of a lab; `None` when it is none.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (owner, number) = Owner::parse(name.strip_prefix(Self::PREFIX)?)?;
        let number = number.parse().ok()?;
        Some(Self { owner, number })
    }

    /// The process that made the lab.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// The lab's directory. FRR wants to pass through it: mode 0755.
    pub fn dir(&self) -> PathBuf {
        Path::new("/tmp").join(self.to_string())
    }

    /// Where BPF objects of the lab are pinned.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(self.to_string())
    }

    /// The name of a host's network namespace.
    pub fn netns(&self, host: &str) -> String {
        format!("{self}-{host}")
    }

    /// A line for each process started in the lab: `PID-START-NAME`.
    pub(crate) fn process_list(&self) -> PathBuf {
        self.dir().join("processes")
    }

    /// Present when the lab shall outlive its owner.
    pub(crate) fn kept_mark(&self) -> PathBuf {
        self.dir().join("kept")
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}-{}", Self::PREFIX, self.owner, self.number)
    }
}

/// Lets this process, and those it starts, have as many connections open as
/// the system allows.
fn allow_connections() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, most).context("allow more open files")
}

/// Says plainly what the machine lacks, and which command provides it.
fn preflight() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a lab makes network namespaces and loads BPF programs: run this as root"
    );
    let bpf = rustix::fs::statfs("/sys/fs/bpf").context("look at /sys/fs/bpf")?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the kernel's magic numbers are 32 bits in a signed word"
    )]
    let magic = bpf.f_type as u32;
    ensure!(
        magic == BPF_FS_MAGIC,
        "no BPF file system is mounted at /sys/fs/bpf: run `cargo xtask setup`, \
         or `mount -t bpf -o mode=0700 bpf /sys/fs/bpf`"
    );
    for tool in ["ip", "ethtool", "bird", "nginx"] {
        let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|dir| Path::new(dir).join(tool).exists());
        if !found {
            bail!("the lab needs `{tool}`, which is not installed: run `cargo xtask setup`");
        }
    }
    Ok(())
}

/// Appends the last lines of each `*.log` below `dir`.
fn collect_logs(dir: &Path, text: &mut String) {
    const LINES: usize = 60;
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect_logs(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            let log = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LINES)..];
            *text += &format!("--- {}\n{}\n", path.display(), tail.join("\n"));
        }
    }
}
