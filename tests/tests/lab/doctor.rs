//! `vipd doctor` before faults that are planted one by one: it names each, and
//! the command that it prints takes the fault away.

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use vipd_tests::{
    AgentConfig, CLIENT_IPV4, Host, Lab, Nginx, Rack, Size, Vipd, connect, pass_object,
    start_servers, wait_until,
};

use crate::{
    orders,
    support::{PATIENCE, VIP, in_lab},
};

/// Its packets are not tunnelled.
const ON_LINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
/// An address that the balancer has too.
const BOUND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 12);

/// Where a fault is planted.
#[derive(Clone, Copy)]
enum Place {
    Balancer,
    Backend,
}

use Place::{Backend, Balancer};

/// A fault: the name of its finding, where it is, and the shell command that
/// plants it. `$BPF` is the BPF file system, `$PINS` the place of other pins, `$PASS`
/// an XDP program of others.
const FAULTS: [(&str, Place, &str); 12] = [
    ("mtu", Balancer, "ip link set eth0 mtu 1500"),
    (
        "arp",
        Balancer,
        "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0",
    ),
    (
        "forwarding",
        Balancer,
        "sysctl -w net.ipv4.conf.all.forwarding=1",
    ),
    (
        "multipath-hash",
        Balancer,
        "sysctl -w net.ipv4.fib_multipath_hash_policy=0",
    ),
    (
        "neighbour-fixed",
        Balancer,
        "ip neighbour replace 192.0.2.21 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
    ),
    (
        "port-blocked",
        Balancer,
        "nft 'add table inet filter; \
         add chain inet filter input { type filter hook input priority 0; }; \
         add rule inet filter input tcp dport 179 drop'",
    ),
    (
        "xdp",
        Balancer,
        "ip link set dev eth0 xdpdrv object $PASS section xdp",
    ),
    (
        "xdp",
        Balancer,
        "ip link set dev eth0 xdpgeneric object $PASS section xdp",
    ),
    (
        "xdp",
        Balancer,
        "vipd decap attach --iface eth0 --from 192.0.2.99/32 --pin-path $PINS/decap",
    ),
    ("bpf-fs", Balancer, "umount $BPF"),
    (
        "vip-missing",
        Backend,
        "ip address del 198.51.100.10/32 dev lo",
    ),
    (
        "decapsulation-missing",
        Backend,
        "vipd decap detach --iface eth0 --pin-path $PINS/decap",
    ),
];

#[test]
fn the_doctor_names_each_fault_and_its_command_mends_it() {
    in_lab(|lab| {
        let ward = Ward::build(lab)?;
        ensure!(ward.findings()? == [""; 0], "{:?}", ward.report()?);
        for (name, place, plant) in FAULTS {
            ward.treat(name, place, plant)
                .with_context(|| format!("{name}, by {plant}"))?;
        }
        Ok(())
    });
}

/// The same on a host that serves its address itself, without a data plane.
const FAULTS_OF_A_SERVER: [(&str, &str); 3] = [
    (
        "arp",
        "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0",
    ),
    (
        "arp",
        "ip address flush dev lo to 198.51.100.10/32 && ip address add 198.51.100.10/32 dev eth0",
    ),
    (
        "port-blocked",
        "nft 'add table inet filter; \
         add chain inet filter input { type filter hook input priority 0; policy drop; }; \
         add rule inet filter input ct state established accept'",
    ),
];

#[test]
fn a_host_that_serves_its_address_itself_is_looked_at_too() {
    in_lab(|lab| {
        let ward = Ward::of_a_server(lab)?;
        ensure!(ward.findings()? == [""; 0], "{:?}", ward.report()?);
        let report = ward.report_after("PATH=${PATH%%:*}")?;
        ensure!(names(&report) == ["filter-unread"], "without nft: {report}");
        ensure!(
            find(&report, "filter-unread")?["severity"] == "info",
            "{report}"
        );
        for (name, plant) in FAULTS_OF_A_SERVER {
            ward.treat(name, Balancer, plant)
                .with_context(|| format!("{name}, by {plant}"))?;
        }
        Ok(())
    });
}

#[test]
fn an_interface_that_has_lost_its_program_is_found_while_the_agent_runs() {
    in_lab(|lab| {
        let ward = Ward::build(lab)?;
        let host = &ward.rack.balancers[0].host;
        let anew = "ip link add extra0 type veth peer name extra1 && ip link set extra1 up && \
                    ip link set extra0 up";
        ward.shell(host, anew)?;
        let text = std::fs::read_to_string(&ward.config)?;
        let text = text.replace("[\"eth0\"]", "[\"eth0\", \"extra0\"]");
        let _agent = Vipd::start(host, &text)?;
        wait_until("nothing is wrong", PATIENCE, || {
            ensure!(ward.findings()? == [""; 0], "{:?}", ward.report()?);
            Ok(())
        })?;
        ward.treat("xdp", Balancer, &format!("ip link del extra0 && {anew}"))
    });
}

#[test]
fn a_filter_that_drops_what_comes_by_another_interface_is_found() {
    in_lab(|lab| {
        let ward = Ward::of_a_server(lab)?;
        let client = &ward.rack.client;
        let answers = |wanted: bool| {
            wait_until("the address answers as it should", PATIENCE, || {
                let asked = client.run("ping", &["-c", "1", "-W", "1", &VIP.to_string()]);
                ensure!(asked.is_ok() == wanted, "{asked:?}");
                Ok(())
            })
        };
        answers(true)?;
        let plant = "sysctl -w net.ipv4.conf.eth1/7.rp_filter=1";
        ward.shell(&ward.rack.balancers[0].host, plant)?;
        answers(false)?;
        let report = ward.report()?;
        let finding = find(&report, "rp-filter")?;
        ensure!(finding["subject"] == "eth1.7", "{finding}");
        ward.treat("rp-filter", Balancer, plant)?;
        answers(true)
    });
}

#[test]
fn a_link_on_the_way_with_a_smaller_mtu_is_found() {
    in_lab(|lab| {
        let ward = Ward::build(lab)?;
        ward.rack.switch.ip("link set b1 mtu 1500\n")?;
        ensure!(ward.findings()? == ["mtu-hole"], "{:?}", ward.report()?);
        let report = ward.report()?;
        let told = report.to_string();
        ensure!(told.contains("web/b1"), "the tunnelled one: {told}");
        ward.rack.switch.ip("link set b1 mtu 1600\n")?;
        ensure!(ward.findings()? == [""; 0], "{:?}", ward.report()?);
        Ok(())
    });
}

/// A rack with a balancer that nothing is wrong with. No agent runs.
struct Ward {
    rack: Rack,
    config: String,
    bpf: Mounted,
    _servers: Vec<Nginx>,
}

impl Ward {
    fn build(lab: &Lab) -> Result<Self> {
        let size = Size {
            balancers: 1,
            backends: 2,
        };
        let rack = Rack::build(lab, size)?;
        let servers = start_servers(&rack, &[VIP.into(), ON_LINK.into(), BOUND.into()])?;
        let balancer = &rack.balancers[0];
        let host = &balancer.host;
        host.ip(&format!(
            "addr add {BOUND} dev lo\n\
             route add 203.0.113.128/25 nexthop via {} nexthop via {}\n",
            rack.backends[0].ipv4, rack.backends[1].ipv4
        ))?;
        host.sysctl(&[("net/ipv4/fib_multipath_hash_policy", "1")])?;
        let services = [("web", VIP, "ipip"), ("link", ON_LINK, "l2-dsr")];
        let mut config = AgentConfig::default();
        for (name, vip, mode) in services {
            config = config.service(name, vip.into(), mode, &rack.backends);
        }
        config = config.udp_service("own", (BOUND.into(), 53), "l2-dsr", &rack.backends);
        let bpf = Mounted::new(&host.dir().join("bpf"))?;
        let pins = format!("pin_path = \"{}\"", host.pins().join("vipd").display());
        let ours = format!("pin_path = \"{}\"", bpf.0.join("vipd").display());
        let text = config.text(balancer).replace(&pins, &ours);
        let path = host.write("vipd.toml", &text)?;
        Ok(Self {
            config: path.display().to_string(),
            rack,
            bpf,
            _servers: servers,
        })
    }

    /// One without a data plane, which has the address on its loopback interface. The
    /// client's packets for it come by a cable of their own, and its answers leave by
    /// the router.
    fn of_a_server(lab: &Lab) -> Result<Self> {
        let size = Size {
            balancers: 1,
            backends: 0,
        };
        let rack = Rack::build(lab, size)?;
        let server = &rack.balancers[0];
        connect((&server.host, "eth1.7"), (&rack.client, "server0"), 1500)?;
        server.host.ip(&format!(
            "addr add {VIP}/32 dev lo\naddr add 10.7.0.1/30 dev eth1.7\n"
        ))?;
        rack.client.ip(&format!(
            "addr add 10.7.0.2/30 dev server0\n\
             route add {VIP} via 10.7.0.1 src {CLIENT_IPV4}\n"
        ))?;
        server.host.sysctl(&[
            ("net/ipv4/conf/eth1.7/arp_ignore", "1"),
            ("net/ipv4/conf/eth1.7/arp_announce", "2"),
        ])?;
        let text = orders::config(server, "");
        let path = server.host.write("vipd.toml", &text)?;
        Ok(Self {
            config: path.display().to_string(),
            bpf: Mounted::new(&server.host.dir().join("bpf"))?,
            rack,
            _servers: Vec::new(),
        })
    }

    /// Plants a fault, has it named and mended.
    fn treat(&self, name: &str, place: Place, plant: &str) -> Result<()> {
        let machine = match place {
            Balancer => &self.rack.balancers[0],
            Backend => &self.rack.backends[0],
        };
        self.shell(&machine.host, plant)?;
        let report = self.report()?;
        ensure!(names(&report) == [name], "found: {report}");
        let finding = find(&report, name)?;
        let fix = finding["fix"].as_str().context("no command")?;
        let at = finding["at"].as_str();
        let expected = match place {
            Balancer => None,
            Backend => Some(machine.ipv4.to_string()),
        };
        ensure!(at == expected.as_deref(), "{finding}");
        // Labs share the machine's file systems, so pins and sockets have places of
        // their own.
        let elsewhere = match fix {
            fix if fix.starts_with("vipd decap") => " --pin-path $PINS/decap",
            fix if fix.ends_with("vipd reload") => " --socket $SOCKET",
            _ => "",
        };
        self.shell(&machine.host, &format!("{fix}{elsewhere}"))?;
        ensure!(self.findings()? == [""; 0], "still: {}", self.report()?);
        Ok(())
    }

    /// What is found beside what is so in every lab.
    fn findings(&self) -> Result<Vec<String>> {
        Ok(names(&self.report()?))
    }

    /// `vipd doctor --json`, whose exit code is that of the worst.
    fn report(&self) -> Result<Value> {
        self.report_after(":")
    }

    /// The same, after what the shell is to do before.
    fn report_after(&self, command: &str) -> Result<Value> {
        let host = &self.rack.balancers[0].host;
        let doctor = format!(
            "{command}; vipd doctor --json --config {}; code=$?; echo; echo $code",
            self.config
        );
        let text = self.shell(host, &doctor)?;
        let (json, code) = text.trim_end().rsplit_once('\n').context("no exit code")?;
        let report: Value = serde_json::from_str(json).with_context(|| text.clone())?;
        let severe = |severity: &str| {
            let mut all = report.as_array().into_iter().flatten();
            all.any(|finding| finding["severity"] == severity)
        };
        let expected = match (severe("error"), severe("warning")) {
            (true, _) => "2",
            (false, true) => "1",
            (false, false) => "0",
        };
        ensure!(code == expected, "exit code {code} with {report}");
        Ok(report)
    }

    fn shell(&self, host: &Host, command: &str) -> Result<String> {
        let binary = Vipd::binary()?;
        let directory = binary.parent().context("it is in a directory")?;
        let script = format!(
            "PATH={}:$PATH BPF={} PINS={} SOCKET={} PASS={}\n{command}",
            directory.display(),
            self.bpf.0.display(),
            host.pins().display(),
            host.dir().join("vipd.sock").display(),
            pass_object()?.display()
        );
        host.run("sh", &["-c", &script])
    }
}

/// The names of what is found, but for what is so in every lab: no agent runs, and
/// interfaces are veths.
fn names(report: &Value) -> Vec<String> {
    let findings = report.as_array().into_iter().flatten();
    let names = findings.filter_map(|finding| finding["name"].as_str());
    names
        .filter(|name| !matches!(*name, "agent" | "driver" | "rx-vlan"))
        .map(str::to_owned)
        .collect()
}

fn find<'r>(report: &'r Value, name: &str) -> Result<&'r Value> {
    let mut findings = report.as_array().into_iter().flatten();
    let found = findings.find(|finding| finding["name"] == name);
    found.with_context(|| format!("no {name} in {report}"))
}

/// A BPF file system, which goes with the test.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(place: &Path) -> Result<Self> {
        std::fs::create_dir(place)?;
        let mounted = std::process::Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(place)
            .status()?;
        if !mounted.success() {
            bail!("cannot mount a BPF file system at {}", place.display());
        }
        Ok(Self(place.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = std::process::Command::new("umount").arg(&self.0).status();
    }
}
