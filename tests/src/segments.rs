//! A topology of one's own: hosts on network segments, each a switch.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::{
    host::Host,
    lab::Lab,
    rack::{connect, pass_object},
};

/// A tunnel header (20 or 40 bytes) fits over a client's 1500.
const MTU: u16 = 1600;

/// A segment: its name, and who is on it with which addresses, each with its
/// prefix length. A host's interface bears the segment's name.
pub type Segment<'a> = (&'a str, &'a [(&'a str, &'a [&'a str])]);

/// Hosts, and the switch that all their cables end in.
#[derive(Debug)]
pub struct Segments {
    hosts: BTreeMap<String, Host>,
    switch: Host,
    /// Per host the names of its ports and of their bridges.
    ports: BTreeMap<String, Vec<(String, String)>>,
}

impl Segments {
    /// Makes the hosts, wires them up, and gives them their addresses.
    pub fn build(lab: &Lab, segments: &[Segment<'_>]) -> Result<Self> {
        let mut names: Vec<&str> = vec!["switch"];
        for (_, members) in segments {
            names.extend(members.iter().map(|(host, _)| *host));
        }
        names[1..].sort_unstable();
        names.dedup();
        let mut hosts = lab.add_hosts(&names)?.into_iter();
        let switch = hosts.next().context("a switch")?;
        let mut built = Self {
            hosts: hosts.map(|host| (host.name().to_owned(), host)).collect(),
            switch,
            ports: BTreeMap::new(),
        };
        for (name, members) in segments {
            built.wire(name, members)?;
        }
        Ok(built)
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts
            .get(name)
            .with_context(|| format!("no host {name}"))
    }

    /// Lets these hosts forward what is not for them, by ports where there are
    /// several ways.
    pub fn forward(&self, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| {
            self.host(name)?.sysctl(&[
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/all/forwarding", "1"),
                ("net/ipv4/fib_multipath_hash_policy", "1"),
                ("net/ipv6/fib_multipath_hash_policy", "1"),
            ])
        })
    }

    /// Silent death of a host: its carrier stays, its packets vanish, both ways.
    pub fn unplug(&self, name: &str) -> Result<()> {
        let ports = self.ports(name)?.iter();
        let batch: String = ports
            .map(|(port, _)| format!("link set {port} nomaster\n"))
            .collect();
        self.switch.ip(&batch)
    }

    /// Undoes [`Segments::unplug`].
    pub fn plug_in(&self, name: &str) -> Result<()> {
        let ports = self.ports(name)?.iter();
        let batch: String = ports
            .map(|(port, bridge)| format!("link set {port} master {bridge}\n"))
            .collect();
        self.switch.ip(&batch)
    }

    fn ports(&self, name: &str) -> Result<&[(String, String)]> {
        let ports = self.ports.get(name);
        ports
            .map(Vec::as_slice)
            .with_context(|| format!("no host {name}"))
    }

    fn wire(&mut self, segment: &str, members: &[(&str, &[&str])]) -> Result<()> {
        let bridge = format!("br-{segment}");
        self.switch.ip(&format!(
            "link add {bridge} mtu {MTU} type bridge stp_state 0 mcast_snooping 0\n\
             link set {bridge} up\n"
        ))?;
        // Takes over at once what a host sends by XDP.
        let pass = pass_object()?;
        for (name, addresses) in members {
            let host = self.host(name)?.clone();
            let port = format!("{segment}-{name}");
            connect((&host, segment), (&self.switch, &port), MTU)?;
            self.switch.ip(&format!(
                "link set {port} master {bridge}\n\
                 link set dev {port} xdpdrv object {} section xdp\n",
                pass.display()
            ))?;
            let batch: String = addresses
                .iter()
                .map(|address| format!("addr add {address} dev {segment}\n"))
                .collect();
            host.ip(&batch)?;
            let ports = self.ports.entry((*name).to_owned()).or_default();
            ports.push((port, bridge.clone()));
        }
        Ok(())
    }
}
