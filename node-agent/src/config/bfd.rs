//! BFD as written and as validated: for each BGP peer and each backend that has
//! it, the session to be run by `vipd bfd`.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use toml::de::{DeTable, DeValue};
use vipd_bfd::{Hops, Method, Timing};

use super::{
    report::{Report, Span},
    secret::SecretFile,
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
    value::{Int, read_word, show_duration, words},
    written::{self, ModeName},
};

table! {
    /// The BFD process, `vipd bfd`. It runs beside the agent and outlives it; see
    /// [BFD](bfd.md).
    ///
    /// ```toml
    /// [bfd]
    /// socket = "/run/vipd/bfd.sock"
    /// ```
    Bfd = "[bfd]" {
        /// Unix socket through which the agent and `vipd show bfd` speak to it,
        /// readable and writable for its group.
        socket: PathBuf, default "\"/run/vipd/bfd.sock\"";
    }
}

table! {
    /// BFD for this peer; `bfd = true` in `[[bgp.peer]]` takes all defaults.
    ///
    /// ```toml
    /// [bgp.peer.bfd]
    /// min_tx = "100ms"
    /// min_rx = "100ms"
    /// auth = "meticulous-keyed-sha1"
    /// key_file = "tor1.bfd"
    /// ```
    BgpPeerBfd = "[bgp.peer.bfd]" {
        /// We send this often, or slower if the router asks for it; at least
        /// `"10ms"`.
        min_tx: Duration, default "\"300ms\"";
        /// The router may send this often; at least `"10ms"`.
        min_rx: Duration, default "\"300ms\"";
        /// The router gives us up after so many of our intervals without a
        /// packet.
        multiplier: Int<u8, 1, 255>, default "3";
        /// How packets of both sides are authenticated. `"simple"` sends the key
        /// readably; only the meticulous ones let no packet be repeated.
        auth: Auth, default "\"none\"";
        /// Number of the key, the same at the router.
        key_id: Int<u8, 0, 255>, default "1";
        /// File with the key, of at most 16 bytes (`simple` and MD5) or 20 (SHA-1).
        key_file: PathBuf, optional "must be given with `auth`";
        /// Whether BGP comes up only when BFD is up.
        strict: bool, default "false";
        /// Whether the router is not on our link (RFC 5883).
        multihop: bool, optional "whether `multihop` or `ttl_security` of the peer is above 1";
        /// The lowest TTL that packets over several hops may arrive with: 255 less
        /// the routers between, where the router sends them with 255. FRR does,
        /// BIRD sends its default of 64.
        min_ttl: Int<u8, 1, 255>, default "1";
        /// Whether we wait for the router to speak first.
        passive: bool, default "false";
    }
}

table! {
    /// BFD to each backend of the service; `bfd = true` in `[[service]]` takes
    /// all defaults. When a session that was up goes down the backend is down at
    /// once; that it comes up again is for its check to say. An address that is
    /// a BGP peer with BFD has that one's session.
    ///
    /// ```toml
    /// [service.bfd]
    /// min_tx = "50ms"
    /// min_rx = "50ms"
    /// min_ttl = 254
    /// ```
    ServiceBfd = "[service.bfd]" {
        /// We send this often, or slower if the backend asks for it; at least
        /// `"10ms"`.
        min_tx: Duration, default "\"300ms\"";
        /// The backend may send this often; at least `"10ms"`.
        min_rx: Duration, default "\"300ms\"";
        /// The backend gives us up after so many of our intervals without a
        /// packet; we give it up after as many of its own as it says.
        multiplier: Int<u8, 1, 255>, default "3";
        /// How packets of both sides are authenticated, as for BGP peers.
        auth: Auth, default "\"none\"";
        /// Number of the key, the same at the backend.
        key_id: Int<u8, 0, 255>, default "1";
        /// File with the key, of at most 16 bytes (`simple` and MD5) or 20 (SHA-1).
        key_file: PathBuf, optional "must be given with `auth`";
        /// Whether the backends are not on our link (RFC 5883).
        multihop: bool, optional "true unless the mode is `l2-dsr`";
        /// The lowest TTL that packets over several hops may arrive with.
        min_ttl: Int<u8, 1, 255>, default "1";
    }
}

/// How packets are authenticated, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth(Option<Method>);
words! { Auth {
    "none" => Self(None),
    "simple" => Self(Some(Method::Simple)),
    "keyed-md5" => Self(Some(Method::KeyedMd5)),
    "meticulous-keyed-md5" => Self(Some(Method::MeticulousKeyedMd5)),
    "keyed-sha1" => Self(Some(Method::KeyedSha1)),
    "meticulous-keyed-sha1" => Self(Some(Method::MeticulousKeyedSha1)),
} }

/// A table that may also be written as `true`, which takes all its defaults, or
/// as `false`.
#[derive(Clone, Debug)]
pub struct Switch<T>(pub Option<T>);

impl<T: Value> Value for Switch<T> {
    fn kind() -> String {
        String::from("true, false or table")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        match value.as_bool() {
            Some(false) => Some(Self(None)),
            Some(true) => {
                let defaults = DeValue::Table(DeTable::new());
                T::read(&defaults, span, report).map(|table| Self(Some(table)))
            }
            None => T::read(value, span, report).map(|table| Self(Some(table))),
        }
    }

    fn tables() -> Vec<TableDoc> {
        T::tables()
    }
}

/// The BFD session with a BGP peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerBfd {
    /// The session.
    pub session: BfdSession,
    /// Whether BGP comes up only when BFD is up.
    pub strict: bool,
    /// Whether we wait for the router to speak first.
    pub passive: bool,
}

/// The BFD session with a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendBfd {
    /// `SERVICE/BACKEND`, of the first service that wants it.
    pub name: Arc<str>,
    /// Our address, if it is given.
    pub source: Option<IpAddr>,
    /// The session.
    pub session: BfdSession,
}

/// What a BFD session goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdSession {
    /// How fast packets follow each other.
    pub timing: Timing,
    /// How packets are authenticated.
    pub key: Option<BfdKey>,
    /// How far the other side is.
    pub hops: Hops,
    /// The lowest TTL that packets over several hops may arrive with.
    pub min_ttl: u8,
}

/// How packets of a session are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdKey {
    /// The method.
    pub method: Method,
    /// Number of the key.
    pub id: u8,
    /// Where the key is.
    pub file: SecretFile,
}

/// The shortest interval.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Hops that hardly any way in the Internet is longer than.
const FAR: u8 = 32;

impl PeerBfd {
    /// What a peer wants; `None` in the outer option if something
    /// is wrong.
    pub(super) fn validate(
        peer: &written::BgpPeer,
        directory: &Path,
        report: &mut Report,
    ) -> Option<Option<Self>> {
        let Some(At {
            value: Switch(Some(bfd)),
            span,
        }) = &peer.bfd
        else {
            return Some(None);
        };
        let multihop = match &bfd.multihop {
            Some(multihop) => multihop.value,
            None => {
                let ttl_security = peer.ttl_security.as_ref();
                peer.multihop.as_ref().is_some_and(|hops| hops.value.0 > 1)
                    || ttl_security.is_some_and(|hops| hops.value.0 > 1)
            }
        };
        let taken = "whoever sends one in the router's name takes BGP down";
        let session = bfd
            .keys()
            .session(span, multihop, taken, directory, report)?;
        Some(Some(Self {
            session,
            strict: bfd.strict.value,
            passive: bfd.passive.value,
        }))
    }
}

/// The sessions with the backends of all services, by address.
pub fn backends(
    services: &[At<written::Service>],
    directory: &Path,
    report: &mut Report,
) -> Option<BTreeMap<IpAddr, BackendBfd>> {
    let mut sessions: BTreeMap<IpAddr, (BackendBfd, &Span)> = BTreeMap::new();
    let mut complete = true;
    for service in services {
        let service = &service.value;
        let Some(At {
            value: Switch(Some(bfd)),
            span,
        }) = &service.bfd
        else {
            continue;
        };
        let on_link = matches!(&service.mode, Some(mode) if mode.value == ModeName::L2Dsr);
        let multihop = bfd.multihop.as_ref().map_or(!on_link, |at| at.value);
        let taken = "whoever sends one in a backend's name takes it down";
        let Some(session) = bfd.keys().session(span, multihop, taken, directory, report) else {
            complete = false;
            continue;
        };
        let backends = service.backend.iter().flat_map(|list| &list.value);
        let tracked = |backend: &&At<written::Backend>| backend.value.track.is_some();
        for backend in backends.filter(|backend| !tracked(backend)) {
            let names = service.name.as_ref().zip(backend.value.name.as_ref());
            let (Some((name, own)), Some(address)) = (names, &backend.value.address) else {
                continue;
            };
            let wanted = BackendBfd {
                name: format!("{}/{}", name.value, own.value).into(),
                source: service.check.value.source.as_ref().map(|at| at.value),
                session: session.clone(),
            };
            match sessions.get(&address.value) {
                None => {
                    sessions.insert(address.value, (wanted, span));
                }
                Some((other, first))
                    if (&other.session, other.source) != (&wanted.session, wanted.source) =>
                {
                    let title = format!(
                        "{} and {} are one address, and its BFD is not the same in both",
                        other.name, wanted.name
                    );
                    report
                        .error(span, title)
                        .related(first, "the first")
                        .help("an address has one session: write the same for both services");
                    break;
                }
                Some(_) => (),
            }
        }
    }
    let sessions = sessions.into_iter();
    complete.then(|| sessions.map(|(address, (bfd, _))| (address, bfd)).collect())
}

/// The keys that peers and backends have in common.
struct Keys<'a> {
    min_tx: &'a At<Duration>,
    min_rx: &'a At<Duration>,
    multiplier: u8,
    auth: &'a At<Auth>,
    key_id: u8,
    key_file: Option<&'a At<PathBuf>>,
    min_ttl: u8,
}

/// Gives the keys that both tables have.
macro_rules! keys {
    ($($table:ty),*) => {
        $(impl $table {
            fn keys(&self) -> Keys<'_> {
                Keys {
                    min_tx: &self.min_tx,
                    min_rx: &self.min_rx,
                    multiplier: self.multiplier.value.0,
                    auth: &self.auth,
                    key_id: self.key_id.value.0,
                    key_file: self.key_file.as_ref(),
                    min_ttl: self.min_ttl.value.0,
                }
            }
        })*
    };
}
keys!(BgpPeerBfd, ServiceBfd);

impl Keys<'_> {
    /// The session, or `None` if something is wrong. `taken` says what a forged
    /// packet does.
    fn session(
        &self,
        span: &Span,
        multihop: bool,
        taken: &str,
        directory: &Path,
        report: &mut Report,
    ) -> Option<BfdSession> {
        for interval in [self.min_tx, self.min_rx] {
            if interval.value < INTERVAL_MIN {
                let min = show_duration(INTERVAL_MIN);
                report
                    .error(&interval.span, "BFD packets follow each other too closely")
                    .help(format!("at least \"{min}\""));
            }
        }
        match (self.auth.value.0, self.key_file) {
            (Some(_), None) => {
                report
                    .error(&self.auth.span, "BFD is to be authenticated without a key")
                    .help("add `key_file`, a file with the key");
            }
            (None, Some(file)) => {
                report
                    .error(&file.span, "a key for BFD, and no `auth` that uses it")
                    .help("add auth = \"meticulous-keyed-sha1\", or what the other side has");
            }
            (Some(_), Some(_)) | (None, None) => (),
        }
        let from_afar = u8::MAX - self.min_ttl;
        if multihop && self.auth.value.0.is_none() && from_afar > FAR {
            report
                .warning(
                    span,
                    format!(
                        "BFD over several hops without `auth`, with packets from {from_afar} hops \
                         away: {taken}"
                    ),
                )
                .help("add `auth` and `key_file`, or a `min_ttl` that only the right ones reach");
        }
        let timing = Timing::new(self.min_tx.value, self.min_rx.value, self.multiplier);
        let timing = match timing {
            Ok(timing) => timing,
            Err(error) => {
                report
                    .error(span, error.to_string())
                    .help("shorter intervals");
                return None;
            }
        };
        Some(BfdSession {
            timing,
            key: self.key(directory),
            hops: if multihop { Hops::Multi } else { Hops::Single },
            min_ttl: self.min_ttl,
        })
    }

    fn key(&self, directory: &Path) -> Option<BfdKey> {
        let method = self.auth.value.0?;
        let file = self.key_file?;
        Some(BfdKey {
            method,
            id: self.key_id,
            file: SecretFile::new(directory.join(&file.value), method.key_max()),
        })
    }
}

/// A file with a key as written, and where it is.
pub type KeyFile<'a> = (&'a At<PathBuf>, SecretFile);

impl written::BgpPeer {
    /// The key file of BFD.
    pub(super) fn bfd_key(&self, directory: &Path) -> Option<KeyFile<'_>> {
        let keys = self.bfd.as_ref()?.value.0.as_ref()?.keys();
        Some((keys.key_file?, keys.key(directory)?.file))
    }
}

impl written::Service {
    /// The key file of BFD.
    pub(super) fn bfd_key(&self, directory: &Path) -> Option<KeyFile<'_>> {
        let keys = self.bfd.as_ref()?.value.0.as_ref()?.keys();
        Some((keys.key_file?, keys.key(directory)?.file))
    }
}
