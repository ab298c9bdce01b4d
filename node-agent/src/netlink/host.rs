//! Tells when an interface of this host or an address on one changes.

use std::collections::BTreeSet;

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage as Message,
};

use super::{Error, Netlink, link::Link};

const GROUPS: [MulticastGroup; 3] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

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
        let (connection, handle, events) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(Error::Open)?;
        tokio::spawn(connection);
        Ok(HostEvents {
            events: events.map(|(message, _)| message).boxed(),
            _handle: handle,
        })
    }
}

impl HostEvents {
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
