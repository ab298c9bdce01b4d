//! The oldest kernel that vipd supports, Debian 12's 6.1, takes every program
//! and lets `vipd load` attach.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{Emulator, Guest, Vipd};

use crate::support::in_lab;

const CONFIG: &str = r#"
[node]
name = "lb1"

[dataplane]
interfaces = ["eth0"]

[[service]]
name = "web"
vips = ["198.51.100.10"]
protocol = "tcp"
port = 80
mode = "ipip"
[service.check]
type = "none"
[[service.backend]]
name = "b1"
address = "192.0.2.21"
"#;

/// What is done there, and words that each of it must print.
const COMMANDS: &[(&str, &[&str])] = &[
    (
        "/bin/load_all /objects",
        &["balancer, with its log", "decap", "pass"],
    ),
    (
        "/bin/ip link add eth0 type veth peer name peer0 address 02:00:00:00:00:21",
        &[],
    ),
    ("/bin/ip link set eth0 up", &[]),
    ("/bin/ip link set peer0 up", &[]),
    ("/bin/ip address add 192.0.2.11/24 dev eth0", &[]),
    (
        "/bin/ip neighbour add 192.0.2.21 dev eth0 lladdr 02:00:00:00:00:21",
        &[],
    ),
    (
        "/bin/vipd load --config /vipd.toml",
        &[
            "eth0: XDP program attached in native mode",
            "forwarded from now on",
        ],
    ),
    (
        "/bin/vipd decap attach --iface peer0 --from 192.0.2.0/24",
        &[],
    ),
    ("/bin/ip -details link show eth0", &["xdp"]),
    ("/bin/ip -details link show peer0", &["xdp"]),
];

/// All that vipd ever loads.
const OBJECTS: [&str; 5] = [
    "balancer",
    "balancer-explain",
    "balancer-capture",
    "decap",
    "pass",
];

#[test]
fn debians_6_1_takes_every_program_and_the_data_plane_attaches() {
    in_lab(|lab| {
        let emulator = Emulator::find()?;
        ensure!(
            emulator.version().starts_with("6.1."),
            "the kernel is {}",
            emulator.version()
        );
        let mut guest = Guest::new(&emulator, Path::new(env!("CARGO_BIN_EXE_guest_init")))?;
        guest.program("/bin/load_all", Path::new(env!("CARGO_BIN_EXE_load_all")))?;
        guest.program("/bin/vipd", &Vipd::binary()?)?;
        guest.program("/bin/ip", &ip()?)?;
        guest.file(
            "/modules/veth.ko",
            &read(&emulator.module("drivers/net/veth.ko"))?,
        );
        guest.file("/vipd.toml", CONFIG.as_bytes());
        let objects = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf");
        for name in OBJECTS {
            guest.file(&format!("/objects/{name}"), &read(&objects.join(name))?);
        }
        for (command, _) in COMMANDS {
            guest.command(command);
        }

        let host = lab.add_hosts(&["machine"])?.remove(0);
        let ran = guest.run(&host)?;
        for (ran, (command, words)) in ran.iter().zip(COMMANDS) {
            ensure!(ran.command == *command, "{ran:?} stands for {command}");
            ensure!(ran.success, "{command} failed:\n{}", ran.output);
            for word in *words {
                ensure!(ran.output.contains(word), "no {word:?} in {}", ran.output);
            }
        }
        Ok(())
    });
}

fn ip() -> Result<std::path::PathBuf> {
    ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"]
        .iter()
        .map(std::path::PathBuf::from)
        .find(|path| path.exists())
        .context("no `ip` here: run `cargo xtask setup`")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
