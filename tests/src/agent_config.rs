//! `vipd.toml` for a balancer of the rack.

use std::net::IpAddr;

use crate::rack::{BALANCERS_AS, Machine, ROUTER_AS, ROUTER_IPV4};

/// Checks that find a dead backend within half a second: where that is the
/// subject.
pub const QUICK: &str = "interval = \"150ms\"\ntimeout = \"150ms\"\nrise = 2\nfall = 3\n";

/// Busy processors answer late now and then; that is no death.
const PATIENT: &str = "interval = \"700ms\"\ntimeout = \"700ms\"\nrise = 1\nfall = 3\n";

/// What differs from test to test; each text is lines of TOML.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Further lines of `[dataplane]`.
    pub dataplane: String,
    /// The agent's AS number.
    pub local_as: u32,
    /// The router's AS number.
    pub router_as: u32,
    /// Further lines of the router's `[[bgp.peer]]`.
    pub peer: String,
    /// Further lines of each `[[service]]` that is added from then on.
    pub service: String,
    /// How often and how patiently its backends are checked.
    pub check: String,
    /// `[[service]]` tables, see [`AgentConfig::service`], and any others.
    pub services: String,
}

impl Default for AgentConfig {
    /// No service yet, and an eBGP session with the rack's router.
    fn default() -> Self {
        Self {
            dataplane: String::new(),
            local_as: BALANCERS_AS,
            router_as: ROUTER_AS,
            peer: "hold_time = \"3s\"\nconnect_retry = \"1s\"\n".to_owned(),
            service: String::new(),
            check: PATIENT.to_owned(),
            services: String::new(),
        }
    }
}

impl AgentConfig {
    /// Adds a TCP service on port 80 for one VIP, with an HTTP check.
    #[must_use]
    pub fn service(mut self, name: &str, vip: IpAddr, mode: &str, backends: &[Machine]) -> Self {
        let Self { service, check, .. } = &self;
        self.services += &format!(
            r#"
[[service]]
name = "{name}"
vips = ["{vip}"]
protocol = "tcp"
port = 80
mode = "{mode}"
{service}[service.check]
type = "http"
path = "/healthz"
{check}"#
        );
        self.services += &backend_tables(vip, backends);
        self
    }

    /// Adds a UDP service without a check.
    #[must_use]
    pub fn udp_service(
        mut self,
        name: &str,
        (vip, port): (IpAddr, u16),
        mode: &str,
        backends: &[Machine],
    ) -> Self {
        self.services += &format!(
            r#"
[[service]]
name = "{name}"
vips = ["{vip}"]
protocol = "udp"
port = {port}
mode = "{mode}"
[service.check]
type = "none"
"#
        );
        self.services += &backend_tables(vip, backends);
        self
    }

    /// Adds a backend to the service that was added last.
    #[must_use]
    pub fn backend(mut self, backend: &Machine, vip: IpAddr, weight: u16) -> Self {
        self.services += &backend_tables(vip, std::slice::from_ref(backend));
        self.services += &format!("weight = {weight}\n");
        self
    }

    /// The whole file for this balancer.
    pub fn text(&self, balancer: &Machine) -> String {
        let Machine { host, ipv4, ipv6 } = balancer;
        let (name, dir, pins) = (host.name(), host.dir(), host.pins().join("vipd"));
        let (dir, pins) = (dir.display(), pins.display());
        let Self {
            dataplane,
            local_as,
            router_as,
            peer,
            services,
            ..
        } = self;
        format!(
            r#"[node]
name = "{name}"

[control]
socket = "{dir}/vipd.sock"

[bfd]
socket = "{dir}/bfd.sock"

[state]
directory = "{dir}/state"

[dataplane]
interfaces = ["eth0"]
pin_path = "{pins}"
{dataplane}
[bgp]
local_as = {local_as}
router_id = "{ipv4}"

[[bgp.peer]]
name = "router"
address = "{ROUTER_IPV4}"
as = {router_as}
source = "{ipv4}"
families = ["ipv4", "ipv6"]
next_hop_ipv6 = "{ipv6}"
{peer}{services}"#
        )
    }
}

/// The backends, by their addresses in the VIP's family.
fn backend_tables(vip: IpAddr, backends: &[Machine]) -> String {
    backends
        .iter()
        .map(|backend| {
            let name = backend.host.name();
            let address = backend.address_like(vip);
            format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n")
        })
        .collect()
}
