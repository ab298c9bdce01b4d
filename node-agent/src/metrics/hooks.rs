//! The part of the page on hooks.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{counters, gauges};
use crate::status::{Hook, Status};

pub fn encode(status: &Status, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Runs of a hook by how they have ended: success, failure (another exit code, or a \
                signal), timeout (killed), or error (not run).";
    let mut runs = counters(page, "hook_runs", help)?;
    type Count = fn(&Hook) -> u64;
    let results: [(&str, Count); 4] = [
        ("success", |hook| hook.succeeded),
        ("failure", |hook| hook.failed),
        ("timeout", |hook| hook.timed_out),
        ("error", |hook| hook.not_run),
    ];
    for hook in &status.hooks {
        for (result, count) in results {
            runs.counter(&[("hook", &hook.name), ("result", result)], count(hook))?;
        }
    }
    let help =
        "Changes of state that a hook was not run for, since another one came before their turn.";
    let mut superseded = counters(page, "hook_superseded", help)?;
    for hook in &status.hooks {
        superseded.counter(&[("hook", &hook.name)], hook.superseded)?;
    }
    let help = "Changes of state that wait for a run of the hook.";
    let mut waiting = gauges(page, "hook_waiting", help, None)?;
    for hook in &status.hooks {
        let count = u32::try_from(hook.waiting).unwrap_or(u32::MAX);
        waiting.gauge(&[("hook", &hook.name)], count.into())?;
    }
    Ok(())
}
