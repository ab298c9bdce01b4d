//! BFD as written and as validated: for each BGP peer that has it, the session
//! to be run by `vipd bfd`.

use std::{path::Path, path::PathBuf, time::Duration};

use toml::de::{DeTable, DeValue};
use vipd_bfd::{Hops, Method, Timing};

use super::{
    report::{Report, Span},
    secret::SecretFile,
    table::{At, KeyDoc, Need, Reader, TableDoc, Value, table},
    value::{Int, read_word, show_duration, words},
    written,
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
    /// How fast packets follow each other.
    pub timing: Timing,
    /// How packets are authenticated.
    pub key: Option<BfdKey>,
    /// Whether BGP comes up only when BFD is up.
    pub strict: bool,
    /// How far the peer is.
    pub hops: Hops,
    /// The lowest TTL that packets over several hops may arrive with.
    pub min_ttl: u8,
    /// Whether we wait for the router to speak first.
    pub passive: bool,
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
        for interval in [&bfd.min_tx, &bfd.min_rx] {
            if interval.value < INTERVAL_MIN {
                let min = show_duration(INTERVAL_MIN);
                report
                    .error(&interval.span, "BFD packets follow each other too closely")
                    .help(format!("at least \"{min}\""));
            }
        }
        match (bfd.auth.value.0, &bfd.key_file) {
            (Some(_), None) => {
                report
                    .error(&bfd.auth.span, "BFD is to be authenticated without a key")
                    .help("add `key_file`, a file with the key");
            }
            (None, Some(file)) => {
                report
                    .error(&file.span, "a key for BFD, and no `auth` that uses it")
                    .help("add auth = \"meticulous-keyed-sha1\", or what the router has");
            }
            (Some(_), Some(_)) | (None, None) => (),
        }
        let multihop = match &bfd.multihop {
            Some(multihop) => multihop.value,
            None => {
                let ttl_security = peer.ttl_security.as_ref();
                peer.multihop.as_ref().is_some_and(|hops| hops.value.0 > 1)
                    || ttl_security.is_some_and(|hops| hops.value.0 > 1)
            }
        };
        let from_afar = u8::MAX - bfd.min_ttl.value.0;
        if multihop && bfd.auth.value.0.is_none() && from_afar > FAR {
            report
                .warning(
                    span,
                    format!(
                        "BFD over several hops without `auth`, with packets from {from_afar} hops \
                         away: whoever sends one in the router's name takes BGP down"
                    ),
                )
                .help("add `auth` and `key_file`, or a `min_ttl` that only the router's reach");
        }
        let timing = Timing::new(bfd.min_tx.value, bfd.min_rx.value, bfd.multiplier.value.0);
        let timing = match timing {
            Ok(timing) => timing,
            Err(error) => {
                report
                    .error(span, error.to_string())
                    .help("shorter intervals");
                return None;
            }
        };
        Some(Some(Self {
            timing,
            key: bfd.key(directory),
            strict: bfd.strict.value,
            hops: if multihop { Hops::Multi } else { Hops::Single },
            min_ttl: bfd.min_ttl.value.0,
            passive: bfd.passive.value,
        }))
    }
}

impl BgpPeerBfd {
    fn key(&self, directory: &Path) -> Option<BfdKey> {
        let method = self.auth.value.0?;
        let file = self.key_file.as_ref()?;
        Some(BfdKey {
            method,
            id: self.key_id.value.0,
            file: SecretFile::new(directory.join(&file.value), method.key_max()),
        })
    }
}

impl written::BgpPeer {
    /// The key file of BFD as written, and where the key is.
    pub(super) fn bfd_key(&self, directory: &Path) -> Option<(&At<PathBuf>, SecretFile)> {
        let bfd = self.bfd.as_ref()?.value.0.as_ref()?;
        Some((bfd.key_file.as_ref()?, bfd.key(directory)?.file))
    }
}
