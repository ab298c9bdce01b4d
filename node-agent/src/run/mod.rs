//! Programs of the operator's: run without a shell, as another user, with no rights
//! of ours, in a process group of their own, and within bounds: so many at once,
//! so long each, so much of what they say.
//!
//! The time of a program begins when it is to be run: whatever this host takes to make
//! room, to look up the user, to start it and to end it is part of it.

pub mod fitness;
mod identity;
#[cfg(test)]
pub mod tests;
mod users;

use std::{
    fmt,
    io::{self, pipe},
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    process::{self, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::{
    io::{AsyncReadExt as _, unix::AsyncFd},
    net::unix::pipe::Receiver,
    process::{Child, Command},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{timeout, timeout_at},
};
use vipd_control::model::Program;

use self::{
    identity::Identity,
    users::{LookUp, Users},
};

/// Octets that are kept of what a program says; the rest is read and forgotten.
const OUTPUT_MAX: usize = 256;

/// Where a program that is named without a path is looked for by those that we run.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is killed ends in this time, unless it hangs in the kernel.
const END: Duration = Duration::from_millis(500);

/// Runs programs, so many at once.
#[derive(Debug)]
pub struct Runner {
    most: usize,
    room: Arc<Semaphore>,
    users: Users,
    start: Start,
}

/// Starts a program as somebody.
type Start = fn(process::Command, Identity) -> Result<Running, NotRun>;

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it has ended.
    pub ending: Ending,
    /// The beginning of what it said, on one line; may be empty.
    pub output: String,
}

/// How a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code; 0 is success.
    Exited(u8),
    /// By a signal that was not ours.
    Signalled(i32),
    /// Its time was over, and it was killed.
    TimedOut,
    /// The same, and it has not ended by that.
    Stuck,
}

/// Why a program was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// It is not there, or is no program, for example.
    Unstartable(String),
    /// Our own fault: what rights or resources we lack.
    Unable(String),
}

impl Runner {
    /// One that runs at most so many programs at once.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self::with(most, Identity::of, start)
    }

    fn with(most: usize, look_up: LookUp, start: Start) -> Self {
        Self {
            most,
            room: Arc::new(Semaphore::new(most)),
            users: Users::new(look_up),
            start,
        }
    }

    /// Forgets who users are: they are looked up anew.
    pub fn forget_users(&self) {
        self.users.forget();
    }

    /// Runs a program to its end, at most for the time given, and kills what is left
    /// of its process group then. When this is dropped, the program is killed.
    ///
    /// The environment is that of the program's configuration, `environment` and
    /// `PATH`, each with precedence over the next.
    ///
    /// # Errors
    ///
    /// When it was not run, or not for as long as it should have been, by this host's
    /// fault.
    pub async fn run(
        &self,
        program: &Program,
        environment: &[(&str, String)],
        within: Duration,
    ) -> Result<Ran, NotRun> {
        let asked = Instant::now();
        let deadline = asked + within;
        let room = Arc::clone(&self.room).acquire_owned();
        let Ok(Ok(room)) = timeout_at(deadline.into(), room).await else {
            let most = self.most;
            let words = format!("{most} programs run already, and none of them came to its end");
            return Err(NotRun::Unable(words));
        };
        let identity = self.users.identity(&program.user, deadline).await;
        let identity = identity.map_err(NotRun::Unable)?;
        let command = command(program, environment);
        let path = command.get_program().display().to_string();
        let start = self.start;
        // A fork of this process may take milliseconds, and what is on a file system that
        // does not answer for ever. If it starts after all it is killed, and the room
        // that it takes is free only then.
        let started = spawn_blocking(move || Ok((start(command, identity)?, room)));
        let (running, room) = match timeout_at(deadline.into(), started).await {
            Ok(started) => started.map_err(|error| unable(&error))??,
            Err(_) => {
                let words = format!("cannot start {path} in time: its file system does not answer");
                return Err(NotRun::Unable(words));
            }
        };
        let waited = asked.elapsed();
        let ran = running.finish(deadline, room).await;
        let ran = ran.map_err(|error| unable(&error))?;
        match ran.ending {
            Ending::TimedOut | Ending::Stuck if waited > within / 2 => {
                Err(NotRun::Unable(format!(
                    "{ran}; of its time {:.1} s had passed before it could be started",
                    waited.as_secs_f64()
                )))
            }
            _ => Ok(ran),
        }
    }
}

fn unable(error: &impl fmt::Display) -> NotRun {
    NotRun::Unable(format!("cannot run a program: {error}"))
}

fn command(program: &Program, environment: &[(&str, String)]) -> process::Command {
    let mut words = program.command.iter();
    let mut command = process::Command::new(words.next().map_or("", String::as_str));
    command.args(words).current_dir("/").env_clear();
    command.env("PATH", PATH);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let own = program.environment.iter();
    command.envs(own.map(|(name, value)| (name, value)));
    command.stdin(Stdio::null());
    command
}

/// A program that was started.
struct Running {
    /// Its process group, which has the number of the process. It goes before the
    /// process, whose number may be another's then.
    group: Group,
    child: Child,
    output: OwnedFd,
}

/// A process group whose first process has not been waited for, so that its number
/// is nobody else's. It is killed when dropped.
struct Group(Option<Pid>);

fn start(mut command: process::Command, identity: Identity) -> Result<Running, NotRun> {
    use std::os::unix::process::CommandExt as _;

    let (output, said) = pipe().map_err(|error| unable(&error))?;
    let errors = said.try_clone().map_err(|error| unable(&error))?;
    command.stdout(said).stderr(errors).process_group(0);
    // SAFETY: it makes system calls only, with what is on its stack and in the
    // identity, which was made before the fork.
    unsafe { command.pre_exec(move || identity.assume()) };
    let path = command.get_program().display().to_string();
    // Our ends of the pipe go with the command, or its end would never be seen.
    let child = Command::from(command).spawn();
    let child = child.map_err(|error| match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => unable(&error),
        _ => NotRun::Unstartable(format!("cannot start {path}: {error}")),
    })?;
    let number = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    Ok(Running {
        group: Group(number),
        child,
        output: output.into(),
    })
}

impl Running {
    async fn finish(mut self, deadline: Instant, room: OwnedSemaphorePermit) -> io::Result<Ran> {
        let mut said = Vec::with_capacity(OUTPUT_MAX);
        let mut output = Receiver::from_owned_fd(self.output)?;
        let in_time = timeout_at(deadline.into(), async {
            tokio::select! {
                ended = self.group.ended() => ended,
                never = listen(&mut output, &mut said) => match never {},
            }
        })
        .await;
        // Whoever it has left behind, while its number cannot be another's.
        self.group.kill();
        let mut child = self.child;
        let ended = timeout(END, child.wait()).await;
        while said.len() < OUTPUT_MAX && matches!(output.try_read_buf(&mut said), Ok(1..)) {}
        said.truncate(OUTPUT_MAX);
        let output = one_line(&said);
        let Ok(status) = ended else {
            // It takes its room until it ends.
            tokio::spawn(async move {
                let _ended = child.wait().await;
                drop(room);
            });
            let ending = Ending::Stuck;
            return Ok(Ran { ending, output });
        };
        let status = status?;
        let ending = match (in_time, status.code(), status.signal()) {
            (Err(_), ..) => Ending::TimedOut,
            (Ok(ended), code, signal) => {
                ended?;
                let code = code.map(|code| Ending::Exited(u8::try_from(code).unwrap_or(u8::MAX)));
                code.unwrap_or(Ending::Signalled(signal.unwrap_or_default()))
            }
        };
        Ok(Ran { ending, output })
    }
}

impl Group {
    /// Waits for the end of its first process, which stays to be waited for.
    async fn ended(&self) -> io::Result<()> {
        let Some(first) = self.0 else { return Ok(()) };
        let process = pidfd_open(first, PidfdFlags::empty())?;
        // SAFETY: the descriptor is owned, and closed by nobody else.
        let process = unsafe { AsyncFd::register(process) }.map_err(io::Error::from)?;
        process.readable().await.map(drop)
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // All of it may have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes in what a program says, so that it never waits for us, and keeps the
/// beginning.
async fn listen(output: &mut Receiver, said: &mut Vec<u8>) -> std::convert::Infallible {
    let mut piece = [0; 4096];
    loop {
        match output.read(&mut piece).await {
            Ok(length @ 1..) => {
                let room = OUTPUT_MAX.saturating_sub(said.len());
                said.extend_from_slice(&piece[..length.min(room)]);
            }
            // It has closed its output, and may run on.
            Ok(0) | Err(_) => std::future::pending().await,
        }
    }
}

/// What was said as one line without anything that a terminal would obey.
fn one_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// `exit code 1: no answer`, `killed by signal 11`, `not finished in time, killed`.
impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ending {
            Ending::Exited(code) => write!(f, "exit code {code}")?,
            Ending::Signalled(signal) => write!(f, "killed by signal {signal}")?,
            Ending::TimedOut => f.write_str("not finished in time, killed")?,
            Ending::Stuck => f.write_str("not finished in time, killed, and still not ended")?,
        }
        if !self.output.is_empty() {
            write!(f, ": {}", self.output)?;
        }
        Ok(())
    }
}

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unstartable(words) | Self::Unable(words)) = self;
        f.write_str(words)
    }
}
