//! Doubt told second by second.

use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms::USUAL;

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// One that answers as soon as it is asked.
fn anchor_at(last: u8) -> Anchor {
    Anchor {
        address: address(last),
        returned: false,
    }
}

/// What is known of backends at a second: the second since when each is silent, or
/// is not available and answers well (`r`), or when it last said no (`a`), or `u` for
/// unknown or `up`; whether an anchor answers; and the words of the change.
type Moment<'a> = (u64, &'a [&'a str], bool, &'a str);

#[track_caller]
fn check(sentence: &str, terms: Option<&Terms>, moments: &[Moment<'_>]) {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut doubt = Doubt::default();
    for (second, backends, anchor, expected) in moments {
        let evidence = (1..).zip(*backends).map(|(i, word)| {
            let when = |word: &str| at(word.parse().expect("a second"));
            let found = match (*word, &word[..1]) {
                ("up", _) => Evidence::Available,
                ("u", _) => Evidence::Unknown,
                (word, "r") => Evidence::Reviving(when(&word[1..])),
                (word, "a") => Evidence::Audible(when(&word[1..])),
                (word, _) => Evidence::Silent(when(word)),
            };
            (address(i), found)
        });
        let anchor = anchor.then(|| anchor_at(254));
        let change = doubt.update(evidence, anchor, terms, at(*second));
        let words = match &change {
            None => String::new(),
            Some(Change::Began(why)) => format!("began: {why}"),
            Some(Change::Lifted) => "lifted".to_owned(),
            Some(Change::Settled(why)) => format!("settled: {why}"),
        };
        assert_eq!(words, *expected, "{sentence}, second {second}: {doubt:#?}");
        let began = words.starts_with("began");
        assert!(!began || doubt.is_open(), "{sentence}: {doubt:#?}");
        assert!(!doubt.is_open() || doubt.next().is_some());
    }
}

#[test]
fn all_that_fall_silent_together_put_us_in_doubt() {
    let terms = Some(&TERMS);
    check(
        "within the window, and until somebody is heard",
        terms,
        &[
            (100, &["100", "up", "up"], false, ""),
            (103, &["100", "103", "up"], false, ""),
            (
                104,
                &["100", "103", "104"],
                false,
                "began: 3 of 3 addresses fell silent within 10 s",
            ),
            (120, &["100", "103", "104"], false, ""),
            (130, &["100", "up", "104"], false, "lifted"),
        ],
    );
    check(
        "one after the other is a farm that dies",
        terms,
        &[
            (100, &["100", "up", "up"], false, ""),
            (120, &["100", "120", "up"], false, ""),
            (140, &["100", "120", "140"], false, ""),
        ],
    );
    check(
        "one that was dead long before says nothing",
        terms,
        &[(
            101,
            &["5", "100", "101"],
            false,
            "began: 2 of 3 addresses fell silent within 10 s",
        )],
    );
    check(
        "a single address is no network",
        terms,
        &[(100, &["100"], false, "")],
    );
    check(
        "half of them is not most",
        terms,
        &[(101, &["5", "5", "100", "101"], false, "")],
    );
    check(
        "nobody has asked most of them",
        terms,
        &[(101, &["u", "u", "100", "101"], false, "")],
    );
    check(
        "it was long ago when we began to look",
        terms,
        &[(500, &["100", "101"], false, "")],
    );
    check(
        "it is turned off",
        None,
        &[(101, &["100", "101"], false, "")],
    );
}

#[test]
fn who_says_no_shows_that_the_network_works_if_it_did_so_since() {
    let terms = Some(&TERMS);
    let began = "began: 2 of 3 addresses fell silent within 10 s";
    check(
        "a refusal among the deaths",
        terms,
        &[(102, &["100", "a101", "102"], false, "")],
    );
    check(
        "one that was heard long before, and is asked rarely",
        terms,
        &[
            (101, &["100", "a75", "101"], false, began),
            (105, &["100", "a105", "101"], false, "lifted"),
        ],
    );
    check(
        "it is silent, too, when it is asked: it died long before",
        terms,
        &[
            (101, &["100", "a75", "101"], false, began),
            (105, &["100", "5", "101"], false, ""),
        ],
    );
    check(
        "who answers well and is not up ends nothing, and begins nothing",
        terms,
        &[
            (101, &["100", "r5", "101"], false, began),
            (105, &["r100", "r5", "101"], false, ""),
            (106, &["up", "r5", "101"], false, "lifted"),
        ],
    );
}

#[test]
fn lifted_doubt_covers_for_a_window_who_fell_and_was_not_heard() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut doubt = Doubt::default();
    let mut look = |second, first, covered: [bool; 2]| {
        let evidence = [first, Evidence::Silent(at(101)), Evidence::Silent(at(5))];
        let evidence = || (1..).map(address).zip(evidence);
        doubt.update(evidence(), None, Some(&TERMS), at(second));
        let mut reasons = evidence().map(|(_, found)| doubt.reason(found).is_some());
        let found = [reasons.next(), reasons.next()].map(|found| found == Some(true));
        assert_eq!(found, covered, "second {second}: {doubt:#?}");
        assert_eq!(reasons.next(), Some(false), "it died long before");
    };
    look(101, Evidence::Silent(at(100)), [true, true]);
    look(110, Evidence::Reviving(at(100)), [true, true]);
    look(111, Evidence::Available, [false, true]);
    look(112, Evidence::Silent(at(112)), [true, true]);
    look(113, Evidence::Audible(at(113)), [false, true]);
    look(122, Evidence::Available, [false, true]);
    look(123, Evidence::Available, [false, false]);
}

#[test]
fn the_limit_begins_anew_when_somebody_was_heard() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut doubt = Doubt::default();
    let mut is_open = |second, first| {
        let evidence = [first, Evidence::Silent(at(101))];
        doubt.update(
            (1..).map(address).zip(evidence),
            None,
            Some(&TERMS),
            at(second),
        );
        doubt.is_open()
    };
    assert!(is_open(101, Evidence::Silent(at(100))));
    assert!(!is_open(158, Evidence::Available), "it was heard");
    assert!(is_open(162, Evidence::Silent(at(162))), "and not any more");
    assert!(is_open(221, Evidence::Silent(at(162))), "for not so long");
    assert!(!is_open(222, Evidence::Silent(at(162))), "the limit");
}

#[test]
fn doubt_ends_by_an_anchor_or_the_limit_and_does_not_come_back_by_itself() {
    let terms = Some(&TERMS);
    let dead: &[&str] = &["100", "101"];
    let began = "began: 2 of 2 addresses fell silent within 10 s";
    check(
        "the limit",
        terms,
        &[
            (101, dead, false, began),
            (160, dead, false, ""),
            (161, dead, false, "settled: nobody has answered for 60 s"),
            (162, dead, false, ""),
        ],
    );
    let settled = "settled: 192.0.2.254 answers, so our own network works";
    check(
        "an anchor",
        terms,
        &[(101, dead, false, began), (102, dead, true, settled)],
    );
    check(
        "what was settled is open again when somebody was heard",
        terms,
        &[
            (101, dead, false, began),
            (102, dead, true, settled),
            (110, &["up", "101"], false, ""),
            (121, &["120", "121"], false, began),
        ],
    );
}

#[test]
fn an_anchor_that_comes_back_leaves_the_backends_a_window_to_be_heard() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut doubt = Doubt::default();
    let silent = Evidence::Silent(at(100));
    let mut look = |second, anchor: Option<Anchor>| {
        let evidence = (1..3).map(|i| (address(i), silent));
        doubt.update(evidence, anchor, Some(&TERMS), at(second));
        (doubt.reason(silent).is_some(), doubt.is_open())
    };
    let returned = Some(Anchor {
        returned: true,
        ..anchor_at(254)
    });
    assert_eq!(look(100, None), (true, true), "all are silent");
    assert_eq!(look(120, returned), (true, false), "the anchor is back");
    assert_eq!(look(129, None), (true, false), "they may yet answer");
    assert_eq!(look(130, None), (false, false), "they have not");
    assert_eq!(look(131, None), (false, false), "and that is all");
}

/// What is found of one address.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// It is up.
    Up,
    /// A good answer, and not yet enough of them.
    Good,
    /// It refuses, or answers badly.
    No,
    Silence,
}

impl Found {
    /// What there is to say of an address, of which that was said before.
    const fn after(self, before: Evidence, now: Instant) -> Evidence {
        match (self, before) {
            (Self::Up, _) => Evidence::Available,
            (Self::No, _) => Evidence::Audible(now),
            (Self::Silence, Evidence::Available) => Evidence::Silent(now),
            (Self::Silence, Evidence::Reviving(fell)) => Evidence::Silent(fell),
            (Self::Good, Evidence::Silent(fell)) => Evidence::Reviving(fell),
            (Self::Silence | Self::Good, _) => before,
        }
    }
}

fn found() -> impl Strategy<Value = Found> {
    use Found::{Good, No, Silence, Up};
    prop_oneof![4 => Just(Silence), 2 => Just(Good), 2 => Just(Up), 1 => Just(No)]
}

proptest! {
    /// Whatever happens: all that fall silent together put us in doubt; there is none
    /// while somebody is heard, none longer than the limit since then, none against an
    /// anchor; who is covered is so for a window; and nothing changes without cause.
    #[test]
    fn doubt_keeps_its_terms(
        moments in prop::collection::vec(
            (
                0..20u64,
                prop_oneof![
                    prop::collection::vec(found(), 3),
                    found().prop_map(|all| vec![all; 3]),
                ],
                prop_oneof![8 => Just(None), 1 => any::<bool>().prop_map(Some)],
            ),
            1..80,
        ),
    ) {
        let mut now = Instant::now();
        let mut known = [Evidence::Available; 3];
        let mut doubt = Doubt::default();
        let (mut open_since, mut lifted_since) = (None, None);
        for (pause, found, returned) in moments {
            now += Duration::from_secs(pause);
            let before = known;
            for (known, found) in known.iter_mut().zip(found) {
                *known = found.after(*known, now);
            }
            let evidence = || (1..).zip(known).map(|(i, known)| (address(i), known));
            let anchor = returned.map(|returned| Anchor { returned, ..anchor_at(254) });
            let (was_open, was_none) = (doubt.is_open(), doubt.next().is_none());
            doubt.update(evidence(), anchor, Some(&TERMS), now);

            let (is_open, is_none) = (doubt.is_open(), doubt.next().is_none());
            let fall = before == [Evidence::Available; 3] && known == [Evidence::Silent(now); 3];
            if fall && was_none && pause > 0 {
                prop_assert!(is_open, "they fall silent together");
            }
            if is_open {
                let silent = known.iter().filter_map(|known| match known {
                    Evidence::Silent(fell) | Evidence::Reviving(fell) => Some(*fell),
                    _ => None,
                });
                let first = silent.min();
                let is_heard = known.iter().any(|known| match *known {
                    Evidence::Available => true,
                    Evidence::Audible(at) => Some(at) >= first,
                    _ => false,
                });
                prop_assert!(!is_heard, "somebody is heard: {known:?}");
                prop_assert!(!was_open || anchor.is_none(), "an anchor answers");
                let since = *open_since.get_or_insert(now);
                prop_assert!(now < since + TERMS.limit, "longer than the limit");
            } else {
                open_since = None;
            }
            if is_open || is_none {
                lifted_since = None;
            } else {
                let since = *lifted_since.get_or_insert(now);
                prop_assert!(now < since + TERMS.window, "covered longer than a window");
            }
            for found in known {
                let may_be = matches!(found, Evidence::Silent(_) | Evidence::Reviving(_));
                prop_assert!(doubt.reason(found).is_none() || may_be, "{found:?} is covered");
            }
            let again = doubt.update(evidence(), None, Some(&TERMS), now);
            prop_assert_eq!(again, None, "the same again is no change");
        }
    }
}
