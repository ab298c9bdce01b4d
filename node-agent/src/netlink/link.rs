//! Network interfaces: address, MTU, state, and what XDP program they carry.
//!
//! Read by netlink, since /sys may be that of another network namespace.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::{
    AddressFamily,
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkLayerType, LinkMessage, LinkXdp},
};

use super::{Error, Netlink, answer};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in the kernel.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` when it is no Ethernet interface.
    pub mac: Option<[u8; 6]>,
    /// The largest IP packet that fits, in bytes.
    pub mtu: u32,
    /// Whether it has been set up.
    pub up: bool,
    /// Whether neighbours ask for addresses by it, with ARP.
    pub arp: bool,
    /// Whether there is a signal.
    pub carrier: bool,
    /// The XDP program attached to it.
    pub xdp: Xdp,
    /// Whether it has our mark: vipd has made it.
    pub ours: bool,
}

/// Our mark, the alias of interfaces that vipd makes: `ip link show` has it.
pub const ALIAS: &str = "made by vipd";

/// The XDP program an interface runs first, by the kernel's id of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xdp {
    /// There is none.
    None,
    /// In the driver.
    Native(u32),
    /// In the kernel, behind the driver.
    Generic(u32),
    /// On the network card.
    Offloaded(u32),
}

impl Netlink {
    /// All interfaces, by index.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn links(&self) -> Result<BTreeMap<u32, Link>, Error> {
        let request = self
            .handle
            .link()
            .get()
            .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
            .execute();
        let messages: Vec<_> = answer("list the interfaces", request.try_collect()).await?;
        let links = messages.iter().filter_map(Link::read);
        Ok(links.map(|link| (link.ifindex, link)).collect())
    }

    /// The interface of that name, if there is one.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut request = self.handle.link().get().match_name(name).execute();
        match answer("show an interface", request.try_next()).await {
            Ok(message) => Ok(message.as_ref().and_then(Link::read)),
            // None of that name, or the name is longer than any can be.
            Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::ERANGE)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Link {
    /// The interface a message is about. `None` for messages of one address
    /// family or of a bridge, which say only a part.
    pub(crate) fn read(message: &LinkMessage) -> Option<Self> {
        let header = &message.header;
        if header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let mut link = Self {
            ifindex: header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: header.flags.contains(LinkFlags::Up),
            arp: header.flags.contains(LinkFlags::Broadcast)
                && !header.flags.contains(LinkFlags::Noarp),
            carrier: header.flags.contains(LinkFlags::LowerUp),
            xdp: Xdp::None,
            ours: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(address)
                    if header.link_layer_type == LinkLayerType::Ether =>
                {
                    link.mac = address.as_slice().try_into().ok();
                }
                LinkAttribute::Xdp(xdp) => link.xdp = Xdp::read(xdp),
                LinkAttribute::IfAlias(alias) => link.ours = alias == ALIAS,
                _ => {}
            }
        }
        Some(link)
    }

    /// Whether frames can be sent by it now.
    #[must_use]
    pub fn sends(&self) -> bool {
        self.up && self.carrier
    }
}

impl Xdp {
    /// The first program that a packet meets: card, driver, kernel.
    fn read(attributes: &[LinkXdp]) -> Self {
        let programs = attributes.iter().filter_map(|attribute| match attribute {
            LinkXdp::HwProgId(id) => Some((0, Self::Offloaded(*id))),
            LinkXdp::DrvProgId(id) => Some((1, Self::Native(*id))),
            LinkXdp::SkbProgId(id) => Some((2, Self::Generic(*id))),
            _ => None,
        });
        let first = programs.min_by_key(|(order, _)| *order);
        first.map_or(Self::None, |(_, xdp)| xdp)
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::XdpAttached;

    use super::*;

    fn message() -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 7]),
        ];
        message
    }

    fn eth0() -> Link {
        Link {
            ifindex: 7,
            name: "eth0".to_owned(),
            mac: Some([2, 0, 0, 0, 0, 7]),
            mtu: 1500,
            up: true,
            arp: false,
            carrier: true,
            xdp: Xdp::None,
            ours: false,
        }
    }

    fn check(sentence: &str, change: impl FnOnce(&mut LinkMessage), expected: Option<&Link>) {
        let mut message = message();
        change(&mut message);
        assert_eq!(
            Link::read(&message).as_ref(),
            expected,
            "{sentence}: {message:?}"
        );
    }

    #[test]
    fn a_message_gives_the_interface_it_is_about() {
        let xdp = |attributes| {
            move |message: &mut LinkMessage| {
                message.attributes.push(LinkAttribute::Xdp(attributes));
            }
        };
        let with = |xdp| Link { xdp, ..eth0() };

        check("an Ethernet interface", |_| {}, Some(&eth0()));
        let alias = |text: &str| LinkAttribute::IfAlias(text.to_owned());
        check(
            "one with our mark",
            |message| message.attributes.push(alias(ALIAS)),
            Some(&Link {
                ours: true,
                ..eth0()
            }),
        );
        check(
            "one with another's",
            |message| message.attributes.push(alias("uplink to r1")),
            Some(&eth0()),
        );
        check(
            "one by which neighbours ask for addresses",
            |message| message.header.flags |= LinkFlags::Broadcast,
            Some(&Link {
                arp: true,
                ..eth0()
            }),
        );
        check(
            "one of type dummy",
            |message| message.header.flags |= LinkFlags::Broadcast | LinkFlags::Noarp,
            Some(&eth0()),
        );
        check(
            "an interface set up without a signal",
            |message| message.header.flags = LinkFlags::Up,
            Some(&Link {
                carrier: false,
                ..eth0()
            }),
        );
        check(
            "a loopback interface has no Ethernet address",
            |message| message.header.link_layer_type = LinkLayerType::Loopback,
            Some(&Link {
                mac: None,
                ..eth0()
            }),
        );
        check(
            "an address of another length is none",
            |message| message.attributes[2] = LinkAttribute::Address(vec![1; 4]),
            Some(&Link {
                mac: None,
                ..eth0()
            }),
        );
        check(
            "a bridge port's message says only a part",
            |message| message.header.interface_family = AddressFamily::Bridge,
            None,
        );
        check(
            "no program",
            xdp(vec![LinkXdp::Attached(XdpAttached::None)]),
            Some(&with(Xdp::None)),
        );
        check(
            "a program in the driver",
            xdp(vec![
                LinkXdp::Attached(XdpAttached::Driver),
                LinkXdp::ProgId(5),
                LinkXdp::DrvProgId(5),
            ]),
            Some(&with(Xdp::Native(5))),
        );
        check(
            "a program behind the driver",
            xdp(vec![LinkXdp::SkbProgId(6)]),
            Some(&with(Xdp::Generic(6))),
        );
        check(
            "of two programs the first that a packet meets",
            xdp(vec![
                LinkXdp::SkbProgId(6),
                LinkXdp::HwProgId(4),
                LinkXdp::DrvProgId(5),
            ]),
            Some(&with(Xdp::Offloaded(4))),
        );
    }
}
