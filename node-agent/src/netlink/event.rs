//! What the kernel tells unasked: its multicast groups, and what a message of
//! them means for the ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAttribute, RouteMessage},
    },
};

use super::{
    link::Link,
    neighbour::{self, Neighbour, Target},
    route,
};

/// All that a way depends on.
pub const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// A change of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is now like this.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32),
    /// A neighbour is now like this.
    Neighbour(Target, Neighbour),
    /// A neighbour has been forgotten.
    NeighbourGone(Target),
    /// Routes of this prefix have changed.
    Route(IpNet),
    /// Any route may have changed.
    AnyRoute,
    /// Messages were lost.
    Lost,
}

impl Change {
    /// The change a message tells of. `None` when it does not matter here.
    pub fn read(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Self> {
        use RouteNetlinkMessage as Message;
        let inner = match &message.payload {
            NetlinkPayload::InnerMessage(inner) => inner,
            NetlinkPayload::Overrun(_) => return Some(Self::Lost),
            _ => return None,
        };
        match inner {
            Message::NewLink(link) => Link::read(link).map(Self::Link),
            Message::DelLink(link) => Link::read(link).map(|link| Self::LinkGone(link.ifindex)),
            Message::NewNeighbour(neighbour) => {
                neighbour::read(neighbour).map(|(target, state)| Self::Neighbour(target, state))
            }
            Message::DelNeighbour(neighbour) => {
                neighbour::read(neighbour).map(|(target, _)| Self::NeighbourGone(target))
            }
            Message::NewRoute(route) | Message::DelRoute(route) => prefix(route).map(Self::Route),
            Message::NewAddress(_)
            | Message::DelAddress(_)
            | Message::NewRule(_)
            | Message::DelRule(_) => Some(Self::AnyRoute),
            _ => None,
        }
    }
}

fn prefix(message: &RouteMessage) -> Option<IpNet> {
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let destination = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => route::ip(address),
            _ => None,
        });
    let length = message.header.destination_prefix_length;
    IpNet::new(destination.unwrap_or(unspecified), length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sentence: &str, inner: RouteNetlinkMessage, expected: Option<&Change>) {
        let message = NetlinkMessage::from(inner);
        assert_eq!(
            Change::read(&message).as_ref(),
            expected,
            "{sentence}: {message:?}"
        );
    }

    fn route(family: AddressFamily, destination: Option<IpAddr>, length: u8) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        let destination = destination.map(|ip| RouteAttribute::Destination(ip.into()));
        message.attributes.extend(destination);
        message
    }

    #[test]
    fn a_message_tells_what_may_have_changed() {
        let network = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0));
        check(
            "a route to a prefix",
            RouteNetlinkMessage::NewRoute(route(AddressFamily::Inet, Some(network), 24)),
            Some(&Change::Route("192.0.2.0/24".parse().unwrap())),
        );
        check(
            "a default route carries no destination",
            RouteNetlinkMessage::DelRoute(route(AddressFamily::Inet6, None, 0)),
            Some(&Change::Route("::/0".parse().unwrap())),
        );
        check(
            "a route of another family",
            RouteNetlinkMessage::NewRoute(route(AddressFamily::Mpls, None, 0)),
            None,
        );
        check(
            "an address",
            RouteNetlinkMessage::NewAddress(Default::default()),
            Some(&Change::AnyRoute),
        );
        check(
            "a rule",
            RouteNetlinkMessage::DelRule(Default::default()),
            Some(&Change::AnyRoute),
        );
        let mut lost = NetlinkMessage::from(RouteNetlinkMessage::NewRule(Default::default()));
        lost.payload = NetlinkPayload::Overrun(Vec::new());
        assert_eq!(
            Change::read(&lost),
            Some(Change::Lost),
            "messages were lost"
        );
    }
}
