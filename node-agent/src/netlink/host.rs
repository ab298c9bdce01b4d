//! Tells when an interface of this host or an address on one changes, or a route.

use std::collections::BTreeSet;

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage as Message,
};

use super::{Error, Netlink, link::Link};

/// Links and addresses first, and then what routes depend on besides.
const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];
/// How many of them are of links and addresses.
const OF_HOST: usize = 3;

/// Changes of links and addresses, from when it was made.
pub struct HostEvents {
    events: BoxStream<'static, NetlinkMessage<Message>>,
    /// Keeps the socket open.
    _handle: rtnetlink::Handle,
}

impl Netlink {
    /// Follows links and addresses from now on. Whoever reads them afterwards
    /// misses nothing.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn host_events() -> Result<HostEvents, Error> {
        HostEvents::of(&GROUPS[..OF_HOST])
    }

    /// The same, and routes and rules too.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn way_events() -> Result<HostEvents, Error> {
        HostEvents::of(&GROUPS)
    }
}

impl HostEvents {
    fn of(groups: &[MulticastGroup]) -> Result<Self, Error> {
        let (connection, handle, events) =
            rtnetlink::new_multicast_connection(groups).map_err(Error::Open)?;
        tokio::spawn(connection);
        Ok(Self {
            events: events.map(|(message, _)| message).boxed(),
            _handle: handle,
        })
    }

    /// Waits for changes, takes in all that have come, and says which interfaces
    /// were down or gone meanwhile, for however short a time. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// When the kernel has closed the socket.
    pub async fn next(&mut self) -> Result<BTreeSet<u32>, Error> {
        let first = self.events.next().await.ok_or(Error::Closed)?;
        let mut down = BTreeSet::new();
        down.extend(downed(&first));
        // An end of the events shows at the next wait.
        while let Some(Some(message)) = self.events.next().now_or_never() {
            down.extend(downed(&message));
        }
        Ok(down)
    }
}

/// The interface that a message tells the end of, or that it is down.
fn downed(message: &NetlinkMessage<Message>) -> Option<u32> {
    let NetlinkPayload::InnerMessage(inner) = &message.payload else {
        return None;
    };
    match inner {
        Message::NewLink(link) => Link::read(link)
            .filter(|link| !link.up)
            .map(|link| link.ifindex),
        Message::DelLink(link) => Link::read(link).map(|link| link.ifindex),
        _ => None,
    }
}
