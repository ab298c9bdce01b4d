//! Who takes flows where nobody healthy, or nobody with a whole share, does.

use super::*;

#[test]
fn in_doubt_packets_go_to_all_that_it_covers() {
    struct Doubting(&'static str, &'static str);
    impl HealthView for Doubting {
        fn standing(&self, service: &Service) -> Vec<Standing> {
            Told(self.0, "").standing(service)
        }

        fn doubted(&self, _: &Service) -> Option<Doubted> {
            let backends: Vec<_> = self.1.chars().map(|letter| letter == '?').collect();
            backends.contains(&true).then(|| Doubted {
                why: "all are silent".into(),
                backends,
            })
        }
    }
    // Standings, who is in doubt, whose flows stay, and who owns slots.
    for (standing, doubted, state, keeps, owns) in [
        ("DDD", "???", State::Doubt, "abc", "abc"),
        ("DDD", "??-", State::Doubt, "ab", "ab"),
        ("FFF", "???", State::Doubt, "abc", "abc"),
        ("DFD", "---", State::Down, "b", ""),
        ("ADD", "-??", State::Up, "abc", "a"),
        ("ADD", "-?-", State::Up, "ab", "a"),
    ] {
        let view = Doubting(standing, doubted);
        let desired = decider().decide(&model([web()]), &view, &Desired::default());
        let plan = &desired.services[0];
        let names = |is: &dyn Fn(usize) -> bool| -> String {
            let places = (0..3).filter(|place| is(*place));
            places
                .map(|place| &*plan.service.backends[place].name)
                .collect()
        };
        let shares = plan
            .ring
            .as_ref()
            .map_or_else(Vec::new, |ring| ring.shares());
        let found = (
            only_vip(&desired).state,
            names(&|place| plan.keeps_flows(place)),
            names(&|place| shares.get(place).is_some_and(|share| *share > 0)),
        );
        let expected = (state, keeps.to_owned(), owns.to_owned());
        assert_eq!(found, expected, "{standing} {doubted}: {desired:#?}");
    }
}

#[test]
fn who_starts_slowly_has_the_whole_where_nobody_else_takes_flows() {
    struct Starting(Told);
    impl HealthView for Starting {
        fn standing(&self, service: &Service) -> Vec<Standing> {
            self.0.standing(service)
        }

        fn drained(&self, service: &Service) -> Vec<bool> {
            self.0.drained(service)
        }

        fn shares(&self, _: &Service) -> Vec<Share> {
            let mut shares = vec![Share::WHOLE; 4];
            shares[0] = Share::steps(1);
            shares
        }
    }
    // `c` is a backup, `d` says sorry.
    for (standing, drained, percent) in [
        ("AADD", "----", 10),
        ("AADD", "-d--", 100),
        ("ADDD", "----", 100),
        ("ADAA", "----", 100),
    ] {
        let view = Starting(Told(standing, drained));
        let desired = decider().decide(&model([lines()]), &view, &Desired::default());
        let found = desired.services[0].shares[0].percent();
        assert_eq!(found, percent, "{standing} {drained}: {desired:#?}");
    }
}
