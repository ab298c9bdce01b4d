//! Addresses of this host: which there are and where, and those that vipd
//! binds.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::{
    LinkDummy, LinkUnspec,
    packet_route::{
        AddressFamily,
        address::{
            AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
            CacheInfo,
        },
    },
};

use super::{Error, Netlink, answer, hold::PROTOCOL, link::ALIAS};

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Index of the interface.
    pub ifindex: u32,
    /// Its label, by which others know it; IPv4 only.
    pub label: Option<String>,
    /// Whether packets for it are taken.
    pub usability: Usability,
    /// Whether it stays until somebody takes it away; others end by themselves.
    pub permanent: bool,
    /// Whether it has our mark, which kernels before 5.18 do not keep.
    pub marked: bool,
}

/// Whether packets for an address are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usability {
    /// They are.
    Usable,
    /// Not yet: duplicate address detection runs (RFC 4862).
    Tentative,
    /// It has found another host with the address.
    Duplicate,
}

/// The time of an address that never ends.
const FOREVER: u32 = u32::MAX;

impl Netlink {
    /// All addresses of this host.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn addresses(&self) -> Result<Vec<Address>, Error> {
        let request = self.handle.address().get().execute();
        let messages: Vec<_> = answer("list the addresses", request.try_collect()).await?;
        Ok(messages.iter().filter_map(Address::read).collect())
    }

    /// Binds a single address, with our mark. One that is there already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn bind(
        &self,
        ifindex: u32,
        address: IpAddr,
        label: Option<&str>,
    ) -> Result<(), Error> {
        let mut request = self.handle.address().add(ifindex, address, length(address));
        mark(request.message_mut(), address, label);
        match answer("bind an address", request.execute()).await {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Takes an address away. One that is not there is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn unbind(&self, ifindex: u32, address: IpAddr) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.index = ifindex;
        message.header.prefix_len = length(address);
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.attributes = vec![AddressAttribute::Local(address)];
        let request = self.handle.address().del(message).execute();
        match answer("take an address away", request).await {
            Err(error) if matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => {
                Ok(())
            }
            result => result,
        }
    }

    /// Makes an interface of type dummy, up and with our mark. `false`: the kernel
    /// has no such type.
    ///
    /// # Errors
    /// When the kernel refuses for another reason. One of that name is an error.
    pub async fn make_dummy(&self, name: &str) -> Result<bool, Error> {
        let message = LinkDummy::new(name).up().build();
        let request = self.handle.link().add(message).execute();
        match answer("make an interface", request).await {
            Ok(()) => {
                // Not taken in with the rest.
                let mark = LinkUnspec::new_with_name(name).alias(ALIAS).build();
                let request = self.handle.link().set(mark).execute();
                answer("mark an interface", request).await?;
                Ok(true)
            }
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes an interface away.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_link(&self, ifindex: u32) -> Result<(), Error> {
        let request = self.handle.link().del(ifindex).execute();
        answer("take an interface away", request).await
    }
}

const fn length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// What our addresses have besides themselves. Nobody else is on the link who
/// could have it; and the kernel is to make no route of it in the main table, nor
/// to choose it, an address of several hosts, as the source of connections where
/// it knows a way not to (IPv6).
fn mark(message: &mut AddressMessage, address: IpAddr, label: Option<&str>) {
    let mut flags = AddressFlags::Noprefixroute;
    if address.is_ipv6() {
        flags |= AddressFlags::Nodad;
        message.header.flags |= AddressHeaderFlags::Nodad;
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = FOREVER;
        message
            .attributes
            .push(AddressAttribute::CacheInfo(lifetime));
    } else if let Some(label) = label {
        let label = AddressAttribute::Label(label.to_owned());
        message.attributes.push(label);
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    let protocol = AddressProtocol::Other(PROTOCOL);
    message
        .attributes
        .push(AddressAttribute::Protocol(protocol));
}

impl Address {
    /// The address a message is about.
    fn read(message: &AddressMessage) -> Option<Self> {
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        let (mut local, mut peer, mut label, mut marked) = (None, None, None, false);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                AddressAttribute::Label(text) => label = Some(text.clone()),
                AddressAttribute::Flags(all) => flags = *all,
                AddressAttribute::Protocol(protocol) => {
                    marked = *protocol == AddressProtocol::Other(PROTOCOL);
                }
                _ => {}
            }
        }
        Some(Self {
            // On a link between two, the other one is the peer's.
            address: local.or(peer)?,
            ifindex: message.header.index,
            label,
            usability: if flags.contains(AddressFlags::Dadfailed) {
                Usability::Duplicate
            } else if flags.contains(AddressFlags::Tentative)
                && !flags.contains(AddressFlags::Optimistic)
            {
                Usability::Tentative
            } else {
                Usability::Usable
            },
            permanent: flags.contains(AddressFlags::Permanent),
            marked,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = 7;
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_message_gives_the_address_it_is_about() {
        use AddressAttribute::{Address as Peer, Flags, Label, Local, Protocol};
        let (ours, theirs) = (
            IpAddr::from([198, 51, 100, 10]),
            IpAddr::from([192, 0, 2, 9]),
        );
        let plain = Address {
            address: ours,
            ifindex: 7,
            label: None,
            usability: Usability::Usable,
            permanent: false,
            marked: false,
        };
        let usability = |usability| Address {
            usability,
            ..plain.clone()
        };
        let flags = |flags| vec![Peer(ours), Flags(flags)];
        let table = [
            ("IPv6 has no other", vec![Peer(ours)], plain.clone()),
            (
                "of a link between two",
                vec![Peer(theirs), Local(ours)],
                plain.clone(),
            ),
            (
                "with a label and our mark",
                vec![
                    Local(ours),
                    Label("lo:web".to_owned()),
                    Protocol(AddressProtocol::Other(PROTOCOL)),
                ],
                Address {
                    label: Some("lo:web".to_owned()),
                    marked: true,
                    ..plain.clone()
                },
            ),
            (
                "with the kernel's mark",
                vec![Local(ours), Protocol(AddressProtocol::Loopback)],
                plain.clone(),
            ),
            (
                "not checked yet",
                flags(AddressFlags::Tentative),
                usability(Usability::Tentative),
            ),
            (
                "that stays",
                flags(AddressFlags::Permanent),
                Address {
                    permanent: true,
                    ..plain.clone()
                },
            ),
            (
                "used before it is checked",
                flags(AddressFlags::Tentative | AddressFlags::Optimistic),
                plain.clone(),
            ),
            (
                "found elsewhere",
                flags(AddressFlags::Tentative | AddressFlags::Dadfailed),
                usability(Usability::Duplicate),
            ),
        ];
        for (sentence, attributes, expected) in table {
            let message = message(attributes);
            assert_eq!(Address::read(&message), Some(expected), "{sentence}");
        }
        assert_eq!(Address::read(&message(Vec::new())), None, "without any");
    }
}
