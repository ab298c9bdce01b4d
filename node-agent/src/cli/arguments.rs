//! What can be written on the command line.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    api::Client,
    capture::client as capture,
    config::{self, InterfaceName, XdpMode},
    dataplane::kernel::Mode,
    explain::{self, Transport},
    overrides::Target,
    plane,
};

/// Where the configuration is by default.
const CONFIG: &str = "/etc/vipd/vipd.toml";
/// Where the control socket is by default.
const SOCKET: &str = "/run/vipd/vipd.sock";
/// Where the socket of the BFD process is by default.
const BFD_SOCKET: &str = "/run/vipd/bfd.sock";
/// Where the decapsulator is pinned by default.
const DECAP_PINS: &str = "/sys/fs/bpf/vipd-decap";

const DRAIN_EXIT_CODES: &str = "\
Exit codes:
  0  drained; with --wait: and no flow is left, or its deadline has come
  1  refused, or with --wait: it is not drained any more
  3  with --timeout: there may be flows yet; it stays drained
  4  with --wait: the agent has not answered for a minute, or until the time-out";

const MAINT_EXIT_CODES: &str = "\
Exit codes:
  0  the node is out of service, or with --end: back
  1  the agent cannot be reached, the maintenance was ended meanwhile, or the
     agent has left something behind
  3  packets still arrive, or nobody can tell; the node stays announced, worse
     than others
  4  the agent has not answered for a minute; the node stays in maintenance";

const DOCTOR_EXIT_CODES: &str = "\
Exit codes:
  0  nothing that needs to be mended
  1  some traffic may be lost
  2  traffic is lost, or would be
  3  it could not look";

const CHECK_ONCE_EXIT_CODES: &str = "\
Exit codes, as of monitoring plugins:
  0  OK: every backend has passed
  1  WARNING: some have passed, and some have failed
  2  CRITICAL: some have failed, and none has passed
  3  UNKNOWN: a check could not be made, or there is none";

/// Keeps virtual IPs alive.
#[derive(Parser)]
#[command(version)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Runs the agent in the foreground until SIGTERM or SIGINT.
    Run {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Runs the BFD sessions in the foreground until SIGTERM or SIGINT, beside the
    /// agent, whose end they outlive.
    Bfd {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Checks configuration files and says everything that is wrong with them.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Checks the backends of a service once, now, as the agent would, and without
    /// one.
    #[command(after_help = CHECK_ONCE_EXIT_CODES)]
    CheckOnce {
        /// The service, or one of its backends.
        #[arg(value_name = "SERVICE[/BACKEND]")]
        target: String,
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Looks for what is wrong with this host, the way to the backends and the
    /// backends themselves; says how to mend it. Changes nothing.
    #[command(after_help = DOCTOR_EXIT_CODES)]
    Doctor {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows what the agent does, and why.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// Shows all of one subject.
    #[command(subcommand)]
    Show(Show),
    /// Tells what the living data plane does with the packets of a flow, and
    /// why. Changes nothing.
    Explain {
        /// The client: ADDRESS:PORT.
        #[arg(value_parser = explain::socket_address)]
        source: SocketAddr,
        /// The virtual address and port: ADDRESS:PORT.
        #[arg(value_parser = explain::socket_address)]
        destination: SocketAddr,
        /// The transport protocol.
        #[arg(default_value = "tcp")]
        protocol: Transport,
        /// A packet that opens a flow, rather than one of a flow that goes on.
        #[arg(long)]
        syn: bool,
        /// The interface it comes by; the first configured one by default.
        #[arg(long)]
        iface: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// Shows packets as they come and leave, each with its verdict, service and
    /// backend. One capture at a time; costs nothing when none runs.
    Capture {
        #[command(flatten)]
        filter: capture::Filter,
        /// Write a pcapng file, which Wireshark opens, instead of lines.
        #[arg(long)]
        write: Option<PathBuf>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Has the agent load its configuration anew; a bad one changes nothing.
    Reload {
        #[command(flatten)]
        socket: Socket,
    },
    /// Takes a backend out of service without breaking what it serves: new
    /// flows go to others, old ones stay until they end.
    #[command(after_help = DRAIN_EXIT_CODES)]
    Drain {
        /// The backend.
        #[arg(value_name = "SERVICE/BACKEND", value_parser = Target::parse_backend)]
        target: Target,
        /// After so long it leaves, although flows remain; for example 10m.
        #[arg(long, value_name = "DURATION", value_parser = deadline)]
        deadline: Option<Duration>,
        /// Waits until it has no flow left, and tells how many it has.
        #[arg(long)]
        wait: bool,
        /// Waits no longer than that.
        #[arg(long, value_name = "SECONDS", requires = "wait")]
        timeout: Option<u64>,
        /// Also when the service then has too few backends.
        #[arg(long)]
        force: bool,
        /// Why, for whoever asks later.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Gives a drained backend new flows again.
    Undrain {
        /// The backend.
        #[arg(value_name = "SERVICE/BACKEND", value_parser = Target::parse_backend)]
        target: Target,
        #[command(flatten)]
        socket: Socket,
    },
    /// Takes a backend out of service at once: it takes no traffic and its flows
    /// end, while checks go on. Or a whole service: its addresses are announced as
    /// disabled, which is withdrawn unless rules say otherwise.
    Disable {
        /// The service or backend.
        #[arg(value_name = "SERVICE[/BACKEND]")]
        target: Target,
        /// Also when the service then has too few backends.
        #[arg(long)]
        force: bool,
        /// Why, for whoever asks later.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Ends what `vipd disable` has done.
    Enable {
        /// The service or backend.
        #[arg(value_name = "SERVICE[/BACKEND]")]
        target: Target,
        #[command(flatten)]
        socket: Socket,
    },
    /// Lists what is drained or disabled, by whom and why; or ends it.
    Overrides {
        /// Ends what was ordered about this service or backend, or all of it.
        #[arg(long, value_name = "SERVICE[/BACKEND]")]
        clear: Option<Option<Target>>,
        /// As JSON.
        #[arg(long, conflicts_with = "clear")]
        json: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// Tells why a virtual address, service, backend or peer is as it is: in a
    /// sentence, and by what has happened, step by step.
    Why {
        /// A virtual address or aggregate, a service, a backend as SERVICE/BACKEND,
        /// or a BGP peer by its name or address.
        subject: String,
        /// The last so many changes.
        #[arg(long, value_name = "N", default_value_t = 5)]
        last: usize,
        /// No older than that; for example 10m.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        since: Option<Duration>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Prints what has happened, a line for each event, as far as it is
    /// remembered.
    Events {
        /// As JSON, an object in each line.
        #[arg(long)]
        json: bool,
        /// Goes on with what happens from now on.
        #[arg(long)]
        follow: bool,
        /// No older than that; for example 10m.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        since: Option<Duration>,
        #[command(flatten)]
        socket: Socket,
    },
    /// Takes the whole node out of service without losing a packet: routers are
    /// told to prefer other ways, and once they do the routes are withdrawn and the
    /// agent stops.
    #[command(after_help = MAINT_EXIT_CODES)]
    Maint {
        /// How long routers may take to go elsewhere.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
        /// Withdraws all the same when packets still arrive then.
        #[arg(long)]
        force: bool,
        /// Goes back to how it was, as long as the node has not left.
        #[arg(long, conflicts_with_all = ["force", "timeout"])]
        end: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// Loads, attaches and pins the XDP program, fills it with every backend
    /// taken for healthy, and leaves. An agent can take over later.
    Load {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// Attach here instead of where the configuration says.
        #[arg(long)]
        iface: Vec<InterfaceName>,
        /// Attach in this mode instead of the one in the configuration.
        #[arg(long)]
        mode: Option<ModeArgument>,
    },
    /// Takes away a data plane that no agent runs.
    Unload {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// The decapsulator, on a backend whose kernel has no such tunnel.
    #[command(subcommand)]
    Decap(Decap),
}

#[derive(Subcommand)]
pub(super) enum Show {
    /// The BGP sessions in a table, or everything of one.
    Bgp {
        /// The peer, by its name or address.
        peer: Option<String>,
        /// As JSON, with everything.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// The BFD sessions, and why they are not up.
    Bfd {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// The socket of the BFD process.
        #[arg(long, default_value = BFD_SOCKET)]
        socket: PathBuf,
    },
}

/// A duration as in the configuration.
fn duration(text: &str) -> Result<Duration, &'static str> {
    config::parse_duration(text)
        .ok_or("a duration is a whole number with ms, s, m or h, such as 10m")
}

/// A duration that leaves time.
fn deadline(text: &str) -> Result<Duration, &'static str> {
    let duration = duration(text)?;
    match duration.is_zero() {
        true => Err("that is no time at all: `vipd disable` takes a backend out at once"),
        false => Ok(duration),
    }
}

/// A prefix, or an address for itself.
fn network(text: &str) -> Result<IpNet, &'static str> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse().or_else(|_| address());
    network.map_err(|_| "an address or prefix, such as 192.0.2.11 or 192.0.2.0/26")
}

#[derive(clap::Args)]
pub(super) struct Socket {
    /// The agent's control socket.
    #[arg(long, default_value = SOCKET)]
    pub(super) socket: PathBuf,
}

impl Socket {
    pub(super) fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

#[derive(Subcommand)]
pub(super) enum Decap {
    /// Attaches it; it stays until `detach`.
    Attach {
        /// The interface packets arrive by.
        #[arg(long)]
        iface: String,
        /// Addresses or prefixes of the balancers; packets from elsewhere are dropped.
        #[arg(long, required = true, value_name = "ADDRESS|PREFIX", value_parser = network)]
        from: Vec<IpNet>,
        /// UDP port that GUE comes to.
        #[arg(long, default_value_t = vipd_abi::GUE_PORT)]
        gue_port: u16,
        /// Where it runs.
        #[arg(long, default_value = "native")]
        mode: ModeArgument,
        /// Where it is pinned.
        #[arg(long, default_value = DECAP_PINS)]
        pin_path: PathBuf,
    },
    /// Takes it off.
    Detach {
        /// The interface; all of them when not given.
        #[arg(long)]
        iface: Option<String>,
        /// Where it is pinned.
        #[arg(long, default_value = DECAP_PINS)]
        pin_path: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum ModeArgument {
    Native,
    Generic,
}

impl From<ModeArgument> for XdpMode {
    fn from(mode: ModeArgument) -> Self {
        match mode {
            ModeArgument::Native => Self::Native,
            ModeArgument::Generic => Self::Generic,
        }
    }
}

impl From<ModeArgument> for Mode {
    fn from(mode: ModeArgument) -> Self {
        plane::mode(mode.into())
    }
}
