//! All samples, what they come to, and how that is shown.

use std::fmt::Write as _;

use serde_json::{Value, json};
use vipd_tests::bench::{Machine, Spread};

use crate::{
    load::{Load, Sample},
    stage::{Mode, Way},
};

/// In the order of the tables.
pub const WAYS: [Way; 7] = [
    Way::Straight,
    Way::Routed,
    Way::Vipd(Mode::L2Dsr),
    Way::Vipd(Mode::Ipip),
    Way::VipdBypassed(Mode::L2Dsr),
    Way::VipdBypassed(Mode::Ipip),
    Way::Haproxy,
];

/// The least that vipd may give of the routing host's requests.
const GOAL: f64 = 0.95;

/// What the figures are.
const WORDS: &str = "\
One wrk with 32 connections, one nginx with one worker, and between them one \
host, all namespaces of one machine with equal veths. `ratio` is requests per \
second by those of the routing host in the same round, both first divided by \
the share of the processors that other programs left. `cpu` is the CPU time \
per request of wrk, nginx, HAProxy, vipd's agent and ksoftirqd, which includes \
what the kernel does with packets on their time; `host` is that less the same \
without a host in between, which is what the host in the middle costs. For \
HAProxy, its process's own time is in brackets. Answers of direct server return \
bypass the host where it says so; elsewhere the host's kernel routes them. On a \
veth, XDP first copies each packet that a socket has sent, which a network \
card's XDP need not.";

/// All samples, in the order they were taken.
#[derive(Default)]
pub struct Results {
    samples: Vec<(Load, Way, Sample)>,
}

/// What one way came to under one load.
struct Row {
    load: Load,
    way: Way,
    requests_per_second: Spread,
    /// Of the rates, see [`Sample::rate`].
    ratio: Spread,
    /// Of the requests per second as they are.
    raw_ratio: Spread,
    p50: Spread,
    p99: Spread,
    cpu: Spread,
    host: Spread,
    haproxy: Spread,
}

impl Way {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Straight => "no host in between",
            Self::Routed => "a host that routes",
            Self::Vipd(Mode::L2Dsr) => "vipd l2-dsr, answers through the host",
            Self::Vipd(Mode::Ipip) => "vipd ipip, answers through the host",
            Self::VipdBypassed(Mode::L2Dsr) => "vipd l2-dsr, answers bypass it",
            Self::VipdBypassed(Mode::Ipip) => "vipd ipip, answers bypass it",
            Self::Haproxy => "HAProxy in TCP mode",
        }
    }

    const fn is_vipd(self) -> bool {
        matches!(self, Self::Vipd(_) | Self::VipdBypassed(_))
    }
}

impl Results {
    pub fn add(&mut self, load: Load, way: Way, sample: Sample) {
        self.samples.push((load, way, sample));
    }

    /// One way's samples, a round each.
    fn of(&self, load: Load, way: Way) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |(l, w, _)| (*l, *w) == (load, way))
            .map(|(_, _, sample)| sample)
    }

    fn row(&self, load: Load, way: Way) -> Option<Row> {
        let spread = |value: &dyn Fn(&Sample) -> f64| Spread::of(self.of(load, way).map(value));
        // With the same round of another way.
        let beside = |other: Way, value: &dyn Fn(&Sample, &Sample) -> f64| {
            let pairs = self.of(load, way).zip(self.of(load, other));
            Spread::of(pairs.map(|(a, b)| value(a, b)))
        };
        Some(Row {
            load,
            way,
            requests_per_second: spread(&|it| it.requests_per_second)?,
            ratio: beside(Way::Routed, &|a, b| a.rate() / b.rate())?,
            raw_ratio: beside(Way::Routed, &|a, b| {
                a.requests_per_second / b.requests_per_second
            })?,
            p50: spread(&|it| it.p50)?,
            p99: spread(&|it| it.p99)?,
            cpu: spread(&|it| it.cpu)?,
            host: beside(Way::Straight, &|a, b| a.cpu - b.cpu)?,
            haproxy: spread(&|it| it.haproxy_cpu)?,
        })
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        Load::ALL
            .into_iter()
            .flat_map(move |load| WAYS.into_iter().filter_map(move |way| self.row(load, way)))
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for load in Load::ALL {
            let _ = writeln!(
                text,
                "\n{:38} {:>10} {:>18} {:>8} {:>8} {:>8} {:>14}",
                load.name(),
                "requests/s",
                "ratio (min-max)",
                "p50 µs",
                "p99 µs",
                "cpu µs",
                "host µs"
            );
            for row in self.rows().filter(|row| row.load == load) {
                let _ = writeln!(
                    text,
                    "{:38} {:>10.0} {:>18} {:>8.0} {:>8.0} {:>8.2} {:>14}",
                    row.way.name(),
                    row.requests_per_second.median,
                    row.ratio(),
                    row.p50.median,
                    row.p99.median,
                    row.cpu.median,
                    row.host(),
                );
            }
        }
        let _ = write!(text, "\n{}", self.words());
        text
    }

    /// For the document.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| load | way | requests/s | ratio (min-max) | p50 µs | p99 µs | cpu µs | host µs |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for row in self.rows() {
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {} | {:.0} | {:.0} | {:.2} | {} |",
                row.load.name(),
                row.way.name(),
                row.requests_per_second.median,
                row.ratio(),
                row.p50.median,
                row.p99.median,
                row.cpu.median,
                row.host(),
            );
        }
        let _ = write!(text, "\n{}", self.words());
        text
    }

    fn words(&self) -> String {
        let rounds = self.of(Load::KeepAlive, Way::Routed).count();
        let disturbed = self.disturbed().map_or(0.0, |it| it.median * 100.0);
        let Machine {
            processor,
            kernel,
            date,
        } = Machine::here();
        format!(
            "Medians of {rounds} rounds on {processor}, {kernel}, {date}; other programs took \
             {disturbed:.0} % of the processors meanwhile. {WORDS}",
        )
    }

    /// What other programs took of the processors.
    fn disturbed(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().map(|(_, _, it)| it.disturbed))
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let rows = self.rows().map(|row| {
            json!({
                "load": row.load.name(),
                "way": row.way.name(),
                "requests_per_second": row.requests_per_second.json(),
                "ratio": row.ratio.json(),
                "ratio_uncorrected": row.raw_ratio.json(),
                "latency_p50_us": row.p50.json(),
                "latency_p99_us": row.p99.json(),
                "cpu_us_per_request": row.cpu.json(),
                "host_cpu_us_per_request": row.host.json(),
                "haproxy_cpu_us_per_request": row.haproxy.json(),
            })
        });
        json!({
            "machine": Machine::here().json(),
            "disturbed": self.disturbed().map(Spread::json),
            "goal": GOAL,
            "rows": rows.collect::<Vec<_>>(),
            "missed": self.missed(),
        })
    }

    /// The goals that are not met, in words.
    pub fn missed(&self) -> Vec<String> {
        self.rows()
            .filter(|row| row.way.is_vipd() && row.ratio.median < GOAL)
            .map(|row| {
                format!(
                    "{}, {}: {:.3} of the routing host, the goal is {GOAL}",
                    row.way.name(),
                    row.load.name(),
                    row.ratio.median
                )
            })
            .collect()
    }
}

impl Row {
    fn ratio(&self) -> String {
        let Spread { median, min, max } = self.ratio;
        format!("{median:.2} ({min:.2}-{max:.2})")
    }

    fn host(&self) -> String {
        let host = self.host.median;
        if self.way == Way::Haproxy {
            format!("{host:.2} [{:.2}]", self.haproxy.median)
        } else {
            format!("{host:.2}")
        }
    }
}
