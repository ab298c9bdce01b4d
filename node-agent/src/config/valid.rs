//! The configuration when it has been found to be right: defaults filled in,
//! nothing in it that cannot work. Compared by value, so that a new one can be
//! applied as a difference.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use vipd_control::model::Model;

use super::{
    address::Vips,
    bfd::{self, BackendBfd},
    bgp::Bgp,
    doubt::doubt,
    hook::hooks,
    local::{Bindings, bindings},
    outside,
    report::Report,
    secret::SecretFile,
    service::services,
    table::At,
    text::InterfaceName,
    wish::Taking,
    written::{self, Family, File, LogLevel, OnStop, XdpMode},
};
use crate::{doubt, hooks::Hook};

/// What this node is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who this node is.
    pub node: Node,
    /// Where and how packets are forwarded; present when there is a service in
    /// another mode than local.
    pub dataplane: Option<Dataplane>,
    /// The control socket.
    pub control_socket: PathBuf,
    /// Where metrics are served; `None` turns them off.
    pub metrics: Option<SocketAddr>,
    /// The least important kind of line that is logged.
    pub log_level: LogLevel,
    /// How long packets are still forwarded after a withdrawal.
    pub linger: Duration,
    /// What becomes of the addresses that this host serves itself when the agent
    /// stops.
    pub on_stop_local: OnStop,
    /// Directory of what is kept for the next agent.
    pub state_directory: PathBuf,
    /// The socket of the BFD process.
    pub bfd_socket: PathBuf,
    /// The BGP speaker; `None` announces nothing.
    pub bgp: Option<Bgp>,
    /// BFD to backends, by their addresses.
    pub backend_bfd: Arc<BTreeMap<IpAddr, BackendBfd>>,
    /// When our own network is in doubt, if ever.
    pub doubt: doubt::Settings,
    /// What is served.
    pub model: Model,
    /// What is run when something changes its state.
    pub hooks: Vec<Hook>,
    /// How the addresses that this host serves itself come to be on it.
    pub bindings: Arc<Bindings>,
    /// What services take from interfaces of this host, if any does.
    pub taking: Option<Arc<Taking>>,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `None` stands for the host name; see [`Node::name`].
    pub name: Option<Arc<str>>,
    /// Keys the flow hash; `None` leaves it to a key that everybody knows.
    pub cluster_secret: Option<SecretFile>,
}

/// Where and how packets are forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataplane {
    /// At least one, each once, in the order of the file.
    pub interfaces: Vec<InterfaceName>,
    /// Where the XDP program runs.
    pub xdp_mode: XdpMode,
    /// What becomes of forwarding when the agent stops.
    pub on_stop: OnStop,
    /// Directory of the pins.
    pub pin_path: PathBuf,
    /// Outer source of IPv4 tunnels; `None`: as the kernel's route says.
    pub tunnel_source_ipv4: Option<Ipv4Net>,
    /// Outer source of IPv6 tunnels; `None`: as the kernel's route says.
    pub tunnel_source_ipv6: Option<Ipv6Net>,
    /// The most packets per second that may be dropped for reasons of this host.
    pub max_drop_rate: Option<u32>,
}

/// The longest cluster secret that is accepted.
const CLUSTER_SECRET_MAX: usize = 4096;

/// The longest TCP MD5 password, the kernel's TCP_MD5SIG_MAXKEYLEN.
const MD5_PASSWORD_MAX: usize = 80;

impl Config {
    /// Whether anything is watched by BFD.
    #[must_use]
    pub fn has_bfd(&self) -> bool {
        let mut peers = self.bgp.iter().flat_map(|bgp| &bgp.peers);
        !self.backend_bfd.is_empty() || peers.any(|peer| peer.bfd.is_some())
    }

    /// Shares the services and peers that are the same in `previous`, so that
    /// appliers can tell by pointer what has not changed.
    pub fn share_with(&mut self, previous: &Self) {
        share(&mut self.model.services, &previous.model.services);
        if let (Some(bgp), Some(previous)) = (&mut self.bgp, &previous.bgp) {
            share(&mut bgp.peers, &previous.peers);
        }
    }

    /// What the file says, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let services = &self.model.services;
        let mut vips: Vec<_> = services.iter().flat_map(|service| &service.vips).collect();
        vips.sort_unstable();
        vips.dedup();
        let backends = services.iter().map(|service| service.backends.len()).sum();
        let peers = self.bgp.as_ref().map_or(0, |bgp| bgp.peers.len());
        let parts = [
            count(services.len(), "service", "services"),
            count(vips.len(), "virtual address", "virtual addresses"),
            count(backends, "backend", "backends"),
            count(peers, "BGP peer", "BGP peers"),
        ];
        parts.join(", ")
    }

    /// Checks the tables against each other and fills in defaults. Errors are
    /// in the report; a configuration is returned even then where possible, so
    /// the report has the last word.
    pub(super) fn validate(file: &File, directory: &Path, report: &mut Report) -> Option<Self> {
        Self::validate_with(file, &Vips::of(file), directory, report)
    }

    /// The same, with the virtual addresses of the file.
    pub(super) fn validate_with(
        file: &File,
        vips: &Vips,
        directory: &Path,
        report: &mut Report,
    ) -> Option<Self> {
        let node = &file.node.value;
        let metrics = &file.metrics.value;
        if file.service.value.is_empty() {
            report
                .file_warning("there is no service: nothing will be forwarded or announced")
                .help("add a [[service]]");
        }
        let mut forwarded = file.service.value.iter().filter(|at| at.value.forwards());
        if let (None, Some(service)) = (&file.dataplane, forwarded.next()) {
            report
                .error(&service.span, "a service is forwarded, and there is no [dataplane]")
                .help("add [dataplane] with interfaces = [\"...\"], the interfaces where packets arrive");
        }
        let dataplane = file
            .dataplane
            .as_ref()
            .map(|dataplane| Dataplane::validate(dataplane, vips, report));
        let bgp = file
            .bgp
            .as_ref()
            .map(|bgp| Bgp::validate(bgp, vips, directory, report));
        warn_unannounced(vips, bgp.as_ref().map(Option::as_ref), report);
        let services = services(&file.service.value, (vips, directory), report);
        let backend_bfd = bfd::backends(&file.service.value, directory, report);
        let hooks = hooks(&file.hook.value, report);
        let bindings = bindings(&file.service.value, report);
        let doubt = doubt(file, services.as_deref().unwrap_or_default(), vips, report);
        warn_unkept(file, &bindings, report);
        Some(Self {
            node: Node {
                name: node.name.as_ref().map(|name| Arc::clone(&name.value.0)),
                cluster_secret: node.cluster_secret(directory),
            },
            dataplane: transpose(dataplane)?,
            control_socket: directory.join(&file.control.value.socket.value),
            metrics: metrics.enabled.value.then_some(metrics.listen.value),
            log_level: file.log.value.level.value,
            linger: file.stop.value.linger.value,
            on_stop_local: file.stop.value.local.value,
            state_directory: directory.join(&file.state.value.directory.value),
            bfd_socket: directory.join(&file.bfd.value.socket.value),
            bgp: transpose(bgp)?,
            backend_bfd: Arc::new(backend_bfd?),
            doubt,
            model: Model {
                services: services?,
            },
            hooks: hooks?,
            bindings: Arc::new(bindings),
            taking: None,
        })
    }
}

/// Says so when a restart would withdraw all routes for the sake of some addresses.
fn warn_unkept(file: &File, bindings: &Bindings, report: &mut Report) {
    let on_stop = file.dataplane.as_ref().map(|at| &at.value.on_stop);
    let stays = on_stop.filter(|at| at.value == OnStop::Keep);
    if let Some(stays) = stays
        && !bindings.is_empty()
        && file.stop.value.local.value == OnStop::Remove
    {
        let title = "forwarding stays when the agent stops, and addresses of this host do not: a \
                     restart withdraws all routes";
        report
            .warning(&stays.span, title)
            .help("add [stop] local = \"keep\", with which a restart withdraws nothing");
    }
}

impl Node {
    /// The name as configured, or the host name.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        self.name.clone().unwrap_or_else(|| {
            let host_name = fs::read_to_string("/proc/sys/kernel/hostname");
            host_name.as_deref().map_or("localhost", str::trim).into()
        })
    }
}

impl Dataplane {
    fn validate(
        written: &At<written::Dataplane>,
        vips: &Vips,
        report: &mut Report,
    ) -> Option<Self> {
        let table = &written.value;
        if let Some(At { value, span }) = &table.tunnel_source_ipv4 {
            vips.check_hosts((*value).into(), span, "the tunnel source", report);
        }
        if let Some(At { value, span }) = &table.tunnel_source_ipv6 {
            vips.check_hosts((*value).into(), span, "the tunnel source", report);
        }
        if table.pin_path.value.is_relative() {
            report
                .error(&table.pin_path.span, "the pin path is relative")
                .help("a directory on a BPF file system, for example \"/sys/fs/bpf/vipd\"");
        }
        let interfaces = table.interfaces.as_ref()?;
        if interfaces.value.is_empty() {
            report
                .error(
                    &interfaces.span,
                    "there is no interface for the XDP program",
                )
                .help("name the interfaces where packets arrive, for example [\"eth0\"]");
        }
        check_unique(interfaces.value.iter(), "interface", report);
        Some(Self {
            interfaces: interfaces.value.iter().map(|at| at.value.clone()).collect(),
            xdp_mode: table.xdp_mode.value,
            on_stop: table.on_stop.value,
            pin_path: table.pin_path.value.clone(),
            tunnel_source_ipv4: table.tunnel_source_ipv4.as_ref().map(|at| at.value),
            tunnel_source_ipv6: table.tunnel_source_ipv6.as_ref().map(|at| at.value),
            max_drop_rate: table.max_drop_rate.as_ref().map(|at| at.value.0),
        })
    }
}

impl File {
    /// Checks that the secrets it names can be read.
    pub(super) fn check_secrets(&self, directory: &Path, report: &mut Report) {
        let node = &self.node.value;
        let peers = self.bgp.iter().flat_map(|bgp| &bgp.value.peer.value);
        let passwords =
            peers.map(|peer| (&peer.value.password_file, peer.value.password(directory)));
        let secrets = [(&node.cluster_secret_file, node.cluster_secret(directory))];
        let secrets = secrets.into_iter().chain(passwords);
        let secrets = secrets.filter_map(|(written, secret)| written.as_ref().zip(secret));
        let peers = self.bgp.iter().flat_map(|bgp| &bgp.value.peer.value);
        let keys = peers.filter_map(|peer| peer.value.bfd_key(directory));
        let services = self.service.value.iter();
        let backend_keys = services.filter_map(|service| service.value.bfd_key(directory));
        for (written, secret) in secrets.chain(keys).chain(backend_keys) {
            if let Err(error) = secret.read() {
                report
                    .error(&written.span, error.to_string())
                    .help(error.help());
            }
        }
    }
}

impl File {
    /// Checks that the other files it names can be used.
    pub(super) fn check_files(&self, directory: &Path, report: &mut Report) {
        for service in &self.service.value {
            service.value.check.value.check_files(directory, report);
        }
        outside::check(self, directory, report);
    }
}

impl written::Node {
    fn cluster_secret(&self, directory: &Path) -> Option<SecretFile> {
        secret(
            self.cluster_secret_file.as_ref(),
            directory,
            CLUSTER_SECRET_MAX,
        )
    }
}

impl written::BgpPeer {
    pub(super) fn password(&self, directory: &Path) -> Option<SecretFile> {
        secret(self.password_file.as_ref(), directory, MD5_PASSWORD_MAX)
    }
}

fn secret(path: Option<&At<PathBuf>>, directory: &Path, max_len: usize) -> Option<SecretFile> {
    path.map(|path| SecretFile::new(directory.join(&path.value), max_len))
}

/// Says so when nobody will hear of the virtual addresses of a family.
fn warn_unannounced(vips: &Vips, bgp: Option<Option<&Bgp>>, report: &mut Report) {
    let announced = |family| match bgp {
        None => false,
        // What is wrong with [bgp] has been said.
        Some(None) => true,
        Some(Some(bgp)) => bgp.peers.iter().any(|peer| peer.families.has(family)),
    };
    for family in [Family::Ipv4, Family::Ipv6] {
        if let (false, Some((vip, span))) = (announced(family), vips.first(family)) {
            let name = family.name();
            report
                .warning(
                    span,
                    format!("{vip} will not be announced: no BGP peer takes {name} routes"),
                )
                .help(format!(
                    "add a [[bgp.peer]] for {name}, or announce it by other means"
                ));
        }
    }
}

/// Reports whatever stands twice in a list.
pub fn check_unique<'a, T: Ord + ToString + 'a>(
    list: impl Iterator<Item = &'a At<T>>,
    what: &str,
    report: &mut Report,
) {
    let mut seen = BTreeMap::new();
    for at in list {
        if let Some(first) = seen.insert(&at.value, &at.span) {
            let title = format!("{what} {} is not unique", at.value.to_string());
            report
                .error(&at.span, title)
                .related(first, "first here")
                .help("change or remove one of them");
            seen.insert(&at.value, first);
        }
    }
}

/// What may be missing, but must be right when it is there.
fn transpose<T>(validated: Option<Option<T>>) -> Option<Option<T>> {
    validated.map_or(Some(None), |inner| inner.map(Some))
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn share<T: PartialEq>(new: &mut [Arc<T>], old: &[Arc<T>]) {
    for item in new {
        if let Some(same) = old.iter().find(|old| *old == item) {
            *item = Arc::clone(same);
        }
    }
}
