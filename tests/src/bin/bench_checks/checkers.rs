//! Who checks the backends: a process that was started for it and does nothing else.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{Host, Process, Vipd};

use crate::farm::{Farm, PORT, address};

/// Of vipd's services; each has as many backends as the others.
const PER_SERVICE: usize = 1000;
/// Between two checks of a backend. vipd's are not shifted at random, as HAProxy's
/// are not, so that it can be told which are late.
const TIMING: &str = "interval = \"1s\"\ntimeout = \"500ms\"\njitter = 0.0\n";

/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whom the backends are checked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    Vipd,
    /// With so many threads.
    Haproxy(u8),
}

/// One that runs.
pub enum Running {
    Vipd(Vipd),
    Haproxy(Process),
}

impl Checker {
    pub const ALL: [Self; 3] = [Self::Vipd, Self::Haproxy(1), Self::Haproxy(2)];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Vipd => "vipd",
            Self::Haproxy(1) => "HAProxy, 1 thread",
            Self::Haproxy(_) => "HAProxy, 2 threads",
        }
    }

    /// Starts it on the checking host.
    pub fn start(self, farm: &Farm) -> Result<Running> {
        let Farm {
            checker: host,
            backends,
            ..
        } = farm;
        let Self::Haproxy(threads) = self else {
            return Vipd::launch(host, &vipd_config(host, *backends)).map(Running::Vipd);
        };
        let config = host.write("haproxy.cfg", &haproxy_config(host, threads, *backends))?;
        // -db: one process, in the foreground.
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(config);
        host.spawn("haproxy", &mut command).map(Running::Haproxy)
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        match self {
            Self::Vipd(agent) => agent.pid(),
            Self::Haproxy(process) => process.pid(),
        }
    }

    /// Fails unless it finds so many backends up, and no other down.
    pub fn ensure_up(&self, backends: u32) -> Result<()> {
        let up = match self {
            Self::Vipd(agent) => up_by_vipd(&agent.status()?)?,
            Self::Haproxy(process) => up_by_haproxy(process.host())?,
        };
        ensure!(up == backends as usize, "{up} of {backends} are found up");
        Ok(())
    }

    /// Ends it, its data plane included, so that the next one meets none.
    pub fn end(&mut self) -> Result<()> {
        match self {
            Self::Vipd(agent) => agent.process().terminate(PATIENCE)?,
            Self::Haproxy(process) => process.terminate(PATIENCE)?,
        };
        Ok(())
    }

    /// How many checks it has made, and how many of them late, where it tells.
    pub fn own_count(&self) -> Result<Option<[u64; 2]>> {
        let Self::Vipd(agent) = self else {
            return Ok(None);
        };
        let checks = &agent.status()?["checks"];
        let counts = [checks["ended"].as_u64(), checks["late"].as_u64()];
        let [Some(ended), Some(late)] = counts else {
            return Ok(None);
        };
        Ok(Some([ended, late]))
    }
}

fn up_by_vipd(status: &Value) -> Result<usize> {
    let services = status["services"].as_array().context("no services")?;
    let backends = services
        .iter()
        .filter_map(|service| service["backends"].as_array())
        .flatten();
    Ok(backends.filter(|it| it["state"] == "up").count())
}

/// By `show stat`, one line of comma-separated values for each server.
fn up_by_haproxy(host: &Host) -> Result<usize> {
    let mut stream = UnixStream::connect(host.dir().join(SOCKET))?;
    stream.write_all(b"show stat farm 4 -1\n")?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    Ok(told.lines().filter(|line| line.contains(",UP,")).count())
}

/// Of HAProxy, in the host's directory.
const SOCKET: &str = "haproxy.sock";

fn vipd_config(host: &Host, backends: u32) -> String {
    let (dir, pins) = (host.dir(), host.pins().join("vipd"));
    let mut text = format!(
        "[control]\nsocket = \"{}/vipd.sock\"\n\
         [log]\nlevel = \"warn\"\n\
         [dataplane]\ninterfaces = [\"eth0\"]\npin_path = \"{}\"\n",
        dir.display(),
        pins.display()
    );
    let all: Vec<u32> = (0..backends).collect();
    for (number, members) in all.chunks(PER_SERVICE).enumerate() {
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "[[service]]\nname = \"farm{number}\"\nvips = [\"198.51.100.{}\"]\n\
             protocol = \"tcp\"\nport = {PORT}\nmode = \"ipip\"\nring_size = 8192\n\
             [service.check]\ntype = \"tcp\"\n{TIMING}",
            number + 1
        );
        for member in members {
            let address = address(*member);
            let _ = write!(
                text,
                "[[service.backend]]\nname = \"b{member}\"\naddress = \"{address}\"\n"
            );
        }
    }
    text
}

fn haproxy_config(host: &Host, threads: u8, backends: u32) -> String {
    let socket = host.dir().join(SOCKET);
    let mut text = format!(
        "global\n    nbthread {threads}\n    stats socket {}\n\
         defaults\n    mode tcp\n    timeout connect 500ms\n    timeout check 500ms\n    \
         timeout client 30s\n    timeout server 30s\n\
         frontend none\n    bind 127.0.0.1:{PORT}\n    default_backend farm\n\
         backend farm\n    default-server check inter 1s rise 2 fall 3\n",
        socket.display()
    );
    for number in 0..backends {
        let address = address(number);
        // Writing into a string cannot fail.
        let _ = writeln!(text, "    server b{number} {address}:{PORT}");
    }
    text
}
