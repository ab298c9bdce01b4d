//! Rules on addresses: what can be the address of one host, and that a virtual
//! address is never taken for an address of a host.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use vipd_control::model::Vip;

use super::{
    report::{Report, Span},
    table::At,
    wish::takes,
    written::{Family, File},
};

/// All virtual addresses of a file.
pub struct Vips {
    /// Each where it stands first.
    vips: BTreeMap<Vip, Span>,
    /// The lengths there are, single addresses among them.
    lengths: BTreeSet<u8>,
    /// By the names of services.
    services: BTreeMap<Arc<str>, BTreeSet<Vip>>,
    /// Whether more may come while the agent runs.
    grows: bool,
    /// What was found to be no virtual address, and what it is instead.
    hosts: RefCell<Vec<(IpNet, String)>>,
}

impl Vips {
    /// Those of all services, whatever else is wrong with them.
    pub fn of(file: &File) -> Self {
        let mut vips = BTreeMap::new();
        let mut services = BTreeMap::<_, BTreeSet<_>>::new();
        for service in &file.service.value {
            if let Some(name) = &service.value.name {
                let vips = service.value.vips.iter().flat_map(|vips| &vips.value);
                let of_service = services.entry(Arc::clone(&name.value.0)).or_default();
                of_service.extend(vips.map(|vip| vip.value));
            }
            for vip in service.value.vips.iter().flat_map(|vips| &vips.value) {
                vips.entry(vip.value).or_insert_with(|| vip.span.clone());
            }
        }
        let lengths = vips.keys().map(|vip| vip.prefix().prefix_len()).collect();
        Self {
            vips,
            lengths,
            services,
            grows: takes(file),
            hosts: RefCell::default(),
        }
    }

    /// Whether more may come while the agent runs, so that what fits none of these
    /// may be right.
    pub const fn grows(&self) -> bool {
        self.grows
    }

    /// Why an address that was found on this host cannot become a virtual one
    /// besides these, by all that was [checked](Self::check_host) before.
    pub fn other_use(&self, address: IpAddr) -> Option<String> {
        let hosts = self.hosts.borrow();
        let host = hosts.iter().find(|(host, _)| host.contains(&address));
        let role = host.map(|(_, role)| format!("which is {role}"));
        let of_file = || {
            Some(format!(
                "which stands in `vips` as {}",
                self.meeting(address.into())?.0
            ))
        };
        role.or_else(of_file)
    }

    /// All of them, each where it stands first.
    pub fn iter(&self) -> impl Iterator<Item = (&Vip, &Span)> {
        self.vips.iter()
    }

    /// The names of the services.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(|name| &**name)
    }

    /// Those of a service, if there is such a one.
    pub fn of_service(&self, name: &str) -> Option<&BTreeSet<Vip>> {
        self.services.get(name)
    }

    /// The first virtual address of a family.
    pub fn first(&self, family: Family) -> Option<(Vip, &Span)> {
        let mut of_family = self
            .vips
            .iter()
            .filter(|(vip, _)| Family::of(vip.address()) == family);
        of_family.next().map(|(vip, span)| (*vip, span))
    }

    /// Checks that `address` can belong to one host and is not virtual. `role`
    /// says what it is to be, for example `"the router id"`.
    pub fn check_host<A>(&self, address: &At<A>, role: &str, report: &mut Report)
    where
        A: Copy + Into<IpAddr>,
    {
        self.check_hosts(address.value.into().into(), &address.span, role, report);
    }

    /// The same for all addresses of a prefix.
    pub fn check_hosts(&self, hosts: IpNet, span: &Span, role: &str, report: &mut Report) {
        check_unicast(hosts, span, report);
        self.hosts.borrow_mut().push((hosts, role.to_owned()));
        if let Some((vip, vip_span)) = self.meeting(hosts) {
            let hosts = Vip::from(hosts);
            let title = match vip.prefix().prefix_len() {
                _ if *vip == hosts => format!("{role} {hosts} is a virtual address"),
                length if length < hosts.prefix().prefix_len() => {
                    format!("{role} {hosts} is in the virtual prefix {vip}")
                }
                _ => format!("{role} {hosts} holds the virtual address {vip}"),
            };
            report
                .error(span, title)
                .related(vip_span, "virtual address here")
                .help("take an address that belongs to this one host and stays with it");
        }
    }

    /// A virtual address or prefix that holds some of these hosts.
    fn meeting(&self, hosts: IpNet) -> Option<(&Vip, &Span)> {
        let wider = |length: &u8| {
            let prefix = IpNet::new(hosts.addr(), *length).ok()?;
            self.vips.get_key_value(&Vip::from(prefix))
        };
        let (shorter, longer) = (
            0..=hosts.prefix_len(),
            hosts.prefix_len()..hosts.max_prefix_len(),
        );
        let mut lengths = self.lengths.range(shorter);
        lengths.find_map(wider).or_else(|| {
            let mut inside = self.vips.iter();
            inside.find(|(vip, _)| !longer.is_empty() && hosts.contains(&vip.prefix()))
        })
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

/// Addresses that packets cannot be sent to from another host, and what they
/// are.
const UNREACHED: [(IpNet, &str); 9] = [
    (v4([0, 0, 0, 0], 32), "stands for no host"),
    (v4([0, 0, 0, 0], 8), "belongs to no host"),
    (v4([127, 0, 0, 0], 8), "never leaves the host"),
    (v4([224, 0, 0, 0], 4), "is a multicast address"),
    (v4([240, 0, 0, 0], 4), "belongs to no host"),
    (v6([0; 8], 127), "never leaves the host"),
    (
        v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
        "is an IPv4 address in disguise",
    ),
    (
        v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
        "holds on one link only",
    ),
    (
        v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
        "is a multicast address",
    ),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, c, d, e, f, g, h),
        length,
    ))
}

/// The first of [`UNREACHED`] that has something of `prefix`.
pub fn unreached(prefix: IpNet) -> Option<&'static (IpNet, &'static str)> {
    let meets = |(other, _): &&(IpNet, &str)| other.contains(&prefix) || prefix.contains(other);
    UNREACHED.iter().find(meets)
}

/// Checks that packets can be sent to all of `prefix` from another host.
pub fn check_unicast(prefix: IpNet, span: &Span, report: &mut Report) {
    let Some((other, fault)) = unreached(prefix) else {
        return;
    };
    let shown = Vip::from(prefix);
    let title = if shown.is_single() {
        format!("the address {shown} {fault}")
    } else {
        format!("a part of {shown}, {other}, {fault}")
    };
    report
        .error(span, title)
        .help("write the address under which other hosts reach it");
}
