//! `vipd bfd` on a host, and what it says of its sessions.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use vipd::bfd::{
    protocol::{Request, Session, State, Status, line},
    show,
};

use crate::{
    bird::time_of_day,
    host::Host,
    process::Process,
    vipd::{Vipd, with_rights_of},
    wait::{STARTING, wait_until},
};

/// Lines of `[bgp.peer.bfd]` where it does not matter how soon a death is
/// noticed: a busy machine may be silent for a second.
pub const BFD_TIMING: &str = "min_tx = \"100ms\"\nmin_rx = \"100ms\"\nmultiplier = 20\n";
/// The same in BIRD's words.
pub const BIRD_BFD_TIMING: &str = "min rx interval 100 ms; min tx interval 100 ms; multiplier 20;";
/// The same in FRR's words, for a peer or a profile.
pub const FRR_BFD_TIMING: &str =
    "  detect-multiplier 20\n  receive-interval 100\n  transmit-interval 100\n";

/// A running BFD process.
#[derive(Debug)]
pub struct Bfd {
    host: Host,
    socket: PathBuf,
    process: Process,
}

/// What BIRD says of a BFD session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BirdBfd {
    /// `Up`, `Down`, ..
    pub state: String,
    /// When it came into this state; see [`crate::BirdSession::since`].
    pub since: Option<Duration>,
    /// Between its packets, in seconds, as BIRD prints it.
    pub interval: String,
}

/// A connection to the BFD process, by which it takes us for the agent.
#[derive(Debug)]
pub struct Attendance {
    stream: UnixStream,
}

impl Bfd {
    /// Starts it, with its socket in the host's directory, and returns when it
    /// answers. A `config` without `[bfd]` gets one.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        Self::spawn(host, config, Command::new(Vipd::binary()?))
    }

    /// The same, with no more capabilities than the packaged unit leaves it.
    pub fn start_with_rights_of_unit(host: &Host, config: &str) -> Result<Self> {
        Self::spawn(host, config, with_rights_of("vipd-bfd.service")?)
    }

    fn spawn(host: &Host, config: &str, mut command: Command) -> Result<Self> {
        let socket = host.dir().join("bfd.sock");
        let file = host.write("vipd.toml", &with_socket(host, config))?;
        command.arg("bfd").arg("--config").arg(file);
        let process = host.spawn("bfd", &mut command)?;
        let host = host.clone();
        let mut bfd = Self {
            host,
            socket,
            process,
        };
        wait_until("vipd bfd answers", STARTING, || {
            if bfd.process.exited()?.is_some() {
                bail!("it has ended: {}", bfd.process.log());
            }
            bfd.status()
        })?;
        Ok(bfd)
    }

    /// What `vipd show bfd` shows.
    pub fn status(&self) -> Result<Status> {
        show::ask(&self.socket)
    }

    /// The session of that name.
    pub fn session(&self, name: &str) -> Result<Session> {
        let status = self.status()?;
        let mut sessions = status.sessions.into_iter();
        let found = sessions.find(|session| session.name == name);
        found.with_context(|| format!("no session {name}"))
    }

    /// Fails, telling how it is, unless the session is in this state.
    pub fn ensure(&self, name: &str, state: State) -> Result<Session> {
        let session = self.session(name)?;
        ensure!(session.state == state, "{session:?}");
        Ok(session)
    }

    /// Waits until the session is in this state.
    pub fn wait_for(&self, name: &str, state: State) -> Result<Session> {
        let sentence = format!("{name} is {state:?}");
        wait_until(&sentence, Duration::from_secs(20), || {
            self.ensure(name, state)
        })
    }

    /// Waits until the session is down for a reason with these words in it.
    pub fn wait_for_reason(&self, name: &str, words: &str) -> Result<Session> {
        let sentence = format!("{name} is down: {words}");
        wait_until(&sentence, Duration::from_secs(20), || {
            let session = self.session(name)?;
            ensure!(
                session.state != State::Up && session.why.contains(words),
                "{session:?}"
            );
            Ok(session)
        })
    }

    /// Writes a configuration and asks for it by SIGHUP.
    pub fn reload(&self, config: &str) -> Result<()> {
        self.host
            .write("vipd.toml", &with_socket(&self.host, config))?;
        self.process.signal(Signal::HUP)
    }

    /// Plays the agent, until the value is dropped.
    pub fn attend(&self) -> Result<Attendance> {
        let mut attendance = Attendance {
            stream: UnixStream::connect(&self.socket)?,
        };
        attendance.ask(&Request::Attend)?;
        Ok(attendance)
    }

    /// The process, to be stopped or killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Attendance {
    /// Asks for something and waits for a line.
    pub fn ask(&mut self, request: &Request) -> Result<String> {
        self.stream
            .set_read_timeout(Some(Duration::from_secs(10)))?;
        self.stream.write_all(&line(request))?;
        let mut answer = String::new();
        BufReader::new(&self.stream).read_line(&mut answer)?;
        Ok(answer)
    }
}

impl BirdBfd {
    /// BIRD's protocol for sessions that BGP asks for.
    pub fn protocol() -> String {
        format!("protocol bfd {{ interface \"*\" {{ {BIRD_BFD_TIMING} }}; }}\n")
    }

    /// Reads `show bfd sessions`:
    ///
    /// ```text
    /// IP address                Interface  State      Since         Interval  Timeout
    /// 192.0.2.11                rack0      Up         12:00:00.123    0.100    0.500
    /// ```
    pub(crate) fn parse(text: &str, address: &str) -> Option<Self> {
        let words = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut words = words.filter(|words| words.first() == Some(&address));
        match words.next()?[..] {
            [_, _, state, since, interval, _] => Some(Self {
                state: state.to_owned(),
                since: time_of_day(since),
                interval: interval.to_owned(),
            }),
            _ => None,
        }
    }
}

fn with_socket(host: &Host, config: &str) -> String {
    if config.contains("[bfd]\n") {
        return config.to_owned();
    }
    format!(
        "{config}\n[bfd]\nsocket = \"{}/bfd.sock\"\n",
        host.dir().display()
    )
}
