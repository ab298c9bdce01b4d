//! All samples, what they come to, and how that is shown.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use vipd_tests::bench::{Machine, Spread};

use crate::{
    checkers::Checker,
    sample::{LATE, Sample},
};

/// The most of the processors that vipd may take.
const MOST_CORES: f64 = 1.0;
/// The largest share of its checks that may be late.
const MOST_LATE: f64 = 0.001;

/// All of it, in the order it was measured.
pub struct Results {
    backends: u32,
    time: Duration,
    samples: Vec<(Checker, Sample)>,
}

/// What one of them came to.
struct Row {
    checker: Checker,
    cores: Spread,
    /// CPU time by vipd's in the same round.
    ratio: Spread,
    rate: Spread,
    late: Spread,
    late_by_own_count: Option<Spread>,
    p999: Spread,
    latest: Spread,
}

impl Results {
    pub fn new(backends: u32, time: Duration) -> Self {
        Self {
            backends,
            time,
            samples: Vec::new(),
        }
    }

    pub fn add(&mut self, checker: Checker, sample: Sample) {
        self.samples.push((checker, sample));
    }

    /// One for each round.
    fn of(&self, checker: Checker) -> impl Iterator<Item = &Sample> {
        let own = self.samples.iter().filter(move |(it, _)| *it == checker);
        own.map(|(_, sample)| sample)
    }

    fn row(&self, checker: Checker) -> Option<Row> {
        let spread = |value: &dyn Fn(&Sample) -> f64| Spread::of(self.of(checker).map(value));
        let pairs = self.of(checker).zip(self.of(Checker::Vipd));
        Some(Row {
            checker,
            cores: spread(&|it| it.cores)?,
            ratio: Spread::of(pairs.map(|(own, vipd)| own.cores / vipd.cores))?,
            rate: spread(&|it| it.rate)?,
            late: spread(&|it| it.punctuality.late_share(self.backends, self.time))?,
            late_by_own_count: Spread::of(self.of(checker).filter_map(|it| it.late_by_own_count)),
            p999: spread(&|it| ms(it.punctuality.p999))?,
            latest: spread(&|it| ms(it.punctuality.latest))?,
        })
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        Checker::ALL
            .into_iter()
            .filter_map(|checker| self.row(checker))
    }

    /// The goals that are not met, in words.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        let Some(Row { cores, late, .. }) = self.row(Checker::Vipd) else {
            return vec!["vipd was not measured".to_owned()];
        };
        if cores.max > MOST_CORES {
            missed.push(format!(
                "vipd takes {:.2} cores, the goal is {MOST_CORES}",
                cores.max
            ));
        }
        if late.median > MOST_LATE {
            missed.push(format!(
                "{:.2} % of vipd's checks are late, the goal is {} %",
                late.median * 100.0,
                MOST_LATE * 100.0
            ));
        }
        missed
    }

    /// For people.
    pub fn markdown(&self) -> String {
        let Machine {
            processor,
            kernel,
            date,
        } = Machine::here();
        let rounds = self.of(Checker::Vipd).count();
        let disturbed = Spread::of(self.samples.iter().map(|(_, it)| it.disturbed));
        let mut text = format!(
            "{processor}, {kernel}, {date}: `cargo xtask bench checks`, {} backends, {rounds} \
             rounds of {} s; other programs took {:.0} % of the processors meanwhile.\n\n\
             | checked by | cores, median | max | CPU time to vipd's (min-max) | checks/s | late \
             %, median | max | 99.9 % are late by at most ms | the latest, ms |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            self.backends,
            self.time.as_secs(),
            disturbed.map_or(0.0, |it| it.median * 100.0),
        );
        for row in self.rows() {
            let Spread { median, min, max } = row.ratio;
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {:.2} | {:.2} | {median:.2} ({min:.2}-{max:.2}) | {:.0} | {:.3} | {:.3} | \
                 {:.1} | {:.1} |",
                row.checker.name(),
                row.cores.median,
                row.cores.max,
                row.rate.median,
                row.late.median * 100.0,
                row.late.max * 100.0,
                row.p999.median,
                row.latest.max,
            );
        }
        let own = self.row(Checker::Vipd).and_then(|it| it.late_by_own_count);
        if let Some(Spread { median, max, .. }) = own {
            let _ = writeln!(
                text,
                "\nBy its own count vipd started {:.3} % of its checks late, {:.3} % in the worst \
                 round; it was asked for its status meanwhile.",
                median * 100.0,
                max * 100.0
            );
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let rows = self.rows().map(|row| {
            json!({
                "name": row.checker.name(),
                "cores": row.cores.json(),
                "ratio_to_vipd": row.ratio.json(),
                "checks_per_second": row.rate.json(),
                "late_share": row.late.json(),
                "late_share_by_own_count": row.late_by_own_count.map(Spread::json),
                "p999_ms": row.p999.json(),
                "latest_ms": row.latest.json(),
            })
        });
        json!({
            "machine": Machine::here().json(),
            "backends": self.backends,
            "seconds": self.time.as_secs(),
            "late_after_ms": LATE.as_millis() as u64,
            "rows": rows.collect::<Vec<_>>(),
            "disturbed": Spread::of(self.samples.iter().map(|(_, it)| it.disturbed))
                .map(Spread::json),
            "goal_cores": MOST_CORES,
            "goal_late_share": MOST_LATE,
            "missed": self.missed(),
        })
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
