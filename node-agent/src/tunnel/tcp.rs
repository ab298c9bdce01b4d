//! A TCP connection of our own, without I/O: packets go in and come out, and time is
//! told. The protocol itself is smoltcp's.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{self, Checksum, Device, DeviceCapabilities, Medium},
    socket::tcp::{RecvError, Socket, SocketBuffer, State},
    time,
    wire::{HardwareAddress, IpCidr},
};

/// What may have come and not been read, in octets. More is not sent to us.
const RECEIVED: usize = 32 * 1024;
/// What may have been written and not been acknowledged, in octets.
const SENT: usize = 8 * 1024;
/// It is not looked at again sooner.
const LEAST: Duration = Duration::from_millis(1);

/// One connection, from the first packet on.
pub struct Connection {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    link: Link,
    /// Time is counted from here.
    epoch: Instant,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The other side has not answered.
    Connecting,
    /// It has accepted.
    Open,
    /// It has refused, or all is over.
    Closed,
}

impl Connection {
    /// One that is about to be made, of packets of at most `mtu` octets.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when no connection is between such addresses.
    pub fn new(
        ours: SocketAddr,
        theirs: SocketAddr,
        mtu: u32,
        seed: u64,
        now: Instant,
    ) -> io::Result<Self> {
        let mut socket = socket();
        let (mut interface, link) = interface(ours, mtu, seed)?;
        socket
            .connect(interface.context(), theirs, ours)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Ok(Self {
            interface,
            sockets,
            handle,
            link,
            epoch: now,
        })
    }

    /// A packet has come.
    pub fn take_in(&mut self, packet: Vec<u8>) {
        self.link.arrived.push_back(packet);
    }

    /// Goes on to this moment. What is to be sent.
    pub fn advance(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let now = self.time(now);
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        std::mem::take(&mut self.link.leaving)
    }

    /// When it must go on though nothing comes.
    pub fn next(&mut self, now: Instant) -> Option<Instant> {
        let at = self.time(now);
        let delay = self.interface.poll_delay(at, &self.sockets)?;
        Some(now + Duration::from(delay).max(LEAST))
    }

    /// How far it has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.socket().state() {
            State::Listen | State::SynSent | State::SynReceived => Stage::Connecting,
            State::Closed => Stage::Closed,
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => Stage::Open,
        }
    }

    /// Fills a buffer with what has come, and says with how much; with nothing when
    /// the other side has said all. `None`: there is no more yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionReset`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.socket_mut().recv_slice(buffer) {
            Ok(0) if !buffer.is_empty() => Ok(None),
            Ok(length) => Ok(Some(length)),
            Err(RecvError::Finished) => Ok(Some(0)),
            Err(RecvError::InvalidState) => Err(reset()),
        }
    }

    /// Takes in what is to be said, and says how much of it; `None` if nothing now.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionReset`].
    pub fn write(&mut self, said: &[u8]) -> io::Result<Option<usize>> {
        match self.socket_mut().send_slice(said) {
            Ok(0) if !said.is_empty() => Ok(None),
            Ok(length) => Ok(Some(length)),
            Err(_) => Err(reset()),
        }
    }

    /// All is said.
    pub fn close(&mut self) {
        self.socket_mut().close();
    }

    /// Ends it at once: the other side is told so.
    pub fn abort(&mut self) {
        self.socket_mut().abort();
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn time(&self, now: Instant) -> time::Instant {
        let passed = now.saturating_duration_since(self.epoch);
        time::Instant::ZERO + passed.into()
    }
}

/// As the kernel would have said it.
fn reset() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNRESET)
}

fn socket() -> Socket<'static> {
    let mut socket = Socket::new(
        SocketBuffer::new(vec![0; RECEIVED]),
        SocketBuffer::new(vec![0; SENT]),
    );
    // Whoever checks wants an answer soon.
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket
}

/// A host with this address, to which the whole world is on its link.
fn interface(ours: SocketAddr, mtu: u32, seed: u64) -> io::Result<(Interface, Link)> {
    let address: smoltcp::wire::IpAddress = ours.ip().into();
    if !address.is_unicast() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut link = Link {
        mtu: usize::try_from(mtu).unwrap_or(usize::MAX),
        arrived: VecDeque::new(),
        leaving: Vec::new(),
    };
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut link, time::Instant::ZERO);
    interface.update_ip_addrs(|addresses| {
        // The first of several that there is room for.
        let _ = addresses.push(IpCidr::new(address, 0));
    });
    Ok((interface, link))
}

/// Packets between the protocol and whoever carries them.
#[derive(Debug)]
struct Link {
    mtu: usize,
    arrived: VecDeque<Vec<u8>>,
    leaving: Vec<Vec<u8>>,
}

impl Device for Link {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: time::Instant) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: time::Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // What is heard before the kernel has handled it may still be without its
        // checksum, which the network card or nobody was to fill in.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

struct Arrived(Vec<u8>);

impl phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Leaving<'a>(&'a mut Vec<Vec<u8>>);

impl phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}

#[cfg(test)]
mod tests;
