//! Counts the packets that come to addresses which this host serves itself, as long
//! as it is in maintenance: of what is forwarded the data plane knows, of these
//! only the kernel does.
//!
//! Sockets on a copy of what comes in count, each for some hundred addresses, and
//! take nothing from it: the kernel's filter picks the packets, and they are counted
//! although there is no room to keep them. What this host sends to itself, as checks
//! do, is left out.

use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc, time::Duration};

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, ETH_P_IP,
    ETH_P_IPV6, PACKET_STATISTICS, SKF_AD_IFINDEX, SKF_AD_OFF, SKF_AD_PKTTYPE, SOL_PACKET,
    sock_filter,
};
use socket2::{SockFilter, Socket};
use tokio::{sync::watch, time::interval};
use vipd_control::model::Vip;

use super::Ordered;
use crate::{config::Config, sockopt, status::Arrivals, tunnel::ear};

/// Between two counts.
const LOOK: Duration = Duration::from_millis(250);

/// Addresses that one filter knows: each takes up to 10 instructions of the 4,096
/// that the kernel allows (linux/bpf_common.h, `BPF_MAXINSNS`).
const AT_ONCE: usize = 256;

/// The loopback interface has this index in every network namespace.
const LOOPBACK: u32 = 1;
/// A packet to this host itself (linux/if_packet.h).
const PACKET_HOST: u32 = 0;

/// Runs until the agent ends. Outside of maintenance nothing is counted.
pub async fn run(
    mut maintenance: watch::Receiver<Ordered>,
    config: watch::Receiver<Arc<Config>>,
    arrivals: watch::Sender<Option<Arrivals>>,
) {
    loop {
        if maintenance.wait_for(|ordered| ordered.on).await.is_err() {
            // Nobody can order any more.
            std::future::pending::<()>().await;
        }
        let mut counting = Counting::default();
        let mut ticks = interval(LOOK);
        while maintenance.borrow_and_update().on {
            ticks.tick().await;
            let vips = served(&config.borrow());
            arrivals.send_replace(Some(counting.look(vips)));
        }
        arrivals.send_replace(None);
    }
}

/// What this host serves itself.
fn served(config: &Config) -> BTreeSet<Vip> {
    let services = config.model.services.iter();
    let local = services.filter(|service| !service.mode.forwards());
    local.flat_map(|service| service.vips.clone()).collect()
}

/// What has been counted since the maintenance began.
#[derive(Default)]
struct Counting {
    vips: BTreeSet<Vip>,
    counters: Vec<Counter>,
    packets: u64,
}

impl Counting {
    /// Counts those of `vips`, also when they are others than before.
    fn look(&mut self, vips: BTreeSet<Vip>) -> Arrivals {
        let counted = self.count(vips);
        if counted.is_err() {
            // To be opened anew.
            *self = Self {
                packets: self.packets,
                ..Self::default()
            };
        }
        Arrivals {
            packets: self.packets,
            fault: counted.err().map(|error| error.to_string()),
        }
    }

    fn count(&mut self, vips: BTreeSet<Vip>) -> io::Result<()> {
        for counter in &self.counters {
            self.packets += counter.take()?;
        }
        if self.vips != vips {
            self.counters = Counter::all(&vips)?;
            self.vips = vips;
        }
        Ok(())
    }
}

/// Counts packets to some addresses of one family.
struct Counter(Socket);

impl Counter {
    /// As many as all addresses take.
    fn all(vips: &BTreeSet<Vip>) -> io::Result<Vec<Self>> {
        let mut counters = Vec::new();
        for (protocol, is_ipv4) in [(ETH_P_IP, true), (ETH_P_IPV6, false)] {
            let vips = vips.iter().copied();
            let of_family = vips.filter(|vip| vip.address().is_ipv4() == is_ipv4);
            for some in of_family.collect::<Vec<_>>().chunks(AT_ONCE) {
                let program = filter(some).into_iter();
                let program = program.map(|it| SockFilter::new(it.code, it.jt, it.jf, it.k));
                let socket = ear::tap(protocol, &program.collect::<Vec<_>>())?;
                // Nobody reads it: the smallest that there is.
                socket.set_recv_buffer_size(1)?;
                counters.push(Self(socket));
            }
        }
        Ok(counters)
    }

    /// Packets since it was asked last (packet(7), `PACKET_STATISTICS`): those
    /// that had no room among them.
    fn take(&self) -> io::Result<u64> {
        let mut statistics = [0; 8];
        sockopt::get(&self.0, SOL_PACKET, PACKET_STATISTICS, &mut statistics)?;
        let [a, b, c, d, ..] = statistics;
        Ok(u32::from_ne_bytes([a, b, c, d]).into())
    }
}

/// Takes packets from elsewhere to one of the addresses, all of one family.
fn filter(vips: &[Vip]) -> Vec<sock_filter> {
    let besides = |what: i32| (SKF_AD_OFF + what).cast_unsigned();
    let mut program = vec![
        step(LOAD, besides(SKF_AD_PKTTYPE)),
        fork(PACKET_HOST, 1, 0),
        step(END, 0),
        step(LOAD, besides(SKF_AD_IFINDEX)),
        fork(LOOPBACK, 0, 1),
        step(END, 0),
    ];
    program.extend(vips.iter().flat_map(|vip| takes(*vip)));
    program.push(step(END, 0));
    program
}

/// Ends well if a packet is for the address or prefix, and else goes on behind.
fn takes(vip: Vip) -> Vec<sock_filter> {
    let prefix = vip.prefix();
    let words = |address: IpAddr| match address {
        IpAddr::V4(address) => vec![address.to_bits()],
        IpAddr::V6(address) => {
            let halves = address.segments();
            let words = halves.chunks(2);
            words
                .map(|word| u32::from(word[0]) << 16 | u32::from(word[1]))
                .collect()
        }
    };
    let at = if vip.address().is_ipv4() { 16 } else { 24 };
    let mut steps = Vec::new();
    let parts = words(prefix.addr())
        .into_iter()
        .zip(words(prefix.netmask()));
    for ((word, mask), at) in parts
        .zip((at..).step_by(4))
        .filter(|((_, mask), _)| *mask != 0)
    {
        steps.push(step(LOAD, at));
        if mask != u32::MAX {
            steps.push(step(BPF_ALU | BPF_AND | BPF_K, mask));
        }
        steps.push(fork(word & mask, 0, 0));
    }
    steps.push(step(END, 1));
    let count = steps.len();
    for (place, step) in steps.iter_mut().enumerate() {
        if u32::from(step.code) == EQUAL {
            // At most ten.
            step.jf = (count - place - 1) as u8;
        }
    }
    steps
}

const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
const EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
const END: u32 = BPF_RET | BPF_K;

/// An instruction of classic BPF (linux/filter.h).
const fn step(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// So many instructions are left out if the accumulator is `k`, and if not.
const fn fork(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        jt,
        jf,
        ..step(EQUAL, k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the filter takes a packet: its type, interface and destination.
    fn takes(program: &[sock_filter], kind: u32, interface: u32, to: IpAddr) -> bool {
        let mut packet = vec![0; 16];
        match to {
            IpAddr::V4(to) => packet.extend(to.octets()),
            IpAddr::V6(to) => packet.extend([&[0; 8], &to.octets()[..]].concat()),
        }
        let besides = |what: i32| (SKF_AD_OFF + what).cast_unsigned();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) {
                LOAD if k == besides(SKF_AD_PKTTYPE) => accumulator = kind,
                LOAD if k == besides(SKF_AD_IFINDEX) => accumulator = interface,
                LOAD => {
                    let word = packet[k as usize..][..4].try_into().expect("four bytes");
                    accumulator = u32::from_be_bytes(word);
                }
                EQUAL => at += usize::from(if accumulator == k { jt } else { jf }),
                END => return k != 0,
                _ => accumulator &= k,
            }
        }
    }

    fn vips(texts: &[&str]) -> Vec<Vip> {
        let prefix = |text: &&str| match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text.parse::<ipnet::IpNet>().expect("a prefix").into(),
        };
        texts.iter().map(prefix).collect()
    }

    #[test]
    fn what_comes_from_elsewhere_to_an_address_of_this_host_is_counted() {
        let ipv4 = filter(&vips(&["198.51.100.10", "203.0.113.64/26"]));
        let ipv6 = filter(&vips(&["2001:db8:100::10", "2001:db8:200::/44"]));
        for (sentence, to, expected) in [
            ("the address", "198.51.100.10", true),
            ("its neighbour", "198.51.100.11", false),
            ("the first of the prefix", "203.0.113.64", true),
            ("the last of it", "203.0.113.127", true),
            ("the one behind it", "203.0.113.128", false),
            ("the address of IPv6", "2001:db8:100::10", true),
            ("another last word", "2001:db8:100::11", false),
            ("another word in the middle", "2001:db8:100:0:1::10", false),
            ("in the prefix of IPv6", "2001:db8:20f:ffff::1", true),
            ("behind it", "2001:db8:210::1", false),
        ] {
            let to: IpAddr = to.parse().expect("an address");
            let program = if to.is_ipv4() { &ipv4 } else { &ipv6 };
            assert_eq!(takes(program, PACKET_HOST, 2, to), expected, "{sentence}");
            assert!(
                !takes(program, PACKET_HOST, LOOPBACK, to),
                "{sentence}, of our own"
            );
            assert!(!takes(program, 3, 2, to), "{sentence}, to another host");
        }
    }

    #[test]
    fn no_filter_is_longer_than_the_kernel_takes() {
        let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let longest = ipnet::IpNet::new(address(0), 127).expect("a prefix");
        for vip in [address(1).into(), longest.into()] {
            let program = filter(&vec![vip; AT_ONCE]);
            assert!(program.len() <= 4096, "{}", program.len());
        }
    }
}
