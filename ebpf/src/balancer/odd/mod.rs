//! Packets that are not plain: whatever the short path has left.
//!
//! A packet whose destination is no virtual address is the kernel's, whatever
//! its shape; so what is odd about a packet counts only if its destination is
//! ours.

mod echo;
mod extension;
mod fragment;
mod icmp;
mod ipv4;
mod ipv6;
mod link;
mod rare;
mod sight;
pub mod too_big;

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_ktime_get_coarse_ns};
use vipd_abi::{EntryKind, Tick, Verdict, VipEntry, flow_hash};
use vipd_ebpf::{
    frame::Frame,
    header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMP, ICMPV6, TCP, TCP_HEADER, UDP, UDP_HEADER},
};

use self::{fragment::Piece, sight::Sight};
use crate::{
    forward,
    lookup::Table,
    maps,
    outcome::Outcome,
    parse::{Family, Packet},
};

/// Looks at the packet more closely. A function of its own in the program,
/// so that plain packets do not pay for it.
///
/// It goes in stages, each a function of its own that leaves what it has seen in
/// the map: see [`Sight`].
#[inline(never)]
pub fn packet(ctx: *mut xdp_md) -> Outcome {
    let (Some(sight), Some(plane)) = (sight::scratch(), maps::plane()) else {
        return Verdict::Inconsistent.into();
    };
    let table = Table::published(plane);
    network(ctx, sight);
    extensions(ctx, sight);
    transport(ctx, sight);
    if sight.finding == Verdict::NotIp as u32 {
        return Verdict::NotIp.into();
    }
    if sight.finding == Verdict::NotVip as u32 {
        // No destination, or one that no packet may have.
        return Verdict::NotVip.into();
    }
    let Some(entry) = rare::closest(&table, sight) else {
        return Verdict::NotVip.into();
    };
    let mut frame = Frame::new(ctx);
    if !table.is_for(frame.destination()) {
        // A switch floods frames for others; they are not ours.
        return Verdict::OtherHost.into();
    }
    act(&mut frame, sight, entry, &table)
}

/// The first stage: link and IP header.
#[inline(never)]
fn network(ctx: *mut xdp_md, sight: &mut Sight) -> u32 {
    let frame = Frame::new(ctx);
    sight.service = 0;
    sight.finding = match frame.network() {
        Some((network, ETHERTYPE_IPV4)) => ipv4::look(&frame, network, sight),
        Some((network, ETHERTYPE_IPV6)) => ipv6::look(&frame, network, sight),
        _ => Err(Verdict::NotIp),
    }
    .map_or_else(|verdict| verdict as u32, |()| Sight::FINE);
    0
}

/// The second: options or extension headers.
#[inline(never)]
fn extensions(ctx: *mut xdp_md, sight: &mut Sight) -> u32 {
    if sight.finding != Sight::FINE {
        return 0;
    }
    let frame = Frame::new(ctx);
    let found = match sight.family {
        Family::V4 => ipv4::options(&frame, sight),
        Family::V6 => extension::skip(&frame, sight),
    };
    if let Err(verdict) = found {
        sight.finding = verdict as u32;
    }
    0
}

/// The third: the ports, or what an ICMP message says.
#[inline(never)]
fn transport(ctx: *mut xdp_md, sight: &mut Sight) -> u32 {
    if sight.finding == Sight::FINE
        && let Err(verdict) = layer_4(&Frame::new(ctx), sight)
    {
        sight.finding = verdict as u32;
    }
    0
}

#[inline(always)]
fn layer_4(frame: &Frame, sight: &mut Sight) -> Result<(), Verdict> {
    if sight.piece == Piece::Later {
        sight.transport = 0;
        return Err(Verdict::FragmentWithoutFirst);
    }
    match sight.protocol {
        TCP => sight.ports = ports(frame, sight, TCP_HEADER)?,
        UDP => sight.ports = ports(frame, sight, UDP_HEADER)?,
        ICMP | ICMPV6 if echo::is_request(frame, sight) => return Err(Verdict::EchoAnswered),
        ICMP | ICMPV6 => icmp::about(frame, sight)?,
        _ => return Err(Verdict::UnservedProtocol),
    }
    sight.service = u32::from(sight.protocol) << 16 | sight.ports >> 16;
    Ok(())
}

/// The ports, if the layer-4 header is in what the IP header leaves for it.
#[inline(always)]
fn ports(frame: &Frame, sight: &Sight, least: u32) -> Result<u32, Verdict> {
    if sight.room < least {
        return Err(Verdict::Malformed);
    }
    frame
        .read_variable(sight.transport())
        .ok_or(Verdict::Malformed)
}

/// Sends the packet on its way, answers it, or says why not.
#[inline(always)]
fn act(frame: &mut Frame, sight: &Sight, entry: &VipEntry, table: &Table) -> Outcome {
    const LATER: u32 = Verdict::FragmentWithoutFirst as u32;
    const ECHO: u32 = Verdict::EchoAnswered as u32;
    let (backend, hash) = match sight.finding {
        Sight::FINE => {
            if entry.kind != EntryKind::Service as u32 {
                return if sight.transport == 0 {
                    Verdict::IcmpUnrelated.into()
                } else {
                    Verdict::UnservedPort.into()
                };
            }
            match first(frame, sight, entry, table) {
                Some(found) => found,
                None => return Verdict::NoBackend.into(),
            }
        }
        LATER => {
            let hash = fragment::hash(table.head, sight);
            let backend = fragment::known(hash);
            if backend == NOBODY {
                return Verdict::FragmentWithoutFirst.into();
            }
            (backend, hash)
        }
        ECHO => return echo::answer(frame, sight).into(),
        finding => return reason(finding).into(),
    };
    forward::send(frame, &sight.packet(), table.plane, backend, hash)
}

/// A finding that ends it.
#[inline(always)]
fn reason(finding: u32) -> Verdict {
    const MALFORMED: u32 = Verdict::Malformed as u32;
    const PROTOCOL: u32 = Verdict::UnservedProtocol as u32;
    const EXTENSIONS: u32 = Verdict::ExtensionHeaders as u32;
    const ROUTED: u32 = Verdict::SourceRouted as u32;
    const UNRELATED: u32 = Verdict::IcmpUnrelated as u32;
    match finding {
        MALFORMED => Verdict::Malformed,
        PROTOCOL => Verdict::UnservedProtocol,
        EXTENSIONS => Verdict::ExtensionHeaders,
        ROUTED => Verdict::SourceRouted,
        UNRELATED => Verdict::IcmpUnrelated,
        _ => Verdict::Inconsistent,
    }
}

/// The backend of a packet of or about a flow, and the hash that fills in what
/// the outer header leaves open.
#[inline(always)]
fn first(frame: &Frame, sight: &Sight, entry: &VipEntry, table: &Table) -> Option<(u32, u64)> {
    let head = table.head;
    let hash = flow_hash(
        head.flow_key,
        sight.source,
        sight.destination,
        sight.ports,
        sight.protocol,
    );
    let backend = choose(frame.context(), sight, entry, table, hash);
    if backend == NOBODY {
        return None;
    }
    if sight.piece == Piece::Whole {
        return Some((backend, hash));
    }
    // All fragments of a packet get the same outer header.
    let hash = fragment::hash(head, sight);
    fragment::record(hash, backend);
    Some((backend, hash))
}

/// The present moment by the kernel's coarse clock.
#[inline(always)]
fn now() -> Tick {
    // SAFETY: the helper has no preconditions.
    Tick::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
}

/// No backend at all.
const NOBODY: u32 = 0;

/// Chooses the backend. A function of its own, so that its stack is free again
/// when the packet is sent.
#[inline(never)]
fn choose(ctx: *mut xdp_md, sight: &Sight, entry: &VipEntry, table: &Table, hash: u64) -> u32 {
    let packet: Packet = sight.packet();
    forward::choose(&Frame::new(ctx), &packet, entry, table, hash)
}
