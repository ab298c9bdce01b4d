//! A configuration that changes at random. Whatever belongs to a service tells
//! so by its address, so that whoever finds it in a map or in a packet knows
//! whose it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use vipd::{
    dataplane::apply::{Reach, Settings},
    netlink::way::Way,
};
use vipd_abi::{MACS, Uplink, mac_bits};
use vipd_control::model::{Backend, Mode, Model, Ports, Service};

/// Services there may be.
pub const SERVICES: u8 = 6;
/// Backends one may have.
const BACKENDS: u8 = 8;
/// Of the balancer, for whom packets are.
pub const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
/// Test runs come in by the loopback device.
const INGRESS: u32 = 1;

/// What is configured, who is up, and where they are.
pub struct World {
    random: Rng,
    services: BTreeMap<u8, Arc<Service>>,
    down: BTreeSet<IpAddr>,
    /// Ends the MAC address of each backend that has had more than one.
    cards: BTreeMap<IpAddr, u8>,
    /// The balancer's own address, which is in every tunnel header.
    source: u8,
}

/// The virtual address of a service.
pub fn vip(service: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 10 + service)
}

/// The service and number of a backend, by its address.
pub fn owner(backend: IpAddr) -> Option<(u8, u8)> {
    let (service, number) = match backend {
        IpAddr::V4(address) => {
            let [192, 0, 2, last] = address.octets() else {
                return None;
            };
            (last / 16, last % 16)
        }
        IpAddr::V6(address) => {
            let [0x2001, 0xdb8, 1, 0, 0, 0, service, number] = address.segments() else {
                return None;
            };
            (service as u8, number as u8)
        }
    };
    (service < SERVICES && number < BACKENDS).then_some((service, number))
}

/// The owner of a backend, by its MAC address.
pub fn owner_by_mac(mac: [u8; 6]) -> Option<(u8, u8)> {
    let [2, 1, service, number, _, 0] = mac else {
        return None;
    };
    (service < SERVICES && number < BACKENDS).then_some((service, number))
}

pub fn settings() -> Settings {
    let mut macs = [0; MACS];
    macs[1] = mac_bits(LB_MAC);
    Settings {
        macs,
        ..Settings::default()
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Rng::with_seed(seed),
            services: BTreeMap::new(),
            down: BTreeSet::new(),
            cards: BTreeMap::new(),
            source: 0,
        };
        for number in 0..SERVICES {
            world.renew(number);
        }
        world
    }

    /// One change, of any kind there is.
    pub fn change(&mut self) {
        let number = self.random.u8(..SERVICES);
        let Some(service) = self.services.get(&number).cloned() else {
            return self.renew(number);
        };
        let which = self.random.usize(..service.backends.len());
        let backend = &service.backends[which];
        match self.random.u8(..20) {
            0 => drop(self.services.remove(&number)),
            1..3 => self.renew(number),
            3..6 => self.edit(number, |service, random| {
                service.backends[which].weight = random.u16(..4);
            }),
            6..8 if service.backends.len() > 1 => self.edit(number, |service, _| {
                service.backends.remove(which);
            }),
            // All records of a family change, and the slots with them.
            8..13 => self.source = self.random.u8(..4),
            13 => *self.cards.entry(backend.address).or_default() ^= 1,
            _ if self.down.remove(&backend.address) => {}
            _ => drop(self.down.insert(backend.address)),
        }
    }

    /// Another service in the place of the old: everything about it may differ.
    fn renew(&mut self, number: u8) {
        let random = &mut self.random;
        let v4 = random.bool();
        let mut backends: Vec<_> = (0..BACKENDS).filter(|_| random.u8(..3) > 0).collect();
        if backends.is_empty() {
            backends.push(0);
        }
        let port = NonZeroU16::MIN.saturating_add(79);
        let service = Service {
            ports: Ports::One(port),
            idle: Duration::from_secs(1),
            mode: if random.bool() {
                Mode::Ipip
            } else {
                Mode::L2Dsr
            },
            ring_size: if random.bool() { 1024 } else { 4096 },
            ..Service::new(
                &format!("s{number}"),
                vec![IpAddr::from(vip(number)).into()],
                backends
                    .into_iter()
                    .map(|backend| {
                        Backend::new(
                            &format!("b{backend}"),
                            address(number, backend, v4),
                            random.u16(1..4),
                        )
                    })
                    .collect(),
            )
        };
        self.services.insert(number, Arc::new(service));
    }

    fn edit(&mut self, number: u8, change: impl FnOnce(&mut Service, &mut Rng)) {
        if let Some(service) = self.services.get_mut(&number) {
            change(Arc::make_mut(service), &mut self.random);
        }
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn model(&self) -> Model {
        let services = self.services.values().cloned().collect();
        Model { services }
    }

    pub fn is_up(&self, backend: &Backend) -> bool {
        !self.down.contains(&backend.address)
    }

    /// A way to every backend of every service.
    pub fn reach(&self) -> Reach {
        let backends = self.services().flat_map(|service| &service.backends);
        let ways = backends.filter_map(|backend| {
            let (service, number) = owner(backend.address)?;
            let card = self.cards.get(&backend.address).copied().unwrap_or(0);
            let source = match backend.address {
                IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 200 + self.source).into(),
                IpAddr::V6(_) => {
                    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0xff, self.source.into()).into()
                }
            };
            let way = Way {
                mac: [2, 1, service, number, card, 0],
                uplink: Uplink {
                    mac_bits: mac_bits(LB_MAC),
                    ifindex: INGRESS,
                    mtu: 1600,
                },
                gateway: None,
                source: Some(source),
            };
            Some((backend.address, way))
        });
        Reach {
            ways: Arc::new(ways.collect()),
            ..Reach::default()
        }
    }
}

fn address(service: u8, backend: u8, v4: bool) -> IpAddr {
    if v4 {
        Ipv4Addr::new(192, 0, 2, service * 16 + backend).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, service.into(), backend.into()).into()
    }
}
