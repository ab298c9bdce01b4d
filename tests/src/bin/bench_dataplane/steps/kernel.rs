//! What a followed packet needs of the kernel: a map's entry of any kind and
//! size, as bytes, and the clock.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, maps::Map, util::nr_cpus};
use rustix::time::{ClockId, clock_gettime};

/// Command of bpf(2) (include/uapi/linux/bpf.h).
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;

/// The part of `union bpf_attr` for that command.
#[repr(C)]
struct Attributes {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// An entry of a map that a program was loaded with.
pub fn entry(ebpf: &Ebpf, name: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let map = ebpf
        .map(name)
        .with_context(|| format!("there is no map {name}"))?;
    let (data, copies) = match map {
        Map::Array(data) | Map::HashMap(data) => (data, 1),
        // One for each processor.
        Map::PerCpuArray(data) => (data, nr_cpus().map_err(|(_, error)| error)?),
        _ => bail!("{name} is of a kind that is not known here"),
    };
    let size = data.info()?.value_size().next_multiple_of(8) as usize * copies;
    lookup(data.fd().as_fd(), key, size)
}

/// Copies an entry. `size` is that of its value, or of all processors' values
/// together.
fn lookup(map: BorrowedFd<'_>, key: &[u8], size: usize) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; size];
    let attributes = Attributes {
        map: map.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads a key and writes a value of the map's sizes,
    // for which both buffers are long enough; all outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_ELEM,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 {
        return Ok(Some(value));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::NotFound {
        return Ok(None);
    }
    Err(error.into())
}

/// The coarse clock.
pub fn coarse_nanos() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
