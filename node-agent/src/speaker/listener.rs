//! Incoming connections: one listener per interface and local address that
//! peers are expected at, and a door per peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU8, NonZeroU16},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    sharing::Sharing,
    socket::{self, Place},
    sockopt,
};
use crate::config::{BgpPeer, Reach, Secret};

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

/// All listeners.
#[derive(Default)]
pub struct Listeners {
    listening: BTreeMap<Place, Listening>,
    sharing: Sharing,
}

struct Listening {
    doors: watch::Sender<Vec<Door>>,
    task: JoinHandle<()>,
}

impl Listeners {
    /// Stops listening. Connections that stand are not touched.
    pub async fn close(&mut self) {
        for listening in std::mem::take(&mut self.listening).into_values() {
            listening.close().await;
        }
    }

    /// Listens for these peers at `port`; without one nowhere. A listener that
    /// goes on learns of its new doors, and loses nobody who waits to be let in.
    pub async fn open(&mut self, doors: Vec<Door>, port: Option<NonZeroU16>) {
        let mut wanted = port.map_or_else(BTreeMap::new, |port| places(doors, port));
        for (place, listening) in std::mem::take(&mut self.listening) {
            match wanted.remove(&place) {
                Some(doors) => {
                    listening.doors.send_if_modified(|current| {
                        let changed = *current != doors;
                        *current = doors;
                        changed
                    });
                    self.listening.insert(place, listening);
                }
                // Closed before others are opened, which may be at its place.
                None => listening.close().await,
            }
        }
        for (place, doors) in wanted {
            let (doors, doors_out) = watch::channel(doors);
            let task = tokio::spawn(serve(place.clone(), doors_out, self.sharing.clone()));
            self.listening.insert(place, Listening { doors, task });
        }
    }
}

impl Listening {
    async fn close(self) {
        self.task.abort();
        // The socket is closed when the task has ended.
        let _ = self.task.await;
    }
}

/// Who is expected where: at the source addresses of the peers, for peers
/// without one at all addresses of their family.
fn places(doors: Vec<Door>, port: NonZeroU16) -> BTreeMap<Place, Vec<Door>> {
    let interfaces: BTreeSet<_> = doors.iter().map(|d| d.peer.interface.clone()).collect();
    let everywhere = |door: &Door| Place::everywhere(door.peer.address.ip());
    // A listener at all addresses takes the connections of the others too.
    let wildcards: BTreeSet<_> = doors
        .iter()
        .filter(|door| door.peer.source.is_none())
        .map(|door| (door.peer.interface.clone(), everywhere(door)))
        .collect();
    let mut places = BTreeMap::<Place, Vec<Door>>::new();
    for door in doors {
        let interface = door.peer.interface.clone();
        let everywhere = everywhere(&door);
        let all = wildcards.contains(&(interface.clone(), everywhere));
        let place = Place {
            interface,
            address: door.peer.source.filter(|_| !all).unwrap_or(everywhere),
            port: port.get(),
            shared: interfaces.len() > 1,
        };
        places.entry(place).or_default().push(door);
    }
    places
}

/// How long to wait before trying again to listen.
const RETRY: Duration = Duration::from_secs(10);

/// Listens, again and again if need be: the address may come later.
async fn serve(place: Place, mut doors: watch::Receiver<Vec<Door>>, sharing: Sharing) {
    let mut told = BTreeSet::new();
    let mut tell = |words: String| {
        if told.insert(words.clone()) {
            warn!("{words}");
        }
    };
    loop {
        let current = doors.borrow_and_update().clone();
        match Listener::open(&place, current, &sharing) {
            Ok(mut listener) => {
                let retry = !listener.locked.is_empty();
                for (peer, error) in &listener.locked {
                    tell(format!(
                        "cannot set the MD5 password of {peer} on the listener: {error}; it \
                         cannot connect to us, we connect to it"
                    ));
                }
                // The next attempt is on a new socket, so that nothing that
                // came without a signature waits in its queue.
                let limit = if retry { RETRY } else { Duration::MAX };
                if let Ok(Err(Abandoned)) = timeout(limit, listener.run(&mut doors)).await {
                    return;
                }
            }
            Err(error) => {
                tell(format!(
                    "cannot listen on {place}: {error}; peers cannot connect to us there, we \
                     connect to them{}",
                    listen_hint(&error, &place)
                ));
                if let Ok(Err(_)) = timeout(RETRY, doors.changed()).await {
                    return;
                }
            }
        }
    }
}

/// Nobody says any more who may come in.
struct Abandoned;

/// A listening socket and who may come in.
struct Listener {
    socket: Arc<TcpListener>,
    place: Place,
    doors: Vec<Door>,
    /// Peers with a password that could not be set: whoever claims to be one
    /// of them is not let in.
    locked: BTreeMap<Arc<str>, io::Error>,
}

impl Listener {
    /// Every password is set before the first connection can come.
    fn open(place: &Place, doors: Vec<Door>, sharing: &Sharing) -> io::Result<Self> {
        let (ttl, min_ttl) = ttls(&doors);
        let mut open = Vec::new();
        let mut locked = BTreeMap::new();
        let socket = sharing.open(|| {
            let socket = place.bind(ttl, min_ttl)?;
            for door in doors {
                let set = match &door.password {
                    Some(_) => {
                        let peer = door.peer.address.ip();
                        sockopt::set_password(&socket, peer, door.password.as_ref())
                    }
                    None => Ok(()),
                };
                match set {
                    Ok(()) => open.push(door),
                    Err(error) => {
                        locked.insert(Arc::clone(&door.peer.name), error);
                    }
                }
            }
            socket::listen(socket)
        })?;
        Ok(Self {
            socket,
            place: place.clone(),
            doors: open,
            locked,
        })
    }

    /// Lets peers in until the socket must be made anew.
    async fn run(&mut self, doors: &mut watch::Receiver<Vec<Door>>) -> Result<(), Abandoned> {
        loop {
            tokio::select! {
                changed = doors.changed() => {
                    changed.map_err(|_| Abandoned)?;
                    let new = doors.borrow_and_update().clone();
                    if !self.changed(new) {
                        return Ok(());
                    }
                }
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, from)) => self.admit(stream, from.ip().to_canonical()),
                    Err(error) => {
                        debug!("accept: {error}");
                        sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, from: IpAddr) {
        let Some(door) = self.doors.iter().find(|d| d.peer.address.ip() == from) else {
            debug!("closed a BGP connection from {from}, which has no door");
            return;
        };
        // The kernel has let in what the nearest peer here may send, and looks
        // for itself from now on.
        let min_ttl = door.peer.reach.min_ttl();
        match sockopt::syn_ttl(&stream) {
            Some(ttl) if ttl < min_ttl => debug!(
                peer = &*door.peer.name,
                "closed its connection: it came with a TTL of {ttl}, at least {min_ttl} is wanted"
            ),
            // A full door means that the session has two already.
            _ => drop(door.session.try_send(stream)),
        }
    }

    /// Takes other doors over without losing who waits; says whether it could.
    fn changed(&mut self, new: Vec<Door>) -> bool {
        let peer = |door: &Door| door.peer.address.ip();
        let old = std::mem::take(&mut self.doors);
        let before = |door: &Door| old.iter().find(|old| peer(old) == peer(door));
        for door in &new {
            let key = before(door).map(|before| &before.password);
            let set = match (key, &door.password) {
                (Some(old), new) if old == new => Ok(()),
                (None | Some(None), None) => Ok(()),
                (Some(Some(_)), new) => {
                    sockopt::set_password(&*self.socket, peer(door), new.as_ref())
                }
                // Who waits to be let in has not signed.
                (None | Some(None), Some(_)) => return false,
            };
            if set.is_err() {
                return false;
            }
        }
        let gone = |old: &&Door| !new.iter().any(|door| peer(door) == peer(old));
        for old in old.iter().filter(|old| old.password.is_some()).filter(gone) {
            // A key too many signs for nobody.
            let _ = sockopt::set_password(&*self.socket, peer(old), None);
        }
        let (ttl, min_ttl) = ttls(&new);
        if self.place.set_ttls(&*self.socket, ttl, min_ttl).is_err() {
            return false;
        }
        self.doors = new;
        true
    }
}

/// The TTL that every peer here takes, and the least that one of them may send.
fn ttls(doors: &[Door]) -> (NonZeroU8, u8) {
    let reaches = || doors.iter().map(|door| door.peer.reach);
    (
        reaches().map(Reach::ttl).max().unwrap_or(NonZeroU8::MAX),
        reaches().map(Reach::min_ttl).min().unwrap_or(0),
    )
}

fn listen_hint(error: &io::Error, place: &Place) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => format!(
            " (another BGP speaker runs here: see `ss -ltnp sport = {}`)",
            place.port
        ),
        Some(libc::EADDRNOTAVAIL) => " (the address is not configured on this host)".to_owned(),
        Some(libc::ENODEV) => " (there is no such interface)".to_owned(),
        Some(libc::EACCES | libc::EPERM) => {
            " (ports below 1024 need root or CAP_NET_BIND_SERVICE)".to_owned()
        }
        _ => String::new(),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.address, self.port))?;
        match &self.interface {
            Some(interface) => write!(f, " of {interface}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speaker::tests::{password, peer};

    fn door(address: &str, reach: Reach, password: Option<Secret>) -> Door {
        let peer = BgpPeer {
            name: address.into(),
            reach,
            ..peer(address)
        };
        Door {
            peer: Arc::new(peer),
            password,
            session: mpsc::channel(1).0,
        }
    }

    fn hops(hops: u8) -> Reach {
        Reach::Hops(NonZeroU8::new(hops).unwrap())
    }

    fn place(address: &str) -> Place {
        Place {
            interface: None,
            address: address.parse().unwrap(),
            port: 0,
            shared: false,
        }
    }

    #[tokio::test]
    async fn a_peer_whose_password_cannot_be_set_is_not_let_in() {
        let doors = vec![
            door("127.0.0.1:179", hops(1), None),
            door(
                "127.0.0.2:179",
                Reach::Secured(NonZeroU8::MIN),
                Some(password(b"swordfish")),
            ),
            // The kernel takes 80 bytes.
            door("127.0.0.3:179", hops(64), Some(password(&[b'x'; 81]))),
        ];
        let listener = Listener::open(&place("127.0.0.1"), doors, &Sharing::default()).unwrap();
        let open: Vec<_> = listener.doors.iter().map(|d| &*d.peer.name).collect();
        assert_eq!(open, ["127.0.0.1:179", "127.0.0.2:179"]);
        let locked: Vec<_> = listener.locked.keys().map(|name| &**name).collect();
        assert_eq!(locked, ["127.0.0.3:179"]);
        let ttl = socket2::SockRef::from(&*listener.socket).ttl_v4().unwrap();
        assert_eq!(ttl, 255, "of what answers a peer that expects the highest");
    }

    #[test]
    fn the_nearest_peer_does_not_shut_the_others_out() {
        let secured = |hops| Reach::Secured(NonZeroU8::new(hops).unwrap());
        let table: [(&str, &[Reach], (u8, u8)); 4] = [
            ("none is checked", &[hops(1), hops(64)], (64, 0)),
            ("one is, one is not", &[secured(1), hops(2)], (255, 0)),
            ("two of them", &[secured(1), secured(3)], (255, 253)),
            ("nobody", &[], (255, 0)),
        ];
        for (sentence, reaches, expected) in table {
            let doors: Vec<_> = reaches
                .iter()
                .map(|reach| door("192.0.2.1:179", *reach, None))
                .collect();
            let (ttl, min_ttl) = ttls(&doors);
            assert_eq!((ttl.get(), min_ttl), expected, "{sentence}");
        }
    }

    #[tokio::test]
    async fn a_listener_goes_on_unless_somebody_waits_who_has_not_signed() {
        let plain = |address| door(address, hops(1), None);
        let signed = |address, secret: &[u8]| door(address, hops(1), Some(password(secret)));
        let (one, two) = ("127.0.0.2:179", "127.0.0.3:179");
        let table = [
            (
                "nothing changes",
                signed(one, b"a"),
                vec![signed(one, b"a")],
                true,
            ),
            (
                "another password",
                signed(one, b"a"),
                vec![signed(one, b"b")],
                true,
            ),
            (
                "no password any more",
                signed(one, b"a"),
                vec![plain(one)],
                true,
            ),
            ("nobody any more", signed(one, b"a"), vec![], true),
            (
                "one more without",
                signed(one, b"a"),
                vec![signed(one, b"a"), plain(two)],
                true,
            ),
            (
                "a password at last",
                plain(one),
                vec![signed(one, b"a")],
                false,
            ),
            (
                "one more with",
                plain(one),
                vec![plain(one), signed(two, b"b")],
                false,
            ),
        ];
        for (sentence, before, after, expected) in table {
            let mut listener =
                Listener::open(&place("127.0.0.1"), vec![before], &Sharing::default()).unwrap();
            assert_eq!(listener.changed(after), expected, "{sentence}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_has_come_too_far_for_its_peer_is_not_let_in() {
        let secured = Reach::Secured(NonZeroU8::MIN);
        let table = [
            ("from afar, unchecked", "127.0.0.2", 64, true),
            ("from the link", "127.0.0.3", 255, true),
            ("from behind a router", "127.0.0.3", 254, false),
        ];
        let (sessions, doors): (Vec<_>, Vec<_>) = [("127.0.0.2", hops(1)), ("127.0.0.3", secured)]
            .map(|(address, reach)| {
                let (session, arrived) = mpsc::channel(1);
                let door = door(&format!("{address}:179"), reach, None);
                ((address, arrived), Door { session, ..door })
            })
            .into_iter()
            .unzip();
        let mut sessions: BTreeMap<_, _> = sessions.into_iter().collect();
        let listener = Listener::open(&place("127.0.0.1"), doors, &Sharing::default()).unwrap();
        let there = listener.socket.local_addr().unwrap();
        for (sentence, address, ttl, let_in) in table {
            let dialler = tokio::net::TcpSocket::new_v4().unwrap();
            dialler
                .bind(format!("{address}:0").parse().unwrap())
                .unwrap();
            socket2::SockRef::from(&dialler).set_ttl_v4(ttl).unwrap();
            let _stream = dialler.connect(there).await.unwrap();
            let (accepted, from) = listener.socket.accept().await.unwrap();
            listener.admit(accepted, from.ip());
            let arrived = sessions.get_mut(address).unwrap().try_recv();
            assert_eq!(arrived.is_ok(), let_in, "{sentence}");
        }
    }

    #[test]
    fn a_listener_stands_for_each_interface_and_address_or_for_all_of_them() {
        let door = |source: Option<&str>, interface: Option<&str>| {
            let door = door("192.0.2.1:179", hops(1), None);
            let peer = BgpPeer {
                source: source.map(|source| source.parse().unwrap()),
                interface: interface.map(|interface| interface.parse().unwrap()),
                ..BgpPeer::clone(&door.peer)
            };
            let peer = Arc::new(peer);
            Door { peer, ..door }
        };
        let (here, there) = (Some("192.0.2.11"), Some("192.0.2.12"));
        let table = [
            (
                "two sources",
                vec![door(here, None), door(there, None)],
                "192.0.2.11:179 192.0.2.12:179",
            ),
            (
                "one without",
                vec![door(here, None), door(None, None)],
                "0.0.0.0:179",
            ),
            (
                "one on an interface",
                vec![door(here, None), door(None, Some("eth1"))],
                "192.0.2.11:179 0.0.0.0:179 of eth1",
            ),
            (
                "two on an interface",
                vec![door(here, Some("eth1")), door(None, Some("eth1"))],
                "0.0.0.0:179 of eth1",
            ),
        ];
        for (sentence, doors, expected) in table {
            let all: Vec<_> = places(doors, NonZeroU16::new(179).unwrap())
                .keys()
                .map(ToString::to_string)
                .collect();
            assert_eq!(all.join(" "), expected, "{sentence}");
        }
    }

    #[test]
    fn doors_differ_by_what_is_behind_them() {
        let one = door("192.0.2.1:179", hops(1), Some(password(b"swordfish")));
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
