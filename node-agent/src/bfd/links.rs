//! Watches the host's interfaces, in a thread of its own: the kernel may let
//! such a question wait for as long as a driver is busy, which no session must.

use std::{
    collections::BTreeMap,
    io,
    thread::{self, sleep},
    time::Duration,
};

use rtnetlink::{
    packet_core::{
        NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkExtentMask, LinkMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::wake::{Wake, Waker};
use crate::netlink::link::{self, Xdp};

/// Between two looks when the kernel tells nothing. It does not tell when a
/// program is detached.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};

/// Between two looks when the kernel tells much.
const PAUSE: Duration = Duration::from_millis(10);

/// `RTMGRP_LINK` of linux/rtnetlink.h.
const GROUP_LINK: u32 = 1;

/// What matters of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Whether it is set up and has a signal.
    pub sends: bool,
    /// Whether it has an XDP program.
    pub xdp: bool,
}

/// Looks in vain, one after the other, until somebody is told.
const SILENT_LOOKS: u32 = 12;

/// Starts the thread, which sends all interfaces whenever one has changed.
///
/// # Errors
/// When there is no netlink.
pub fn watch(waker: Waker) -> io::Result<()> {
    let events = open(GROUP_LINK)?;
    events.set_non_blocking(true)?;
    let mut question = Question {
        socket: open(0)?,
        number: 0,
    };
    let run = move || {
        let mut known = None;
        let mut in_vain = 0;
        loop {
            // A look that failed is made again; meanwhile what is known holds.
            match question.links() {
                Ok(links) if known.as_ref() != Some(&links) => {
                    in_vain = 0;
                    known = Some(links.clone());
                    if waker.wake(Wake::Links(links)).is_err() {
                        return;
                    }
                }
                Ok(_) => in_vain = 0,
                Err(error) => {
                    in_vain += 1;
                    let words = || {
                        format!(
                            "the interfaces cannot be seen, neither their carrier nor whether \
                             they have an XDP program: {error}"
                        )
                    };
                    if in_vain == SILENT_LOOKS && waker.wake(Wake::Warning(words())).is_err() {
                        return;
                    }
                }
            }
            sleep(PAUSE);
            wait(&events);
        }
    };
    thread::Builder::new().name("links".into()).spawn(run)?;
    Ok(())
}

fn open(groups: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

/// Waits for news and takes all there is; the next look tells what it was.
fn wait(events: &Socket) {
    // Whatever ends the wait, a look follows.
    let _ = poll(&mut [PollFd::new(events, PollFlags::IN)], Some(&LOOK));
    // Lost messages are an error once, and no news that the look would not see.
    while matches!(events.recv_from_full(), Ok((message, _)) if !message.is_empty()) {}
}

/// Asks for all interfaces.
struct Question {
    socket: Socket,
    /// That of the last question. What is left of the answer to an earlier one is
    /// known by its own.
    number: u32,
}

impl Question {
    /// All interfaces by index.
    ///
    /// # Errors
    /// When the kernel does not tell them all.
    fn links(&mut self) -> io::Result<BTreeMap<u32, Link>> {
        let mut question = LinkMessage::default();
        question
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.number = self.number.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.number;
        let inner = RouteNetlinkMessage::GetLink(question);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(inner));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answer = Answer::new(self.number);
        while !answer.read(&self.socket.recv_from_full()?.0)? {}
        Ok(answer.links)
    }
}

/// What has come of an answer.
struct Answer {
    number: u32,
    links: BTreeMap<u32, Link>,
}

impl Answer {
    fn new(number: u32) -> Self {
        let links = BTreeMap::new();
        Self { number, links }
    }

    /// Takes in a datagram; whether it was the last.
    ///
    /// # Errors
    /// When the answer may not be whole. What follows of it has the same number.
    fn read(&mut self, mut rest: &[u8]) -> io::Result<bool> {
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages stand at multiples of four bytes.
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.number {
                continue;
            }
            // An interface that goes meanwhile may have taken another from sight.
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    let link = link::Link::read(&link);
                    self.links
                        .extend(link.map(|link| (link.ifindex, Link::of(link))));
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

impl Link {
    fn of(link: link::Link) -> Self {
        Self {
            sends: link.sends(),
            xdp: link.xdp != Xdp::None,
            name: link.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u32, flags: u16, payload: NetlinkPayload<RouteNetlinkMessage>) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        (header.sequence_number, header.flags) = (number, flags);
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
        message.serialize(&mut bytes);
        bytes
    }

    fn link(number: u32, flags: u16, index: u32) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let name = LinkAttribute::IfName(format!("eth{index}"));
        link.attributes.push(name);
        let inner = RouteNetlinkMessage::NewLink(link);
        message(number, flags, NetlinkPayload::InnerMessage(inner))
    }

    fn done(number: u32) -> Vec<u8> {
        message(number, 0, NetlinkPayload::Done(Default::default()))
    }

    #[test]
    fn an_answer_is_all_interfaces_or_none() {
        let whole = [link(7, 0, 1), link(7, 0, 2), done(7)].concat();
        let mut answer = Answer::new(7);
        assert!(answer.read(&whole).expect("it is whole"));
        assert!(answer.links.keys().eq(&[1, 2]), "{:?}", answer.links);

        // What is left of an earlier one.
        let mut answer = Answer::new(8);
        let late = [link(7, 0, 2), done(7), link(8, 0, 3)].concat();
        assert!(!answer.read(&late).expect("there is more"));
        assert!(answer.read(&done(8)).expect("that was it"));
        assert!(answer.links.keys().eq(&[3]), "{:?}", answer.links);

        let disturbed = [link(9, 0, 1), link(9, NLM_F_DUMP_INTR, 3)].concat();
        for (sentence, bytes) in [("disturbed", &disturbed), ("cut", &whole[..20].to_vec())] {
            let read = Answer::new(9).read(bytes);
            assert!(read.is_err(), "{sentence}: {read:?}");
        }
    }

    #[test]
    fn the_kernel_answers_each_question() {
        let socket = open(0).expect("netlink");
        let mut question = Question { socket, number: 41 };
        for _ in 0..2 {
            let links = question.links().expect("it answers");
            assert!(links.values().any(|link| link.name == "lo"), "{links:?}");
        }
    }
}
