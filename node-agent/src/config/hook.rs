//! Hooks as validated.

use std::{sync::Arc, time::Duration};

use super::{
    program, report::Report, table::At, valid::check_unique, value::show_duration, written,
};
use crate::hooks::Hook;

/// The longest that a run may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// The most hooks; each may run some programs at once.
const HOOKS_MAX: usize = 32;

/// All hooks, or `None` when one of them is wrong.
pub fn hooks(written: &[At<written::Hook>], report: &mut Report) -> Option<Vec<Hook>> {
    let names = written.iter().filter_map(|at| at.value.name.as_ref());
    check_unique(names, "hook name", report);
    if let Some(beyond) = written.get(HOOKS_MAX) {
        report
            .error(&beyond.span, format!("more than {HOOKS_MAX} hooks"))
            .help("let one program do more; it is told what has happened");
    }
    let hooks: Vec<_> = written.iter().map(|at| hook(&at.value, report)).collect();
    hooks.into_iter().collect()
}

fn hook(written: &written::Hook, report: &mut Report) -> Option<Hook> {
    let timeout = &written.timeout;
    if timeout.value.is_zero() || timeout.value > TIMEOUT_MAX {
        let title = format!("a hook cannot take {}", show_duration(timeout.value));
        report.error(&timeout.span, title).help(format!(
            "longer than \"0s\", and at most \"{}\"",
            show_duration(TIMEOUT_MAX)
        ));
    }
    if let Some(on) = written.on.as_ref().filter(|on| on.value.is_empty()) {
        report
            .error(&on.span, "a hook that is never run")
            .help("for example [\"vip\", \"backend:down\"]");
    }
    let program = program::validate(
        written.command.as_ref(),
        &written.environment.value,
        &written.user.value,
        report,
    );
    Some(Hook {
        name: Arc::clone(&written.name.as_ref()?.value.0),
        on: written
            .on
            .as_ref()?
            .value
            .iter()
            .map(|at| at.value)
            .collect(),
        program: program?,
        timeout: timeout.value,
    })
}
