//! The data plane's edge: loads it, attaches it where the configuration says,
//! and keeps an eye on whether it is still there.

pub mod drops;
pub mod steady;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use aya_log::EbpfLogger;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::{interval, sleep},
};
use tracing::{info, warn};
use vipd_abi::{MACS, mac_bits};

use self::steady::Steady;
use crate::{
    announce,
    config::{Dataplane, XdpMode},
    dataplane::{
        apply::Settings,
        kernel::{Attachment, Kernel, Mode},
        pins::Pins,
        tables::Tables,
    },
    netlink::{
        Error, Netlink,
        host::HostEvents,
        link::{Link, Xdp},
    },
    status,
};

/// Between two looks at whether the program is still attached.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in vain after which the data plane counts as lost.
const SILENT_LOOKS: u32 = 6;
/// How long a fault still counts after its end, at least and at most.
const PAUSE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(60)];

/// Loads the program, or takes over what a previous agent left, and attaches
/// it to the interfaces of the configuration; it stays on others too. What this
/// has pinned stays only when the kernel's side is settled.
///
/// # Errors
///
/// When the kernel or a driver refuses, in words. What was there before stays.
pub async fn load(
    config: &Dataplane,
    netlink: &Netlink,
    debug: bool,
) -> anyhow::Result<(Kernel, Tables, [u64; MACS])> {
    let (mut kernel, tables) = Kernel::load(Some(&config.pin_path), debug)?;
    let macs = attach(&mut kernel, config, netlink).await?;
    Ok((kernel, tables, macs))
}

/// Attaches the loaded program to the interfaces of the configuration. Gives
/// back their MAC addresses, as in [`vipd_abi::Head`].
///
/// # Errors
///
/// When an interface is missing, or the kernel or its driver refuses; then
/// nothing that was attached before has changed, but for an attachment in
/// another mode than the one wanted, which had to go first.
pub async fn attach(
    kernel: &mut Kernel,
    config: &Dataplane,
    netlink: &Netlink,
) -> anyhow::Result<[u64; MACS]> {
    if config.interfaces.len() > MACS {
        bail!("more than {MACS} interfaces cannot carry the program");
    }
    let mode = mode(config.xdp_mode);
    let mut links = Vec::new();
    for name in &config.interfaces {
        links.push(interface(netlink, name.as_str()).await?);
    }
    let mut new: Vec<&Link> = Vec::new();
    for link in &links {
        let Link { name, ifindex, .. } = link;
        match kernel.attach(name, *ifindex, mode, attached(link)) {
            Ok(Attachment::New) => {
                info!("XDP attached to {name} in {} mode", mode.name());
                new.push(link);
            }
            Ok(Attachment::Replaced) => {
                info!("XDP on {name} taken over from a previous agent, packets flowed on");
            }
            Ok(Attachment::Kept) => {}
            Err(error) => {
                for link in new {
                    kernel.detach(link.ifindex);
                }
                return Err(error.into());
            }
        }
    }
    Ok(macs(links.iter()))
}

/// Takes the program off interfaces that the configuration does not name.
///
/// # Errors
///
/// When the kernel does not list its interfaces.
pub async fn detach_others(
    kernel: &mut Kernel,
    config: &Dataplane,
    netlink: &Netlink,
) -> anyhow::Result<()> {
    let links = links(netlink, config).await?;
    let wanted: Vec<_> = links
        .into_iter()
        .flatten()
        .map(|link| link.ifindex)
        .collect();
    for gone in kernel.detach_others(&wanted) {
        info!("XDP detached: {}", gone.display());
    }
    Ok(())
}

/// The mode the configuration asks for.
#[must_use]
pub fn mode(mode: XdpMode) -> Mode {
    match mode {
        XdpMode::Native => Mode::Native,
        XdpMode::Generic => Mode::Generic,
    }
}

/// The interfaces of the configuration as `vipd status` shows them, by what the
/// kernel says of them.
fn interfaces(links: &[Option<Link>], config: &Dataplane, ours: &[u32]) -> Vec<status::Interface> {
    let mode = |link: Option<&Link>| match link.map(|link| link.xdp) {
        None => "gone",
        Some(Xdp::Native(id)) if ours.contains(&id) => Mode::Native.name(),
        Some(Xdp::Generic(id)) if ours.contains(&id) => Mode::Generic.name(),
        Some(Xdp::None) => "detached",
        Some(_) => "another program",
    };
    let named = config.interfaces.iter().zip(links);
    named
        .map(|(name, link)| status::Interface {
            name: name.to_string(),
            mode: mode(link.as_ref()).to_owned(),
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

/// What the guard of the data plane lives on.
pub struct Guard {
    /// To ask the kernel by.
    pub netlink: Netlink,
    /// The kernel's id of our program.
    pub program: u32,
    /// That of the capturing program, while it may stand in for ours.
    pub capturing: watch::Receiver<Option<u32>>,
    /// Where it should be attached.
    pub config: watch::Receiver<Option<Dataplane>>,
    /// Gets the interfaces' own MAC addresses.
    pub settings: watch::Sender<Settings>,
    /// Gets what is wrong.
    pub fault: watch::Sender<Option<String>>,
    /// Gets how the program is attached.
    pub interfaces: watch::Sender<Vec<status::Interface>>,
}

impl Guard {
    /// Looks again and again whether the program is still attached as
    /// configured, and when the kernel tells of an interface; publishes a fault
    /// while it is not, and for a while after; follows the interfaces' own MAC
    /// addresses. Ends when nobody listens.
    pub async fn run(mut self) {
        let mut look = interval(LOOK);
        // Of a program that is taken off the kernel may tell nothing.
        let mut events = Netlink::host_events().ok();
        let mut steady = Steady::new(PAUSE[0], PAUSE[1]);
        let mut silent = 0;
        while !self.fault.is_closed() {
            tokio::select! {
                _ = look.tick() => {}
                told = next(&mut events) => if told.is_err() {
                    events = None;
                },
            }
            let Some(config) = self.config.borrow_and_update().clone() else {
                continue;
            };
            // A capture may begin or end while the kernel is asked.
            let before = *self.capturing.borrow();
            let found = links(&self.netlink, &config).await;
            let ours = [Some(self.program), before, *self.capturing.borrow()];
            let ours: Vec<u32> = ours.into_iter().flatten().collect();
            let found = match found {
                // A reload is under way: these links may be of before.
                Ok(_) if self.config.has_changed().unwrap_or(false) => continue,
                Ok(links) => {
                    silent = 0;
                    self.follow(&links);
                    self.interfaces
                        .send_replace(interfaces(&links, &config, &ours));
                    find_fault(&links, &config, &ours)
                }
                Err(error) => {
                    silent += 1;
                    // One look that fails is no proof of a fault.
                    if silent < SILENT_LOOKS {
                        continue;
                    }
                    Some(format!("the kernel does not show the interfaces: {error}"))
                }
            };
            self.publish(steady.judge(found, Instant::now()));
        }
    }

    fn follow(&self, links: &[Option<Link>]) {
        let macs = macs(links.iter().flatten());
        let complete = links.iter().all(Option::is_some);
        self.settings.send_if_modified(|settings| {
            complete && std::mem::replace(&mut settings.macs, macs) != macs
        });
    }

    fn publish(&self, found: Option<String>) {
        self.fault.send_if_modified(|current| {
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

async fn next(events: &mut Option<HostEvents>) -> Result<(), Error> {
    match events {
        Some(events) => events.next().await.map(drop),
        None => std::future::pending().await,
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

fn find_fault(links: &[Option<Link>], config: &Dataplane, ours: &[u32]) -> Option<String> {
    let wanted = |found| match (mode(config.xdp_mode), found) {
        (Mode::Native, Xdp::Native(id)) | (Mode::Generic, Xdp::Generic(id)) => ours.contains(&id),
        _ => false,
    };
    let of_one = config
        .interfaces
        .iter()
        .zip(links)
        .find_map(|(name, link)| {
            let Some(link) = link else {
                return Some(format!(
                    "the interface {name} is gone; when it is back, `vipd reload` attaches to it"
                ));
            };
            match link.xdp {
                Xdp::None => Some(format!(
                    "the XDP program has been detached from {name}; `vipd reload` attaches it"
                )),
                found if !wanted(found) => Some(format!(
                    "{name} runs {found:?}, another XDP program or mode than ours: {} mode, {ours:?}",
                    mode(config.xdp_mode).name()
                )),
                _ => None,
            }
        });
    let sends = || links.iter().flatten().any(Link::sends);
    of_one.or_else(|| (!sends()).then(|| "no interface has a carrier".to_owned()))
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

/// Waits until the kernel has taken the program off: it does so a little after
/// the last reference has gone.
pub async fn wait_detached(config: &Dataplane, netlink: &Netlink) {
    for _ in 0..40 {
        let Ok(links) = links(netlink, config).await else {
            return;
        };
        if links.iter().flatten().all(|link| link.xdp == Xdp::None) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Takes a data plane away that no agent runs, and the routes that hold its
/// addresses. Says which pins were removed.
///
/// # Errors
///
/// When an agent runs, or a pin cannot be removed.
pub async fn unload(config: &Dataplane, netlink: &Netlink) -> anyhow::Result<Vec<PathBuf>> {
    let pins = Pins::new(&config.pin_path);
    // Only who has the lock knows that no agent needs the routes.
    let Some(_lock) = pins.take_existing()? else {
        return Ok(Vec::new());
    };
    announce::release_all(netlink).await;
    let removed = pins
        .remove()
        .with_context(|| format!("cannot remove the pins at {}", config.pin_path.display()))?;
    if !removed.is_empty() {
        wait_detached(config, netlink).await;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(xdp: Xdp, carrier: bool) -> Link {
        Link {
            ifindex: 2,
            name: "eth0".to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            arp: true,
            carrier,
            xdp,
            ours: false,
        }
    }

    #[test]
    fn a_fault_is_what_keeps_packets_from_being_forwarded() {
        let config = Dataplane {
            interfaces: vec!["eth0".parse().unwrap(), "eth1".parse().unwrap()],
            xdp_mode: XdpMode::Native,
            on_stop: crate::config::OnStop::Remove,
            pin_path: "/sys/fs/bpf/vipd".into(),
            tunnel_source_ipv4: None,
            tunnel_source_ipv6: None,
            max_drop_rate: None,
        };
        let ours = || Some(link(Xdp::Native(7), true));
        let dark = || Some(link(Xdp::Native(7), false));
        let cases = [
            ("all is well", [ours(), ours()], None),
            ("one of two carriers is enough", [ours(), dark()], None),
            ("no carrier", [dark(), dark()], Some("carrier")),
            (
                "detached",
                [ours(), Some(link(Xdp::None, true))],
                Some("detached from eth1"),
            ),
            (
                "somebody else's program",
                [Some(link(Xdp::Native(8), true)), ours()],
                Some("another"),
            ),
            (
                "fallen back",
                [Some(link(Xdp::Generic(7), true)), ours()],
                Some("mode"),
            ),
            ("gone", [None, ours()], Some("eth0 is gone")),
        ];
        for (sentence, links, expected) in cases {
            let found = find_fault(&links, &config, &[7]);
            let matches = match (&found, expected) {
                (None, None) => true,
                (Some(found), Some(expected)) => found.contains(expected),
                _ => false,
            };
            assert!(matches, "{sentence}: {found:?}");
        }
    }
}
