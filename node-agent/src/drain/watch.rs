//! `vipd drain --wait`: tells how many flows are left, until none is.

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::time::sleep;
use vipd_control::standing::Standing;

use super::Target;
use crate::{api::Client, status::Status, terminal};

/// Between two looks at the agent's status.
const LOOK: Duration = Duration::from_millis(250);

/// So many looks must find nothing: flows are counted once a second.
const LOOKS: u32 = 12;

/// Waits until the backend has no flow left, and prints how many it has when
/// that changes.
///
/// # Errors
///
/// When the agent does not answer, the backend is no longer drained, or there
/// are flows after `limit`.
pub async fn wait(client: &Client, target: &Target, limit: Option<Duration>) -> anyhow::Result<()> {
    let until = limit.map(|limit| Instant::now() + limit);
    let mut told = String::new();
    let mut nothing = 0;
    loop {
        let remains = remains(&client.status().await?, target);
        nothing = match remains {
            Remains::Nothing(_) => nothing + 1,
            _ => 0,
        };
        let words = remains.words();
        if words != told && (nothing == 0 || nothing == LOOKS) {
            terminal::line(format_args!("{target}: {words}"))?;
            told = words;
        }
        match remains {
            Remains::Nothing(_) if nothing == LOOKS => return Ok(()),
            Remains::NotDrained => bail!("{target} does not drain any more"),
            _ if until.is_some_and(|until| Instant::now() >= until) => bail!(
                "{target} is not known to be empty after {} s; it stays drained",
                limit.unwrap_or_default().as_secs()
            ),
            _ => sleep(LOOK).await,
        }
    }
}

/// What a drained backend still has.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Remains {
    /// It is not there, or not drained.
    NotDrained,
    /// The data plane has not followed yet.
    NotApplied,
    /// New flows, since nobody else takes them.
    NewFlows,
    /// So many flows that packets came of.
    Flows(u64),
    /// Perhaps flows that have been silent; they would show themselves within
    /// so many seconds.
    Silent(u64),
    /// Nothing, and why.
    Nothing(&'static str),
}

fn remains(status: &Status, target: &Target) -> Remains {
    let service = status.services.iter().find(|s| s.name == target.service);
    let backend = service.and_then(|s| s.backends.iter().find(|b| b.name == target.backend));
    let (Some(service), Some(backend)) = (service, backend) else {
        return Remains::NotDrained;
    };
    if !backend.drained {
        return Remains::NotDrained;
    }
    let Some(slots) = &service.phases else {
        return Remains::Nothing("there is no data plane here that could have flows");
    };
    if backend.standing == Standing::Dead.label() {
        return Remains::Nothing("it is down, and its flows have ended");
    }
    if backend.slots > 0 {
        return Remains::NewFlows;
    }
    if !service.in_force {
        return Remains::NotApplied;
    }
    match (backend.flows, slots.learn) {
        (0, 0) => Remains::Nothing("no flow left"),
        (0, _) => Remains::Silent(service.idle_seconds),
        (flows, _) => Remains::Flows(flows),
    }
}

impl Remains {
    fn words(&self) -> String {
        match self {
            Self::NotDrained => "not drained".to_owned(),
            Self::NotApplied => "the data plane has not followed yet".to_owned(),
            Self::NewFlows => "it still gets new flows, since nobody else takes them".to_owned(),
            Self::Flows(1) => "1 flow left".to_owned(),
            Self::Flows(flows) => format!("{flows} flows left"),
            Self::Silent(seconds) => format!(
                "no flow seen; silent ones are waited for, {seconds} s after the last change"
            ),
            Self::Nothing(why) => (*why).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A drained backend, with what is different about its service and itself.
    fn status(service: &Value, backend: &Value) -> Status {
        let merge = |mut base: Value, over: &Value| {
            for (key, value) in over.as_object().expect("an object") {
                base[key] = value.clone();
            }
            base
        };
        let backend = merge(
            json!({
                "name": "b1", "address": "192.0.2.21", "weight": 1, "state": "up",
                "standing": "draining", "drained": true, "available": false,
                "since_seconds": 1.0, "check": null, "slots": 0, "flows": 0,
                "flows_closing": 0, "packets": 0, "bytes": 0,
            }),
            backend,
        );
        let service = merge(
            json!({
                "name": "web", "vips": [], "protocol": "tcp", "port": "80", "mode": "ipip",
                "alive": true, "healthy": 1, "configured": 2, "ring_size": 64,
                "ring_fingerprint": null, "in_force": true, "idle_seconds": 300,
                "phases": {"stable": 32, "learn": 0, "track": 32}, "flows": 0,
                "packets": 0, "bytes": 0, "backends": [backend],
            }),
            service,
        );
        serde_json::from_value(json!({
            "node": "lb1", "version": "0", "uptime_seconds": 1.0, "config": "/vipd.toml",
            "dataplane": null, "vips": [], "services": [service], "peers": [], "findings": [],
        }))
        .expect("a status")
    }

    #[test]
    fn a_drain_is_over_when_no_flow_can_be_left() {
        let check = |sentence, service: Value, backend: Value, expected: Remains| {
            let target = "web/b1".parse().expect("a target");
            let found = remains(&status(&service, &backend), &target);
            assert_eq!(found, expected, "{sentence}: {service} {backend}");
        };
        let learning = || json!({"phases": {"stable": 32, "learn": 32, "track": 0}});
        let nothing = Remains::Nothing;
        check(
            "flows are there",
            json!({}),
            json!({"flows": 3}),
            Remains::Flows(3),
        );
        check(
            "and while they are learnt",
            learning(),
            json!({"flows": 3}),
            Remains::Flows(3),
        );
        check(
            "silent ones may be",
            learning(),
            json!({}),
            Remains::Silent(300),
        );
        check(
            "all is known",
            json!({}),
            json!({}),
            nothing("no flow left"),
        );
        check(
            "a moment after the order nothing is known",
            json!({"in_force": false}),
            json!({}),
            Remains::NotApplied,
        );
        check(
            "nobody else is there",
            json!({}),
            json!({"slots": 9}),
            Remains::NewFlows,
        );
        check(
            "it has died meanwhile",
            learning(),
            json!({"standing": "down"}),
            nothing("it is down, and its flows have ended"),
        );
        check(
            "nothing is forwarded here",
            json!({"phases": null}),
            json!({}),
            nothing("there is no data plane here that could have flows"),
        );
        check(
            "undrained meanwhile",
            json!({}),
            json!({"drained": false}),
            Remains::NotDrained,
        );
        check(
            "removed meanwhile",
            json!({"name": "other"}),
            json!({}),
            Remains::NotDrained,
        );
    }
}
