//! nginx on a backend, which answers every request with its host's name.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{
    host::Host,
    process::Process,
    wait::{STARTING, wait_until},
};

/// A web server on port 80 of all addresses: `/` answers with the host's name,
/// `/healthz` with `ok`. Connections are kept alive without limit.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
}

impl Nginx {
    /// Starts it, and returns when it listens.
    pub fn start(host: &Host) -> Result<Self> {
        Self::run(host, host.name(), "")
    }

    /// The same with these further `server` blocks.
    pub fn start_with(host: &Host, servers: &str) -> Result<Self> {
        Self::run(host, host.name(), servers)
    }

    /// The same with another line as its answer to `/`.
    pub fn saying(host: &Host, line: &str) -> Result<Self> {
        Self::run(host, line, "")
    }

    fn run(host: &Host, line: &str, servers: &str) -> Result<Self> {
        let config = host.write("nginx.conf", &config(host, line, servers))?;
        let dir = host.dir();
        let mut command = Command::new("nginx");
        command.arg("-e").arg(dir.join("nginx-error.log"));
        command.arg("-p").arg(&dir).arg("-c").arg(config);
        let mut process = host.spawn("nginx", &mut command)?;
        wait_until("nginx listens", STARTING, || {
            process.ensure_running()?;
            let sockets = host.run("ss", &["-Hltn", "sport = :80"])?;
            ensure!(sockets.contains("0.0.0.0:80"), "sockets: {sockets:?}");
            Ok(())
        })?;
        Ok(Self { process })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it with SIGKILL: the kernel refuses its port from then on.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}

/// One process, so that its number is all there is to kill.
fn config(host: &Host, line: &str, servers: &str) -> String {
    let dir = host.dir();
    let dir = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("    {kind}_temp_path {dir}/{kind};\n"))
        .collect();
    format!(
        "daemon off;
master_process off;
pid {dir}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
{temporary}
    server {{
        listen 80 backlog=4096;
        listen [::]:80 ipv6only=on backlog=4096;
        location = /healthz {{ return 200 \"ok\\n\"; }}
        location / {{ return 200 \"{line}\\n\"; }}
    }}
{servers}}}
"
    )
}
