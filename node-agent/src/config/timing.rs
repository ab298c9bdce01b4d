//! The rhythm and the thresholds of a check as validated.

use std::time::Duration;

use vipd_control::model::{OnDown, Timing};

use super::{report::Report, table::At, value::show_duration, written};

/// The shortest pause between two checks of a backend.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// How long an answer may take; never longer than the interval.
const TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);

/// The longest time that a backend can be held down.
const HOLD_DOWN_MAX: Duration = Duration::from_secs(3600);

/// Rhythm and thresholds, as far as they are right.
pub fn validate(check: &written::Check, report: &mut Report) -> Timing {
    let interval = check.interval.value;
    let timeout = match &check.timeout {
        Some(timeout) => timeout.value,
        None => TIMEOUT_DEFAULT.min(interval),
    };
    let others = [&check.fast_interval, &check.down_interval];
    let intervals = [&check.interval]
        .into_iter()
        .chain(others.into_iter().flatten());
    for interval in intervals.filter(|interval| interval.value < INTERVAL_MIN) {
        let shown = show_duration(interval.value);
        report
            .error(
                &interval.span,
                format!("an interval of {shown} is too short"),
            )
            .help(format!("at least \"{}\"", show_duration(INTERVAL_MIN)));
    }
    if interval >= INTERVAL_MIN {
        for (shorter, what) in [
            (&check.timeout, "a time-out"),
            (&check.fast_interval, "a fast interval"),
        ] {
            if let Some(shorter) = shorter {
                check_shorter(shorter, what, &check.interval, report);
            }
        }
    }
    if let Some(timeout) = check.timeout.as_ref().filter(|at| at.value.is_zero()) {
        report
            .error(&timeout.span, "no backend answers in no time")
            .help("for example \"500ms\", not longer than `interval`");
    }
    let hold_down = &check.hold_down;
    if hold_down.value > HOLD_DOWN_MAX {
        let shown = show_duration(hold_down.value);
        report
            .error(
                &hold_down.span,
                format!("a backend is held down for {shown}"),
            )
            .help(format!("at most \"{}\"", show_duration(HOLD_DOWN_MAX)));
    }
    let or_usual = |written: &Option<At<Duration>>| {
        written.as_ref().map_or(interval, |interval| interval.value)
    };
    Timing {
        interval,
        fast_interval: or_usual(&check.fast_interval),
        down_interval: or_usual(&check.down_interval),
        timeout,
        rise: check.rise.value.0,
        fall: check.fall.value.0,
        hold_down: hold_down.value,
        jitter_permille: check.jitter.value.0,
        initial: check.initial.value.0,
        on_down: check
            .on_down
            .as_ref()
            .map_or(OnDown::Layer, |on_down| on_down.value.0),
    }
}

fn check_shorter(shorter: &At<Duration>, what: &str, interval: &At<Duration>, report: &mut Report) {
    if shorter.value > interval.value {
        let (long, short) = (show_duration(shorter.value), show_duration(interval.value));
        let title = format!("{what} of {long} is longer than the interval of {short}");
        report
            .error(&shorter.span, title)
            .related(&interval.span, "the interval")
            .help(format!(
                "{what} of at most \"{short}\", or a longer interval"
            ));
    }
}
