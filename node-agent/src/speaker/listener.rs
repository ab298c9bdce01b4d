//! Incoming connections: one listener per local address that a peer is
//! expected at, and a door per peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tracing::{debug, warn};

use super::socket::{Md5, listen};
use crate::config::BgpPeer;

/// A peer, and where its connections go.
pub type Door = (Arc<BgpPeer>, mpsc::Sender<TcpStream>);

/// Port of BGP (RFC 4271).
const BGP_PORT: u16 = 179;

/// All listeners.
#[derive(Default)]
pub struct Listeners {
    peers: Vec<Arc<BgpPeer>>,
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
        self.peers.clear();
    }

    /// Listens at the source addresses of the peers; for peers without one at
    /// all addresses of their family.
    /// Listeners that serve the same peers already are left alone.
    pub async fn open(&mut self, doors: Vec<Door>) {
        let peers: Vec<_> = doors.iter().map(|(peer, _)| Arc::clone(peer)).collect();
        if peers == self.peers {
            return;
        }
        self.close().await;
        self.peers = peers;
        let mut by_address: BTreeMap<IpAddr, Vec<Door>> = BTreeMap::new();
        for (peer, door) in doors {
            let address = peer.source.unwrap_or(match peer.address {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            });
            by_address.entry(address).or_default().push((peer, door));
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
    let listener = loop {
        match listen(address) {
            Ok(listener) => break listener,
            Err(error) if !told => {
                warn!(
                    "cannot listen on {address}: {error}; peers cannot connect to us there, we \
                     connect to them (is another BGP speaker running? see `ss -ltnp sport = 179`)"
                );
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    };
    for (peer, _) in &doors {
        let set = Md5::of(peer).map_err(|e| e.to_string()).and_then(|md5| {
            md5.map_or(Ok(()), |md5| {
                md5.apply(&listener).map_err(|e| e.to_string())
            })
        });
        if let Err(error) = set {
            warn!(
                peer = &*peer.name,
                "no MD5 password on the listener: {error}"
            );
        }
    }
    accept(&listener, &doors).await;
}

async fn accept(listener: &TcpListener, doors: &[Door]) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let from = from.ip().to_canonical();
                match doors.iter().find(|(peer, _)| peer.address.ip() == from) {
                    // A full door means that the session has two already.
                    Some((_, door)) => drop(door.try_send(stream)),
                    None => debug!("closed a BGP connection from {from}, which is no peer"),
                }
            }
            Err(error) => {
                debug!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
