//! The floors: programs that do less than a balancer, or just as much as one
//! must.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap},
    programs::{ProgramFd, Xdp},
};
use vipd_abi::mac_bits;

use crate::{
    case::vip,
    packets::BACKEND_MAC,
    plan::service_port,
    plane::{BACKENDS, FLOW_KEY, SOURCE, backend},
    runner::{self, Program},
};

/// A loaded floor.
pub struct Floor {
    ebpf: Ebpf,
    name: &'static str,
}

impl Floor {
    /// A program without anything to fill in.
    pub fn plain(name: &'static str) -> Result<Self> {
        let mut ebpf = runner::object(name)?;
        runner::load(&mut ebpf, name)?;
        Ok(Self { ebpf, name })
    }

    /// The plainest balancer, with as many services as told on addresses from
    /// the one that ends with `first` on, each with a ring of `ring_size`.
    pub fn balancer(first: u8, services: u32, ring_size: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        let source = u32::from_ne_bytes(SOURCE.octets());
        loader
            .override_global("F3_FLOW_KEY", &FLOW_KEY.0, true)
            .override_global("F3_SOURCE", &source, true);
        let path = runner::path("f3");
        let mut ebpf = loader
            .load_file(&path)
            .with_context(|| format!("cannot load {}", path.display()))?;
        runner::load(&mut ebpf, "f3")?;

        let mut vips: HashMap<_, [u32; 2], [u32; 2]> =
            HashMap::try_from(ebpf.map_mut("F3_VIPS").context("no services")?)?;
        for service in 0..services {
            let address = word(vip(first.wrapping_add(service as u8)))?;
            let key = [address, u32::from(service_port(service).to_be()) | 6 << 16];
            vips.insert(key, [service * ring_size, ring_size - 1], 0)?;
        }
        let mut ring: Array<_, u32> = Array::try_from(ebpf.map_mut("F3_RING").context("no ring")?)?;
        for slot in 0..services * ring_size {
            // Evenly, in no order.
            let word = u64::from(slot.wrapping_mul(0x9e37_79b1));
            ring.set(slot, (word * u64::from(BACKENDS) >> 32) as u32 + 1, 0)?;
        }
        let mut backends: Array<_, [u32; 3]> =
            Array::try_from(ebpf.map_mut("F3_BACKENDS").context("no backends")?)?;
        let mac = mac_bits(BACKEND_MAC);
        for number in 1..=BACKENDS {
            let address = word(backend(number, false))?;
            let record = [address, mac as u32, (mac >> 32) as u32];
            backends.set(u32::from(number), record, 0)?;
        }
        Ok(Self { ebpf, name: "f3" })
    }

    /// The program in the kernel.
    pub fn program(&mut self) -> Result<ProgramFd> {
        let program = self.ebpf.program_mut(self.name).context("no program")?;
        let program: &mut Xdp = program.try_into()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// What the kernel says about it.
    pub fn info(&mut self) -> Result<Program> {
        let program = self.ebpf.program_mut(self.name).context("no program")?;
        let program: &mut Xdp = program.try_into()?;
        Program::of(program)
    }
}

/// An IPv4 address as it lies in memory.
fn word(address: IpAddr) -> Result<u32> {
    match address {
        IpAddr::V4(address) => Ok(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(_) => bail!("the floor knows no IPv6"),
    }
}
