//! Sessions that come, change and fail.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::config::{Config, SecretFile};

/// A speaker with one peer, which is [`peer`].
pub fn bgp() -> Bgp {
    let text = r#"
        [bgp]
        local_as = 64496
        router_id = "192.0.2.11"

        [[bgp.peer]]
        name = "router"
        address = "192.0.2.1"
        as = 64497
        hold_time = "3s"
    "#;
    let (config, _) = Config::parse(text, "vipd.toml").expect("a good configuration");
    config.bgp.expect("it has [bgp]")
}

/// A router at this address and port.
pub fn peer(address: &str) -> BgpPeer {
    BgpPeer {
        address: address.parse().unwrap(),
        ..BgpPeer::clone(&bgp().peers[0])
    }
}

/// A file with a password, for as long as this lives.
struct PasswordFile(PathBuf);

impl PasswordFile {
    fn new(password: &[u8]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vipd-password-{}-{number}", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(password);
        file
    }

    fn write(&self, password: &[u8]) {
        fs::write(&self.0, password).unwrap();
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A password as it is read.
pub fn password(bytes: &[u8]) -> Secret {
    let file = PasswordFile::new(bytes);
    SecretFile::new(file.0.clone(), 1000).read().unwrap()
}

#[tokio::test]
async fn a_session_takes_another_password_over_and_starts_anew_only_without_one() {
    let file = PasswordFile::new(b"swordfish");
    let mut bgp = bgp();
    bgp.peers = vec![Arc::new(BgpPeer {
        passive: true,
        source: Some([127, 0, 0, 77].into()),
        password: Some(SecretFile::new(file.0.clone(), 80)),
        ..peer("192.0.2.1:179")
    })];
    let (_announced, announced) = watch::channel(Arc::default());
    let mut speaker = Speaker::new(
        announced,
        false,
        "/run/vipd/bfd.sock".into(),
        Recorder::default(),
    );
    speaker.configure(Some(&bgp)).await;
    let session = |speaker: &Speaker| speaker.running["router"].door.clone();
    let first = session(&speaker);

    let given = |speaker: &Speaker| speaker.running["router"].password.clone();
    let steps: [(&str, &[u8], &[u8]); 3] = [
        ("nothing changed", b"swordfish", b"swordfish"),
        ("it is unreadable", b"", b"swordfish"),
        ("it has changed", b"other", b"other"),
    ];
    for (sentence, written, expected) in steps {
        file.write(written);
        speaker.configure(Some(&bgp)).await;
        assert!(session(&speaker).same_channel(&first), "{sentence}");
        assert_eq!(given(&speaker), Some(password(expected)), "{sentence}");
    }

    let mut slower = bgp.clone();
    slower.router_id = [192, 0, 2, 12].into();
    slower.peers = vec![Arc::new(BgpPeer {
        connect_retry: Duration::from_secs(7),
        ..BgpPeer::clone(&bgp.peers[0])
    })];
    speaker.configure(Some(&slower)).await;
    assert!(session(&speaker).same_channel(&first), "other terms");

    let mut open = bgp.clone();
    open.peers = vec![Arc::new(BgpPeer {
        password: None,
        ..BgpPeer::clone(&bgp.peers[0])
    })];
    speaker.configure(Some(&open)).await;
    assert!(!session(&speaker).same_channel(&first), "there is none");
}

#[tokio::test]
async fn a_session_whose_password_cannot_be_read_shows_why_and_starts_by_itself() {
    let file = PasswordFile::new(b"");
    let mut bgp = bgp();
    bgp.peers = vec![Arc::new(BgpPeer {
        passive: true,
        source: Some([127, 0, 0, 79].into()),
        password: Some(SecretFile::new(file.0.clone(), 80)),
        ..peer("192.0.2.1:179")
    })];
    let (_announced, announced) = watch::channel(Arc::default());
    let mut speaker = Speaker::new(
        announced,
        false,
        "/run/vipd/bfd.sock".into(),
        Recorder::default(),
    );
    speaker.configure(Some(&bgp)).await;
    let peers = speaker.peers();
    let error = || {
        let view = peers.borrow()["router"].clone();
        let status = view.status.borrow();
        status.session.last_error.clone().map(|error| error.words)
    };
    let words = error().expect("it says why");
    assert!(words.contains("is empty"), "{words}");

    file.write(b"swordfish");
    let wake = timeout(Duration::from_secs(20), speaker.wake()).await;
    assert_eq!(wake, Ok(Wake::Password));
    speaker.configure(Some(&bgp)).await;
    assert!(speaker.running.contains_key("router"));
    assert_eq!(error(), None);
    let early = timeout(Duration::from_millis(50), speaker.wake()).await;
    assert!(early.is_err(), "woken for nothing: {early:?}");
}

#[tokio::test]
async fn a_session_that_fails_is_named_and_can_be_started_again() {
    let mut bgp = bgp();
    bgp.peers = vec![Arc::new(BgpPeer {
        passive: true,
        source: Some([127, 0, 0, 78].into()),
        ..peer("192.0.2.1:179")
    })];
    let (_announced, announced) = watch::channel(Arc::default());
    let mut speaker = Speaker::new(
        announced,
        false,
        "/run/vipd/bfd.sock".into(),
        Recorder::default(),
    );
    speaker.configure(Some(&bgp)).await;
    let peers = speaker.peers();
    let failed = |peers: &watch::Receiver<Peers>| peers.borrow()["router"].status.borrow().failed;
    assert!(!failed(&peers));
    let early = timeout(Duration::from_millis(50), speaker.wake()).await;
    assert!(early.is_err(), "ended while it runs: {early:?}");

    speaker.running["router"].task.abort();
    let ended = timeout(Duration::from_secs(20), speaker.wake()).await;
    assert_eq!(ended, Ok(Wake::Ended("router".into())));
    assert!(failed(&peers));
    speaker.configure(Some(&bgp)).await;
    assert!(!failed(&peers));
}

#[test]
fn a_peer_may_have_routes_while_it_stands_and_where_it_keeps_them_a_little_longer() {
    let start = Instant::now();
    let at = |seconds| Some(start + Duration::from_secs(seconds));
    let bgp = bgp();
    let restart = Restart {
        restarting: false,
        forwarding: false,
    };
    let session = Session::new(session_config(&bgp, &bgp.peers[0], restart), 1).unwrap();
    for (sentence, established, kept, wanted) in [
        ("it has never stood", None, None, false),
        ("it stands", at(0), None, true),
        ("it has been lost", None, at(101), true),
        ("it has been lost for too long", None, at(100), false),
    ] {
        let mut status = PeerStatus::new(&bgp.peers[0], &session, start);
        (status.session.established_at, status.session.kept_until) = (established, kept);
        let now = start + Duration::from_secs(100);
        assert_eq!(status.may_have_routes(now), wanted, "{sentence}");
    }
}
