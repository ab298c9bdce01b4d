//! One scene: a client measures while something goes wrong.

use std::{
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipd_tests::{Held, HeldReport, Host, ProbeReport, Probes};

use crate::{score_card::ms, screen::Screen};

/// Long-lived connections in a scene.
pub const HELD: usize = 200;
/// All must be well for so long before anything happens.
const CALM: Duration = Duration::from_millis(700);
/// The long-lived connections are judged so long after the event.
const JUDGEMENT: Duration = Duration::from_secs(15);

/// What the client measured.
pub struct Measured {
    /// When the event happened.
    pub event: Instant,
    /// New connections since then.
    pub new: ProbeReport,
    /// The longest gap between new successful connections, the last before
    /// the event included.
    pub gap: Duration,
    /// The long-lived connections, opened before the event.
    pub held: HeldReport,
}

impl Measured {
    /// How long after the event the last failing connection was begun.
    pub fn last_failure(&self) -> Duration {
        self.new
            .last_failure()
            .map_or(Duration::ZERO, |last| last - self.event)
    }
}

/// Lets the client measure while `happen` runs, whose beginning is the event.
pub fn measure(
    client: &Host,
    vip: SocketAddr,
    screen: &Screen,
    happen: impl FnOnce(Instant) -> Result<()>,
) -> Result<Measured> {
    let held = Held::open(client, vip, HELD)?;
    let probes = Probes::start(client, vip);
    sleep(CALM);
    let calm = probes.so_far();
    ensure!(
        calm.failures().next().is_none(),
        "connections fail before anything has happened: {:?}",
        calm.by_failure()
    );

    let event = Instant::now();
    happen(event)?;
    while event.elapsed() < JUDGEMENT {
        show(screen, &probes, &held, event);
        sleep(Duration::from_millis(200));
    }
    screen.end_progress();
    let all = probes.finish()?;
    Ok(Measured {
        event,
        new: all.since(event),
        gap: all.longest_gap(),
        held: held.judge()?,
    })
}

fn show(screen: &Screen, probes: &Probes, held: &Held, event: Instant) {
    let so_far = probes.so_far().since(event);
    screen.progress(&format!(
        "{:4.1} s: {} new connections answered, {} failed; {} of {HELD} long-lived ones broken",
        Duration::from_millis(ms(event.elapsed())).as_secs_f32(),
        so_far.successes().count(),
        so_far.failures().count(),
        held.broken_so_far(),
    ));
}
