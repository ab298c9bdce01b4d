//! Echoes from this host itself, and who is told what of them.

use std::net::Ipv4Addr;

use super::*;

const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn awaited(target: IpAddr) -> (Awaited, oneshot::Receiver<Found>) {
    let (found, finding) = oneshot::channel();
    let awaited = Awaited {
        target,
        size: 8,
        token: 7,
        found,
    };
    (awaited, finding)
}

#[test]
fn only_who_waits_for_it_is_told_of_a_reply() {
    let waiting = Arc::default();
    let (first, mut finding_first) = awaited(TARGET);
    let (second, mut finding_second) = awaited(TARGET);
    let first = Place::take(&waiting, first).expect("there is room");
    let second = Place::take(&waiting, second).expect("there is room");
    assert_ne!(first.sequence, second.sequence);
    let mut reply = |from, sequence, token: u64| {
        let echo = Echo {
            identifier: 0,
            sequence,
        };
        let data = token.to_be_bytes();
        let heard = Heard::Reply {
            from,
            echo,
            data: &data,
        };
        lock(&waiting).take_in(Family::V4, &heard);
        [&mut finding_first, &mut finding_second]
            .map(|finding| matches!(finding.try_recv(), Ok(Found::Reply)))
    };
    assert_eq!(
        reply(OTHER, first.sequence, 7),
        [false, false],
        "of another"
    );
    assert_eq!(reply(TARGET, first.sequence, 8), [false, false], "forged");
    assert_eq!(reply(TARGET, second.sequence, 7), [false, true]);
    assert_eq!(reply(TARGET, first.sequence, 7), [true, false]);
    drop((first, second));
    assert!(lock(&waiting).checks.is_empty());
}

#[test]
fn a_sequence_number_is_free_again_when_its_check_is_over_and_not_before() {
    let waiting = Arc::default();
    let take = || Place::take(&waiting, awaited(TARGET).0);
    let mut places: Vec<_> = (0..=u16::MAX).filter_map(|_| take()).collect();
    assert_eq!(places.len(), 65_536);
    assert!(take().is_none(), "there is no number left");
    let freed = places.swap_remove(77).sequence;
    assert_eq!(take().map(|place| place.sequence), Some(freed));
}

/// Only where this process may, which a lab test makes sure of for both kinds of
/// sockets.
#[tokio::test]
async fn this_host_answers_itself_also_many_at_once() {
    let pinger = Pinger::default();
    let target = |address: [u8; 4]| Target {
        address: (address, 0).into(),
        source: None,
        passage: None,
    };
    for address in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let asked = (0..200).map(|size| pinger.ask(target(address), size, Duration::from_secs(20)));
        for outcome in futures_util::future::join_all(asked).await {
            let unable = outcome.detail.contains("may not send");
            assert!(
                unable || outcome.code == CheckCode::L4Ok,
                "{address:?}: {} {}",
                outcome.code,
                outcome.detail
            );
        }
    }
    let channels = lock(&pinger.channels);
    assert!(channels.len() <= 1, "one socket serves all: {channels:?}");
}

#[test]
fn a_socket_that_is_not_allowed_says_nothing_of_the_backend_and_names_the_remedy() {
    let check = |sentence, error: i32, expected: &[&str]| {
        let outcome = unable(&io::Error::from_raw_os_error(error), None);
        assert_eq!(outcome.code, CheckCode::SockErr, "{sentence}");
        for words in expected {
            let detail = &outcome.detail;
            assert!(detail.contains(words), "{sentence}: {detail}");
        }
        outcome
            .detail
            .starts_with("vipd may not send echo requests: ")
    };
    let remedies = ["CAP_NET_RAW", "net.ipv4.ping_group_range"];
    assert!(check("no capability", libc::EPERM, &remedies));
    assert!(check("forbidden otherwise", libc::EACCES, &remedies));
    assert!(!check(
        "no descriptor is left",
        libc::EMFILE,
        &["Too many open files"]
    ));
}

#[test]
fn that_others_wait_to_be_sent_is_our_own_fault() {
    let of_the_kernel = [libc::EAGAIN, libc::ENOBUFS].map(io::Error::from_raw_os_error);
    let of_ours = io::Error::from(io::ErrorKind::QuotaExceeded);
    for error in of_the_kernel.iter().chain([&of_ours]) {
        let outcome = tcp::failed(error, None);
        assert_eq!(outcome.code, CheckCode::SockErr, "{}", outcome.detail);
    }
}

/// Only where this process may, as above.
#[tokio::test]
async fn hosts_that_are_away_leave_room_for_the_others() {
    if let Ok(socket) = IcmpSocket::open(Family::V4, None) {
        let room = socket.room().unwrap();
        // A request that waits for a neighbour is charged less than 1 KiB, and at most
        // three of each host wait.
        assert!(room >= 1000 * 3 * 1024, "{room} octets");
    }
}
