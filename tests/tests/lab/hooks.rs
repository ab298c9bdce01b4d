//! Hooks: programs that learn of each change of state, and hold up nothing.

use std::fs;

use anyhow::ensure;
use vipd_tests::{AgentConfig, Rack, Site, Size, wait_until};

use crate::support::{PATIENCE, VIP, in_lab};

#[test]
fn hooks_are_told_of_each_change_with_its_reason_and_never_hold_up_a_decision() {
    in_lab(|lab| {
        let size = Size {
            balancers: 1,
            backends: 1,
        };
        let mut site = Site::build(lab, size, &[VIP.into()], &config)?;
        // As nobody, they write where everybody may.
        let told = site.rack.balancers[0].host.dir().join("told");
        let wait_for = |sentence: &str, line: &str| {
            wait_until(sentence, PATIENCE, || {
                let text = fs::read_to_string(&told).unwrap_or_default();
                ensure!(text.lines().any(|it| it.starts_with(line)), "{text}");
                Ok(())
            })
        };
        wait_for("the backend is up", "backend web/b1 unknown-up L7OK 200")?;
        wait_for("its address is announced", "vip 198.51.100.10 unknown-up")?;
        wait_for("the router is there", "peer router unknown-up")?;

        site.servers[0].kill()?;
        // The hook that hangs is run first, and nothing waits for it.
        site.wait_for_routes(VIP.into(), &[])?;
        let page = site.agents[0].metrics("text/plain")?;
        let hanging = "vipd_hook_runs_total{hook=\"hangs\",result=\"timeout\"} 0";
        ensure!(
            page.lines().any(|it| it == hanging),
            "it was waited for: {page}"
        );
        wait_for("the backend is down", "backend web/b1 up-down L4CON")?;
        wait_for(
            "its address is withdrawn",
            "vip 198.51.100.10 up-withdrawn web: 0 of 1",
        )?;
        let agent = &site.agents[0];
        wait_until(
            "the hook that hangs is killed and counted",
            PATIENCE,
            || {
                let page = agent.metrics("text/plain")?;
                let wanted = [
                    "vipd_hook_runs_total{hook=\"hangs\",result=\"timeout\"} 1",
                    "vipd_hook_runs_total{hook=\"fails\",result=\"failure\"} 1",
                    "vipd_hook_runs_total{hook=\"missing\",result=\"error\"} 1",
                ];
                let found = wanted.iter().all(|line| page.lines().any(|it| it == *line));
                ensure!(found, "{page}");
                Ok(())
            },
        )?;
        let text = agent.command("status", &[])?;
        let line = "hook fails: 1 runs, 1 failed; the last one to fail was for web/b1: exit code 3: no pager";
        ensure!(text.lines().any(|it| it == line), "{text}");
        let log = agent.log();
        ensure!(
            log.contains("hook fails for web/b1: exit code 3: no pager"),
            "{log}"
        );

        let lines = fs::read_to_string(&told)?;
        let of_backend = lines.lines().filter(|line| line.starts_with("backend"));
        let states: Vec<_> = of_backend
            .filter_map(|line| line.split(' ').nth(2))
            .collect();
        ensure!(states == ["unknown-up", "up-down"], "{states:?}");
        Ok(())
    });
}

/// A service, and hooks: one that writes down what it is told, one that hangs, one that
/// fails, and one that is not there.
fn config(rack: &Rack) -> AgentConfig {
    let host = &rack.balancers[0].host;
    let told = host
        .write_for_all("told")
        .expect("the lab's directory is there");
    let script = format!(
        "echo $VIPD_SUBJECT $VIPD_NAME $VIPD_PREVIOUS-$VIPD_STATE $VIPD_REASON >> {}",
        told.display()
    );
    let mut config = AgentConfig::default().service("web", VIP.into(), "ipip", &rack.backends);
    config.services += &format!(
        r#"
[[hook]]
name = "hangs"
on = ["backend:down"]
command = ["/bin/sleep", "600"]
timeout = "8s"

[[hook]]
name = "fails"
on = ["backend:down"]
command = ["/bin/sh", "-c", "echo no pager; exit 3"]

[[hook]]
name = "missing"
on = ["vip:withdrawn"]
command = ["/no/such/program"]

[[hook]]
name = "tells"
on = ["backend", "vip", "peer"]
command = ["/bin/sh", "-c", "{script}"]
"#
    );
    config
}
