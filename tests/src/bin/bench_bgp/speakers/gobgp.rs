//! GoBGP. Its client would add so many routes one by one, or as a dump whose
//! reading takes far longer than telling the router of them. So they come into
//! its table first, where a policy keeps them, and the order is a soft reset
//! under a policy that lets them go. A withdrawal empties the table.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::{Gobgp, Host, Machine, ROUTER_IPV4, wait_until};

use super::{LOCAL_AS, ROUTER_AS, ROUTES, Speaker, addresses};
use crate::results::Change;

/// How long its client may take to fill the table.
const PATIENCE: Duration = Duration::from_secs(30);

const POLICIES: &str = r#"
[global.apply-policy.config]
default-export-policy = "reject-route"

[[policy-definitions]]
name = "all"
[[policy-definitions.statements]]
name = "all"
actions.route-disposition = "accept-route"

[[policy-definitions]]
name = "none"
[[policy-definitions.statements]]
name = "none"
actions.route-disposition = "reject-route"
"#;

pub struct GobgpSpeaker {
    host: Host,
    process: Gobgp,
}

impl GobgpSpeaker {
    pub fn start(machine: &Machine) -> Result<Self> {
        let Machine { host, ipv4, .. } = machine;
        let config = format!(
            "[global.config]\nas = {LOCAL_AS}\nrouter-id = \"{ipv4}\"\n\
             [[neighbors]]\nconfig.neighbor-address = \"{ROUTER_IPV4}\"\n\
             config.peer-as = {ROUTER_AS}\ntimers.config.connect-retry = 1\n\
             [[neighbors.afi-safis]]\nconfig.afi-safi-name = \"ipv4-unicast\"\n{POLICIES}"
        );
        let path = dump_of(host);
        fs::write(&path, dump(machine)).with_context(|| format!("write {}", path.display()))?;
        Ok(Self {
            host: host.clone(),
            process: Gobgp::start(host, &config)?,
        })
    }

    fn set_policy(&self, name: &str) -> Result<()> {
        let words = [
            "global", "policy", "export", "set", name, "default", "reject",
        ];
        self.process.ask(&words).map(drop)
    }
}

impl Speaker for GobgpSpeaker {
    fn name(&self) -> &'static str {
        "GoBGP"
    }

    fn prepare(&mut self, change: Change) -> Result<()> {
        if change == Change::Withdraw {
            return Ok(());
        }
        self.set_policy("none")?;
        let dump = dump_of(&self.host);
        let words = ["mrt", "inject", "global", &dump.to_string_lossy()];
        self.process.ask(&words)?;
        wait_until("all routes are in GoBGP's table", PATIENCE, || {
            let summary = self.process.ask(&["global", "rib", "summary"])?;
            let wanted = format!("Destination: {ROUTES},");
            ensure!(summary.contains(&wanted), "{summary}");
            Ok(())
        })?;
        self.set_policy("all")
    }

    fn order(&mut self, change: Change) -> Result<()> {
        let router = ROUTER_IPV4.to_string();
        match change {
            Change::Announce => self.process.ask(&["neighbor", &router, "softresetout"]),
            Change::Withdraw => self.process.ask(&["global", "rib", "del", "all"]),
        }
        .map(drop)
    }
}

fn dump_of(host: &Host) -> PathBuf {
    host.dir().join("routes.mrt")
}

/// A `TABLE_DUMP_V2` (RFC 6396): an index of one peer, and an entry for each
/// route. The client ends before GoBGP has taken in the last of them, so they
/// come three times.
fn dump(machine: &Machine) -> Vec<u8> {
    let own = machine.ipv4.octets();
    let asn = LOCAL_AS.to_be_bytes();
    let index = [&own[..], &[0, 0, 0, 1, 2], &own, &own, &asn].concat();
    let mut dump = record(1, &index);
    // ORIGIN, an empty AS_PATH, NEXT_HOP.
    let attributes = [&[0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4], &own[..]].concat();
    let addresses = [(); 3].into_iter().flat_map(|()| addresses());
    for (number, address) in (0u32..).zip(addresses) {
        let prefix = [&number.to_be_bytes()[..], &[32], &address.octets()].concat();
        let entry = [
            &[0, 1, 0, 0, 0, 0, 0, 0, 0, attributes.len() as u8],
            &attributes[..],
        ]
        .concat();
        dump.extend(record(2, &[prefix, entry].concat()));
    }
    dump
}

fn record(subtype: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[0, 0, 0, 0, 0, 13, 0, subtype], &length[..], body].concat()
}
