//! Rules on addresses: what can be the address of one host, and that a virtual
//! address is never taken for an address of a host.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    report::{Report, Span},
    table::At,
    written::{Family, File},
};

/// All virtual addresses of a file, each where it stands first.
pub struct Vips(BTreeMap<IpAddr, Span>);

impl Vips {
    /// Those of all services, whatever else is wrong with them.
    pub fn of(file: &File) -> Self {
        let mut vips = BTreeMap::new();
        for service in &file.service.value {
            for vip in service.value.vips.iter().flat_map(|vips| &vips.value) {
                vips.entry(vip.value).or_insert_with(|| vip.span.clone());
            }
        }
        Self(vips)
    }

    /// The first virtual address of a family.
    pub fn first(&self, family: Family) -> Option<(IpAddr, &Span)> {
        let mut of_family = self.0.iter().filter(|(vip, _)| Family::of(**vip) == family);
        of_family.next().map(|(vip, span)| (*vip, span))
    }

    /// Checks that `address` can belong to one host and is not virtual. `role`
    /// says what it is to be, for example `"the router id"`.
    pub fn check_host<A>(&self, address: &At<A>, role: &str, report: &mut Report)
    where
        A: Copy + Into<IpAddr>,
    {
        let ip = address.value.into();
        check_unicast(ip, &address.span, report);
        if let Some(vip) = self.0.get(&ip) {
            report
                .error(&address.span, format!("{role} {ip} is a virtual address"))
                .related(vip, "virtual address here")
                .help("take an address that belongs to this one host and stays with it");
        }
    }
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// Checks that packets can be sent to `ip` from another host.
pub fn check_unicast(ip: IpAddr, span: &Span, report: &mut Report) {
    let fault = match ip {
        _ if ip.is_unspecified() => "stands for no host",
        _ if ip.is_multicast() => "is a multicast address",
        _ if ip.is_loopback() => "never leaves the host",
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240 => "belongs to no host",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "is an IPv4 address in disguise",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "holds on one link only",
        _ => return,
    };
    report
        .error(span, format!("the address {ip} {fault}"))
        .help("write the address under which other hosts reach it");
}
