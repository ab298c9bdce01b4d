//! BIRD on a host, and what it says of its sessions and routes.

use std::{net::IpAddr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    bfd::BirdBfd,
    bird_socket::BirdSocket,
    host::Host,
    process::Process,
    rack::{BALANCERS_AS, Machine, ROUTER_AS, Rack},
    wait::{STARTING, wait_until},
};

/// A running BIRD.
#[derive(Debug)]
pub struct Bird {
    process: Process,
    socket: PathBuf,
}

/// A session as `show protocols` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BirdSession {
    /// When it came into its present state, as a time of day; BIRD rounds it
    /// anew each time, by a millisecond up or down.
    pub since: Option<Duration>,
    /// `Established`, or the state and the last error.
    pub info: String,
}

/// What has come by a session since it was established, counted in prefixes; with
/// graceful restart since it was first established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BirdReceived {
    /// Announced, the same again included.
    pub announced: u64,
    /// Withdrawn.
    pub withdrawn: u64,
}

/// A route as `show route all` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BirdRoute {
    /// The session it came by.
    pub session: String,
    /// When it came; see [`BirdSession::since`].
    pub since: Option<Duration>,
    /// Where it leads to (`via`).
    pub via: Option<IpAddr>,
    /// Attributes by BIRD's names, such as `BGP.med`.
    pub attributes: Vec<(String, String)>,
}

impl Bird {
    /// Starts BIRD and returns when it answers.
    ///
    /// `config` names log, timers and whatever the test needs; see
    /// [`Bird::router_config`].
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        let config = host.write("bird.conf", config)?;
        let socket = host.dir().join("bird.ctl");
        let mut command = Command::new("bird");
        command
            .arg("-f")
            .arg("-c")
            .arg(config)
            .arg("-s")
            .arg(&socket);
        let process = host.spawn("bird", &mut command)?;
        let mut bird = Self { process, socket };
        wait_until("BIRD answers", STARTING, || {
            bird.process.ensure_running()?;
            bird.birdc("show status")
        })?;
        Ok(bird)
    }

    /// Starts it on the rack's router, see [`Bird::rack_config`].
    pub fn on_router(rack: &Rack, further: &str) -> Result<Self> {
        Self::start(&rack.router, &Self::rack_config(rack, further))
    }

    /// A configuration for the rack's router: a session with each balancer,
    /// with further lines.
    pub fn rack_config(rack: &Rack, further: &str) -> String {
        let sessions = Self::sessions(&rack.balancers, BALANCERS_AS, further);
        Self::router_config(ROUTER_AS) + &sessions
    }

    /// A configuration head for the router of a rack: kernel routes with ECMP,
    /// short timers, and a template `balancer` for [`Bird::sessions`].
    pub fn router_config(local_as: u32) -> String {
        format!(
            r#"log stderr all;
router id 192.0.2.1;
timeformat protocol iso short ms;
timeformat route iso short ms;
protocol device {{ }}
protocol direct {{ ipv4; ipv6; }}
protocol kernel kernel4 {{ merge paths on limit 16; ipv4 {{ export where source = RTS_BGP; }}; }}
protocol kernel kernel6 {{ merge paths on limit 16; ipv6 {{ export where source = RTS_BGP; }}; }}
template bgp balancer {{
    debug {{ states, events }};
    local 192.0.2.1 as {local_as};
    hold time 3;
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    ipv4 {{ import all; export none; }};
    ipv6 {{ import all; export none; }};
}}
"#
        )
    }

    /// A session for each machine, from the template `balancer` and named
    /// after the machine, with further lines of configuration.
    pub fn sessions(machines: &[Machine], remote_as: u32, further: &str) -> String {
        machines
            .iter()
            .map(|Machine { host, ipv4, .. }| {
                let name = host.name();
                format!(
                    "protocol bgp {name} from balancer {{ \
                     neighbor {ipv4} as {remote_as}; {further} }}\n"
                )
            })
            .collect()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Asks BIRD by its own client, for instance `show route`.
    pub fn birdc(&self, request: &str) -> Result<String> {
        let socket = self.socket.to_string_lossy();
        let answer = self
            .process
            .host()
            .run("birdc", &["-s", &socket, request])?;
        let (_greeting, answer) = answer.split_once('\n').unwrap_or(("", &answer));
        Ok(answer.to_owned())
    }

    /// A connection of our own, for who asks often.
    pub fn connect(&self) -> Result<BirdSocket> {
        BirdSocket::connect(&self.socket)
    }

    /// The session of that name.
    pub fn session(&self, name: &str) -> Result<BirdSession> {
        let text = self.birdc(&format!("show protocols {name}"))?;
        // Name Proto Table State Since Info
        let line = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .with_context(|| format!("BIRD knows no session {name}: {text}"))?;
        let mut words = line.split_whitespace().skip(4);
        Ok(BirdSession {
            since: words.next().and_then(time_of_day),
            info: words.collect::<Vec<_>>().join(" "),
        })
    }

    /// Fails, telling the state, unless the session is established.
    pub fn ensure_established(&self, name: &str) -> Result<BirdSession> {
        let session = self.session(name)?;
        ensure!(session.info == "Established", "{name}: {session:?}");
        Ok(session)
    }

    /// What has come by the session of that name, of all families.
    pub fn received(&self, name: &str) -> Result<BirdReceived> {
        let text = self.birdc(&format!("show protocols all {name}"))?;
        let sum = |label: &str| {
            let lines = text.lines().filter_map(|line| {
                let counts = line.trim().strip_prefix(label)?;
                counts.split_whitespace().next()?.parse::<u64>().ok()
            });
            lines.reduce(|a, b| a + b).with_context(|| text.clone())
        };
        Ok(BirdReceived {
            announced: sum("Import updates:")?,
            withdrawn: sum("Import withdraws:")?,
        })
    }

    /// All routes to exactly this prefix, the best first.
    pub fn routes(&self, prefix: &str) -> Result<Vec<BirdRoute>> {
        match self.birdc(&format!("show route {prefix} all")) {
            Ok(text) => Ok(parse_routes(&text)),
            // birdc has no other way to say that there is none.
            Err(error) if format!("{error:#}").contains("Network not found") => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Where the routes to this prefix lead to, in order of address.
    pub fn next_hops(&self, prefix: &str) -> Result<Vec<IpAddr>> {
        let mut hops: Vec<_> = self.routes(prefix)?.iter().filter_map(|r| r.via).collect();
        hops.sort();
        Ok(hops)
    }

    /// Fails, telling what is there, unless the routes lead to just these.
    pub fn ensure_next_hops(&self, prefix: &str, wanted: &[IpAddr]) -> Result<()> {
        let hops = self.next_hops(prefix)?;
        ensure!(hops == wanted, "{prefix} leads to {hops:?}");
        Ok(())
    }

    /// The BFD session with this peer.
    pub fn bfd(&self, peer: &str) -> Result<BirdBfd> {
        let text = self.birdc("show bfd sessions")?;
        BirdBfd::parse(&text, peer).with_context(|| format!("no session with {peer}: {text}"))
    }

    /// Replaces the configuration of the running BIRD.
    pub fn configure(&self, config: &str) -> Result<()> {
        self.process.host().write("bird.conf", config)?;
        self.birdc("configure")?;
        Ok(())
    }

    /// The process, to be stopped or killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl BirdRoute {
    /// An attribute's text: `BGP.med`, `BGP.community`, ..
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }
}

/// Reads `show route all`. A route begins with a line that holds its session
/// in brackets; indented lines after it belong to it:
///
/// ```text
/// 198.51.100.10/32     unicast [lb1 12:00:00.123] * (100) [AS64500i]
///         via 192.0.2.11 on rack0
///         Type: BGP univ
///         BGP.origin: IGP
/// ```
fn parse_routes(text: &str) -> Vec<BirdRoute> {
    let mut routes: Vec<BirdRoute> = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let Some((_, after)) = line.split_once(" [")
            && let Some((origin, _)) = after.split_once(']')
            && !line.starts_with('\t')
        {
            // Behind them may stand whom it came from.
            let mut words = origin.split(' ');
            routes.push(BirdRoute {
                session: words.next().unwrap_or_default().to_owned(),
                since: words.next().and_then(time_of_day),
                ..BirdRoute::default()
            });
        } else if let Some(route) = routes.last_mut() {
            if let ["via", address, ..] = words[..] {
                route.via = address.parse().ok();
            } else if let Some((name, value)) = line.trim().split_once(':') {
                route
                    .attributes
                    .push((name.to_owned(), value.trim().to_owned()));
            }
        }
    }
    routes
}

/// Reads "12:00:00.123"; what is older than a day has no time of day.
pub(crate) fn time_of_day(text: &str) -> Option<Duration> {
    let mut parts = text.split(':');
    let (hours, minutes) = (parts.next()?.parse::<u64>().ok()?, parts.next()?);
    let minutes = hours * 60 + minutes.parse::<u64>().ok()?;
    let seconds = parts.next()?.parse::<f64>().ok()?;
    Some(Duration::from_secs(minutes * 60) + Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_with_their_attributes() {
        let routes = parse_routes(
            "Table master4:\n\
             198.51.100.10/32     unicast [lb1 12:00:00.123] * (100) [AS64500i]\n\
             \tvia 192.0.2.11 on rack0\n\
             \tType: BGP univ\n\
             \tBGP.as_path: \n\
             \tBGP.med: 100\n\
             \x20                    unicast [lb2 12:00:01.123 from 192.0.2.12] (100) [AS64500i]\n\
             \tvia 192.0.2.12 on rack0\n",
        );
        assert_eq!(routes.len(), 2, "{routes:?}");
        assert_eq!(routes[0].session, "lb1");
        assert_eq!(routes[0].attribute("BGP.med"), Some("100"));
        assert_eq!(routes[0].attribute("BGP.as_path"), Some(""));
        assert_eq!(routes[1].since, Some(Duration::from_millis(43_201_123)));
        assert_eq!(routes[1].via, "192.0.2.12".parse().ok());
    }
}
