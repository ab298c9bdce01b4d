//! A large farm: hosts that all serve in every service.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use anyhow::Result;
use vipd::netlink::way::{Way, Ways};
use vipd_abi::{Uplink, mac_bits};
use vipd_control::model::{CheckKind, Exchange, Mode, Model, Protocol};
use vipd_tests::bench::service;

/// Services.
pub const SERVICES: u16 = 1000;
/// Hosts, each of them a backend of every service.
pub const HOSTS: u8 = 100;
/// Slots of a service; the ring map has no room for larger ones.
pub const RING_SIZE: u32 = 4096;

/// Name of a service, counted from 0.
pub fn name(service: u16) -> String {
    format!("web-{service:04}")
}

/// Address and port of a service: four services share an address.
pub fn address(service: u16) -> (Ipv4Addr, u16) {
    let [port, last] = service.to_be_bytes();
    (Ipv4Addr::new(198, 51, 100, last), 80 + u16::from(port))
}

/// Address of a host, counted from 0.
pub fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 101 + number)
}

/// All services.
pub fn model() -> Result<Model> {
    let services = (0..SERVICES).map(|number| {
        let (vip, port) = address(number);
        let hosts = (0..HOSTS).map(|number| host(number).into());
        let way = (Protocol::Tcp, Mode::Ipip);
        let mut service = service(&name(number), (vip.into(), port), way, hosts, RING_SIZE)?;
        service.check.kind = CheckKind::Tcp(Exchange::default());
        Ok(Arc::new(service))
    });
    Ok(Model {
        services: services.collect::<Result<_>>()?,
    })
}

/// The way to each host.
pub fn ways() -> Ways {
    let way = |number: u8| Way {
        mac: [2, 0, 0, 0, 1, number],
        uplink: Uplink {
            mac_bits: mac_bits([2, 0, 0, 0, 0, 0x11]),
            ifindex: 1,
            mtu: 1500,
        },
        gateway: None,
        source: Some(IpAddr::from([192, 0, 2, 11])),
    };
    (0..HOSTS).map(|n| (host(n).into(), way(n))).collect()
}
