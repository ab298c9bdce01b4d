//! The decapsulator on a backend: attach it, take it off.
//!
//! No process stays: program, maps and link are pinned.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::lpm_trie::{Key, LpmTrie},
    programs::{Xdp, XdpMode, links::FdLink},
};
use ipnet::IpNet;
use vipd_abi::{CPUS, DecapVerdict, map};

use crate::dataplane::{
    kernel::{Mode, processors},
    object,
    pins::Pins,
    tables::mapped,
};

/// Attaches the decapsulator to an interface, for packets from `sources` only;
/// GUE comes to `gue_port`.
///
/// # Errors
///
/// When it is attached already, or the kernel refuses.
pub fn attach(
    pin_path: &Path,
    interface: &str,
    ifindex: u32,
    sources: &[IpNet],
    gue_port: u16,
    mode: Mode,
) -> anyhow::Result<()> {
    if object::DECAP.is_empty() {
        bail!("this vipd was built without its eBPF programs; build it with `cargo xtask build`");
    }
    let pins = Pins::new(pin_path);
    pins.prepare()?;
    let pin = pins.link(ifindex);
    if pin.exists() {
        bail!(
            "the decapsulator is attached to {interface} already ({}); take it off with `vipd \
             decap detach`",
            pin.display()
        );
    }
    let mut ebpf = EbpfLoader::new()
        .map_max_entries(
            map::DECAP_COUNTERS,
            processors().min(CPUS) * DecapVerdict::PLACES,
        )
        .override_global("GUE_PORT", &gue_port, true)
        .load(object::DECAP)
        .context("cannot load the decapsulator's maps")?;
    allow(&mut ebpf, sources)?;
    let program: &mut Xdp = ebpf
        .program_mut("decap")
        .context("the object has no program `decap`")?
        .try_into()?;
    program
        .load()
        .context("the kernel does not take the program")?;
    let flags = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let id = program
        .attach_to_if_index(ifindex, flags)
        .with_context(|| format!("cannot attach to {interface} in {} mode", mode.name()))?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(&pin)
        .with_context(|| format!("cannot pin {}", pin.display()))?;
    Ok(())
}

fn allow(ebpf: &mut Ebpf, sources: &[IpNet]) -> anyhow::Result<()> {
    let map = ebpf
        .map_mut(map::DECAP_SOURCES)
        .context("the object has no list of sources")?;
    let mut trie: LpmTrie<_, [u8; 16], u32> = LpmTrie::try_from(map)?;
    for source in sources {
        let length = match source {
            IpNet::V4(_) => 96 + u32::from(source.prefix_len()),
            IpNet::V6(_) => u32::from(source.prefix_len()),
        };
        let network: IpAddr = source.network();
        trie.insert(&Key::new(length, mapped(network)), 1, 0)
            .with_context(|| format!("cannot allow {source}"))?;
    }
    Ok(())
}

/// Takes the decapsulator off an interface, or off all of them.
///
/// # Errors
///
/// When a pin cannot be removed.
pub fn detach(pin_path: &Path, interface: Option<(&str, u32)>) -> anyhow::Result<Vec<PathBuf>> {
    let pins = Pins::new(pin_path);
    let Some((name, ifindex)) = interface else {
        return Ok(pins.remove()?);
    };
    let pin = pins.link(ifindex);
    fs::remove_file(&pin).with_context(|| {
        format!(
            "the decapsulator is not attached to {name} (no {})",
            pin.display()
        )
    })?;
    if pins.links().is_empty() {
        pins.remove()?;
    }
    Ok(vec![pin])
}
