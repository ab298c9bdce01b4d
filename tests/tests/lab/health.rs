//! What becomes of the connections of a backend whose check fails: `on_down`.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vipd_tests::{AgentConfig, Held, Host, Lab, Nginx, Rack, Site, Size, wait_until};

use crate::support::{PATIENCE, VIP, in_lab};

/// Where the servers tell how they are, beside the port that is served.
const CHECKED: u16 = 8080;

/// Enough that no backend is left without one.
const CONNECTIONS: usize = 40;

/// How a server that serves on fails its check.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It says so.
    Unwell,
    /// Nobody answers at the port that is asked.
    Silent,
}

/// What becomes of the connections of a backend with a fault.
struct Case {
    sentence: &'static str,
    /// A line of `[service.check]`.
    on_down: &'static str,
    fault: Fault,
    /// What the check finds, and how the backend stands then.
    code: &'static str,
    standing: &'static str,
    ends: bool,
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { sentence: "who says that it is unwell keeps them", on_down: "",
        fault: Fault::Unwell, code: "L7STS", standing: "failing", ends: false },
    Case { sentence: "who is silent loses them", on_down: "",
        fault: Fault::Silent, code: "L4TOUT", standing: "down", ends: true },
    Case { sentence: "keep, unwell", on_down: "on_down = \"keep\"\n",
        fault: Fault::Unwell, code: "L7STS", standing: "failing", ends: false },
    Case { sentence: "keep, silent", on_down: "on_down = \"keep\"\n",
        fault: Fault::Silent, code: "L4TOUT", standing: "failing", ends: false },
    Case { sentence: "reset, unwell", on_down: "on_down = \"reset\"\n",
        fault: Fault::Unwell, code: "L7STS", standing: "down", ends: true },
];

#[test]
fn connections_of_a_backend_that_fails_its_checks_stay_or_end_as_configured() {
    in_lab(|lab| {
        let site = build(lab)?;
        for case in CASES {
            play(&site, case).context(case.sentence)?;
        }
        Ok(())
    });
}

fn play(site: &Site, case: &Case) -> Result<()> {
    site.reload(&config(&site.rack, case.on_down))?;
    for backend in ["b1", "b2"] {
        site.wait_for_backend(backend, true)?;
    }
    let held = Held::open(&site.rack.client, (VIP, 80).into(), CONNECTIONS)?;
    let host = &site.rack.backends[0].host;
    case.fault.begin(host)?;
    wait_until("the check has found it", PATIENCE, || {
        let backend = ensure_in_force(site)?;
        let found = &backend["check"]["code"];
        ensure!(
            found == case.code && backend["standing"] == case.standing,
            "{backend}"
        );
        Ok(())
    })?;
    if case.ends {
        wait_until("its connections end", PATIENCE, || {
            ensure!(held.broken_so_far() > 0, "none has ended");
            Ok(())
        })?;
    }
    // Each asks once more.
    let report = held.judge()?;
    let spread = report.by_backend();
    ensure!(spread.len() == 2, "on both backends: {spread:?}");
    let wanted = if case.ends { spread["b1"] } else { 0 };
    ensure!(report.broken().count() == wanted, "{report:?}");
    ensure!(report.broken_elsewhere("b1").count() == 0, "{report:?}");
    case.fault.end(host)
}

impl Fault {
    fn begin(self, host: &Host) -> Result<()> {
        match self {
            Self::Unwell => host.write("unwell", "").map(drop),
            Self::Silent => {
                let rules = format!(
                    "table inet fault {{\n chain in {{\n  type filter hook input priority 0\n  \
                     tcp dport {CHECKED} drop\n }}\n}}\n"
                );
                let rules = host.write("fault.nft", &rules)?;
                host.run("nft", &["-f", &rules.to_string_lossy()]).map(drop)
            }
        }
    }

    fn end(self, host: &Host) -> Result<()> {
        match self {
            Self::Unwell => Ok(fs::remove_file(host.dir().join("unwell"))?),
            Self::Silent => host
                .run("nft", &["delete", "table", "inet", "fault"])
                .map(drop),
        }
    }
}

/// Two servers that also tell how they are, and an agent, to which all packets go,
/// whatever is announced.
fn build(lab: &Lab) -> Result<Site> {
    let size = Size {
        balancers: 1,
        backends: 2,
    };
    let mut site = Site::without_agents(lab, size, &[VIP.into()])?;
    for (server, backend) in site.servers.iter_mut().zip(&site.rack.backends) {
        let unwell = backend.host.dir().join("unwell");
        server.kill()?;
        let block = format!(
            "    server {{\n        listen {CHECKED};\n        location / {{\n            \
             if (-f {}) {{ return 503; }}\n            return 200 \"well\\n\";\n        }}\n    }}\n",
            unwell.display()
        );
        *server = Nginx::start_with(&backend.host, &block)?;
    }
    site.start_agents(&config(&site.rack, ""))?;
    site.rack
        .route_by_hand(VIP.into(), &site.rack.balancers[0])?;
    Ok(site)
}

fn config(rack: &Rack, on_down: &str) -> AgentConfig {
    let mut config = AgentConfig::default();
    config.check += &format!("port = {CHECKED}\n{on_down}");
    config.service("web", VIP.into(), "ipip", &rack.backends)
}

/// What is decided is in force, and this is b1.
fn ensure_in_force(site: &Site) -> Result<Value> {
    let status = site.agents[0].status()?;
    let service = &status["services"][0];
    ensure!(service["in_force"] == true, "{service}");
    let mut backends = service["backends"].as_array().into_iter().flatten();
    let found = backends.find(|backend| backend["name"] == "b1");
    found
        .cloned()
        .with_context(|| format!("no b1 in {service}"))
}
