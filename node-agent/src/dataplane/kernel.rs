//! The XDP program in the kernel: loading it, attaching it, and leaving it.
//!
//! The program is always this agent's own: on a data plane that a previous
//! agent left, the maps are taken over and the program is replaced in place,
//! which packets do not notice.

use std::{
    collections::BTreeMap,
    fs, io,
    mem::offset_of,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Map, MapData},
    programs::{
        ProgramError, Xdp, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
        xdp::XdpLink,
    },
};
use thiserror::Error;
use vipd_abi::{
    BACKENDS, COUNTERS, FILTER_WORDS, FLOW_BUCKETS, FRAGMENT_BUCKETS, NEXT_HOPS, PORT_RANGES,
    Plain, Plane, RING_SLOTS, UPLINKS, VIP_BUCKETS, VIP_SLOTS, map,
};

use super::{
    clock::Clock,
    mapped::Mapped,
    object,
    pins::{Attempt, Lock, Pins, PinsError},
    tables::{Counters, Tables},
};

/// A loaded data plane. Dropping it leaves everything that was pinned before,
/// and once it is settled also what it has pinned itself.
pub struct Kernel {
    ebpf: Ebpf,
    pins: Option<Pins>,
    /// By interface index. A link without a pin ends when this is dropped.
    links: BTreeMap<u32, FdLink>,
    attempt: Option<Attempt>,
    /// Held for as long as this lives, also while an attempt is undone.
    _lock: Option<Lock>,
}

/// How long the kernel may take to let go of a program.
const LEAVING: Duration = Duration::from_secs(5);

/// Levels of aya-log: the verifier removes log lines that are above.
pub(super) const LEVEL_INFO: u8 = 3;
const LEVEL_DEBUG: u8 = 4;

/// How the program is hooked to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's generic path: any interface, slower.
    Generic,
}

impl Mode {
    /// As in the configuration and in `vipd status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What became of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The program was attached.
    New,
    /// The program of a previous agent was replaced in place.
    Replaced,
    /// This agent's program was there already.
    Kept,
}

/// Why the data plane cannot be had.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The agent was built without the eBPF objects.
    #[error("this vipd was built without its eBPF programs; build it with `cargo xtask build`")]
    NotBuilt,
    /// The pins cannot be used.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The object could not be loaded.
    #[error("cannot load the eBPF maps: {}{}", chain(&**.0), capabilities(&**.0))]
    Load(Box<aya::EbpfError>),
    /// The kernel did not take the program.
    #[error("the kernel does not take the XDP program: {}{}", chain(&**.0), capabilities(&**.0))]
    Program(Box<ProgramError>),
    /// A map could not be mapped into memory.
    #[error("cannot map {name} into memory: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The program could not be pinned.
    #[error("cannot pin {path}: {message}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// What was said.
        message: String,
    },
    /// No data plane is pinned.
    #[error("no data plane is pinned at {0}")]
    NotLoaded(PathBuf),
    /// A link could not be given another program.
    #[error("cannot change the program at {path}: {message}")]
    Swap {
        /// The pin of the link or of the program.
        path: PathBuf,
        /// What was said.
        message: String,
    },
    /// The program could not be run on a frame.
    #[error("the kernel does not run the program on a frame: {0}")]
    Run(String),
    /// The program could not be attached.
    #[error("cannot attach to {interface}: {message}{hint}")]
    Attach {
        /// Name of the interface.
        interface: String,
        /// What was said.
        message: String,
        /// What to do, if known.
        hint: &'static str,
    },
}

impl Kernel {
    /// Loads maps and program; with `pins`, maps that are pinned already are
    /// verified and taken over, and what is pinned now stays only after
    /// [`Kernel::settle`]. Without, nothing outlives this value. With `debug`, the
    /// program logs rare events.
    ///
    /// # Errors
    ///
    /// When the pins are not usable or the kernel refuses.
    pub fn load(pins: Option<&Path>, debug: bool) -> Result<(Self, Tables), KernelError> {
        if object::BALANCER.is_empty() {
            return Err(KernelError::NotBuilt);
        }
        let processors = processors();
        let pins = pins.map(Pins::new);
        let level = if debug { LEVEL_DEBUG } else { LEVEL_INFO };
        let mut loader = EbpfLoader::new();
        loader
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .override_global(aya_log::LEVEL, &level, true)
            .map_max_entries(map::COUNTS, processors);
        let mut lock = None;
        let mut attempt = None;
        if let Some(pins) = &pins {
            lock = Some(pins.take()?);
            pins.verify(processors)?;
            attempt = Some(pins.attempt());
            for name in map::ALL {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut ebpf = loader
            .load(object::BALANCER)
            .map_err(|e| KernelError::Load(Box::new(e)))?;
        let program = balancer(&mut ebpf)?;
        program
            .load()
            .map_err(|e| KernelError::Program(Box::new(e)))?;
        if let Some(pins) = &pins {
            repin(program, &pins.program())?;
        }
        let tables = tables(&mut ebpf, processors)?;
        let kernel = Self {
            ebpf,
            pins,
            links: BTreeMap::new(),
            attempt,
            _lock: lock,
        };
        Ok((kernel, tables))
    }

    /// The start has succeeded: what is pinned stays when this is dropped.
    pub fn settle(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.keep();
        }
    }

    /// The kernel's id of the program.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn program_id(&mut self) -> Result<u32, KernelError> {
        let info = balancer(&mut self.ebpf)?.info();
        info.map(|info| info.id())
            .map_err(|e| KernelError::Program(Box::new(e)))
    }

    /// Attaches the program to an interface, or replaces the program that a
    /// previous agent has attached there.
    ///
    /// `found` is the mode in which the interface runs a program now. If it is
    /// not the one wanted, the attachment left behind is given up first.
    ///
    /// # Errors
    ///
    /// When the kernel or the driver refuses, in words.
    pub fn attach(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: Mode,
        found: Option<Mode>,
    ) -> Result<Attachment, KernelError> {
        if found.is_some() && self.links.contains_key(&ifindex) {
            return Ok(Attachment::Kept);
        }
        // Somebody may have taken it off.
        self.links.remove(&ifindex);
        let pin = self.pins.as_ref().map(|pins| pins.link(ifindex));
        let failed = |error: &ProgramError| KernelError::Attach {
            interface: interface.to_owned(),
            message: chain(error),
            hint: hint(error, mode),
        };
        let mut leaving = false;
        if let Some(pin) = &pin
            && pin.exists()
        {
            if found.is_none_or(|found| found == mode)
                && let Some(link) = self.replace(pin).map_err(|e| failed(&e))?
            {
                self.links.insert(ifindex, link);
                return Ok(Attachment::Replaced);
            }
            // The device is gone, or the mode is another.
            leaving = fs::remove_file(pin).is_ok();
        }
        let program = balancer(&mut self.ebpf)?;
        let flags = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        let start = Instant::now();
        let id = loop {
            match program.attach_to_if_index(ifindex, flags) {
                // The kernel takes the old program off a moment after its last
                // reference has gone.
                Err(error) if leaving && is_busy(&error) && start.elapsed() < LEAVING => {
                    sleep(Duration::from_millis(20));
                }
                result => break result.map_err(|e| failed(&e))?,
            }
        };
        let link = program.take_link(id).map_err(|e| failed(&e))?;
        // aya falls back to an attachment by netlink without a word; that one
        // dies with the agent and cannot be replaced in place.
        let link: FdLink = link
            .try_into()
            .map_err(|_: LinkError| KernelError::Attach {
                interface: interface.to_owned(),
                message: "the kernel has no BPF links for XDP".to_owned(),
                hint: "; vipd needs Linux 6.1 or later",
            })?;
        let link = match pin {
            None => link,
            Some(pin) => link
                .pin(&pin)
                .map_err(|e| KernelError::Pin {
                    path: pin.clone(),
                    message: chain(&e),
                })?
                .into(),
        };
        self.links.insert(ifindex, link);
        Ok(Attachment::New)
    }

    /// Puts this program into a pinned link; `None` when its device is gone.
    fn replace(&mut self, pin: &Path) -> Result<Option<FdLink>, ProgramError> {
        let Ok(pinned) = PinnedLink::from_pin(pin) else {
            return Ok(None);
        };
        let Ok(link) = XdpLink::try_from(FdLink::from(pinned)) else {
            return Ok(None);
        };
        let Ok(program) = balancer(&mut self.ebpf) else {
            return Ok(None);
        };
        let id = match program.attach_to_link(link) {
            Ok(id) => id,
            Err(error) if errno(&error) == Some(libc::ENOLINK) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(program.take_link(id)?.try_into().ok())
    }

    /// Takes the program off one interface.
    pub fn detach(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
        if let Some(pins) = &self.pins {
            let _ = fs::remove_file(pins.link(ifindex));
        }
    }

    /// Takes the program off all interfaces that are not `wanted`, given by
    /// their indices. Says which pins were removed.
    pub fn detach_others(&mut self, wanted: &[u32]) -> Vec<PathBuf> {
        self.links.retain(|ifindex, _| wanted.contains(ifindex));
        let Some(pins) = &self.pins else {
            return Vec::new();
        };
        let keep: Vec<PathBuf> = wanted.iter().map(|ifindex| pins.link(*ifindex)).collect();
        pins.links()
            .into_iter()
            .filter(|path| !keep.contains(path))
            .filter(|path| fs::remove_file(path).is_ok())
            .collect()
    }

    /// The loaded program, for test runs.
    ///
    /// # Errors
    ///
    /// When the object has none, which would be a defect.
    pub fn program(&mut self) -> Result<&mut Xdp, KernelError> {
        balancer(&mut self.ebpf)
    }

    /// The object, for the logger.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Takes the data plane away: links, program, maps.
    ///
    /// # Errors
    ///
    /// When a pin cannot be removed.
    pub fn unload(self) -> io::Result<Vec<PathBuf>> {
        let Self {
            ebpf, pins, links, ..
        } = self;
        let removed = pins.map_or(Ok(Vec::new()), |pins| pins.remove());
        drop((ebpf, links));
        removed
    }
}

/// Processors that may run the program, present or to come.
#[must_use]
pub fn processors() -> u32 {
    let count = aya::util::nr_cpus().unwrap_or(1);
    u32::try_from(count).map_or(vipd_abi::CPUS, |n| n.clamp(1, vipd_abi::CPUS))
}

pub(super) fn balancer(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let program = ebpf.program_mut("balancer").ok_or(KernelError::NotBuilt)?;
    program
        .try_into()
        .map_err(|e: ProgramError| KernelError::Program(Box::new(e)))
}

/// Pins the new program in the place of an old one.
fn repin(program: &mut Xdp, path: &Path) -> Result<(), KernelError> {
    let failed = |message| KernelError::Pin {
        path: path.to_owned(),
        message,
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(error.to_string()));
        }
        _ => {}
    }
    program.pin(path).map_err(|e| failed(chain(&e)))
}

/// So many entries of a map as memory, from an offset on in bytes.
pub(super) fn memory<T: Plain>(
    ebpf: &Ebpf,
    name: &'static str,
    offset: usize,
    len: u32,
) -> Result<Mapped<T>, KernelError> {
    let Some(Map::Array(data)) = ebpf.map(name) else {
        return Err(KernelError::NotBuilt);
    };
    let data: &MapData = data;
    Mapped::of_map(&data.fd().as_fd(), offset, len)
        .map_err(|source| KernelError::Map { name, source })
}

fn tables(ebpf: &mut Ebpf, processors: u32) -> Result<Tables, KernelError> {
    macro_rules! table {
        ($field:ident, $len:expr) => {
            memory(ebpf, map::PLANE, offset_of!(Plane, $field), $len)?
        };
    }
    Ok(Tables {
        published: table!(published, 1),
        clock: Arc::new(Clock::new(table!(clock, 1))),
        heads: table!(heads, 2),
        seeds: table!(seeds, 2 * VIP_BUCKETS),
        entries: table!(entries, 2 * VIP_SLOTS),
        ranges: table!(ranges, 2 * PORT_RANGES),
        filter: table!(filter, 2 * FILTER_WORDS),
        ring: table!(ring, RING_SLOTS),
        stamps: table!(stamps, RING_SLOTS),
        flows: Arc::new(table!(flows, FLOW_BUCKETS)),
        fragments: Arc::new(table!(fragments, FRAGMENT_BUCKETS)),
        records: Arc::new(table!(records, BACKENDS)),
        hops: table!(hops, NEXT_HOPS),
        uplinks: table!(uplinks, UPLINKS),
        counters: Arc::new(Counters::new(memory(
            ebpf,
            map::COUNTS,
            0,
            processors * COUNTERS,
        )?)),
    })
}

/// An error with all its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(super) fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EBUSY | libc::EEXIST))
}

/// What a refusal by the kernel is mostly about.
fn capabilities(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let number = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if let Some(libc::EPERM | libc::EACCES) = number {
            return "; vipd needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";
        }
        cause = error.source();
    }
    ""
}

/// What to do about a refused attachment.
fn hint(error: &ProgramError, mode: Mode) -> &'static str {
    match (errno(error), mode) {
        (Some(libc::EBUSY | libc::EEXIST), _) => {
            "; another XDP program is attached there: see it with `ip link show`, and take it \
             off with the program that put it there"
        }
        (Some(libc::EOPNOTSUPP), Mode::Native) => {
            "; its driver has no native XDP: set xdp_mode = \"generic\", which is slower"
        }
        (Some(libc::EINVAL | libc::ERANGE), Mode::Native) => {
            "; the driver refuses native XDP in this configuration: often an MTU that is too \
             large, LRO, or too few queues (see `dmesg`)"
        }
        (Some(libc::EPERM), _) => "; vipd needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
        _ => "",
    }
}
