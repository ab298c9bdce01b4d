//! Who is asked when: one task that keeps the times, and one more for each check
//! that is under way. Between two checks a backend is a few words of memory.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Sleep, sleep_until},
};
use tracing::{error, warn};
use vipd_control::{
    check::{CheckCode, Observation},
    model::{Check, CheckKind, Service},
    schedule::{first_check, next_check},
};

use super::{
    check::{check, guarded},
    lateness::Lateness,
};

/// Checks under way together. Backends that answer take none of it for long; so
/// many that do not answer can be asked once per time-out.
const MOST_AT_ONCE: usize = 8_192;

/// So many backends that appear together are asked within a second. More would
/// all wait for each other, and for what their results change.
const FIRST_PER_SECOND: usize = 5_000;

/// Between two lines about checks that are not possible.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Asks the backends of these services, until nobody wants to know any more.
pub async fn run(
    mut services: watch::Receiver<Vec<Arc<Service>>>,
    observations: mpsc::Sender<Observation>,
    lateness: Arc<Lateness>,
) {
    let mut rounds = Rounds {
        lateness,
        ..Rounds::default()
    };
    let mut checks = JoinSet::new();
    let mut alarm: Pin<Box<Sleep>> = Box::pin(sleep_until(Instant::now().into()));
    loop {
        let now = Instant::now();
        while checks.len() < MOST_AT_ONCE
            && let Some(due) = rounds.due(now)
        {
            checks.spawn(ask(due, observations.clone()));
        }
        // Whoever is due but finds no room waits until a check ends.
        let next = rounds.next().filter(|_| checks.len() < MOST_AT_ONCE);
        if let Some(next) = next {
            alarm.as_mut().reset(next.into());
        }
        tokio::select! {
            changed = services.changed() => match changed {
                Ok(()) => {
                    let services = services.borrow_and_update().clone();
                    rounds.configure(&services, Instant::now());
                }
                Err(_) => return,
            },
            Some(asked) = checks.join_next(), if !checks.is_empty() => match asked {
                Ok(Some(asked)) => rounds.asked(asked),
                Ok(None) => return,
                Err(error) => error!("a check is lost: {error}"),
            },
            () = &mut alarm, if next.is_some() => {}
        }
    }
}

/// A backend of a service. It may stay as it is over many reloads, so it keeps
/// nothing else of the service.
#[derive(Debug)]
struct Target {
    service: Arc<str>,
    check: Arc<Check>,
    backend: IpAddr,
    /// It is not in the configuration any more, or is checked otherwise.
    retired: AtomicBool,
}

/// A check has come to its end.
struct Asked {
    target: Arc<Target>,
    /// When it was to start, and when it did.
    due: Instant,
    started: Instant,
    /// Why it was not possible, if so.
    unable: Option<String>,
}

/// Checks once, and hands over what was found; nothing when nobody wants it.
async fn ask(due: Due, observations: mpsc::Sender<Observation>) -> Option<Asked> {
    let started = Instant::now();
    let Due { at, target } = due;
    let result = guarded(check(&target.check, target.backend)).await;
    let unable = (result.code == CheckCode::SockErr).then(|| result.detail.clone());
    if !target.retired.load(Ordering::Relaxed) {
        let observation = Observation {
            service: Arc::clone(&target.service),
            backend: target.backend,
            result,
        };
        observations.send(observation).await.ok()?;
    }
    Some(Asked {
        target,
        due: at,
        started,
        unable,
    })
}

/// The times of all backends.
#[derive(Default)]
struct Rounds {
    /// Every backend that is checked.
    targets: Vec<Arc<Target>>,
    /// Those that wait for their next check, and some that are retired.
    waiting: BinaryHeap<Reverse<Due>>,
    unable: Unable,
    lateness: Arc<Lateness>,
}

/// The next check of a backend.
struct Due {
    at: Instant,
    target: Arc<Target>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Rounds {
    /// Follows a configuration. Who is checked as before keeps its rhythm.
    fn configure(&mut self, services: &[Arc<Service>], now: Instant) {
        let before = std::mem::take(&mut self.targets);
        let mut before: HashMap<_, _> = before
            .into_iter()
            .map(|target| ((Arc::clone(&target.service), target.backend), target))
            .collect();
        let mut new = Vec::new();
        let checked = services
            .iter()
            .filter(|service| service.check.kind != CheckKind::None);
        for service in checked {
            let check = Arc::new(service.check.clone());
            for backend in &service.backends {
                let old = before.remove(&(Arc::clone(&service.name), backend.address));
                let target = match old {
                    Some(old) if old.check == check => old,
                    other => {
                        retire(other);
                        let target = Arc::new(Target {
                            service: Arc::clone(&service.name),
                            check: Arc::clone(&check),
                            backend: backend.address,
                            retired: AtomicBool::new(false),
                        });
                        new.push(Arc::clone(&target));
                        target
                    }
                };
                self.targets.push(target);
            }
        }
        retire(before.into_values());
        let spread = Duration::from_secs((new.len() / FIRST_PER_SECOND) as u64);
        for target in new {
            let random = fastrand::f64();
            let first = first_check(now, &target.check.timing, random);
            self.wait(first.max(now + spread.mul_f64(random)), target);
        }
        self.waiting
            .retain(|Reverse(due)| !due.target.retired.load(Ordering::Relaxed));
    }

    fn wait(&mut self, at: Instant, target: Arc<Target>) {
        self.waiting.push(Reverse(Due { at, target }));
    }

    /// When the next check is due.
    fn next(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(due)| due.at)
    }

    /// A backend that is to be checked now.
    fn due(&mut self, now: Instant) -> Option<Due> {
        self.next().filter(|at| *at <= now)?;
        self.waiting.pop().map(|Reverse(due)| due)
    }

    /// Times the check after one that has ended.
    fn asked(&mut self, asked: Asked) {
        let Asked {
            target,
            due,
            started,
            unable,
        } = asked;
        self.lateness.count(started.saturating_duration_since(due));
        if let Some(detail) = unable {
            self.unable.tell(&target, &detail, Instant::now());
        }
        if !target.retired.load(Ordering::Relaxed) {
            let timing = &target.check.timing;
            self.wait(next_check(started, timing, fastrand::f64()), target);
        }
    }
}

fn retire(targets: impl IntoIterator<Item = Arc<Target>>) {
    for target in targets {
        target.retired.store(true, Ordering::Relaxed);
    }
}

/// Tells of checks that are not possible, our own fault, without a flood.
#[derive(Default)]
struct Unable {
    told: Option<Instant>,
    /// Since then.
    others: u64,
}

impl Unable {
    fn tell(&mut self, target: &Target, detail: &str, now: Instant) {
        if self.told.is_some_and(|told| now - told < TOLD_AGAIN) {
            self.others += 1;
            return;
        }
        let others = match std::mem::take(&mut self.others) {
            0 => String::new(),
            others => format!(" ({others} more checks since the last such line)"),
        };
        warn!(
            "no check of {} in {} is possible: {detail}; it stays in the state it is in{others}",
            target.backend, target.service
        );
        self.told = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::config::Config;

    const SECOND: Duration = Duration::from_secs(1);

    /// A service whose backends are checked each second at this port.
    fn service(name: &str, port: u16, backends: &[u8]) -> Arc<Service> {
        let backends: String = backends
            .iter()
            .map(|last| {
                format!("[[service.backend]]\nname = \"b{last}\"\naddress = \"192.0.2.{last}\"\n")
            })
            .collect();
        let text = format!(
            r#"
            [dataplane]
            interfaces = ["eth0"]
            [[service]]
            name = "{name}"
            vips = ["198.51.100.10"]
            protocol = "tcp"
            port = {port}
            mode = "ipip"
            check = {{ type = "tcp", jitter = 0.0 }}
            {backends}"#
        );
        let (config, _) = Config::parse(&text, "vipd.toml").expect("a good configuration");
        Arc::clone(&config.model.services[0])
    }

    /// Backends that are due at `now`, each asked for no time at all.
    fn ask_all(rounds: &mut Rounds, now: Instant) -> Vec<String> {
        let due: Vec<_> = std::iter::from_fn(|| rounds.due(now)).collect();
        let mut names: Vec<_> = due
            .iter()
            .map(|Due { target, .. }| format!("{}/{}", target.service, target.backend))
            .collect();
        names.sort();
        for Due { at, target } in due {
            rounds.asked(Asked {
                target,
                due: at,
                started: now,
                unable: None,
            });
        }
        names
    }

    #[test]
    fn every_backend_is_asked_at_once_and_then_each_interval() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        rounds.configure(&[service("web", 80, &[1, 2])], now);
        assert_eq!(
            ask_all(&mut rounds, now),
            ["web/192.0.2.1", "web/192.0.2.2"]
        );
        assert_eq!(rounds.next(), Some(now + SECOND));
        assert_eq!(ask_all(&mut rounds, now + SECOND / 2), [""; 0]);
        assert_eq!(ask_all(&mut rounds, now + SECOND).len(), 2);
    }

    #[test]
    fn very_many_that_appear_together_are_not_asked_all_at_once() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        let backends: Vec<u8> = (1..=200).collect();
        let services: Vec<_> = (0..100)
            .map(|number| service(&format!("web{number}"), 80, &backends))
            .collect();
        rounds.configure(&services, now);
        let first = ask_all(&mut rounds, now + SECOND).len();
        assert!((4_000..6_000).contains(&first), "{first} of 20,000");
        assert!(ask_all(&mut rounds, now + 4 * SECOND).len() > 14_000);
    }

    #[test]
    fn a_check_that_starts_later_than_it_should_have_is_counted_as_late() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        rounds.configure(&[service("web", 80, &[1])], now);
        // Each a second after the one before, and so much later than due.
        for (delay, late) in [(0, 0), (50, 0), (51, 1), (0, 1), (3_000, 2)] {
            let Due { at, target } = rounds.due(now + 60 * SECOND).unwrap();
            rounds.asked(Asked {
                target,
                due: at,
                started: at + Duration::from_millis(delay),
                unable: None,
            });
            assert_eq!(rounds.lateness.counted().late, late, "{delay} ms");
        }
        assert_eq!(rounds.lateness.counted().ended, 5);
    }

    #[test]
    fn a_reload_keeps_the_rhythm_of_who_is_checked_as_before() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        rounds.configure(
            &[service("web", 80, &[1, 2]), service("dns", 53, &[1])],
            now,
        );
        assert_eq!(ask_all(&mut rounds, now).len(), 3);
        let later = now + SECOND / 2;
        rounds.configure(
            &[service("web", 80, &[2, 3]), service("dns", 54, &[1])],
            later,
        );
        let new = ["dns/192.0.2.1", "web/192.0.2.3"];
        assert_eq!(ask_all(&mut rounds, later), new, "new or otherwise checked");
        assert_eq!(ask_all(&mut rounds, now + SECOND), ["web/192.0.2.2"]);
        assert_eq!(ask_all(&mut rounds, later + SECOND), new);
    }

    #[test]
    fn who_is_checked_as_before_keeps_nothing_of_an_old_configuration() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        let old = service("web", 80, &[1]);
        let kept = Arc::downgrade(&old);
        rounds.configure(&[old], now);
        rounds.configure(&[service("web", 80, &[1, 2])], now);
        assert_eq!(kept.strong_count(), 0, "a reload each day would add up");
        assert_eq!(ask_all(&mut rounds, now).len(), 2);
    }

    #[test]
    fn who_leaves_during_a_check_is_not_asked_again() {
        let now = Instant::now();
        let web = service("web", 80, &[1]);
        let mut rounds = Rounds::default();
        rounds.configure(slice::from_ref(&web), now);
        let Due { at, target } = rounds.due(now).unwrap();
        rounds.configure(&[], now);
        rounds.asked(Asked {
            target,
            due: at,
            started: now,
            unable: None,
        });
        assert_eq!(rounds.next(), None);
        rounds.configure(&[web], now);
        assert_eq!(ask_all(&mut rounds, now), ["web/192.0.2.1"], "it came back");
    }

    #[tokio::test]
    async fn a_result_of_who_has_left_is_not_handed_over() {
        let target = |retired| {
            let web = service("web", 9, &[1]);
            Arc::new(Target {
                service: Arc::clone(&web.name),
                check: Arc::new(web.check.clone()),
                backend: [127, 0, 0, 1].into(),
                retired: AtomicBool::new(retired),
            })
        };
        for retired in [false, true] {
            let (observations, mut observed) = mpsc::channel(1);
            let due = Due {
                at: Instant::now(),
                target: target(retired),
            };
            let asked = ask(due, observations).await;
            assert!(asked.is_some());
            assert_eq!(observed.recv().await.is_none(), retired);
        }
    }

    #[test]
    fn checks_that_are_not_possible_are_told_once_a_minute_and_counted() {
        let web = service("web", 80, &[1]);
        let target = Target {
            service: Arc::clone(&web.name),
            check: Arc::new(web.check.clone()),
            backend: [127, 0, 0, 1].into(),
            retired: AtomicBool::new(false),
        };
        let now = Instant::now();
        let mut unable = Unable::default();
        for _ in 0..5 {
            unable.tell(&target, "too many open files", now);
        }
        assert_eq!((unable.told, unable.others), (Some(now), 4));
        unable.tell(&target, "too many open files", now + TOLD_AGAIN);
        assert_eq!((unable.told, unable.others), (Some(now + TOLD_AGAIN), 0));
    }
}
