//! Hooks with real programs, and what happens around their runs.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use vipd_control::{
    announcement::State,
    damping::{Damping, Heard, Terms},
    gate::Admission,
    model::Vip,
};

use super::*;
use crate::{
    announce::Standings, engine::Decision, questions::tests::PATIENCE, run::tests::own_name,
};

/// A hook on virtual addresses that writes down their states.
fn hook(place: &Path, timeout: Duration) -> Hook {
    let script = format!("echo $VIPD_STATE >> {}", place.display());
    let command = ["/bin/sh", "-c", &script];
    Hook {
        name: "page".into(),
        on: vec![Trigger {
            kind: Kind::Vip,
            state: None,
        }],
        program: Program {
            command: command.map(str::to_owned).to_vec(),
            environment: Vec::new(),
            user: own_name(),
        },
        timeout,
    }
}

fn place(name: &str) -> PathBuf {
    let name = format!("vipd-hooks-{name}-{}", std::process::id());
    let place = std::env::temp_dir().join(name);
    fs::write(&place, "").expect("a file");
    place
}

fn vip() -> Vip {
    IpAddr::from([198, 51, 100, 10]).into()
}

/// The address is announced.
fn announced() -> Arc<Standings> {
    let mut damping = Damping::default();
    let states = [(vip(), State::Up)].into();
    damping.update(
        &states,
        &Terms::OFF,
        |_, _, _| Heard::Nothing,
        Instant::now(),
    );
    Arc::new(Standings {
        vips: [(vip(), Admission::Announced(State::Up))].into(),
        damping: damping.standings().clone(),
        known: true,
        ..Standings::default()
    })
}

#[tokio::test]
async fn whoever_waits_at_the_stop_has_the_last_change_told() {
    let place = place("settled");
    let text = "[dataplane]\ninterfaces = [\"eth0\"]\n";
    let (mut config, _) = Config::parse(text, "vipd.toml").expect("a good configuration");
    config.hooks = vec![hook(&place, PATIENCE)];
    let (_config_in, config) = watch::channel(Arc::new(config));
    let (_decision_in, decision) = watch::channel(Decision::default());
    let (standings_in, standings) = watch::channel(Arc::<Standings>::default());
    let (_peers_in, peers) = watch::channel(Default::default());
    let sources = Sources::new(decision, Arc::default(), standings, peers);
    let (settle, settle_out) = mpsc::channel(1);
    tokio::spawn(run(config, sources, watch::Sender::default(), settle_out));
    settled(&settle).await;
    // The task has not run since.
    standings_in.send_replace(announced());
    settled(&settle).await;
    let told = fs::read_to_string(&place).expect("the file");
    assert_eq!(told, "up\n");
    fs::remove_file(&place).expect("it is there");
}

#[tokio::test]
async fn what_goes_with_a_reload_that_adds_a_hook_is_told_to_the_others() {
    let [place, of_another] = [place("gone"), place("added")];
    let text = "[dataplane]\ninterfaces = [\"eth0\"]\n";
    let (mut old, _) = Config::parse(text, "vipd.toml").expect("a good configuration");
    old.hooks = vec![hook(&place, PATIENCE)];
    let mut new = old.clone();
    new.hooks.push(Hook {
        name: "another".into(),
        ..hook(&of_another, PATIENCE)
    });
    let (config_in, config) = watch::channel(Arc::new(old));
    let (_decision_in, decision) = watch::channel(Decision::default());
    let (standings_in, standings) = watch::channel(announced());
    let (_peers_in, peers) = watch::channel(Default::default());
    let sources = Sources::new(decision, Arc::default(), standings, peers);
    let (settle, settle_out) = mpsc::channel(1);
    tokio::spawn(run(config, sources, watch::Sender::default(), settle_out));
    settled(&settle).await;
    // Both before the task runs again.
    standings_in.send_replace(Arc::new(Standings {
        known: true,
        ..Standings::default()
    }));
    config_in.send_replace(Arc::new(new));
    settled(&settle).await;
    let told = |place| fs::read_to_string(place).expect("the file");
    assert_eq!(told(&place), "up\nwithdrawn\n");
    assert_eq!(told(&of_another), "", "it was never told of it");
    for place in [place, of_another] {
        fs::remove_file(&place).expect("it is there");
    }
}

#[tokio::test]
async fn a_hook_that_is_written_otherwise_runs_for_a_subject_only_when_the_old_one_has_ended() {
    let place = place("reload");
    let change = |state| Change {
        subject: Subject::Vip(vip()),
        state,
        reason: String::new(),
        at: SystemTime::UNIX_EPOCH,
    };
    let node: Arc<str> = "node".into();
    let mut hooks = Hooks::default();
    assert!(hooks.configure(&[hook(&place, PATIENCE)]));
    hooks.note(&change("up"));
    hooks.start(&node);
    assert_eq!(hooks.runs.len(), 1);
    let other = hook(&place, PATIENCE * 2);
    // Taken out, and back again: there may be another reload in between.
    for hooks_now in [&[][..], &[other][..]] {
        assert_ne!(hooks.configure(hooks_now), hooks_now.is_empty());
    }
    hooks.note(&change("withdrawn"));
    hooks.start(&node);
    assert_eq!(hooks.runs.len(), 1, "two run at once");
    let mut ends = Vec::new();
    while let Some(done) = hooks.runs.join_next().await {
        hooks.take_in(done.expect("a run"));
        let running = &hooks.all["page"];
        ends.push((running.tally().succeeded, running.tally().waiting));
        hooks.start(&node);
    }
    assert_eq!(
        ends,
        [(0, 1), (1, 0)],
        "a run of the old one is not the new one's"
    );
    assert_eq!(
        fs::read_to_string(&place).expect("the file"),
        "up\nwithdrawn\n"
    );
    assert!(hooks.under_way.is_empty());
    fs::remove_file(&place).expect("it is there");
}
