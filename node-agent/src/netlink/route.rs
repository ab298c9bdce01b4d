//! Where the kernel would send a packet for an address: one question to its
//! forwarding table, which takes policy rules, metrics and multipath into
//! account.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteType, RouteVia,
    },
};

use super::{Error, Netlink, answer};

/// The kernel's answer for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of an interface.
    Via {
        /// The interface.
        ifindex: u32,
        /// The router; `None` when the address is on the link itself.
        gateway: Option<IpAddr>,
        /// The source address the kernel would choose.
        source: Option<IpAddr>,
        /// The MTU of this route, where it has one of its own.
        mtu: Option<u32>,
    },
    /// Nowhere: no route matches.
    Missing,
    /// To this host itself.
    Local,
    /// Nowhere, by a route of the named type.
    Refused(&'static str),
    /// Something else, in the kernel's words.
    Strange(String),
}

impl Netlink {
    /// Asks where packets for `address` go.
    pub(super) async fn route_to(&self, address: IpAddr) -> Result<Route, Error> {
        let mut request = self.handle.route().get(question(address)).execute();
        match answer("look up a route", request.try_next()).await {
            Ok(Some(message)) => Ok(read(&message)),
            Ok(None) => Ok(Route::Missing),
            Err(Error::Refused { source, .. }) => Ok(refusal(&source)),
            Err(error) => Err(error),
        }
    }

    /// How many routes of this family have several next hops.
    ///
    /// # Errors
    /// When the kernel does not list its routes.
    pub async fn multipath_routes(&self, family: AddressFamily) -> Result<usize, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        let request = self.handle.route().get(message).execute();
        let several = |route: &RouteMessage| {
            let mut attributes = route.attributes.iter();
            attributes.any(
                |attribute| matches!(attribute, RouteAttribute::MultiPath(hops) if hops.len() > 1),
            )
        };
        let count = request.try_fold(0, async |count, route| {
            Ok(count + usize::from(several(&route)))
        });
        match answer("list the routes", count).await {
            Ok(count) => Ok(count),
            // No table yet, or no such family.
            Err(Error::Refused { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Length of the prefix that leads to `address` in the forwarding table;
    /// `None` when nothing does.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub async fn prefix_length(&self, address: IpAddr) -> Result<Option<u8>, Error> {
        let mut question = question(address);
        question.header.flags |= RouteFlags::FibMatch;
        let mut request = self.handle.route().get(question).execute();
        match answer("look up a prefix", request.try_next()).await {
            Ok(found) => Ok(found
                .filter(leads)
                .map(|found| found.header.destination_prefix_length)),
            Err(Error::Refused { source, .. }) if is_answer(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether an error says what becomes of packets; others, as for want of memory, say
/// nothing about them.
fn is_answer(error: &std::io::Error) -> bool {
    !matches!(refusal(error), Route::Strange(_))
}

fn leads(route: &RouteMessage) -> bool {
    matches!(route.header.kind, RouteType::Unicast | RouteType::Local)
}

fn question(address: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    (
        message.header.address_family,
        message.header.destination_prefix_length,
    ) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message
        .attributes
        .push(RouteAttribute::Destination(address.into()));
    message
}

fn read(message: &RouteMessage) -> Route {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Route::Local,
        RouteType::Unreachable => return Route::Refused("unreachable"),
        RouteType::BlackHole => return Route::Refused("blackhole"),
        RouteType::Prohibit => return Route::Refused("prohibit"),
        other => return Route::Strange(format!("the route is of type {other:?}")),
    }
    let (mut ifindex, mut gateway, mut source, mut mtu) = (0, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = *index,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(v4)) => gateway = Some(IpAddr::V4(*v4)),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if ifindex == 0 {
        return Route::Strange("the route names no interface".to_owned());
    }
    Route::Via {
        ifindex,
        gateway,
        source,
        mtu,
    }
}

/// For IPv4 the kernel answers a route that refuses with its error.
fn refusal(error: &std::io::Error) -> Route {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => Route::Missing,
        Some(libc::EHOSTUNREACH) => Route::Refused("unreachable"),
        Some(libc::EACCES) => Route::Refused("prohibit"),
        Some(libc::EINVAL) => Route::Refused("blackhole"),
        _ => Route::Strange(error.to_string()),
    }
}

/// The IP address in a route's attribute.
pub fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn check(sentence: &str, kind: RouteType, attributes: Vec<RouteAttribute>, expected: &Route) {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.attributes = attributes;
        assert_eq!(&read(&message), expected, "{sentence}: {message:?}");
    }

    #[test]
    fn an_answer_of_the_kernel_is_understood() {
        let via = |gateway, source, mtu| Route::Via {
            ifindex: 7,
            gateway,
            source,
            mtu,
        };
        let oif = RouteAttribute::Oif(7);
        check(
            "on the link",
            RouteType::Unicast,
            vec![oif.clone()],
            &via(None, None, None),
        );
        check(
            "by a router, with a source and an MTU",
            RouteType::Unicast,
            vec![
                oif.clone(),
                RouteAttribute::Gateway(ROUTER.into()),
                RouteAttribute::PrefSource(Ipv4Addr::new(192, 0, 2, 10).into()),
                RouteAttribute::Metrics(vec![RouteMetric::Lock(4), RouteMetric::Mtu(1400)]),
            ],
            &via(
                Some(ROUTER.into()),
                Some(Ipv4Addr::new(192, 0, 2, 10).into()),
                Some(1400),
            ),
        );
        check(
            "by a router of the other family",
            RouteType::Unicast,
            vec![oif, RouteAttribute::Via(RouteVia::Inet6(ROUTER_V6))],
            &via(Some(ROUTER_V6.into()), None, None),
        );
        check("this host", RouteType::Local, vec![], &Route::Local);
        check(
            "an unreachable route",
            RouteType::Unreachable,
            vec![],
            &Route::Refused("unreachable"),
        );
        check(
            "a route without interface",
            RouteType::Unicast,
            vec![],
            &Route::Strange("the route names no interface".to_owned()),
        );
    }

    #[test]
    fn an_error_of_the_kernel_is_an_answer_too() {
        let errors = [
            (libc::ENETUNREACH, Route::Missing),
            (libc::EHOSTUNREACH, Route::Refused("unreachable")),
            (libc::EACCES, Route::Refused("prohibit")),
            (libc::EINVAL, Route::Refused("blackhole")),
        ];
        for (errno, expected) in errors {
            let error = std::io::Error::from_raw_os_error(errno);
            assert_eq!(refusal(&error), expected, "{error}");
            assert!(is_answer(&error), "{error}");
        }
        let busy = std::io::Error::from_raw_os_error(libc::ENOMEM);
        assert!(!is_answer(&busy), "{busy}");
    }
}
