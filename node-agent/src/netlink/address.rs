//! The addresses of this host.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};

use super::{Error, Netlink, answer};

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface it is on.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
}

impl Netlink {
    /// All addresses of this host.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn addresses(&self) -> Result<Vec<Address>, Error> {
        let request = self.handle.address().get().execute();
        let messages: Vec<_> = answer("list the addresses", request.try_collect()).await?;
        Ok(messages.iter().filter_map(read).collect())
    }
}

/// On a point-to-point link `Address` is the other end, and `Local` ours.
fn read(message: &AddressMessage) -> Option<Address> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => address = Some(*local),
            AddressAttribute::Address(other) => address = address.or(Some(*other)),
            _ => {}
        }
    }
    Some(Address {
        ifindex: message.header.index,
        address: address?,
    })
}
