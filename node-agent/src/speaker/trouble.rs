//! Why there is no connection, in an operator's words: what happened, and what
//! to look at.

use std::{io, time::Duration};

use vipd_bgp::State;

use super::{
    dropped::Dropped,
    icmp::{IcmpError, IcmpKind},
};
use crate::config::{BgpPeer, Reach};

/// Why a dial has failed.
#[derive(Debug)]
pub enum Trouble {
    /// Its socket could not be prepared.
    Local(Step, io::Error),
    /// It was answered, but not as hoped.
    Refused {
        /// What the kernel says.
        error: io::Error,
        /// What a host on the way said.
        icmp: Option<IcmpError>,
        /// Whether that host is this one.
        ours: bool,
    },
    /// Nothing came back.
    Silence(Dropped),
}

/// What is done to a socket before it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is made, and told small things.
    Open,
    /// It is bound to the interface.
    Interface,
    /// It is bound to the source address.
    Source,
    /// It is given the password.
    Password,
    /// It is told which TTL to take.
    Ttl,
}

impl Trouble {
    /// Words that fit behind "cannot connect: ".
    #[must_use]
    pub fn words(&self, peer: &BgpPeer) -> String {
        match self {
            Self::Local(step, error) => local(*step, error, peer),
            Self::Refused {
                error,
                icmp: Some(icmp),
                ours,
            } => reported(icmp, *ours, error, peer),
            Self::Refused { error, .. } => refused(error, peer),
            Self::Silence(dropped) => silence(*dropped, peer),
        }
    }
}

fn local(step: Step, error: &io::Error, peer: &BgpPeer) -> String {
    let interface = peer.interface.as_ref();
    match (step, error.raw_os_error(), interface, peer.source) {
        (Step::Interface, Some(libc::ENODEV), Some(interface), _) => format!(
            "there is no interface {interface} on this host: see `ip link`, or change `interface` \
             of this peer"
        ),
        (Step::Source, Some(libc::EADDRNOTAVAIL), _, Some(source)) => format!(
            "the source address {source} is not configured on this host: add it, or change \
             `source` of this peer"
        ),
        (Step::Password, Some(libc::ENOPROTOOPT), ..) => {
            "this kernel has no TCP MD5 signatures (CONFIG_TCP_MD5SIG), but the peer has a \
             password_file"
                .to_owned()
        }
        (Step::Password, ..) => format!("the password cannot be set: {error}"),
        (Step::Ttl, ..) => format!("ttl_security cannot be set on this kernel: {error}"),
        (Step::Interface, ..) => format!("the session cannot be bound to its interface: {error}"),
        (Step::Open | Step::Source, ..) => error.to_string(),
    }
}

/// A host on the way has said why.
fn reported(icmp: &IcmpError, ours: bool, error: &io::Error, peer: &BgpPeer) -> String {
    let (address, port) = (peer.address.ip(), peer.address.port());
    let from = icmp.from;
    match (icmp.kind, peer.reach) {
        (IcmpKind::HopsExceeded, Reach::Hops(hops)) => format!(
            "{address} is more than {} away: {from} dropped our packet there (time exceeded); set \
             `multihop` of this peer to the number of hops",
            in_hops(hops.get())
        ),
        (IcmpKind::HopsExceeded, Reach::Secured(_)) => format!(
            "packets to {address} go in circles: {from} dropped one after 255 hops; see \
             `traceroute {address}`"
        ),
        (IcmpKind::Prohibited, _) => format!(
            "{from} forbids it (ICMP: administratively prohibited): a packet filter there blocks \
             port {port} of {address} for us"
        ),
        (IcmpKind::Port, _) => format!(
            "{from} refuses it (ICMP: port unreachable): a packet filter there blocks port {port} \
             of {address} for us"
        ),
        (IcmpKind::Unreachable, _) if ours => format!(
            "{address} is not there: nobody on the link answers for it (ARP, neighbour \
             discovery); see `ip neigh show {address}` and `ip route get {address}`"
        ),
        (IcmpKind::Unreachable, _) => {
            format!("{from} knows no way to {address} (ICMP: {error}): see its routes")
        }
    }
}

fn refused(error: &io::Error, peer: &BgpPeer) -> String {
    let address = peer.address;
    let ip = address.ip();
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => format!(
            "nothing listens on {address}: is BGP running there, and does it accept us as a \
             neighbour?"
        ),
        Some(libc::ECONNRESET) if peer.password.is_some() => format!(
            "{address} reset the connection, and an MD5 password is set here: the password may \
             differ or be missing there"
        ),
        Some(libc::ECONNRESET) => format!(
            "{address} reset the connection: it may not know us as a neighbour, or expect an \
             MD5 password"
        ),
        Some(libc::EACCES | libc::EPERM) => format!(
            "this host forbids it: a packet filter (`nft list ruleset`) or a prohibiting route \
             (`ip route get {ip}`) here blocks it"
        ),
        Some(libc::EINVAL) => {
            format!("the route to {ip} on this host is a blackhole: see `ip route get {ip}`")
        }
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => {
            format!("there is no way to {address}: see `ip route get {ip}`")
        }
        Some(libc::ETIMEDOUT) => silence(Dropped::default(), peer),
        _ => error.to_string(),
    }
}

fn silence(dropped: Dropped, peer: &BgpPeer) -> String {
    let address = peer.address;
    let port = address.port();
    let cause = match (evidence(dropped, peer), &peer.password, peer.reach) {
        (Some(cause), ..) => cause,
        (None, Some(_), _) => format!(
            "an MD5 password is set here: the password may differ or be missing there, or the \
             session not be set up (such segments are dropped without a word), or port {port} is \
             blocked"
        ),
        (None, None, Reach::Secured(_)) => format!(
            "ttl_security is set here: it may be farther away or not send with a TTL of 255 (such \
             segments are dropped without a word), or port {port} is blocked"
        ),
        (None, None, Reach::Hops(_)) => format!(
            "port {port} may be blocked, the host down, or an MD5 password or ttl-security \
             expected there"
        ),
    };
    format!("no answer from {address}: {cause}")
}

/// What segments that the kernel has dropped tell of the peer. They may have
/// come from others too, but seldom have. How many they are is not told: the same
/// trouble would have other words at each attempt, and fill the log.
#[must_use]
pub fn evidence(dropped: Dropped, peer: &BgpPeer) -> Option<String> {
    let Dropped {
        unsigned,
        unexpected,
        forged,
        too_far,
    } = dropped;
    match (&peer.password, peer.reach) {
        (Some(_), _) if forged > 0 => Some(
            "segments signed with another MD5 password come in and are dropped: the passwords \
             differ"
                .to_owned(),
        ),
        (Some(_), _) if unsigned > 0 => Some(
            "segments without an MD5 signature come in and are dropped: no password is set \
             there, or nothing listens there"
                .to_owned(),
        ),
        (None, _) if unexpected > 0 => Some(
            "segments with an MD5 signature come in and are dropped: a password is set there, \
             and none here (`password_file`)"
                .to_owned(),
        ),
        (_, Reach::Secured(hops)) if too_far > 0 => Some(format!(
            "its packets come with too low a TTL and are dropped: it is more than {} away, or \
             does not send with 255 (GTSM, ttl-security)",
            in_hops(hops.get())
        )),
        _ => None,
    }
}

fn in_hops(hops: u8) -> String {
    let plural = if hops == 1 { "" } else { "s" };
    format!("{hops} hop{plural}")
}

/// What the end of a connection means that got to `state`; fits behind "the
/// connection ended: ".
#[must_use]
pub fn end(
    error: Option<&io::Error>,
    state: State,
    hold_time: Duration,
    dropped: Dropped,
    peer: &BgpPeer,
) -> String {
    let early = state <= State::OpenSent;
    let unwanted = "before its OPEN: it may not know us as a neighbour, by this address, or hold \
                    the session down";
    match error.map(io::Error::raw_os_error) {
        None if early => format!("the peer closed it {unwanted}"),
        None => "the peer closed it without a NOTIFICATION".to_owned(),
        Some(Some(libc::ECONNRESET)) if early => format!("the peer reset it {unwanted}"),
        Some(Some(libc::ECONNRESET)) => {
            "the peer reset it: BGP or the host has ended there, or the session was cut on the way"
                .to_owned()
        }
        Some(Some(libc::ETIMEDOUT)) => format!(
            "the peer acknowledged nothing for {hold_time:?}: {}",
            evidence(dropped, peer).unwrap_or_else(|| "it is down or cannot be reached".to_owned())
        ),
        Some(_) => error.map_or_else(String::new, ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;
    use crate::{config::SecretFile, speaker::tests::peer};

    fn check(sentence: &str, trouble: &Trouble, peer: &BgpPeer, expected: &[&str]) {
        let words = trouble.words(peer);
        for part in expected {
            assert!(words.contains(part), "{sentence}: no {part:?} in {words:?}");
        }
    }

    fn refused(errno: i32, icmp: Option<IcmpKind>, ours: bool) -> Trouble {
        Trouble::Refused {
            error: io::Error::from_raw_os_error(errno),
            icmp: icmp.map(|kind| IcmpError {
                from: [203, 0, 113, 1].into(),
                kind,
            }),
            ours,
        }
    }

    #[test]
    fn each_cause_has_words_of_its_own() {
        use IcmpKind::{HopsExceeded, Port, Prohibited, Unreachable};

        let plain = peer("192.0.2.1:179");
        let signed = BgpPeer {
            password: Some(SecretFile::new("/etc/vipd/md5".into(), 80)),
            ..plain.clone()
        };
        let secured = BgpPeer {
            reach: Reach::Secured(NonZeroU8::MIN),
            ..plain.clone()
        };
        let bound = BgpPeer {
            interface: "eth7".parse().ok(),
            source: Some([192, 0, 2, 77].into()),
            ..plain.clone()
        };
        let local = |step, errno| Trouble::Local(step, io::Error::from_raw_os_error(errno));
        let counted = |unsigned, unexpected, forged, too_far| {
            Trouble::Silence(Dropped {
                unsigned,
                unexpected,
                forged,
                too_far,
            })
        };
        let silence = counted(0, 0, 0, 0);
        let refused_port = refused(libc::ECONNREFUSED, None, false);
        let table: [(&str, Trouble, &BgpPeer, &[&str]); 20] = [
            (
                "nothing listens",
                refused_port,
                &plain,
                &["nothing listens on 192.0.2.1:179"],
            ),
            (
                "reset, no password",
                refused(libc::ECONNRESET, None, false),
                &plain,
                &["expect an MD5"],
            ),
            (
                "reset, password",
                refused(libc::ECONNRESET, None, false),
                &signed,
                &["missing there"],
            ),
            (
                "no route",
                refused(libc::ENETUNREACH, None, false),
                &plain,
                &["ip route get 192.0.2.1"],
            ),
            (
                "blackhole",
                refused(libc::EINVAL, None, false),
                &plain,
                &["a blackhole"],
            ),
            (
                "own filter",
                refused(libc::EPERM, None, false),
                &plain,
                &["this host forbids it"],
            ),
            (
                "filter",
                refused(libc::EHOSTUNREACH, Some(Prohibited), false),
                &plain,
                &["203.0.113.1 forbids it", "blocks port 179"],
            ),
            (
                "reject",
                refused(libc::ECONNREFUSED, Some(Port), false),
                &plain,
                &["packet filter"],
            ),
            (
                "too far",
                refused(libc::EHOSTUNREACH, Some(HopsExceeded), false),
                &plain,
                &[
                    "192.0.2.1 is more than 1 hop away: 203.0.113.1",
                    "`multihop`",
                ],
            ),
            (
                "loop",
                refused(libc::EHOSTUNREACH, Some(HopsExceeded), false),
                &secured,
                &["circles"],
            ),
            (
                "nobody there",
                refused(libc::EHOSTUNREACH, Some(Unreachable), true),
                &plain,
                &["nobody on the link", "ip neigh"],
            ),
            (
                "no way on",
                refused(libc::EHOSTUNREACH, Some(Unreachable), false),
                &plain,
                &["203.0.113.1 knows no way"],
            ),
            (
                "silence",
                counted(0, 0, 0, 0),
                &plain,
                &["may be blocked", "MD5 password"],
            ),
            (
                "silence, password",
                counted(0, 0, 0, 0),
                &signed,
                &["may differ or be missing", "the session not be set up"],
            ),
            (
                "silence, GTSM",
                silence,
                &secured,
                &["ttl_security is set here"],
            ),
            (
                "wrong password",
                counted(1, 0, 2, 0),
                &signed,
                &["the passwords differ"],
            ),
            (
                "none there",
                counted(3, 0, 0, 0),
                &signed,
                &["no password is set there"],
            ),
            (
                "none here",
                counted(0, 4, 0, 0),
                &plain,
                &["none here (`password_file`)"],
            ),
            (
                "low TTL",
                counted(0, 0, 0, 5),
                &secured,
                &["more than 1 hop away"],
            ),
            (
                "others' segments",
                counted(1, 0, 1, 1),
                &plain,
                &["may be blocked"],
            ),
        ];
        for (sentence, trouble, peer, expected) in &table {
            check(sentence, trouble, peer, expected);
        }
        let steps: [(Step, i32, &str); 4] = [
            (Step::Interface, libc::ENODEV, "there is no interface eth7"),
            (
                Step::Source,
                libc::EADDRNOTAVAIL,
                "192.0.2.77 is not configured on this host",
            ),
            (
                Step::Password,
                libc::ENOPROTOOPT,
                "this kernel has no TCP MD5 signatures",
            ),
            (Step::Ttl, libc::ENOPROTOOPT, "ttl_security cannot be set"),
        ];
        for (step, errno, expected) in steps {
            check(
                &format!("{step:?}"),
                &local(step, errno),
                &bound,
                &[expected],
            );
        }
    }

    #[test]
    fn an_end_before_the_open_says_more_than_one_behind_it() {
        let error = |errno| Some(io::Error::from_raw_os_error(errno));
        let signed = BgpPeer {
            password: Some(SecretFile::new("/etc/vipd/md5".into(), 80)),
            ..peer("192.0.2.1:179")
        };
        let dropped = Dropped {
            forged: 1,
            ..Dropped::default()
        };
        let table = [
            (None, State::OpenSent, "before its OPEN"),
            (None, State::Established, "without a NOTIFICATION"),
            (
                error(libc::ECONNRESET),
                State::OpenSent,
                "reset it before its OPEN",
            ),
            (
                error(libc::ECONNRESET),
                State::Established,
                "cut on the way",
            ),
            (
                error(libc::ETIMEDOUT),
                State::Established,
                "nothing for 9s: segments signed with another",
            ),
            (error(libc::EPIPE), State::Established, "Broken pipe"),
        ];
        for (error, state, expected) in table {
            let words = end(
                error.as_ref(),
                state,
                Duration::from_secs(9),
                dropped,
                &signed,
            );
            assert!(words.contains(expected), "no {expected:?} in {words:?}");
        }
    }
}
