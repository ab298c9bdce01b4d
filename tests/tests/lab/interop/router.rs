//! A router of any make, by what all of them can do and tell.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use vipd_tests::{
    BALANCERS_AS, Bird, BirdBfd, BirdRoute, FRR_BFD_TIMING, Frr, Gobgp, ROUTER_AS, Rack,
};

/// Who makes a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Bird,
    Frr,
    /// It has no BFD, and brings no route into the kernel.
    Gobgp,
}

/// The router's side of its session with the first balancer.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub local_as: u32,
    /// It waits to be dialled.
    pub passive: bool,
    pub password: Option<&'static str>,
    /// With more IPv4 routes than this it ends the session.
    pub most_ipv4_routes: Option<u32>,
    /// It keeps our routes while we restart (all makes but one do so anyway),
    /// and BFD watches, where there is BFD.
    pub helps: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            local_as: ROUTER_AS,
            passive: false,
            password: None,
            most_ipv4_routes: None,
            helps: false,
        }
    }
}

/// A running router.
pub struct Router {
    daemon: Daemon,
    /// The balancer's address.
    neighbour: String,
}

enum Daemon {
    Bird(Bird),
    Frr(Frr),
    Gobgp(Gobgp),
}

/// A route as its receiver tells it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub next_hop: Option<IpAddr>,
    pub as_path: Vec<u32>,
    pub origin_is_igp: bool,
    pub med: Option<u32>,
    pub local_preference: Option<u32>,
    /// `64500:100`, large ones `64500:1:2`, and extended ones `rt:64500:1`.
    pub communities: BTreeSet<String>,
}

impl Router {
    /// Starts one on the rack's router.
    pub fn start(make: Make, rack: &Rack, terms: &Terms) -> Result<Self> {
        let balancer = rack.balancers.first().context("no balancer")?;
        let daemon = match make {
            Make::Bird => start_bird(rack, terms).map(Daemon::Bird),
            Make::Frr => start_frr(rack, terms).map(Daemon::Frr),
            Make::Gobgp => start_gobgp(rack, terms).map(Daemon::Gobgp),
        };
        Ok(Self {
            daemon: daemon?,
            neighbour: balancer.ipv4.to_string(),
        })
    }

    /// Fails, telling the state, unless the session is established.
    pub fn ensure_established(&self) -> Result<()> {
        match &self.daemon {
            Daemon::Bird(bird) => bird.ensure_established("lb1").map(drop),
            Daemon::Frr(frr) => frr.ensure_established(&self.neighbour),
            Daemon::Gobgp(gobgp) => gobgp.ensure_established(&self.neighbour),
        }
    }

    /// The route to exactly this prefix.
    pub fn route(&self, prefix: &str) -> Result<Option<Route>> {
        let mut routes: Vec<Route> = match &self.daemon {
            Daemon::Bird(bird) => bird.routes(prefix)?.iter().map(from_bird).collect(),
            Daemon::Frr(frr) => frr.paths(prefix)?.iter().map(from_frr).collect(),
            Daemon::Gobgp(gobgp) => gobgp.paths(prefix)?.iter().map(from_gobgp).collect(),
        };
        ensure!(routes.len() <= 1, "{routes:?}");
        Ok(routes.pop())
    }

    /// Whether it keeps the route for a neighbour that restarts.
    pub fn is_kept(&self, prefix: &str) -> Result<bool> {
        let path = match &self.daemon {
            // It says so of the session only.
            Daemon::Bird(bird) => {
                let session = bird.birdc("show protocols all lb1")?;
                let restarts = session.contains("Neighbor graceful restart active");
                return Ok(restarts && !bird.routes(prefix)?.is_empty());
            }
            Daemon::Frr(frr) => frr.paths(prefix)?,
            Daemon::Gobgp(gobgp) => gobgp.paths(prefix)?,
        };
        Ok(path.iter().any(|path| path["stale"] == true))
    }

    /// Asks the balancer for all its routes again.
    pub fn refresh(&self) -> Result<()> {
        match &self.daemon {
            Daemon::Bird(bird) => bird.birdc("reload in lb1"),
            Daemon::Frr(frr) => frr.vtysh("clear bgp * soft in"),
            Daemon::Gobgp(_) => bail!("GoBGP keeps all it was told and never asks again"),
        }
        .map(drop)
    }
}

fn start_bird(rack: &Rack, terms: &Terms) -> Result<Bird> {
    let mut head = Bird::router_config(terms.local_as);
    let mut further = String::new();
    if terms.helps {
        head += &BirdBfd::protocol();
        further += "bfd on;";
    }
    if terms.passive {
        further += "passive;";
    }
    if let Some(password) = terms.password {
        further += &format!("password \"{password}\";");
    }
    if let Some(most) = terms.most_ipv4_routes {
        // It sends its Cease 3 s after it has decided to: a shorter hold time
        // would end first.
        further += &format!(
            "hold time 9; \
             ipv4 {{ import all; export none; import limit {most} action disable; }};"
        );
    }
    let sessions = Bird::sessions(&rack.balancers, BALANCERS_AS, &further);
    Bird::start(&rack.router, &(head + &sessions))
}

fn start_frr(rack: &Rack, terms: &Terms) -> Result<Frr> {
    let mut further = Vec::new();
    if terms.passive {
        further.push("passive".to_owned());
    }
    if let Some(password) = terms.password {
        further.push(format!("password {password}"));
    }
    if let Some(most) = terms.most_ipv4_routes {
        further.push(format!("maximum-prefix {most}"));
    }
    if terms.helps {
        further.push("bfd profile lab".to_owned());
    }
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let config = Frr::router_config(terms.local_as, &rack.balancers, BALANCERS_AS, &further);
    let bfd = format!("bfd\n profile lab\n{FRR_BFD_TIMING} !\n!\n");
    Frr::start_with_bfd(&rack.router, &config, &bfd)
}

fn start_gobgp(rack: &Rack, terms: &Terms) -> Result<Gobgp> {
    let (mut further, mut ipv4) = (String::new(), String::new());
    if terms.passive {
        further += "transport.config.passive-mode = true\n";
    }
    if let Some(password) = terms.password {
        further += &format!("config.auth-password = \"{password}\"\n");
    }
    if let Some(most) = terms.most_ipv4_routes {
        ipv4 = format!("prefix-limit.config.max-prefixes = {most}\n");
    }
    if terms.helps {
        further += "graceful-restart.config.enabled = true\n\
                    graceful-restart.config.restart-time = 120\n";
    }
    let (machines, local_as) = (&rack.balancers, terms.local_as);
    let config = Gobgp::router_config(local_as, machines, BALANCERS_AS, &further, &ipv4);
    Gobgp::start(&rack.router, &config)
}

fn from_bird(route: &BirdRoute) -> Route {
    let text = |name| route.attribute(name).unwrap_or_default();
    let number = |name| text(name).parse().ok();
    // (64500,100) (64501,100), (64500, 1, 2), and (rt, 64500, 1)
    let kinds = ["BGP.community", "BGP.large_community", "BGP.ext_community"];
    let communities = kinds
        .iter()
        .flat_map(|name| text(name).split_terminator(')'))
        .map(|community| community.replace([' ', '('], "").replace(',', ":"))
        // A site of origin is a "route origin" to it.
        .map(|community| match community.strip_prefix("ro:") {
            Some(numbers) => format!("soo:{numbers}"),
            None => community,
        });
    Route {
        next_hop: route.via,
        as_path: numbers(text("BGP.as_path")),
        origin_is_igp: text("BGP.origin") == "IGP",
        med: number("BGP.med"),
        local_preference: number("BGP.local_pref"),
        communities: communities.collect(),
    }
}

fn from_frr(path: &Value) -> Route {
    let text = |pointer| path.pointer(pointer).and_then(Value::as_str);
    let number = |name: &str| path[name].as_u64().and_then(|it| it.try_into().ok());
    let kinds = [
        "/community/string",
        "/largeCommunity/string",
        "/extendedCommunity/string",
    ];
    let communities = kinds
        .iter()
        .filter_map(|pointer| text(pointer))
        .flat_map(str::split_whitespace)
        .map(|community| match community {
            "no-export" => "65535:65281".to_owned(),
            // RT:64500:1, SoO:64500:1
            numbers => numbers.to_lowercase(),
        });
    Route {
        next_hop: text("/nexthops/0/ip").and_then(|it| it.parse().ok()),
        as_path: numbers(text("/aspath/string").unwrap_or_default()),
        origin_is_igp: text("/origin") == Some("IGP"),
        med: number("metric"),
        local_preference: number("locPrf"),
        communities: communities.collect(),
    }
}

/// GoBGP tells attributes by their type codes, and leaves out what is zero.
fn from_gobgp(path: &Value) -> Route {
    let attributes = path["attrs"].as_array();
    let attribute = |code: u64| {
        let mut all = attributes.into_iter().flatten();
        all.find(|it| it["type"] == code)
    };
    let number = |value: &Value| value.as_u64().and_then(|it| u32::try_from(it).ok());
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let communities = attribute(8).map_or_else(Vec::new, |it| list(&it["communities"]));
    let communities = communities.iter().filter_map(number);
    let large = attribute(32).map_or_else(Vec::new, |it| list(&it["value"]));
    let large = large.iter().map(|it| {
        let [asn, first, second] = ["ASN", "LocalData1", "LocalData2"].map(|name| &it[name]);
        format!("{asn}:{first}:{second}")
    });
    let extended = attribute(16).map_or_else(Vec::new, |it| list(&it["value"]));
    let extended = extended.iter().map(|it| {
        let kind = match it["subtype"].as_u64() {
            Some(2) => "rt",
            Some(3) => "soo",
            _ => "unknown",
        };
        let value = it["value"].as_str().unwrap_or_default();
        let (asn, number) = value.split_once(':').unwrap_or((value, ""));
        format!("{kind}:{}:{number}", as_plain(asn))
    });
    let segments = attribute(2).map_or_else(Vec::new, |it| list(&it["as_paths"]));
    let next_hop = attribute(3).or_else(|| attribute(14));
    Route {
        next_hop: next_hop
            .and_then(|it| it["nexthop"].as_str())
            .and_then(|it| it.parse().ok()),
        as_path: segments
            .iter()
            .flat_map(|segment| list(&segment["asns"]))
            .filter_map(|asn| number(&asn))
            .collect(),
        origin_is_igp: attribute(1).is_some_and(|it| it["value"].as_u64().unwrap_or(0) == 0),
        med: attribute(4).and_then(|it| number(&it["metric"])),
        local_preference: attribute(5).and_then(|it| number(&it["value"])),
        communities: communities
            .map(|it| format!("{}:{}", it >> 16, it & 0xffff))
            .chain(large)
            .chain(extended)
            .collect(),
    }
}

/// `1.0` as `65536`; anything else, addresses among it, as it is.
fn as_plain(asn: &str) -> String {
    let parts = asn.split_once('.');
    let parts = parts.map(|(high, low)| (high.parse::<u32>(), low.parse::<u32>()));
    match parts {
        Some((Ok(high), Ok(low))) => (high << 16 | low).to_string(),
        _ => asn.to_owned(),
    }
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}
