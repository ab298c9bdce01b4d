//! Ports that packets of our own come from. The kernel knows nothing of those
//! packets: it would give the ports to others, and reset connections that it has not
//! made. A socket that hears nothing keeps it from both.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use libc::{BPF_K, BPF_RET};
use socket2::{Domain, SockFilter, Socket, Type};

use super::heard::Protocol;

/// The first of them. The kernel gives connections ports below it, unless it is
/// told otherwise (`net.ipv4.ip_local_port_range`).
pub const FIRST: u16 = 61_000;
/// How many there are.
pub const COUNT: u16 = u16::MAX - FIRST + 1;

/// Those that are held.
#[derive(Debug, Default)]
pub struct Ports {
    held: HashMap<(Protocol, u16), Socket>,
}

impl Ports {
    /// Holds a port of all our addresses; one that is held already is fine. Echoes
    /// have none: the kernel is silent about replies that it has not asked for.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when it is somebody else's.
    pub fn hold(&mut self, protocol: Protocol, port: u16) -> io::Result<()> {
        let kind = match protocol {
            Protocol::Tcp => Type::STREAM,
            Protocol::Udp => Type::DGRAM,
            Protocol::Echo => return Ok(()),
        };
        if let Entry::Vacant(place) = self.held.entry((protocol, port)) {
            place.insert(deaf(kind, port)?);
        }
        Ok(())
    }
}

/// A socket at this port that drops whatever comes, and answers nothing.
fn deaf(kind: Type, port: u16) -> io::Result<Socket> {
    let (socket, address) = match Socket::new(Domain::IPV6, kind.nonblocking(), None) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        // A host without IPv6.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let socket = Socket::new(Domain::IPV4, kind.nonblocking(), None)?;
            (socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        Err(error) => return Err(error),
    };
    // Before anything can come.
    socket.attach_filter(&[SockFilter::new((BPF_RET | BPF_K) as u16, 0, 0, 0)])?;
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(1)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read as _, Write as _},
        net::{TcpListener, TcpStream, UdpSocket},
        time::Duration,
    };

    use super::*;

    /// A port that nobody has, for as long as nobody else asks for one.
    fn free() -> u16 {
        let listener = TcpListener::bind("[::]:0").unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn a_port_that_is_held_is_nobody_elses_and_answers_nothing() {
        let mut ports = Ports::default();
        let port = free();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            ports.hold(protocol, port).unwrap();
            ports.hold(protocol, port).unwrap();
            let again = Ports::default().hold(protocol, port).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AddrInUse, "{protocol:?}");
        }
        for address in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(address.parse().unwrap(), port);
            // It would be refused at once if the kernel answered.
            let patience = Duration::from_millis(300);
            let connected = TcpStream::connect_timeout(&address, patience);
            assert_eq!(connected.unwrap_err().kind(), ErrorKind::TimedOut);

            let asking = UdpSocket::bind((address.ip(), 0)).unwrap();
            asking.connect(address).unwrap();
            asking.set_read_timeout(Some(patience)).unwrap();
            asking.send(b"ping").unwrap();
            let heard = asking.recv(&mut [0; 16]).unwrap_err();
            assert_eq!(heard.kind(), ErrorKind::WouldBlock, "{address}");
        }
        drop(ports);
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        stream.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
    }
}
