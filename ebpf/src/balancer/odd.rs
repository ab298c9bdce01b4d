//! Packets that are not plain: whatever the short path has left.
//!
//! A packet whose destination is no virtual address is the kernel's, whatever
//! its shape; so everything odd about a packet is judged only once its
//! destination is known to be ours.

use aya_ebpf::bindings::xdp_md;
use vipd_abi::{Verdict, VipEntry, VipKey};
use vipd_ebpf::{
    frame::Frame,
    header::{
        ETHERNET, ETHERTYPE, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT, IPV4_HEADER, IPV6_FRAGMENT,
        IPV6_HEADER, Ipv4, Ipv6, TCP, TCP_HEADER, UDP, UDP_HEADER,
    },
};

use crate::{
    forward,
    lookup::Table,
    maps,
    outcome::Outcome,
    parse::{Family, Packet, is_mapped},
};

/// Looks at the packet more closely. A function of its own in the program,
/// so that plain packets do not pay for it.
#[inline(never)]
pub fn packet(ctx: *mut xdp_md) -> Outcome {
    let mut frame = Frame::new(ctx);
    let Some(plane) = maps::plane() else {
        return Verdict::Inconsistent.into();
    };
    let table = Table::published(plane);
    match find(&frame, table) {
        Ok((packet, entry, table)) => forward::packet(&mut frame, &packet, entry, &table),
        Err(verdict) => verdict.into(),
    }
}

#[inline(always)]
fn find(frame: &Frame, table: Table) -> Result<(Packet, &'static VipEntry, Table), Verdict> {
    match frame.read::<u16>(ETHERTYPE) {
        Some(ETHERTYPE_IPV4) => ipv4(frame, table),
        Some(ETHERTYPE_IPV6) => ipv6(frame, table),
        _ => Err(Verdict::NotIp),
    }
}

#[inline(always)]
fn ipv4(frame: &Frame, table: Table) -> Result<(Packet, &'static VipEntry, Table), Verdict> {
    let Some(header) = frame.at::<Ipv4>(ETHERNET) else {
        return Err(Verdict::NotVip);
    };
    // SAFETY: `at` has checked the bounds.
    let header = unsafe { header.read_unaligned() };
    let address = VipKey::v4(header.destination, 0, 0);

    let header_length = u32::from(header.version_ihl & 0x0f) * 4;
    let length = u32::from(u16::from_be(header.length));
    if header.version_ihl >> 4 != 4
        || header_length < IPV4_HEADER
        || length < header_length
        || ETHERNET as u64 + u64::from(length) > frame.len()
    {
        return Err(table.if_vip(&address, Verdict::Malformed));
    }
    if header.fragment & FRAGMENT != 0 {
        return Err(table.if_vip(&address, Verdict::FragmentWithoutFirst));
    }
    if header.protocol != TCP && header.protocol != UDP {
        return Err(table.if_vip(&address, Verdict::UnservedProtocol));
    }
    let transport = ETHERNET + header_length as usize;
    let ports = frame.read::<u32>(transport);
    let Some(ports) = ports.filter(|_| fits(header.protocol, length - header_length)) else {
        return Err(table.if_vip(&address, Verdict::Malformed));
    };
    let key = VipKey::v4(header.destination, header.protocol, (ports >> 16) as u16);
    let entry = table.service(&key)?;
    let packet = Packet {
        family: Family::V4,
        network: ETHERNET,
        transport,
        source: [u64::from(header.source), 0],
        destination: [u64::from(header.destination), 0],
        ports,
        protocol: header.protocol,
        class_label: 6 << 28 | u32::from(header.tos) << 20,
        ttl: header.ttl,
        length,
    };
    Ok((packet, entry, table))
}

#[inline(always)]
fn ipv6(frame: &Frame, table: Table) -> Result<(Packet, &'static VipEntry, Table), Verdict> {
    let Some(header) = frame.at::<Ipv6>(ETHERNET) else {
        return Err(Verdict::NotVip);
    };
    // SAFETY: `at` has checked the bounds.
    let header = unsafe { header.read_unaligned() };
    if is_mapped(header.destination) {
        return Err(Verdict::NotVip);
    }
    let address = VipKey::words(header.destination, 0, 0);

    let class_label = u32::from_be(header.version_class_label);
    let payload = u32::from(u16::from_be(header.payload));
    if class_label >> 28 != 6
        || ETHERNET as u64 + u64::from(IPV6_HEADER) + u64::from(payload) > frame.len()
    {
        return Err(table.if_vip(&address, Verdict::Malformed));
    }
    if header.next_header == IPV6_FRAGMENT {
        return Err(table.if_vip(&address, Verdict::FragmentWithoutFirst));
    }
    if header.next_header != TCP && header.next_header != UDP {
        return Err(table.if_vip(&address, Verdict::UnservedProtocol));
    }
    let transport = ETHERNET + IPV6_HEADER as usize;
    let ports = frame.read::<u32>(transport);
    let Some(ports) = ports.filter(|_| fits(header.next_header, payload)) else {
        return Err(table.if_vip(&address, Verdict::Malformed));
    };
    let key = VipKey::words(header.destination, header.next_header, (ports >> 16) as u16);
    let entry = table.service(&key)?;
    let packet = Packet {
        family: Family::V6,
        network: ETHERNET,
        transport,
        source: header.source,
        destination: header.destination,
        ports,
        protocol: header.next_header,
        class_label,
        ttl: header.hop_limit,
        length: IPV6_HEADER + payload,
    };
    Ok((packet, entry, table))
}

/// Whether the layer-4 header fits into what the IP header leaves for it.
#[inline(always)]
fn fits(protocol: u8, room: u32) -> bool {
    room >= if protocol == TCP {
        TCP_HEADER
    } else {
        UDP_HEADER
    }
}
