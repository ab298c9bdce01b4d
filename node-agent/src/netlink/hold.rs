//! Unreachable routes that hold VIPs on this host: while a VIP is announced,
//! a packet for it that XDP does not take must never follow a wider route back
//! to the router that sent it.

use std::{collections::BTreeSet, net::IpAddr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
    },
};
use vipd_control::model::Vip;

use super::{Error, Netlink, answer, route};

/// Marks the routes as ours, so that a later agent finds what an earlier one
/// left: `ip route show proto 86`. Neither the kernel nor iproute2's
/// `rt_protos` has given the number a meaning; it is an ASCII `V`.
pub const PROTOCOL: u8 = 86;

/// The worst metric there is. A route that somebody else has made to the same
/// VIP, whatever it is for, is preferred; only wider routes lose, as they do
/// against any metric. An address bound on this host is found before either,
/// in the local table.
pub const METRIC: u32 = u32::MAX;

impl Netlink {
    /// Holds a VIP by an unreachable route. One that is held already is fine.
    ///
    /// # Errors
    /// When the kernel refuses, or has a route of somebody else with the same
    /// metric there ([`Error::Refused`] with `EEXIST`).
    pub async fn hold(&self, vip: Vip) -> Result<(), Error> {
        let request = self.handle.route().add(unreachable(vip)?).execute();
        match answer("add an unreachable route", request).await {
            Err(error) if error.errno() == Some(libc::EEXIST) => {
                let ours = self.held().await?.contains(&vip);
                if ours { Ok(()) } else { Err(error) }
            }
            result => result,
        }
    }

    /// Lets go of a VIP. One that is not held is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn release(&self, vip: Vip) -> Result<(), Error> {
        let request = self.handle.route().del(unreachable(vip)?).execute();
        match answer("delete an unreachable route", request).await {
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// All VIPs that are held, by this agent or by an earlier one.
    ///
    /// # Errors
    /// When the kernel does not list its routes.
    pub async fn held(&self) -> Result<BTreeSet<Vip>, Error> {
        let mut held = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.route().get(ours(family)).execute();
            let routes: Vec<_> =
                match answer("list the unreachable routes", request.try_collect()).await {
                    Ok(routes) => routes,
                    // A namespace without any route yet has no table, a
                    // kernel without IPv6 no such family.
                    Err(error) if error.errno().is_some_and(is_empty) => continue,
                    Err(error) => return Err(error),
                };
            held.extend(routes.iter().filter_map(vip));
        }
        Ok(held)
    }
}

fn is_empty(errno: i32) -> bool {
    matches!(errno, libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
}

fn unreachable(vip: Vip) -> Result<RouteMessage, Error> {
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(vip.address(), vip.prefix().prefix_len())
        .map_err(|error| Error::Refused {
            step: "make a route",
            source: std::io::Error::other(error.to_string()),
        })?;
    Ok(builder
        .kind(RouteType::Unreachable)
        .protocol(RouteProtocol::Other(PROTOCOL))
        .priority(METRIC)
        .build())
}

/// A request for our routes only.
fn ours(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unreachable;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message
}

/// The VIP that a listed route holds. `None` if it is not one of ours: a
/// kernel before 4.20 does not filter.
fn vip(message: &RouteMessage) -> Option<Vip> {
    let header = &message.header;
    let destination = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => route::ip(address),
            _ => None,
        })?;
    let ours =
        header.kind == RouteType::Unreachable && header.protocol == RouteProtocol::Other(PROTOCOL);
    let prefix = IpNet::new(destination, header.destination_prefix_length).ok()?;
    ours.then(|| prefix.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sentence: &str, change: fn(&mut RouteMessage), ours: bool) {
        let prefixes = ["203.0.113.80/32", "203.0.113.0/28", "2001:db8::/64"];
        for prefix in prefixes.map(|text| text.parse::<IpNet>().unwrap()) {
            let mut message = unreachable(prefix.into()).unwrap();
            change(&mut message);
            assert_eq!(
                vip(&message),
                ours.then_some(prefix.into()),
                "{sentence}: {message:?}"
            );
        }
    }

    #[test]
    fn only_our_own_routes_are_taken_for_held() {
        check("as made", |_| {}, true);
        check(
            "of another protocol",
            |message| message.header.protocol = RouteProtocol::Static,
            false,
        );
        check(
            "of another type",
            |message| message.header.kind = RouteType::BlackHole,
            false,
        );
        check("to everywhere", |message| message.attributes.clear(), false);
    }
}
