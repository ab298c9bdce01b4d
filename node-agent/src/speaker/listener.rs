//! Incoming connections: one listener per local address that a peer is
//! expected at, and a door per peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU8,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::socket;
use crate::config::{BgpPeer, Secret};

/// A peer, and where its connections go.
#[derive(Clone)]
pub struct Door {
    /// The peer.
    pub peer: Arc<BgpPeer>,
    /// What its segments are to be signed with.
    pub password: Option<Secret>,
    /// Its session.
    pub session: mpsc::Sender<TcpStream>,
}

impl PartialEq for Door {
    fn eq(&self, other: &Self) -> bool {
        self.peer == other.peer
            && self.password == other.password
            && self.session.same_channel(&other.session)
    }
}

/// Port of BGP (RFC 4271).
const BGP_PORT: u16 = 179;

/// All listeners.
#[derive(Default)]
pub struct Listeners {
    doors: Vec<Door>,
    tasks: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Stops listening. Connections that stand are not touched.
    pub async fn close(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            // The socket is closed when the task has ended.
            let _ = task.await;
        }
        self.doors.clear();
    }

    /// Listens at the source addresses of the peers; for peers without one at
    /// all addresses of their family.
    /// Listeners that have these doors already are left alone.
    pub async fn open(&mut self, doors: Vec<Door>) {
        if doors == self.doors {
            return;
        }
        self.close().await;
        self.doors.clone_from(&doors);
        let mut by_address: BTreeMap<IpAddr, Vec<Door>> = BTreeMap::new();
        for door in doors {
            let address = door.peer.source.unwrap_or(match door.peer.address {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            });
            by_address.entry(address).or_default().push(door);
        }
        // A listener at all addresses takes the connections of the others too.
        for wildcard in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            let wildcard: IpAddr = wildcard;
            if let Some(mut doors) = by_address.remove(&wildcard) {
                let same_family: BTreeSet<IpAddr> = by_address
                    .keys()
                    .filter(|address| address.is_ipv4() == wildcard.is_ipv4())
                    .copied()
                    .collect();
                for address in same_family {
                    doors.extend(by_address.remove(&address).into_iter().flatten());
                }
                by_address.insert(wildcard, doors);
            }
        }
        for (address, doors) in by_address {
            self.tasks.push(tokio::spawn(serve(
                SocketAddr::new(address, BGP_PORT),
                doors,
            )));
        }
    }
}

/// How long to wait before trying again to listen.
const RETRY: Duration = Duration::from_secs(10);

/// Listens, again and again if need be: the address may come later.
async fn serve(address: SocketAddr, doors: Vec<Door>) {
    let mut told = false;
    loop {
        match Listener::open(address, &doors) {
            Ok(listener) if listener.locked.is_empty() => listener.accept().await,
            Ok(listener) => {
                for (peer, error) in listener.locked.iter().filter(|_| !told) {
                    warn!(
                        peer,
                        "cannot set its MD5 password on the listener: {error}; it cannot connect \
                         to us, we connect to it"
                    );
                }
                told = true;
                // The next attempt is on a new socket, so that nothing that
                // came without a signature waits in its queue.
                let _ = timeout(RETRY, listener.accept()).await;
            }
            Err(error) => {
                if !told {
                    warn!(
                        "cannot listen on {address}: {error}; peers cannot connect to us there, \
                         we connect to them (is another BGP speaker running? see \
                         `ss -ltnp sport = 179`)"
                    );
                    told = true;
                }
                sleep(RETRY).await;
            }
        }
    }
}

/// A listening socket and who may come in.
struct Listener<'a> {
    socket: TcpListener,
    doors: Vec<&'a Door>,
    /// Peers with a password that could not be set: whoever claims to be one
    /// of them is not let in.
    locked: BTreeMap<&'a str, io::Error>,
}

impl<'a> Listener<'a> {
    /// Every password is set before the first connection can come.
    fn open(address: SocketAddr, doors: &'a [Door]) -> io::Result<Self> {
        let ttls = doors.iter().map(|door| door.peer.ttl);
        let socket = socket::bind(address, ttls.max().unwrap_or(NonZeroU8::MAX))?;
        let mut open = Vec::new();
        let mut locked = BTreeMap::new();
        for door in doors {
            let set = door.password.as_ref().map_or(Ok(()), |password| {
                socket::set_password(&socket, door.peer.address.ip(), password)
            });
            match set {
                Ok(()) => open.push(door),
                Err(error) => {
                    locked.insert(&*door.peer.name, error);
                }
            }
        }
        Ok(Self {
            socket: socket::listen(socket)?,
            doors: open,
            locked,
        })
    }

    /// Lets peers in, for ever.
    async fn accept(&self) {
        loop {
            match self.socket.accept().await {
                Ok((stream, from)) => {
                    let from = from.ip().to_canonical();
                    match self.doors.iter().find(|d| d.peer.address.ip() == from) {
                        // A full door means that the session has two already.
                        Some(door) => drop(door.session.try_send(stream)),
                        None => debug!("closed a BGP connection from {from}, which has no door"),
                    }
                }
                Err(error) => {
                    debug!("accept: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speaker::tests::{password, peer};

    fn door(address: &str, ttl: u8, password: Option<Secret>) -> Door {
        let peer = BgpPeer {
            name: address.into(),
            ttl: NonZeroU8::new(ttl).unwrap(),
            ..peer(address)
        };
        Door {
            peer: Arc::new(peer),
            password,
            session: mpsc::channel(1).0,
        }
    }

    #[tokio::test]
    async fn a_peer_whose_password_cannot_be_set_is_not_let_in() {
        let doors = [
            door("127.0.0.1:179", 1, None),
            door("127.0.0.2:179", 255, Some(password(b"swordfish"))),
            // The kernel takes 80 bytes.
            door("127.0.0.3:179", 64, Some(password(&[b'x'; 81]))),
        ];
        let listener = Listener::open("127.0.0.1:0".parse().unwrap(), &doors).unwrap();
        let open: Vec<_> = listener.doors.iter().map(|d| &*d.peer.name).collect();
        assert_eq!(open, ["127.0.0.1:179", "127.0.0.2:179"]);
        let locked: Vec<_> = listener.locked.keys().copied().collect();
        assert_eq!(locked, ["127.0.0.3:179"]);
        let ttl = socket2::SockRef::from(&listener.socket).ttl_v4().unwrap();
        assert_eq!(ttl, 255, "of what answers a peer that expects the highest");
    }

    #[test]
    fn doors_differ_by_what_is_behind_them() {
        let one = door("192.0.2.1:179", 1, Some(password(b"swordfish")));
        let changed = Door {
            password: Some(password(b"other")),
            ..one.clone()
        };
        let restarted = Door {
            session: mpsc::channel(1).0,
            ..one.clone()
        };
        assert!(one == one.clone());
        assert!(one != changed, "another password");
        assert!(one != restarted, "another session");
    }
}
