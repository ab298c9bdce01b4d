//! Sessions with routers that are not what they should be.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
    time::{interval, sleep, timeout},
};
use vipd_bgp::wire::{self, Capability, Dialect, Family, Message, Open};
use vipd_control::{announcement, model::Vip};

use super::*;
use crate::{
    config::{Bgp, NextHop, SecretFile},
    speaker::{
        terms::{Restart, session_config},
        tests::{bgp, password, peer},
    },
};

const PATIENCE: Duration = Duration::from_secs(20);

const FRESH: Restart = Restart {
    restarting: false,
    forwarding: false,
};

/// A running session and everything that it hangs on.
struct World {
    peer: watch::Sender<Arc<BgpPeer>>,
    announced: watch::Sender<Arc<Announced>>,
    _door: mpsc::Sender<TcpStream>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<PeerStatus>,
    task: JoinHandle<()>,
}

fn start(peer: BgpPeer, password: Option<Secret>) -> World {
    let peer = Arc::new(peer);
    let session = Session::new(session_config(&bgp(), &peer, FRESH), 1).unwrap();
    let (announced, announced_out) = watch::channel(Arc::default());
    let (door, incoming) = mpsc::channel(1);
    let (commands, commands_out) = mpsc::channel(1);
    let (status, status_out) = watch::channel(PeerStatus::new(&peer, &session, Instant::now()));
    let (peer, peer_out) = watch::channel(peer);
    let inputs = Inputs {
        peer: peer_out,
        password,
        announced: announced_out,
        bfd: watch::channel(States::default()).1,
        incoming,
        commands: commands_out,
        status,
        recorder: Recorder::default(),
    };
    World {
        peer,
        announced,
        _door: door,
        commands,
        status: status_out,
        task: tokio::spawn(run(session, inputs)),
    }
}

/// A router that has been dialled and has said its OPEN.
struct Router {
    from: OwnedReadHalf,
    bytes: BytesMut,
}

impl Router {
    /// A place for a router, and its address.
    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    async fn accept(listener: &TcpListener) -> (Self, OwnedWriteHalf) {
        let (stream, _) = listener.accept().await.unwrap();
        let (from, mut to) = stream.into_split();
        to.write_all(&open().emit()).await.unwrap();
        to.write_all(&wire::keepalive()).await.unwrap();
        let router = Self {
            from,
            bytes: BytesMut::new(),
        };
        (router, to)
    }

    /// The next message.
    async fn next(&mut self) -> Message {
        let dialect = Dialect {
            four_octet_as: true,
            internal: false,
            extended_messages: false,
        };
        loop {
            if let Some(message) = Message::take(&mut self.bytes, dialect).unwrap() {
                return message;
            }
            assert_ne!(self.from.read_buf(&mut self.bytes).await.unwrap(), 0);
        }
    }

    /// Reads until so many KEEPALIVEs have come.
    async fn keepalives(&mut self, wanted: usize) {
        let come = timeout(PATIENCE, async {
            let mut come = 0;
            while come < wanted {
                match self.next().await {
                    Message::Keepalive => come += 1,
                    Message::Notification(notification) => panic!("{notification}"),
                    _ => (),
                }
            }
        });
        come.await.expect("so many KEEPALIVEs");
    }
}

fn open() -> Open {
    Open {
        my_as: 64497,
        hold_time: 3,
        router_id: [192, 0, 2, 1].into(),
        capabilities: vec![
            Capability::family(Family::Ipv4Unicast),
            Capability::family(Family::Ipv6Unicast),
            Capability::FourOctetAs(64497),
        ],
    }
}

/// Sends a KEEPALIVE each second for as long as it is taken.
fn beat(mut to: OwnedWriteHalf) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut second = interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            if to.write_all(&wire::keepalive()).await.is_err() {
                return;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_nobody_feeds_any_more_stops() {
    for abandoned in ["announced", "peer"] {
        let World {
            peer: peer_in,
            announced,
            task,
            _door,
            commands: _commands,
            ..
        } = start(peer("192.0.2.1:179"), None);
        let _kept: Box<dyn Send> = if abandoned == "peer" {
            drop(peer_in);
            Box::new(announced)
        } else {
            drop(announced);
            Box::new(peer_in)
        };
        let ended = timeout(PATIENCE, task).await;
        assert!(ended.is_ok(), "still running without `{abandoned}`");
    }
}

#[tokio::test]
async fn a_peer_that_never_stops_sending_leaves_time_for_others() {
    let flooded = Duration::from_secs(8);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let world = start(peer(&listener.local_addr().unwrap().to_string()), None);
    let flood = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&open().emit()).unwrap();
        let many = wire::keepalive().repeat(100_000);
        let begun = Instant::now();
        while begun.elapsed() < flooded && stream.write_all(&many).is_ok() {}
    });
    let begun = Instant::now();
    sleep(Duration::from_secs(1)).await;
    let took = begun.elapsed();
    world.task.abort();
    assert!(took < flooded / 2, "one second took {took:?}");
    let _ = world.task.await;
    flood.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keepalives_are_sent_to_a_peer_that_never_stops_sending() {
    let (listener, address) = Router::listen().await;
    let world = start(peer(&address), None);
    let (mut router, mut to) = Router::accept(&listener).await;
    let flood = tokio::spawn(async move {
        let many = wire::keepalive().repeat(10_000);
        while to.write_all(&many).await.is_ok() {}
    });
    router.keepalives(3).await;
    flood.abort();
    world.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peer_is_heard_and_hears_while_routes_never_stop_changing() {
    let (listener, address) = Router::listen().await;
    let mut both = peer(&address);
    both.families.ipv6 = Some(NextHop::Given(Ipv6Addr::new(
        0x2001, 0xdb8, 0, 0, 0, 0, 0, 11,
    )));
    let bgp = Arc::new(Bgp {
        peers: vec![Arc::new(both.clone())],
        ..bgp()
    });
    let world = start(both, None);
    let (mut router, mut to) = Router::accept(&listener).await;
    router.keepalives(1).await;
    let done = Arc::new(AtomicBool::new(false));
    let changes = thread::spawn({
        let (announced, done) = (world.announced.clone(), Arc::clone(&done));
        move || {
            // So many that the next change has come when one is done with.
            let network = |subnet: u16| -> Arc<Announced> {
                let address = |host| Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host);
                let vips = (0..3000).map(|host| Vip::from(IpAddr::from(address(host))));
                Arc::new(Announced {
                    states: vips.map(|vip| (vip, announcement::State::Up)).collect(),
                    bgp: Some(Arc::clone(&bgp)),
                    complete: true,
                    ..Announced::default()
                })
            };
            let vips = [network(1), network(2)];
            for change in 0.. {
                if done.load(Ordering::Relaxed) {
                    return change;
                }
                announced.send_replace(Arc::clone(&vips[change % 2]));
                thread::sleep(Duration::from_micros(100));
            }
            0
        }
    });
    to.write_all(&wire::keepalive()).await.unwrap();
    let beat = beat(to);
    // Longer than the hold time of 3 s, with a keepalive each second.
    router.keepalives(6).await;
    done.store(true, Ordering::Relaxed);
    let changes = changes.join().unwrap();
    assert!(changes > 100, "only {changes} changes");
    let status = world.status.borrow().clone();
    assert_eq!(status.session.state, State::Established);
    beat.abort();
    world.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stays_when_both_sides_change_their_password() {
    let (listener, address) = Router::listen().await;
    let here = [127, 0, 0, 1].into();
    let (old, new) = (password(b"swordfish"), password(b"other"));
    sockopt::set_password(&listener, here, Some(&old)).unwrap();
    let signed = BgpPeer {
        password: Some(SecretFile::new("unused".into(), 80)),
        ..peer(&address)
    };
    let world = start(signed, Some(old));
    let (mut router, mut to) = Router::accept(&listener).await;
    router.keepalives(2).await;
    to.write_all(&wire::keepalive()).await.unwrap();

    world
        .commands
        .send(Command::Rekey(new.clone()))
        .await
        .unwrap();
    // In between nothing gets through, either way.
    sleep(Duration::from_secs(1)).await;
    sockopt::set_password(to.as_ref(), here, Some(&new)).unwrap();
    to.write_all(&wire::keepalive()).await.unwrap();
    let beat = beat(to);
    router.keepalives(5).await;
    let status = world.status.borrow().clone();
    assert_eq!(status.session.state, State::Established);
    assert_eq!(status.session.established_count, 1);
    beat.abort();
    world.task.abort();
}
