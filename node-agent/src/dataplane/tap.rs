//! The capturing program in the place of the forwarding one, for a while.
//!
//! Both forward, over the same maps, and a link changes from one to the other
//! at once: no packet is lost. If the agent dies in between, the program stops
//! capturing at its deadline and forwards on, and the next agent puts its own
//! in its place.

use std::path::Path;

use aya::{
    maps::{MapData, RingBuf},
    programs::{
        Xdp,
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};
use aya_obj::programs::XdpAttachType;
use vipd_abi::{BackendRecord, CPUS, CaptureCount, CaptureFilter, Captured, Plain, map};

use super::{
    kernel::{KernelError, chain, errno},
    mapped::Mapped,
    object,
    pins::Pins,
    variant::Variant,
};

/// The capturing program.
pub struct Tap {
    variant: Variant,
    pins: Pins,
    filter: Mapped<CaptureFilter>,
    counts: Mapped<CaptureCount>,
}

impl Tap {
    /// Loads the program; no packet meets it yet.
    ///
    /// # Errors
    ///
    /// When no data plane is pinned, or the kernel refuses.
    pub fn load(pins: &Pins) -> Result<Self, KernelError> {
        let variant = Variant::load(object::CAPTURE, pins)?;
        Ok(Self {
            filter: variant.memory(map::CAPTURE_FILTER, 1)?,
            counts: variant.memory(map::CAPTURE_COUNTS, CPUS)?,
            pins: pins.clone(),
            variant,
        })
    }

    /// The kernel's id of the program.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn program_id(&mut self) -> Result<u32, KernelError> {
        let info = self.variant.program()?.info();
        info.map(|info| info.id())
            .map_err(|e| KernelError::Program(Box::new(e)))
    }

    /// The program, for test runs.
    ///
    /// # Errors
    ///
    /// When the object has none, which would be a defect.
    pub fn program(&mut self) -> Result<&mut Xdp, KernelError> {
        self.variant.program()
    }

    /// Puts the program into every pinned link, until [`put_back`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses for some link; it may be in others then.
    pub fn put_in(&mut self) -> Result<(), KernelError> {
        put(self.variant.program()?, &self.pins)
    }

    /// Says what is captured. A packet in between may be judged by half of it.
    pub fn set_filter(&self, filter: CaptureFilter) {
        self.filter.store(0, filter);
    }

    /// Where the captured packets come out. Works once.
    pub fn packets(&mut self) -> Option<RingBuf<MapData>> {
        RingBuf::try_from(self.variant.ebpf().take_map(map::CAPTURES)?).ok()
    }

    /// Sum over all processors.
    #[must_use]
    pub fn counts(&self) -> CaptureCount {
        let mut sum = CaptureCount::default();
        for cpu in 0..self.counts.len() {
            let count = self.counts.load(cpu);
            sum.captured += count.captured;
            sum.limited += count.limited;
            sum.lost += count.lost;
        }
        sum
    }

    /// The backend record of that index; `None` for nobody's.
    #[must_use]
    pub fn record(&self, index: u32) -> Option<BackendRecord> {
        self.variant.record(index)
    }
}

/// Puts the forwarding program, as pinned, back into every pinned link.
///
/// # Errors
///
/// When the kernel refuses for some link; all others have it then.
pub fn put_back(pins: &Pins) -> Result<(), KernelError> {
    let path = pins.program();
    let program = Xdp::from_pin(&path, XdpAttachType::Interface);
    let mut program = program.map_err(|error| KernelError::Swap {
        path,
        message: chain(&error),
    })?;
    put(&mut program, pins)
}

/// A packet as it comes out of the ring buffer.
#[must_use]
pub fn captured(bytes: &[u8]) -> Option<Captured> {
    fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
        let whole = bytes.len() >= size_of::<T>();
        // SAFETY: there are enough bytes, and any bytes are a value.
        whole.then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
    read(bytes)
}

/// Puts a program into every pinned link whose device is there, also after one
/// that fails; tells the first failure.
fn put(program: &mut Xdp, pins: &Pins) -> Result<(), KernelError> {
    let mut result = Ok(());
    for path in pins.links() {
        let put = put_into(program, &path);
        result = result.and(put.map_err(|message| KernelError::Swap { path, message }));
    }
    result
}

fn put_into(program: &mut Xdp, link: &Path) -> Result<(), String> {
    let link = PinnedLink::from_pin(link).map_err(|e| chain(&e))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|e| chain(&e))?;
    match program.attach_to_link(link) {
        // The pin keeps the link; a reference here would outlive the pin.
        Ok(id) => drop(program.take_link(id)),
        Err(error) if errno(&error) == Some(libc::ENOLINK) => {}
        Err(error) => return Err(chain(&error)),
    }
    Ok(())
}
