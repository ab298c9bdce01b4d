//! Addresses that this host serves itself: taken from an interface by their label,
//! and what becomes of those that vipd binds when it stops in good order.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use vipd_tests::{Bird, Lab, Machine, Nginx, Rack, Size, Vipd, wait_until};

use crate::support::{PATIENCE, VIP, VIP6, in_lab};

/// One node, and the router that hears of its addresses.
const ALONE: Size = Size {
    balancers: 1,
    backends: 0,
};

/// The addresses of most labs, as prefixes.
const OWN: [&str; 2] = ["198.51.100.10/32", "2001:db8:100::10/128"];

const TAKES: &str = r#"
[service.vips_from]
interface = "lo"
label = "lo:any*"
within = ["2001:db8:30::/64"]
"#;

#[test]
fn addresses_with_a_label_are_announced_while_others_have_them_on_lo() {
    in_lab(|lab| {
        let mut scene = Scene::build(lab, "", TAKES)?;
        let host = scene.node().host.clone();
        let check = || {
            let file = host.dir().join("vipd.toml");
            let arguments = ["check", &*file.to_string_lossy()];
            host.run(&Vipd::binary()?.to_string_lossy(), &arguments)
        };
        let answer = check()?;
        ensure!(answer.contains("web takes no address of lo"), "{answer}");

        host.ip("addr add 198.51.100.10/32 dev lo label lo:any1\n\
                 addr add 198.51.100.20/32 dev lo label lo:other\n\
                 addr add 192.0.2.99/32 dev lo label lo:any1\n\
                 addr add 2001:db8:30::1/128 dev lo\n\
                 addr add 2001:db8:31::1/128 dev lo\n")?;
        scene.ensure(
            "both families",
            &["198.51.100.10/32", "2001:db8:30::1/128"],
            &[],
        )?;
        let answer = check()?;
        ensure!(
            answer.contains("198.51.100.10, 2001:db8:30::1; not 192.0.2.99, which is"),
            "{answer}"
        );
        scene.ensure_reason("198.51.100.10", "taken from lo (label lo:any*")?;

        host.ip("addr add 198.51.100.11/32 dev lo label lo:any2\n")?;
        let three = ["198.51.100.10/32", "198.51.100.11/32", "2001:db8:30::1/128"];
        let never = ["198.51.100.20/32", "192.0.2.99/32", "2001:db8:31::1/128"];
        scene.ensure("another one", &three, &never)?;
        let log = scene.agent.log();
        ensure!(!log.contains("is withdrawn"), "nothing flapped: {log}");

        scene.server.kill()?;
        scene.ensure("the server has died", &[], &three)?;
        scene.server = Nginx::start(&host)?;
        scene.ensure("it is back", &three, &never)?;

        host.ip("addr del 198.51.100.10/32 dev lo\n")?;
        scene.ensure("one is gone", &three[1..], &three[..1])?;
        // A reload does not bring it back, and another event neither.
        scene.agent.command("reload", &[])?;
        host.ip("addr del 2001:db8:31::1/128 dev lo\n")?;
        scene.ensure("it stays away", &three[1..], &three[..1])?;
        ensure!(
            !host.run("ip", &["addr"])?.contains("198.51.100.10/"),
            "nobody bound it"
        );
        host.ip("addr add 198.51.100.10/32 dev lo label lo:any1\n")?;
        scene.ensure("it is back", &three, &never)?;

        // Neither a stop nor a start takes or flaps what is not vipd's.
        scene.agent.process().terminate(PATIENCE)?;
        scene.ensure("stopped", &[], &three)?;
        let addresses = host.run("ip", &["addr", "show", "lo"])?;
        for prefix in three {
            ensure!(addresses.contains(prefix), "{prefix} stays: {addresses}");
        }
        scene.agent.start_again()?;
        scene.ensure("started with what is there", &three, &never)
    });
}

#[test]
fn a_service_may_bind_some_addresses_and_take_others() {
    in_lab(|lab| {
        let both = format!("vips = [\"{VIP}\", \"{VIP6}\"]\n{TAKES}");
        let scene = Scene::build(lab, "", &both)?;
        let host = &scene.node().host;
        scene.ensure("those of the file", &OWN, &[])?;
        // What was taken away is not bound by the event of another address.
        host.ip("addr del 198.51.100.10/32 dev lo\n")?;
        scene.ensure("taken away", &OWN[1..], &OWN[..1])?;
        host.ip("addr add 198.51.100.11/32 dev lo label lo:any2\n")?;
        scene.ensure("and one more", &["198.51.100.11/32"], &OWN[..1])?;
        let addresses = host.run("ip", &["addr", "show", "lo"])?;
        ensure!(!addresses.contains(OWN[0]), "{addresses}");
        scene.agent.command("reload", &[])?;
        scene.ensure("a reload binds it", &OWN, &[])?;

        // Also one that changes the decision in the same moment.
        for round in 0..4 {
            host.ip("addr del 198.51.100.10/32 dev lo\n")?;
            scene.ensure("taken away again", &OWN[1..], &OWN[..1])?;
            let further = "[[service]]\nname = \"more\"\nprotocol = \"tcp\"\nport = 81\n\
                           mode = \"local\"\nvips = [\"198.51.100.12\"]\n\
                           check = { type = \"none\" }\n";
            let further = if round % 2 == 0 { further } else { "" };
            let text = config(scene.node(), "", &both) + further;
            scene.agent.reload(&text)?;
            scene.ensure("bound with it", &OWN, &[])?;
        }
        Ok(())
    });
}

#[test]
fn an_ordered_stop_keeps_or_removes_what_vipd_has_bound_as_configured() {
    let vips = format!("vips = [\"{VIP}\", \"{VIP6}\"]\n");
    in_lab(|lab| {
        let mut scene = Scene::build(lab, "[stop]\nlocal = \"keep\"\n", &vips)?;
        scene.ensure("both are announced", &OWN, &[])?;
        scene.agent.process().terminate(PATIENCE)?;
        for _ in 0..10 {
            scene.ensure_now(&OWN, &[])?;
            scene.ensure_bound(&OWN, true)?;
        }
        scene.agent.start_again()?;
        wait_until("the session is back", PATIENCE, || {
            scene.ensure_now(&OWN, &[])?;
            scene.router.ensure_established(scene.node().host.name())?;
            Ok(())
        })?;
        for _ in 0..50 {
            scene.ensure_now(&OWN, &[])?;
            scene.ensure_bound(&OWN, true)?;
        }
        let log = scene.agent.log();
        ensure!(
            !log.contains("is withdrawn"),
            "nothing was withdrawn: {log}"
        );
        Ok(())
    });
    in_lab(|lab| {
        let mut scene = Scene::build(lab, "", &vips)?;
        let made = "link add vipd0 type veth peer name other\nlink set vipd0 up\n";
        scene.ensure("both are announced", &OWN, &[])?;
        let host = scene.node().host.clone();
        scene.agent.process().terminate(PATIENCE)?;
        scene.ensure_bound(&OWN, false)?;
        scene.ensure("all is withdrawn", &[], &OWN)?;

        // Meanwhile the server is stopped, and somebody makes an interface.
        scene.server.kill()?;
        host.ip(made)?;
        scene.agent.start_again()?;
        wait_until("the check has failed", PATIENCE, || {
            scene.router.ensure_established(host.name())?;
            let status = scene.agent.status()?;
            let state = &status["services"][0]["state"];
            ensure!(state == "down", "{status}");
            Ok(())
        })?;
        let log = scene.agent.log();
        // What this agent says, not the one before.
        let (_, log) = log.rsplit_once("running with").unwrap_or_default();
        ensure!(
            !log.contains(" is announced"),
            "it was never announced: {log}"
        );
        scene.server = Nginx::start(&host)?;
        scene.ensure("it is back", &OWN, &[])?;
        scene.agent.process().terminate(PATIENCE)?;
        let links = host.run("ip", &["link"])?;
        ensure!(links.contains("vipd0"), "it is another's: {links}");
        scene.ensure_bound(&OWN, false)
    });
}

#[test]
fn an_address_stays_bound_until_its_withdrawal_has_lingered() {
    let (four, six) = (&OWN[..1], &OWN[1..]);
    in_lab(|lab| {
        // Long: that it is bound must be seen in this time.
        let tables = "[stop]\nlinger = \"15s\"\n";
        let vips = format!("vips = [\"{VIP}\", \"{VIP6}\"]\n");
        let mut scene = Scene::build(lab, tables, &vips)?;
        scene.ensure("both are announced", &OWN, &[])?;

        let one = config(scene.node(), tables, &format!("vips = [\"{VIP}\"]\n"));
        scene.agent.reload(&one)?;
        scene.ensure("a reload withdraws one", four, six)?;
        scene.ensure_bound(&OWN, true)?;
        let within = Duration::from_secs(15) + PATIENCE;
        wait_until("it has lingered", within, || scene.ensure_bound(six, false))?;
        scene.ensure_bound(four, true)?;
        scene.ensure("the other one stays", four, six)?;

        scene.agent.process().signal(Signal::TERM)?;
        scene.ensure("a stop withdraws the other", &[], &OWN)?;
        scene.ensure_bound(four, true)?;
        // As documented, another signal cuts it short.
        scene.agent.process().terminate(PATIENCE)?;
        scene.ensure_bound(&OWN, false)
    });
}

/// One node with a web server and an agent, and the router.
struct Scene {
    agent: Vipd,
    server: Nginx,
    router: Bird,
    rack: Rack,
}

impl Scene {
    /// With these further tables, and keys of the service.
    fn build(lab: &Lab, tables: &str, service: &str) -> Result<Self> {
        let rack = Rack::build(lab, ALONE)?;
        let node = &rack.balancers[0];
        Ok(Self {
            router: Bird::on_router(&rack, "")?,
            server: Nginx::start(&node.host)?,
            agent: Vipd::start(&node.host, &config(node, tables, service))?,
            rack,
        })
    }

    fn node(&self) -> &Machine {
        &self.rack.balancers[0]
    }

    /// Waits until the router has routes to the first, and none to the others.
    fn ensure(&self, sentence: &str, has: &[&str], lacks: &[&str]) -> Result<()> {
        wait_until(sentence, PATIENCE, || self.ensure_now(has, lacks))
    }

    fn ensure_now(&self, has: &[&str], lacks: &[&str]) -> Result<()> {
        for prefix in has {
            let routes = self.router.routes(prefix)?;
            ensure!(routes.len() == 1, "{prefix}: {routes:?}");
        }
        for prefix in lacks {
            let routes = self.router.routes(prefix)?;
            ensure!(routes.is_empty(), "{prefix}: {routes:?}");
        }
        Ok(())
    }

    fn ensure_bound(&self, prefixes: &[&str], bound: bool) -> Result<()> {
        let addresses = self.node().host.run("ip", &["addr"])?;
        for prefix in prefixes {
            ensure!(addresses.contains(prefix) == bound, "{prefix}: {addresses}");
        }
        Ok(())
    }

    fn ensure_reason(&self, vip: &str, words: &str) -> Result<()> {
        let vip: IpAddr = vip.parse()?;
        wait_until(&format!("it says `{words}`"), PATIENCE, || {
            let status = self.agent.status()?;
            let vips = status["vips"].as_array().into_iter().flatten();
            let mut vips = vips.filter(|found| found["address"] == vip.to_string());
            let told = vips.any(|vip| vip["reason"].to_string().contains(words));
            ensure!(told, "{status}");
            Ok(())
        })
    }
}

fn config(node: &Machine, tables: &str, service: &str) -> String {
    let Machine { host, ipv4, ipv6 } = node;
    let dir = host.dir();
    let dir = dir.display();
    format!(
        r#"{tables}
[control]
socket = "{dir}/vipd.sock"

[state]
directory = "{dir}/state"

[metrics]
enabled = false

[bgp]
local_as = 64500
router_id = "{ipv4}"

[[bgp.peer]]
name = "router"
address = "192.0.2.1"
as = 64501
source = "{ipv4}"
families = ["ipv4", "ipv6"]
next_hop_ipv6 = "{ipv6}"
hold_time = "30s"
graceful_restart = "always"
connect_retry = "1s"

[[bgp.peer]]
name = "another"
address = "192.0.2.99"
as = 64501
passive = true

[[service]]
name = "web"
protocol = "tcp"
port = 80
mode = "local"
check = {{ type = "http", path = "/healthz", interval = "1s", fast_interval = "300ms", timeout = "1s", fall = 3 }}
backend = [{{ name = "nginx", address = "127.0.0.1" }}]
{service}"#
    )
}
