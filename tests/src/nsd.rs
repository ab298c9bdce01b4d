//! NSD on a backend: an authoritative DNS server with one zone.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{
    host::Host,
    process::Process,
    wait::{STARTING, wait_until},
};

/// A DNS server on port 53 of all addresses, by UDP and TCP.
#[derive(Debug)]
pub struct Nsd {
    process: Process,
}

impl Nsd {
    /// Starts it with the records of `example.com`, one on each line, and returns when
    /// it listens.
    pub fn start(host: &Host, records: &str) -> Result<Self> {
        host.write("example.com.zone", &zone(records))?;
        let config = host.write("nsd.conf", &config(host))?;
        let mut command = Command::new("nsd");
        command.arg("-d").arg("-c").arg(config);
        let process = host.spawn("nsd", &mut command);
        let process = process.context("is nsd installed? `cargo xtask setup` does it")?;
        let mut nsd = Self { process };
        wait_until("nsd listens", STARTING, || {
            nsd.process.ensure_running()?;
            let sockets = host.run("ss", &["-Hlntu", "sport = :53"])?;
            let (udp, tcp) = (sockets.contains("udp"), sockets.contains("tcp"));
            ensure!(udp && tcp, "sockets: {sockets:?}");
            Ok(())
        })?;
        Ok(nsd)
    }
}

fn zone(records: &str) -> String {
    format!(
        "$ORIGIN example.com.
$TTL 60
@ IN SOA ns.example.com. admin.example.com. 1 3600 600 86400 60
@ IN NS ns.example.com.
ns IN A 192.0.2.21
{records}"
    )
}

fn config(host: &Host) -> String {
    let dir = host.dir();
    let dir = dir.display();
    format!(
        "server:
    ip-address: 0.0.0.0
    ip-address: ::0
    server-count: 1
    username: \"\"
    database: \"\"
    pidfile: \"{dir}/nsd.pid\"
    zonesdir: \"{dir}\"
    zonelistfile: \"{dir}/zone.list\"
    xfrdfile: \"{dir}/xfrd.state\"
    xfrdir: \"{dir}\"
remote-control:
    control-enable: no
zone:
    name: example.com
    zonefile: example.com.zone
"
    )
}
