//! Watches the host's interfaces, in a thread of its own: the kernel may let
//! such a question wait for as long as a driver is busy, which no session must.

use std::{
    collections::BTreeMap,
    io,
    thread::{self, sleep},
    time::Duration,
};

use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
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

/// Starts the thread, which sends all interfaces whenever one has changed.
///
/// # Errors
/// When there is no netlink.
pub fn watch(waker: Waker) -> io::Result<()> {
    let (events, questions) = (open(GROUP_LINK)?, open(0)?);
    events.set_non_blocking(true)?;
    let run = move || {
        let mut known = None;
        loop {
            // A look that failed is made again; meanwhile what is known holds.
            if let Ok(links) = links(&questions)
                && known.as_ref() != Some(&links)
            {
                known = Some(links.clone());
                if waker.wake(Wake::Links(links)).is_err() {
                    return;
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

/// All interfaces by index.
fn links(socket: &Socket) -> io::Result<BTreeMap<u32, Link>> {
    let mut question = LinkMessage::default();
    question
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let inner = RouteNetlinkMessage::GetLink(question);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(inner));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut links = BTreeMap::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(links),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    links
                        .extend(link::Link::read(&link).map(|link| (link.ifindex, Link::of(link))));
                }
                _ => {}
            }
            // Messages stand at multiples of four bytes.
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
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
