//! The rhythm and the thresholds of a check as validated.

use std::time::Duration;

use vipd_control::model::Timing;

use super::{report::Report, table::At, value::show_duration, written};

/// The shortest pause between two checks of a backend.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// How long an answer may take; never longer than the interval.
const TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);

/// Rhythm and thresholds, as far as they are right.
pub fn validate(check: &written::Check, report: &mut Report) -> Timing {
    let interval = check.interval.value;
    let timeout = match &check.timeout {
        Some(timeout) => timeout.value,
        None => TIMEOUT_DEFAULT.min(interval),
    };
    if interval < INTERVAL_MIN {
        let title = format!("an interval of {} is too short", show_duration(interval));
        report
            .error(&check.interval.span, title)
            .help(format!("at least \"{}\"", show_duration(INTERVAL_MIN)));
    } else if let Some(written) = &check.timeout {
        check_timeout(written, &check.interval, report);
    }
    Timing {
        interval,
        timeout,
        rise: check.rise.value.0,
        fall: check.fall.value.0,
        jitter_permille: check.jitter.value.0,
    }
}

fn check_timeout(timeout: &At<Duration>, interval: &At<Duration>, report: &mut Report) {
    if timeout.value.is_zero() {
        report
            .error(&timeout.span, "no backend answers in no time")
            .help("for example \"500ms\", not longer than `interval`");
    } else if timeout.value > interval.value {
        let (long, short) = (show_duration(timeout.value), show_duration(interval.value));
        let title = format!("a time-out of {long} is longer than the interval of {short}");
        report
            .error(&timeout.span, title)
            .related(&interval.span, "the interval")
            .help(format!(
                "a time-out of at most \"{short}\", or a longer interval"
            ));
    }
}
