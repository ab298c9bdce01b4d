//! One TCP connection: its stage, the bytes that came in, and the little that
//! it has to say besides routes.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Agreed, State, status::Messages};
use crate::wire::{self, Capability, Dialect, Message, Open, WireError};

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stage: Stage,
    /// Our end of it.
    pub(super) local: IpAddr,
    /// The capabilities in our OPEN.
    pub(super) offered: Vec<Capability>,
    inbox: BytesMut,
    /// What is to be sent as soon as the socket takes it. There is no queue:
    /// an OPEN is sent once, and of two keepalives one is enough.
    open: Option<Bytes>,
    keepalive: bool,
    /// Our first KEEPALIVE is not sent, since BFD is waited for.
    pub(super) withheld: bool,
    /// The peer's first KEEPALIVE came meanwhile.
    pub(super) consented: bool,
}

/// How far a connection got.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Our OPEN is sent, the peer's has not come.
    OpenSent,
    /// The peer's OPEN was good, its first KEEPALIVE has not come.
    OpenConfirm(Arc<Agreed>),
    /// Routes flow.
    Established(Arc<Agreed>),
}

impl Connection {
    pub(super) fn new(local: IpAddr, open: Open) -> Self {
        Self {
            stage: Stage::OpenSent,
            local,
            inbox: BytesMut::new(),
            open: Some(open.emit()),
            offered: open.capabilities,
            keepalive: false,
            withheld: false,
            consented: false,
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
    }

    /// The next whole message received. `internal`: of an iBGP peer.
    pub(super) fn next_message(&mut self, internal: bool) -> Result<Option<Message>, WireError> {
        let dialect = match self.stage.agreed() {
            // Whoever offers extended messages must take them (RFC 8654
            // section 4), and we do.
            Some(agreed) => Dialect {
                extended_messages: true,
                ..agreed.dialect
            },
            None => Dialect {
                four_octet_as: false,
                internal,
                extended_messages: false,
            },
        };
        Message::take(&mut self.inbox, dialect)
    }

    pub(super) fn queue_keepalive(&mut self) {
        self.keepalive = true;
    }

    /// The next message to send that is not a route, counted.
    pub(super) fn poll_transmit(&mut self, sent: &mut Messages) -> Option<Bytes> {
        if let Some(open) = self.open.take() {
            sent.open += 1;
            return Some(open);
        }
        std::mem::take(&mut self.keepalive).then(|| {
            sent.keepalive += 1;
            wire::keepalive()
        })
    }
}

impl Stage {
    pub(super) fn agreed(&self) -> Option<&Arc<Agreed>> {
        match self {
            Self::OpenSent => None,
            Self::OpenConfirm(agreed) | Self::Established(agreed) => Some(agreed),
        }
    }

    pub(super) fn state(&self) -> State {
        match self {
            Self::OpenSent => State::OpenSent,
            Self::OpenConfirm(_) => State::OpenConfirm,
            Self::Established(_) => State::Established,
        }
    }
}
