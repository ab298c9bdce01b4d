//! The BGP speaker as validated: who we are, the routers we speak to and what
//! we tell each of them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use vipd_bgp::wire::MAX_RESTART_TIME;
use vipd_control::{aggregate::Aggregate, damping::Terms, model::Vip};

use super::{
    address::Vips,
    aggregate::aggregates,
    bfd::PeerBfd,
    community::Community,
    damping,
    reach::Reach,
    report::{Report, Span},
    routing::{Asn, HoldTime, NextHop},
    rule::{self, Known, Rule},
    secret::SecretFile,
    table::At,
    text::{InterfaceName, Name},
    upstream::warn_filtered,
    valid::check_unique,
    value::show_duration,
    written::{self, Family, GracefulRestart, Port},
};

/// The BGP speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// Our AS number.
    pub local_as: Asn,
    /// Our BGP identifier; no virtual address.
    pub router_id: Ipv4Addr,
    /// How long routers may keep our routes while the agent is away.
    pub restart_time: Duration,
    /// The port at which routers may connect to us; `None`: they may not.
    pub listen: Option<Port>,
    /// The routers we speak to, in the order of their names.
    pub peers: Vec<Arc<BgpPeer>>,
    /// What is announced for the virtual addresses inside it.
    pub aggregates: Vec<Aggregate>,
    /// What improvements wait for.
    pub damping: Terms,
}

/// One router and the session to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// Unique among peers.
    pub name: Arc<str>,
    /// Where the router is; the address is unique among peers.
    pub address: SocketAddr,
    /// AS number of the router.
    pub remote_as: Asn,
    /// Internal or external, and what only one of them has.
    pub relation: Relation,
    /// Our address of the session; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// The interface or VRF the session is bound to; `None` goes by the routes.
    pub interface: Option<InterfaceName>,
    /// How far away the router may be.
    pub reach: Reach,
    /// TCP MD5 password.
    pub password: Option<SecretFile>,
    /// Whether we only wait for the router to connect.
    pub passive: bool,
    /// The hold time we propose.
    pub hold_time: HoldTime,
    /// Pause before the second attempt to connect.
    pub connect_retry: Duration,
    /// The BFD session with the router, if it is to be watched so.
    pub bfd: Option<PeerBfd>,
    /// Whether the router is asked to keep our routes while the agent is away.
    pub graceful_restart: bool,
    /// The most prefixes of each family that the router may announce.
    pub max_prefixes: Option<u32>,
    /// Families of the routes, at least one, with their next hops.
    pub families: Families,
    /// MULTI_EXIT_DISC of announcements.
    pub med: Option<u32>,
    /// Communities of announcements, sorted, without repetition.
    pub communities: Vec<Community>,
    /// Whether the world is behind it.
    pub upstream: bool,
    /// What changes these attributes, in the order in which it is applied.
    pub rules: Vec<Arc<Rule>>,
}

/// What a peer is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// In our AS (iBGP).
    Internal {
        /// LOCAL_PREF of announcements.
        local_preference: u32,
    },
    /// In another AS (eBGP).
    External {
        /// How many more times our AS stands in the AS path.
        prepend: u8,
    },
}

/// The next hop per address family of a session; `None`: the family is not
/// negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// Of IPv4 unicast routes.
    pub ipv4: Option<NextHop<Ipv4Addr>>,
    /// Of IPv6 unicast routes.
    pub ipv6: Option<NextHop<Ipv6Addr>>,
}

/// LOCAL_PREF of routers that are told none.
const LOCAL_PREFERENCE_DEFAULT: u32 = 100;

/// The shortest pause between attempts to connect.
const CONNECT_RETRY_MIN: Duration = Duration::from_millis(100);

impl Bgp {
    pub(super) fn validate(
        written: &At<written::Bgp>,
        vips: &Vips,
        directory: &Path,
        report: &mut Report,
    ) -> Option<Self> {
        let table = &written.value;
        if let Some(router_id) = &table.router_id {
            vips.check_host(router_id, "the router id", report);
        }
        if table.peer.value.is_empty() {
            report
                .warning(&written.span, "[bgp] has no peer: nothing is announced")
                .help("add a [[bgp.peer]]");
        }
        let peers = &table.peer.value;
        let names: Vec<_> = peers.iter().filter_map(name).collect();
        check_unique(names.iter(), "peer name", report);
        let addresses = peers.iter().filter_map(|peer| peer.value.address.as_ref());
        check_unique(addresses, "peer address", report);

        let aggregates = aggregates(&table.aggregate.value, vips, report);
        let damping = damping::terms(table.damping.as_ref(), report);
        for peer in peers.iter().map(|peer| &peer.value.passive) {
            if peer.value && !table.listen.value {
                report
                    .error(&peer.span, "a passive peer, and nobody listens")
                    .related(&table.listen.span, "it cannot connect to us")
                    .help("leave out `passive`, or `listen = false`");
            }
        }

        let local_as = table.local_as.as_ref()?.value;
        let validate = |peer| BgpPeer::validate(peer, local_as, vips, directory, report);
        let validated: Vec<Option<BgpPeer>> = peers.iter().map(validate).collect();
        let rules = rules(table, local_as, vips, report);
        let mut peers: Vec<_> = validated.into_iter().collect::<Option<_>>()?;
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        let announced = announced(table, vips);
        for peer in &mut peers {
            let own = rules.iter().filter(|(names, _)| names.contains(&peer.name));
            peer.rules = own.map(|(_, rule)| Arc::clone(rule)).collect();
            if peer.upstream {
                warn_filtered(peer, &announced, report);
            }
        }
        Some(Self {
            local_as,
            router_id: table.router_id.as_ref()?.value,
            restart_time: restart_time(&table.restart_time, report)?,
            listen: table.listen.value.then_some(table.listen_port.value),
            peers: peers.into_iter().map(Arc::new).collect(),
            aggregates: aggregates?,
            damping,
        })
    }

    /// The peer of that name.
    #[must_use]
    pub fn peer(&self, name: &str) -> Option<&Arc<BgpPeer>> {
        let found = self.peers.binary_search_by(|peer| (*peer.name).cmp(name));
        found.ok().and_then(|i| self.peers.get(i))
    }
}

impl BgpPeer {
    fn validate(
        written: &At<written::BgpPeer>,
        local_as: Asn,
        vips: &Vips,
        directory: &Path,
        report: &mut Report,
    ) -> Option<Self> {
        let peer = &written.value;
        let address = peer.address.as_ref()?;
        check_addresses(peer, address, vips, report);
        let retry = &peer.connect_retry;
        if retry.value < CONNECT_RETRY_MIN {
            let min = show_duration(CONNECT_RETRY_MIN);
            report
                .error(
                    &retry.span,
                    "attempts to connect follow each other too closely",
                )
                .help(format!("at least \"{min}\""));
        }
        let families = Families::validate(written, address.value, report);
        let remote_as = peer.r#as.as_ref()?.value;
        let internal = remote_as == local_as;
        if internal && peer.upstream.value {
            report
                .error(&peer.upstream.span, "a peer in our own AS is no upstream")
                .help("remove `upstream`, or set it at the eBGP peers");
        }
        let bfd = PeerBfd::validate(peer, directory, report);
        let graceful_restart = match peer.graceful_restart.value {
            GracefulRestart::Auto => matches!(bfd, Some(Some(_))),
            GracefulRestart::Always => true,
            GracefulRestart::Off => false,
        };
        let mut communities: Vec<_> = peer.communities.value.iter().map(|at| at.value).collect();
        communities.sort_unstable();
        communities.dedup();
        Some(Self {
            name: name(written)?.value.0,
            address: SocketAddr::new(address.value, peer.port.value.get()),
            remote_as,
            relation: relation(peer, internal, report),
            source: peer.source.as_ref().map(|source| source.value),
            interface: peer.interface.as_ref().map(|at| at.value.clone()),
            reach: Reach::validate(peer, internal, report)?,
            password: peer.password(directory),
            passive: peer.passive.value,
            hold_time: peer.hold_time.value,
            connect_retry: retry.value,
            bfd: bfd?,
            graceful_restart,
            max_prefixes: peer.max_prefixes.as_ref().map(|most| most.value.0),
            families: families?,
            med: peer.med.as_ref().map(|med| med.value.0),
            communities,
            upstream: peer.upstream.value && !internal,
            rules: Vec::new(),
        })
    }
}

/// The rules, each with the names of its peers. Peers that are wrong in other
/// ways are known all the same.
fn rules(
    table: &written::Bgp,
    local_as: Asn,
    vips: &Vips,
    report: &mut Report,
) -> Vec<(Vec<Arc<str>>, Arc<Rule>)> {
    let known = |peer: &At<written::BgpPeer>| {
        Some(Known {
            name: name(peer)?.value.0,
            remote_as: peer.value.r#as.as_ref().map(|asn| asn.value),
        })
    };
    let peers: Vec<_> = table.peer.value.iter().filter_map(known).collect();
    let aggregates = table.aggregate.value.iter();
    let aggregates: BTreeSet<Vip> = aggregates
        .filter_map(|at| Some(at.value.prefix.as_ref()?.value))
        .collect();
    let world = rule::World {
        local_as,
        peers: &peers,
        vips,
        aggregates: &aggregates,
    };
    rule::rules(&table.rule.value, &world, report)
}

/// All that can be announced, and where it stands.
fn announced(table: &written::Bgp, vips: &Vips) -> Vec<(Vip, Span)> {
    let aggregates = table.aggregate.value.iter();
    let prefixes = aggregates.filter_map(|at| at.value.prefix.as_ref());
    let prefixes = prefixes.map(|at| (at.value, at.span.clone()));
    let suppressing: Vec<Vip> = table
        .aggregate
        .value
        .iter()
        .filter(|at| at.value.suppress.value)
        .filter_map(|at| Some(at.value.prefix.as_ref()?.value))
        .collect();
    let is_alone = |vip: &Vip| !suppressing.iter().any(|around| around.contains(*vip));
    let vips = vips.iter().filter(|(vip, _)| is_alone(vip));
    vips.map(|(vip, span)| (*vip, span.clone()))
        .chain(prefixes)
        .collect()
}

/// It goes over the wire in whole seconds (RFC 4724 section 3).
fn restart_time(written: &At<Duration>, report: &mut Report) -> Option<Duration> {
    let time = written.value;
    if time.subsec_nanos() == 0 && (1..=u64::from(MAX_RESTART_TIME)).contains(&time.as_secs()) {
        return Some(time);
    }
    let title = format!("a restart time of {} is not possible", show_duration(time));
    report.error(&written.span, title).help(format!(
        "whole seconds, from \"1s\" to \"{MAX_RESTART_TIME}s\""
    ));
    None
}

/// The name as written, or the address.
fn name(peer: &At<written::BgpPeer>) -> Option<At<Name>> {
    match (&peer.value.name, &peer.value.address) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(address)) => Some(At {
            value: Name(address.value.to_string().into()),
            span: address.span.clone(),
        }),
        (None, None) => None,
    }
}

fn check_addresses(
    peer: &written::BgpPeer,
    address: &At<IpAddr>,
    vips: &Vips,
    report: &mut Report,
) {
    vips.check_host(address, "the peer address", report);
    if let Some(source) = &peer.source {
        vips.check_host(source, "the session's source", report);
        if source.value == address.value {
            report
                .error(
                    &source.span,
                    "source and address of the session are the same",
                )
                .help("`source` is our address, `address` the router's");
        } else if source.value.is_ipv4() != address.value.is_ipv4() {
            let family = Family::of(address.value).name();
            report
                .error(
                    &source.span,
                    "source and address of the session are of different families",
                )
                .related(&address.span, format!("{family} here"))
                .help(format!("`source` must be an {family} address of this host"));
        }
    }
    let ipv4 = peer.next_hop_ipv4.as_ref().and_then(given);
    let ipv6 = peer.next_hop_ipv6.as_ref().and_then(given);
    for next_hop in [ipv4, ipv6].into_iter().flatten() {
        vips.check_host(&next_hop, "the next hop", report);
    }
}

/// The address of a next hop that has one of its own.
pub(super) fn given<A: Copy + Into<IpAddr>>(next_hop: &At<NextHop<A>>) -> Option<At<IpAddr>> {
    match next_hop.value {
        NextHop::Own => None,
        NextHop::Given(address) => Some(At {
            value: address.into(),
            span: next_hop.span.clone(),
        }),
    }
}

fn relation(peer: &written::BgpPeer, internal: bool, report: &mut Report) -> Relation {
    if internal {
        if peer.prepend.value.0 > 0 {
            report
                .error(
                    &peer.prepend.span,
                    "AS path prepends to a peer in our own AS",
                )
                .help("an iBGP peer takes our own AS in the path for a loop; use local_preference");
        }
        Relation::Internal {
            local_preference: match &peer.local_preference {
                Some(preference) => preference.value.0,
                None => LOCAL_PREFERENCE_DEFAULT,
            },
        }
    } else {
        if let Some(preference) = &peer.local_preference {
            report
                .error(
                    &preference.span,
                    "a local preference for a peer in another AS",
                )
                .help("it is never sent over eBGP; use med or prepend");
        }
        Relation::External {
            prepend: peer.prepend.value.0,
        }
    }
}

impl Families {
    /// Whether routes of `family` can be announced.
    pub(super) fn has(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4.is_some(),
            Family::Ipv6 => self.ipv6.is_some(),
        }
    }

    /// Without `families`, the session's own family is negotiated, and the
    /// other one when its next hop is given: so the choice does not depend on
    /// the services, and a reload that adds one resets no session.
    fn validate(
        written: &At<written::BgpPeer>,
        address: IpAddr,
        report: &mut Report,
    ) -> Option<Self> {
        let peer = &written.value;
        if let Some(list) = &peer.families
            && list.value.is_empty()
        {
            report
                .error(
                    &list.span,
                    "a session without address families carries nothing",
                )
                .help("\"ipv4\", \"ipv6\" or both, or leave the line out");
            return None;
        }
        let own = Family::of(address);
        let ipv4 = peer.next_hop_ipv4.as_ref().map(|next_hop| next_hop.value);
        let ipv6 = peer.next_hop_ipv6.as_ref().map(|next_hop| next_hop.value);
        let wants = |family, next_hop_given| match &peer.families {
            Some(list) => list.value.iter().any(|at| at.value == family),
            None => family == own || next_hop_given,
        };
        let families = Self {
            ipv4: wants(Family::Ipv4, ipv4.is_some()).then_some(ipv4.unwrap_or(NextHop::Own)),
            ipv6: wants(Family::Ipv6, ipv6.is_some()).then_some(ipv6.unwrap_or(NextHop::Own)),
        };
        let other = match own {
            Family::Ipv4 => (families.ipv6 == Some(NextHop::Own)).then_some(Family::Ipv6),
            Family::Ipv6 => (families.ipv4 == Some(NextHop::Own)).then_some(Family::Ipv4),
        };
        if let Some(other) = other {
            let next_hop = match other {
                Family::Ipv4 => peer.next_hop_ipv4.as_ref().map(|at| &at.span),
                Family::Ipv6 => peer.next_hop_ipv6.as_ref().map(|at| &at.span),
            };
            let list = peer.families.as_ref().map(|at| &at.span);
            let (other, own) = (other.name(), own.name());
            let title = format!("no next hop for {other} routes over an {own} session");
            let key = format!("next_hop_{}", other.to_lowercase());
            report
                .error(next_hop.or(list).unwrap_or(&written.span), title)
                .help(format!("set {key} to an {other} address of this host"));
        }
        Some(families)
    }
}
