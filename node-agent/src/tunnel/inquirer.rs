//! Asks on the way that traffic takes whether somebody is there at all, by one packet.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use super::{
    endpoint::Endpoint,
    heard::{Heard, Protocol, Unreachable},
    lane::Lane,
    packet::{Ask, Mark, NUMBERS},
};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What there is to answer.
    pub ask: Ask,
    /// Our address.
    pub source: IpAddr,
    /// Who is asked.
    pub destination: IpAddr,
    /// Octets of the packet, if it can be so short.
    pub length: u32,
}

/// Sends it, and waits for the answer as long as it is waited for. No connection is
/// left half open.
///
/// # Errors
/// [`io::ErrorKind::ConnectionRefused`] when the answer is no, and
/// [`io::ErrorKind::HostUnreachable`] when somebody says that there is nobody; else
/// it cannot be sent.
pub async fn ask(endpoint: &Endpoint, lane: &Lane, question: Question) -> io::Result<()> {
    let Question {
        ask,
        source,
        destination,
        length,
    } = question;
    let (protocol, port) = match ask {
        Ask::Echo => (Protocol::Echo, 0),
        Ask::Syn(port) => (Protocol::Tcp, port),
    };
    let theirs = SocketAddr::new(destination, port);
    let mut flow = endpoint.flow(protocol, lane, source, theirs)?;
    let mark = Mark {
        id: flow.ours().port(),
    };
    let number = fastrand::u32(..NUMBERS);
    let packet = mark.packet(ask, source, destination, number, length);
    flow.send(&packet.ok_or(io::ErrorKind::InvalidInput)?)?;
    loop {
        let packet = match flow.next().await? {
            Heard::Packet(packet) => packet,
            Heard::Unreachable(why) => return Err(why.error()),
        };
        let Some(answer) = mark.read(&packet).filter(|it| it.number == number) else {
            continue;
        };
        if let Some(reset) = mark.reset(&answer) {
            // It ends by itself otherwise.
            let _ = flow.send(&reset);
        } else if protocol == Protocol::Tcp {
            return Err(Unreachable::Port.error());
        }
        return Ok(());
    }
}
