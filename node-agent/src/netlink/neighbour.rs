//! The neighbour table: which Ethernet address an IP address on a link has,
//! and how the kernel is made to find out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::{
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    route::RouteType,
};

use super::{Error, Netlink, answer};

/// An address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
}

/// What the kernel knows about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Its Ethernet address. `stale`: nobody has asked for some time.
    Known { mac: [u8; 6], stale: bool },
    /// It has been asked for and has not answered yet.
    Asked,
    /// It has not answered at all.
    Silent,
}

/// The neighbour table as far as it has been read.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(BTreeMap<Target, Neighbour>);

impl Netlink {
    /// The kernel's neighbour table, IPv4 and IPv6.
    pub(super) async fn neighbours(&self) -> Result<Vec<(Target, Neighbour)>, Error> {
        let request = self.handle.neighbours().get().execute();
        let messages: Vec<_> = answer("list the neighbours", request.try_collect()).await?;
        Ok(messages.iter().filter_map(read).collect())
    }

    /// Neighbours whose Ethernet address was set by hand and is never asked
    /// for, by interface and address.
    ///
    /// # Errors
    /// When the kernel does not list its neighbours.
    pub async fn fixed_neighbours(&self) -> Result<BTreeSet<(u32, IpAddr)>, Error> {
        let request = self.handle.neighbours().get().execute();
        let messages: Vec<_> = answer("list the neighbours", request.try_collect()).await?;
        let fixed = messages
            .iter()
            .filter(|message| message.header.state == NeighbourState::Permanent);
        let targets = fixed.filter_map(|message| Some(read(message)?.0));
        Ok(targets
            .map(|target| (target.ifindex, target.address))
            .collect())
    }

    /// Makes the kernel find out or confirm a neighbour's Ethernet address, as
    /// if a packet were sent there (`ip neighbour ... use`). What XDP sends
    /// does not count as use, so without this entries would grow old.
    pub(super) async fn resolve(&self, target: Target) -> Result<(), Error> {
        let request = self
            .handle
            .neighbours()
            .add(target.ifindex, target.address)
            // Any other state would set the entry instead of using it.
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute();
        answer("resolve a neighbour", request).await
    }
}

impl Neighbours {
    pub fn of(&self, target: Target) -> Option<Neighbour> {
        self.0.get(&target).copied()
    }

    /// Takes a newly read table in place of this one.
    pub fn replace(&mut self, table: Vec<(Target, Neighbour)>) {
        let old = std::mem::take(self);
        for (target, new) in table {
            self.0.insert(target, settled(old.of(target), new));
        }
    }

    /// Takes over what is new about one. Whether a way may have changed by it.
    pub fn set(&mut self, target: Target, new: Neighbour) -> bool {
        let old = self.of(target);
        let new = settled(old, new);
        self.0.insert(target, new);
        match (old, new) {
            (Some(Neighbour::Known { mac: old, .. }), Neighbour::Known { mac: new, .. }) => {
                old != new
            }
            (old, new) => old != Some(new),
        }
    }

    /// Forgets one. Whether it was there.
    pub fn remove(&mut self, target: Target) -> bool {
        self.0.remove(&target).is_some()
    }
}

/// Who was silent stays silent while asked once more: "does not answer" and
/// "asked" would take turns otherwise.
fn settled(old: Option<Neighbour>, new: Neighbour) -> Neighbour {
    match (old, new) {
        (Some(Neighbour::Silent), Neighbour::Asked) => Neighbour::Silent,
        _ => new,
    }
}

/// The neighbour a message is about. `None` when it is about something else:
/// a bridge's forwarding table, an address answered for by proxy.
pub fn read(message: &NeighbourMessage) -> Option<(Target, Neighbour)> {
    if message.header.flags.contains(NeighbourFlags::Proxy)
        || message.header.kind != RouteType::Unicast
    {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes
                    .as_slice()
                    .try_into()
                    .ok()
                    .filter(|mac| *mac != [0; 6]);
            }
            _ => {}
        }
    }
    let target = Target {
        ifindex: message.header.ifindex,
        address: address?,
    };
    let stale = message.header.state == NeighbourState::Stale;
    let neighbour = match (message.header.state, mac) {
        (NeighbourState::Failed, _) => Neighbour::Silent,
        (
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp,
            Some(mac),
        ) => Neighbour::Known { mac, stale },
        _ => Neighbour::Asked,
    };
    Some((target, neighbour))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const KNOWN: Neighbour = Neighbour::Known {
        mac: MAC,
        stale: false,
    };
    const STALE: Neighbour = Neighbour::Known {
        mac: MAC,
        stale: true,
    };

    fn target() -> Target {
        Target {
            ifindex: 7,
            address: Ipv4Addr::new(192, 0, 2, 1).into(),
        }
    }

    fn message(state: NeighbourState, mac: Option<&[u8]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 7;
        message.header.kind = RouteType::Unicast;
        message.header.state = state;
        let address = NeighbourAddress::Inet(Ipv4Addr::new(192, 0, 2, 1));
        message
            .attributes
            .push(NeighbourAttribute::Destination(address));
        let mac = mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message.attributes.extend(mac);
        message
    }

    #[test]
    fn a_state_says_whether_the_address_can_be_used() {
        let states = [
            (NeighbourState::Reachable, KNOWN),
            (NeighbourState::Stale, STALE),
            (NeighbourState::Delay, KNOWN),
            (NeighbourState::Probe, KNOWN),
            (NeighbourState::Permanent, KNOWN),
            (NeighbourState::Noarp, KNOWN),
            (NeighbourState::Incomplete, Neighbour::Asked),
            (NeighbourState::None, Neighbour::Asked),
            (NeighbourState::Failed, Neighbour::Silent),
        ];
        for (state, expected) in states {
            let message = message(state, Some(&MAC));
            assert_eq!(read(&message), Some((target(), expected)), "{message:?}");
        }
        for no_mac in [None, Some(&[0_u8; 6][..]), Some(&[1; 4])] {
            let message = message(NeighbourState::Reachable, no_mac);
            assert_eq!(
                read(&message),
                Some((target(), Neighbour::Asked)),
                "{message:?}"
            );
        }
    }

    #[test]
    fn messages_about_other_things_are_left_alone() {
        let mut proxy = message(NeighbourState::Permanent, None);
        proxy.header.flags = NeighbourFlags::Proxy;
        let mut forwarding = message(NeighbourState::Permanent, Some(&MAC));
        forwarding.attributes.remove(0);
        let mut multicast = message(NeighbourState::Noarp, Some(&MAC));
        multicast.header.kind = RouteType::Multicast;
        for message in [proxy, forwarding, multicast] {
            assert_eq!(read(&message), None, "{message:?}");
        }
    }

    /// Sets each of `steps` in turn; the last must leave `expected` and say
    /// `changed`.
    fn check(sentence: &str, steps: &[Neighbour], expected: Neighbour, changed: bool) {
        let mut table = Neighbours::default();
        let last = steps
            .iter()
            .fold(false, |_, step| table.set(target(), *step));
        assert_eq!(table.of(target()), Some(expected), "{sentence}: {table:?}");
        assert_eq!(last, changed, "{sentence}: {table:?}");
    }

    #[test]
    fn only_what_may_change_a_way_counts_as_a_change() {
        let moved = Neighbour::Known {
            mac: [9; 6],
            stale: false,
        };
        check("a first answer", &[Neighbour::Asked, KNOWN], KNOWN, true);
        check("growing old", &[KNOWN, STALE], STALE, false);
        check("confirmed", &[STALE, KNOWN], KNOWN, false);
        check("another address", &[KNOWN, moved], moved, true);
        check(
            "gone silent",
            &[KNOWN, Neighbour::Silent],
            Neighbour::Silent,
            true,
        );
        check(
            "silent and asked again is still silent",
            &[Neighbour::Silent, Neighbour::Asked],
            Neighbour::Silent,
            false,
        );
        check(
            "back again",
            &[Neighbour::Silent, Neighbour::Asked, KNOWN],
            KNOWN,
            true,
        );
    }

    #[test]
    fn a_newly_read_table_forgets_what_is_gone_and_keeps_who_is_silent() {
        let other = Target {
            ifindex: 8,
            ..target()
        };
        let mut table = Neighbours::default();
        table.set(target(), Neighbour::Silent);
        table.set(other, KNOWN);
        table.replace(vec![(target(), Neighbour::Asked)]);
        assert_eq!(table.of(target()), Some(Neighbour::Silent), "{table:?}");
        assert_eq!(table.of(other), None, "{table:?}");
    }
}
