//! The balancer built to explain or to capture, over the maps of the one that
//! forwards.

use std::mem::offset_of;

use aya::{Ebpf, EbpfLoader, VerifierLogLevel, programs::Xdp};
use vipd_abi::{BACKENDS, BackendRecord, Plain, Plane, map};

use super::{
    kernel::{self, KernelError, LEVEL_INFO, processors},
    mapped::Mapped,
    pins::Pins,
};

/// A loaded variant. Dropping it leaves the maps that it shares.
pub struct Variant {
    ebpf: Ebpf,
    records: Mapped<BackendRecord>,
}

impl Variant {
    /// Loads `object` over the maps that are pinned, which whoever holds the
    /// pins' lock has verified.
    ///
    /// # Errors
    ///
    /// When nothing is pinned, or the kernel refuses.
    pub fn load(object: &[u8], pins: &Pins) -> Result<Self, KernelError> {
        if object.is_empty() {
            return Err(KernelError::NotBuilt);
        }
        let mut loader = EbpfLoader::new();
        loader
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .override_global(aya_log::LEVEL, &LEVEL_INFO, true)
            .map_max_entries(map::COUNTS, processors());
        for name in map::ALL {
            let path = pins.map(name);
            if !path.exists() {
                return Err(KernelError::NotLoaded(pins.directory()));
            }
            loader.map_pin_path(name, path);
        }
        let mut ebpf = loader
            .load(object)
            .map_err(|e| KernelError::Load(Box::new(e)))?;
        kernel::balancer(&mut ebpf)?
            .load()
            .map_err(|e| KernelError::Program(Box::new(e)))?;
        let records = kernel::memory(&ebpf, map::PLANE, offset_of!(Plane, records), BACKENDS)?;
        Ok(Self { ebpf, records })
    }

    /// The program.
    ///
    /// # Errors
    ///
    /// When the object has none, which would be a defect.
    pub fn program(&mut self) -> Result<&mut Xdp, KernelError> {
        kernel::balancer(&mut self.ebpf)
    }

    /// The object, for maps that are no memory.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// One of its own maps as memory.
    ///
    /// # Errors
    ///
    /// When the object has no such map, which would be a defect.
    pub fn memory<T: Plain>(&self, name: &'static str, len: u32) -> Result<Mapped<T>, KernelError> {
        kernel::memory(&self.ebpf, name, 0, len)
    }

    /// The backend record of that index; `None` for nobody's.
    #[must_use]
    pub fn record(&self, index: u32) -> Option<BackendRecord> {
        (1..BACKENDS)
            .contains(&index)
            .then(|| self.records.load(index))
    }
}
