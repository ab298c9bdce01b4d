//! The sockets that send packets with headers of our own making. They need
//! CAP_NET_RAW.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    ptr::from_ref,
};

use libc::{AF_PACKET, ETH_P_IP, ETH_P_IPV6, sockaddr_ll, socklen_t};
use socket2::{Domain, Protocol, Socket, Type};

use super::lane::{Carried, Lane};
use crate::sockopt::enlarge_sending;

/// Sends packets as they are, along the kernel's routes or to a neighbour.
#[derive(Debug)]
pub struct Sender {
    ipv4: Socket,
    /// `None` on a host without IPv6.
    ipv6: Option<Socket>,
    link: Socket,
}

impl Sender {
    /// Opens the sockets.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let raw = |domain| {
            let protocol = Protocol::from(libc::IPPROTO_RAW);
            let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(protocol))?;
            // It is for sending; what the kernel queued here would never be read.
            socket.set_recv_buffer_size(1)?;
            enlarge_sending(&socket)?;
            io::Result::Ok(socket)
        };
        // Protocol 0 receives nothing.
        let link = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)?;
        enlarge_sending(&link)?;
        Ok(Self {
            ipv4: raw(Domain::IPV4)?,
            ipv6: raw(Domain::IPV6).ok(),
            link,
        })
    }

    /// Sends a packet as the data plane would.
    ///
    /// # Errors
    /// What the kernel says: `EMSGSIZE` when it does not fit the way.
    /// [`io::ErrorKind::InvalidInput`] when it cannot be put on the lane.
    pub fn send(&self, lane: &Lane, inner: &[u8]) -> io::Result<()> {
        match lane.carry(inner) {
            Some(Carried::Packet(packet, to)) => self.send_plain(&packet, to),
            Some(Carried::Frame) => self.send_frame(lane, inner),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no source address for the outer header is known",
            )),
        }
    }

    /// Sends a whole IP packet by the kernel's route.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send_plain(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let socket = match to {
            IpAddr::V4(_) => Some(&self.ipv4),
            IpAddr::V6(_) => self.ipv6.as_ref(),
        };
        let socket = socket.ok_or(io::ErrorKind::Unsupported)?;
        socket.send_to(packet, &SocketAddr::new(to, 0).into())?;
        Ok(())
    }

    /// Sends a packet to the neighbour on the way, whatever its destination.
    fn send_frame(&self, lane: &Lane, packet: &[u8]) -> io::Result<()> {
        let family = if packet.first().is_some_and(|byte| byte >> 4 == 6) {
            ETH_P_IPV6
        } else {
            ETH_P_IP
        };
        let mut mac = [0; 8];
        mac[..6].copy_from_slice(&lane.way.mac);
        let neighbour = sockaddr_ll {
            sll_family: AF_PACKET as u16,
            sll_protocol: (family as u16).to_be(),
            sll_ifindex: lane.way.uplink.ifindex as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: mac,
        };
        // SAFETY: packet and address live during the call, and their lengths are
        // told.
        let sent = unsafe {
            libc::sendto(
                self.link.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                from_ref(&neighbour).cast(),
                size_of::<sockaddr_ll>() as socklen_t,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
