//! The data plane's edge: loads it, attaches it where the configuration says,
//! and keeps an eye on whether it is still there.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use aya_log::EbpfLogger;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::interval,
};
use tracing::{info, warn};
use vipd_abi::{MACS, mac_bits};

use crate::{
    config::{Dataplane, InterfaceName, XdpMode},
    dataplane::{
        apply::Settings,
        kernel::{Attachment, Kernel, Mode},
        tables::Tables,
    },
    netlink::{
        Error, Netlink,
        link::{Link, Xdp},
    },
    status,
};

/// Between two looks at whether the program is still attached.
const LOOK: Duration = Duration::from_millis(500);

/// Loads the program, or takes over what a previous agent left, and attaches
/// it to the interfaces of the configuration.
///
/// # Errors
///
/// When the kernel or a driver refuses, in words.
pub async fn load(
    config: &Dataplane,
    netlink: &Netlink,
    debug: bool,
) -> anyhow::Result<(Kernel, Tables, [u64; MACS])> {
    let (mut kernel, tables) = Kernel::load(Some(&config.pin_path), debug)?;
    let macs = attach(&mut kernel, config, netlink).await?;
    Ok((kernel, tables, macs))
}

/// Attaches the loaded program to the interfaces of the configuration, and
/// takes it off others. Gives back the MAC addresses of the interfaces, as in
/// [`vipd_abi::Head`].
///
/// # Errors
///
/// When an interface is missing, or the kernel or its driver refuses.
pub async fn attach(
    kernel: &mut Kernel,
    config: &Dataplane,
    netlink: &Netlink,
) -> anyhow::Result<[u64; MACS]> {
    let mode = mode(config.xdp_mode);
    let mut attached_links = Vec::new();
    if config.interfaces.len() > MACS {
        bail!("more than {MACS} interfaces cannot carry the program");
    }
    for name in config.interfaces.iter().map(InterfaceName::as_str) {
        let link = interface(netlink, name).await?;
        let fresh = attached(&link).is_some_and(|found| found != mode);
        match kernel.attach(name, link.ifindex, mode, fresh)? {
            Attachment::New => info!("XDP attached to {name} in {} mode", mode.name()),
            Attachment::Replaced => {
                info!("XDP on {name} taken over from a previous agent, packets flowed on");
            }
        }
        attached_links.push(link);
    }
    let wanted: Vec<_> = attached_links
        .iter()
        .map(|link| (link.name.clone(), link.ifindex))
        .collect();
    for gone in kernel.detach_others(&wanted) {
        info!("XDP detached: {}", gone.display());
    }
    Ok(macs(attached_links.iter()))
}

/// The mode the configuration asks for.
#[must_use]
pub fn mode(mode: XdpMode) -> Mode {
    match mode {
        XdpMode::Native => Mode::Native,
        XdpMode::Generic => Mode::Generic,
    }
}

/// The interfaces as `vipd status` shows them.
#[must_use]
pub fn interfaces(config: &Dataplane) -> Vec<status::Interface> {
    config
        .interfaces
        .iter()
        .map(|name| status::Interface {
            name: name.to_string(),
            mode: mode(config.xdp_mode).name().to_owned(),
        })
        .collect()
}

/// The interface of that name.
///
/// # Errors
///
/// When there is none.
pub async fn interface(netlink: &Netlink, name: &str) -> anyhow::Result<Link> {
    let link = netlink.link(name).await?;
    let Some(link) = link else {
        bail!("there is no interface {name} on this host: see `ip link`");
    };
    Ok(link)
}

/// The mode in which some program is attached.
#[must_use]
pub fn attached(link: &Link) -> Option<Mode> {
    match link.xdp {
        Xdp::None => None,
        Xdp::Native(_) | Xdp::Offloaded(_) => Some(Mode::Native),
        Xdp::Generic(_) => Some(Mode::Generic),
    }
}

/// Looks again and again whether the program is still attached as configured,
/// and publishes a fault while it is not; follows the interfaces' own MAC
/// addresses. Ends when nobody listens.
pub async fn guard(
    netlink: Netlink,
    config: watch::Receiver<Option<Dataplane>>,
    settings: watch::Sender<Settings>,
    fault: watch::Sender<Option<String>>,
) {
    let mut look = interval(LOOK);
    loop {
        look.tick().await;
        if fault.is_closed() {
            return;
        }
        let Some(config) = config.borrow().clone() else {
            continue;
        };
        // A kernel that does not answer is no proof of a fault.
        let Ok(links) = links(&netlink, &config).await else {
            continue;
        };
        let found = find_fault(&links, &config);
        settings.send_if_modified(|settings| {
            let macs = macs(links.iter().flatten());
            found.is_none() && std::mem::replace(&mut settings.macs, macs) != macs
        });
        fault.send_if_modified(|current| {
            let changed = *current != found;
            if changed {
                match &found {
                    Some(words) => warn!("the data plane does not forward: {words}"),
                    None => info!("the data plane forwards again"),
                }
                *current = found;
            }
            changed
        });
    }
}

/// The interfaces of the configuration, in its order.
async fn links(netlink: &Netlink, config: &Dataplane) -> Result<Vec<Option<Link>>, Error> {
    let mut links = Vec::new();
    for name in &config.interfaces {
        links.push(netlink.link(name.as_str()).await?);
    }
    Ok(links)
}

/// The MAC addresses of the interfaces, as in [`vipd_abi::Head`].
fn macs<'a>(links: impl Iterator<Item = &'a Link>) -> [u64; MACS] {
    let mut macs = [0; MACS];
    for (place, mac) in macs.iter_mut().zip(links.filter_map(|link| link.mac)) {
        *place = mac_bits(mac);
    }
    macs
}

fn find_fault(links: &[Option<Link>], config: &Dataplane) -> Option<String> {
    let wanted = mode(config.xdp_mode);
    config
        .interfaces
        .iter()
        .zip(links)
        .find_map(|(name, link)| {
            let Some(link) = link else {
                return Some(format!("the interface {name} is gone"));
            };
            match attached(link) {
                None => Some(format!(
                    "the XDP program has been detached from {name}; restart vipd to attach it"
                )),
                Some(found) if found != wanted => Some(format!(
                    "XDP on {name} runs in {} mode, not {}",
                    found.name(),
                    wanted.name()
                )),
                Some(_) => None,
            }
        })
}

/// Hands the program's own log lines to ours, while the agent runs.
///
/// # Errors
///
/// When the program has no log.
pub fn forward_logs(kernel: &mut Kernel) -> anyhow::Result<()> {
    let logger = EbpfLogger::init(kernel.ebpf()).context("no log of the XDP program")?;
    // SAFETY: the logger owns its ring buffer's descriptor and keeps it open,
    // the same one, for as long as it lives.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?;
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}

/// Takes a data plane away that no agent runs.
///
/// # Errors
///
/// When a pin cannot be removed.
pub fn unload(config: &Dataplane) -> anyhow::Result<Vec<PathBuf>> {
    let pins = crate::dataplane::pins::Pins::new(&config.pin_path);
    pins.remove()
        .with_context(|| format!("cannot remove the pins at {}", config.pin_path.display()))
}
