//! What a configuration wants of the BFD process.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use vipd_bfd::{Authentication, Config, KeyError, Path};

use crate::config::{self, BfdSession, SecretError};

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The sessions.
    pub sessions: BTreeMap<Path, Wanted>,
    /// Interfaces that must have an XDP program.
    pub interfaces: Vec<String>,
    /// How long the agent may be away.
    pub restart_time: Duration,
    /// Our socket.
    pub socket: PathBuf,
}

/// A session that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the BGP peer, or of the backend.
    pub name: Arc<str>,
    /// What the session wants.
    pub config: Config,
}

/// Why a configuration cannot be carried out.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A file with a key cannot be used.
    #[error(transparent)]
    File(#[from] SecretError),
    /// What is in it is no key.
    #[error("a key for BFD cannot be used: {0}")]
    Key(#[from] KeyError),
}

impl Plan {
    /// Reads the configuration at `path` and the keys it names.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn read(path: &FilePath) -> Result<Self, Vec<String>> {
        let (config, _) = config::Config::load(path).map_err(|error| {
            let findings = error.findings.iter();
            findings
                .map(|finding| finding.render(false))
                .collect::<Vec<_>>()
        })?;
        Self::of(&config).map_err(|error| vec![error.to_string()])
    }

    /// What this configuration wants.
    ///
    /// # Errors
    /// A key cannot be read or used.
    pub fn of(config: &config::Config) -> Result<Self, PlanError> {
        // Packets are forwarded by the XDP program, whatever the agent does.
        let independent = config.dataplane.is_some();
        let mut sessions = BTreeMap::new();
        let peers = config.bgp.iter().flat_map(|bgp| &bgp.peers);
        for (peer, bfd) in peers.filter_map(|peer| Some((peer, peer.bfd.as_ref()?))) {
            let path = Path {
                remote: peer.address.ip(),
                local: peer.source,
                interface: peer.interface.as_ref().map(|name| name.as_str().into()),
                hops: bfd.session.hops,
            };
            let config = Config {
                passive: bfd.passive,
                independent,
                ..session(&bfd.session)?
            };
            let name = Arc::clone(&peer.name);
            sessions.insert(path, Wanted { name, config });
        }
        // An address has one session, which is a peer's if that wants one.
        let of_peers: BTreeSet<_> = sessions.keys().map(|path| path.remote).collect();
        let backends = config.backend_bfd.iter();
        for (address, bfd) in backends.filter(|(address, _)| !of_peers.contains(address)) {
            let path = Path {
                remote: *address,
                local: bfd.source,
                interface: None,
                hops: bfd.session.hops,
            };
            let config = Config {
                independent,
                ..session(&bfd.session)?
            };
            let name = Arc::clone(&bfd.name);
            sessions.insert(path, Wanted { name, config });
        }
        let interfaces = config
            .dataplane
            .iter()
            .flat_map(|dataplane| &dataplane.interfaces);
        Ok(Self {
            sessions,
            interfaces: interfaces.map(ToString::to_string).collect(),
            restart_time: config
                .bgp
                .as_ref()
                .map_or(Duration::MAX, |bgp| bgp.restart_time),
            socket: config.bfd_socket.clone(),
        })
    }
}

/// What peers and backends have in common.
fn session(bfd: &BfdSession) -> Result<Config, PlanError> {
    Ok(Config {
        min_ttl: bfd.min_ttl,
        authentication: authentication(bfd)?,
        ..Config::new(bfd.timing)
    })
}

fn authentication(bfd: &BfdSession) -> Result<Option<Authentication>, PlanError> {
    let Some(key) = &bfd.key else {
        return Ok(None);
    };
    let secret = key.file.read()?;
    let authentication = Authentication::new(key.method, key.id, secret.bytes());
    Ok(Some(authentication?))
}

#[cfg(test)]
mod tests {
    use vipd_bfd::Hops;

    use super::*;

    fn plan(text: &str) -> Plan {
        let (config, _) = config::Config::parse(text, "vipd.toml").expect("a good configuration");
        Plan::of(&config).expect("it can be carried out")
    }

    const BGP: &str = r#"
        [bgp]
        local_as = 64500
        router_id = "192.0.2.11"
        restart_time = "30s"
        [[bgp.peer]]
        address = "192.0.2.1"
        as = 64501
        source = "192.0.2.11"
        bfd = true
        [[bgp.peer]]
        address = "192.0.2.2"
        as = 64501
    "#;

    #[test]
    fn only_peers_with_bfd_have_a_session() {
        let plan = plan(BGP);
        let sessions: Vec<_> = plan.sessions.iter().collect();
        let [(path, wanted)] = sessions[..] else {
            panic!("one session, not {sessions:?}");
        };
        assert_eq!(path.remote.to_string(), "192.0.2.1");
        assert_eq!(
            path.local.map(|local| local.to_string()),
            Some("192.0.2.11".into())
        );
        assert_eq!(&*wanted.name, "192.0.2.1");
        assert_eq!(plan.restart_time, Duration::from_secs(30));
    }

    #[test]
    fn the_c_bit_is_set_where_packets_are_forwarded_without_the_agent() {
        let independent = |text: &str| {
            let plan = plan(text);
            let programs = plan.interfaces.clone();
            (
                plan.sessions
                    .values()
                    .all(|wanted| wanted.config.independent),
                programs,
            )
        };
        assert_eq!(independent(BGP), (false, vec![]));
        let dataplane = "[dataplane]\ninterfaces = [\"eth0\"]\n";
        assert_eq!(
            independent(&[dataplane, BGP].concat()),
            (true, vec!["eth0".to_owned()])
        );
    }

    #[test]
    fn backends_have_a_session_each_unless_a_peer_has_it_already() {
        let service = |name: &str, port: u16, mode: &str, bfd: &str| {
            format!(
                r#"
                [[service]]
                name = "{name}"
                vips = ["198.51.100.10"]
                protocol = "tcp"
                port = {port}
                mode = "{mode}"
                bfd = {bfd}
                [[service.backend]]
                name = "b1"
                address = "192.0.2.1"
                [[service.backend]]
                name = "b2"
                address = "192.0.2.21"
                "#
            )
        };
        let dataplane = "[dataplane]\ninterfaces = [\"eth0\"]\n".to_owned();
        let far = service("web", 80, "ipip", "true");
        let same = service("tls", 443, "gue", "{ min_tx = \"300ms\" }");
        let on_link = service("dns", 53, "l2-dsr", "true");
        for (text, expected) in [
            (
                [dataplane.clone(), BGP.to_owned(), far, same].concat(),
                [
                    ("192.0.2.1", Hops::Single, "192.0.2.1"),
                    ("192.0.2.21", Hops::Multi, "web/b2"),
                ],
            ),
            (
                [dataplane, on_link].concat(),
                [
                    ("192.0.2.1", Hops::Single, "dns/b1"),
                    ("192.0.2.21", Hops::Single, "dns/b2"),
                ],
            ),
        ] {
            let plan = plan(&text);
            let mut sessions: Vec<_> = plan
                .sessions
                .iter()
                .map(|(path, wanted)| (path.remote.to_string(), path.hops, &*wanted.name))
                .collect();
            sessions.sort_by(|a, b| a.0.cmp(&b.0));
            let found: Vec<_> = sessions
                .iter()
                .map(|(a, h, n)| (a.as_str(), *h, *n))
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn without_bgp_there_is_nothing_to_do() {
        assert!(plan("").sessions.is_empty());
    }
}
