//! Doubt told second by second.

use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms {
    window: Duration::from_secs(10),
    limit: Duration::from_secs(60),
};

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// What is known of backends at a second: the second since when each is silent, or
/// a letter, `h` for heard and `u` for unknown; whether an anchor answers; and the
/// first words of the change.
type Moment<'a> = (u64, &'a [&'a str], bool, &'a str);

#[track_caller]
fn check(sentence: &str, terms: Option<&Terms>, moments: &[Moment<'_>]) {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut doubt = Doubt::default();
    for (second, backends, anchor, expected) in moments {
        let evidence = (1..).zip(*backends).map(|(i, word)| {
            let found = match *word {
                "h" => Evidence::Heard,
                "u" => Evidence::Unknown,
                since => Evidence::Silent(at(since.parse().expect("a second"))),
            };
            (address(i), found)
        });
        let anchor = anchor.then(|| address(254));
        let change = doubt.update(evidence, anchor, terms, at(*second));
        let words = match &change {
            None => String::new(),
            Some(Change::Began(why)) => format!("began: {why}"),
            Some(Change::Cleared) => "cleared".to_owned(),
            Some(Change::Settled(why)) => format!("settled: {why}"),
        };
        assert_eq!(words, *expected, "{sentence}, second {second}: {doubt:#?}");
        let began = words.starts_with("began");
        assert!(!began || doubt.reason().is_some(), "{sentence}: {doubt:#?}");
        assert_eq!(doubt.reason().is_some(), doubt.next().is_some());
    }
}

#[test]
fn all_that_fall_silent_together_put_us_in_doubt() {
    let terms = Some(&TERMS);
    check(
        "within the window, and until somebody is heard",
        terms,
        &[
            (100, &["100", "h", "h"], false, ""),
            (103, &["100", "103", "h"], false, ""),
            (
                104,
                &["100", "103", "104"],
                false,
                "began: 3 of 3 addresses fell silent within 10 s",
            ),
            (120, &["100", "103", "104"], false, ""),
            (130, &["100", "h", "104"], false, "cleared"),
        ],
    );
    check(
        "one after the other is a farm that dies",
        terms,
        &[
            (100, &["100", "h", "h"], false, ""),
            (120, &["100", "120", "h"], false, ""),
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
        "an anchor that answers all the time",
        terms,
        &[(101, dead, true, settled), (102, dead, false, "")],
    );
    check(
        "what was settled is open again when somebody was heard",
        terms,
        &[
            (101, dead, true, settled),
            (110, &["h", "101"], false, ""),
            (121, &["120", "121"], false, began),
        ],
    );
}

proptest! {
    /// Whatever happens: no doubt while somebody is heard, none longer than the
    /// limit, and no change without cause.
    #[test]
    fn doubt_keeps_its_terms(
        moments in prop::collection::vec(
            (0..20u64, prop::collection::vec(any::<bool>(), 3), prop::bool::weighted(0.1)),
            1..80,
        ),
    ) {
        let mut now = Instant::now();
        let mut since = [None; 3];
        let mut doubt = Doubt::default();
        let mut began = None;
        for (pause, silent, anchor) in moments {
            now += Duration::from_secs(pause);
            for (since, silent) in since.iter_mut().zip(silent) {
                *since = silent.then(|| since.unwrap_or(now));
            }
            let evidence = || (1..).zip(&since).map(|(i, since)| {
                (address(i), since.map_or(Evidence::Heard, Evidence::Silent))
            });
            let anchor = anchor.then(|| address(254));
            doubt.update(evidence(), anchor, Some(&TERMS), now);
            let is_doubted = doubt.reason().is_some();
            prop_assert!(!is_doubted || since.iter().all(Option::is_some), "somebody is heard");
            prop_assert!(!is_doubted || anchor.is_none(), "an anchor answers");
            began = if is_doubted { began.or(Some(now)) } else { None };
            let limit = began.map(|at: Instant| at + TERMS.limit);
            prop_assert!(limit.is_none_or(|limit| now < limit), "longer than the limit");
            let again = doubt.update(evidence(), anchor, Some(&TERMS), now);
            prop_assert_eq!(again, None, "the same again is no change");
        }
    }
}
