//! The command line of vipd, and what each command prints.

mod arguments;
mod orders;

use std::{
    env,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use self::arguments::{Arguments, Command, Decap, ModeArgument, Show, Socket};
use crate::{
    agent, bfd,
    capture::client as capture,
    check_once::{self, Verdict},
    config::{Config, Dataplane, Finding, InterfaceName, LogLevel},
    decap,
    departure::Stayed,
    doctor, events,
    explain::{Explanation, Question},
    memory,
    netlink::Netlink,
    overrides::{Act, Unfinished},
    plane, preload,
    show::{bgp::BgpView, why},
    status::{self, Status},
    terminal::{self, PrintError},
};

/// Runs the command of the command line.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => run(arguments.command).unwrap_or_else(|error| failed(&error)),
        // To whoever monitors, its 2 would be a service that is down.
        Err(error) if error.use_stderr() && env::args_os().nth(1) == Some("check-once".into()) => {
            terminal::tell(error.render());
            Verdict::Unknown.exit_code().into()
        }
        Err(error) => error.exit(),
    }
}

/// Whatever has an async runtime gets it here: the BFD process has none.
fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run { config } => in_runtime(run_agent(&config)),
        Command::Bfd { config } => run_bfd(&config),
        Command::Check { files } => check(&files),
        Command::Doctor { config, json } => Ok(examine(&config, json)),
        Command::CheckOnce {
            target,
            config,
            json,
        } => check_once(&config, &target, json),
        Command::Status { json, socket } => in_runtime(async {
            let status = socket.client().status().await?;
            show(json, &status, Status::render)
        }),
        Command::Show(Show::Bgp { peer, json, socket }) => {
            in_runtime(show_bgp(peer.as_deref(), json, &socket))
        }
        Command::Show(Show::Bfd { json, socket }) => show_bfd(json, &socket),
        Command::Explain {
            source,
            destination,
            protocol,
            syn,
            iface,
            json,
            socket,
        } => in_runtime(async {
            let question = Question {
                source,
                destination,
                protocol,
                opens: syn,
                interface: iface,
            };
            let explanation = socket.client().explain(&question).await?;
            show(json, &explanation, Explanation::render)
        }),
        Command::Capture {
            filter,
            write,
            socket,
        } => in_runtime(async {
            capture::run(&socket.socket, &filter.into(), write.as_deref()).await
        }),
        Command::Reload { socket } => in_runtime(reload(&socket)),
        Command::Drain {
            target,
            deadline,
            wait,
            timeout,
            force,
            reason,
            socket,
        } => in_runtime(async {
            let client = socket.client();
            let act = Act::Drain {
                target: target.clone(),
                deadline_seconds: deadline.map(whole_seconds),
            };
            orders::give(&client, act, force, reason).await?;
            match wait {
                true => orders::wait(&client, &target, timeout).await,
                false => Ok(()),
            }
        }),
        Command::Undrain { target, socket } => in_runtime(async {
            orders::give(&socket.client(), Act::Undrain(target), false, None).await
        }),
        Command::Disable {
            target,
            force,
            reason,
            socket,
        } => in_runtime(async {
            orders::give(&socket.client(), Act::Disable(target), force, reason).await
        }),
        Command::Enable { target, socket } => in_runtime(async {
            orders::give(&socket.client(), Act::Enable(target), false, None).await
        }),
        Command::Overrides {
            clear,
            json,
            socket,
        } => in_runtime(async {
            let client = socket.client();
            if let Some(target) = clear {
                return orders::give(&client, Act::Clear(target), false, None).await;
            }
            let overrides = client.status().await?.overrides;
            show(json, &overrides, |it| status::Override::table(it))
        }),
        Command::Why {
            subject,
            last,
            since,
            socket,
        } => in_runtime(async {
            let client = socket.client();
            let status = client.status().await?;
            let mut past = Vec::new();
            let question = question(since, false);
            let take = |event| {
                past.push(event);
                Ok(())
            };
            client.events(&question, take).await?;
            Ok(terminal::print(why::tell(&status, &past, &subject, last)?)?)
        }),
        Command::Events {
            json,
            follow,
            since,
            socket,
        } => in_runtime(async {
            let question = question(since, follow);
            let take = |event| {
                let line = match json {
                    true => serde_json::to_string(&event)?,
                    false => why::line(&event),
                };
                Ok(terminal::line(line)?)
            };
            socket.client().events(&question, take).await
        }),
        Command::Maint {
            timeout,
            force,
            end,
            socket,
        } => in_runtime(async { orders::maintain(&socket.client(), end, timeout, force).await }),
        Command::Load {
            config,
            iface,
            mode,
        } => in_runtime(load(&config, iface, mode)),
        Command::Unload { config } => in_runtime(unload(&config)),
        Command::Decap(command) => in_runtime(run_decap(command)),
    }
}

/// Its exit codes leave no room for that of other failures.
fn examine(config: &Path, json: bool) -> ExitCode {
    let mut code = doctor::UNABLE.into();
    let examined = in_runtime(async {
        let findings = doctor::examine(&read(config)?).await?;
        code = doctor::exit_code(&findings);
        show(json, &findings, |findings| doctor::render(findings))
    });
    match examined {
        Ok(_) => code,
        Err(error) => {
            let _told = failed(&error);
            doctor::UNABLE.into()
        }
    }
}

fn in_runtime(task: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    memory::share_one_heap();
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(task);
    // Tasks that still run have nothing to finish.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    if let Some(PrintError::Closed) = error.downcast_ref() {
        return terminal::CLOSED.into();
    }
    terminal::tell(format_args!("vipd: {error:#}"));
    let unfinished = error.downcast_ref().map(Unfinished::exit_code);
    let stayed = error.downcast_ref().map(Stayed::exit_code);
    unfinished.or(stayed).map_or(ExitCode::FAILURE, Into::into)
}

async fn run_agent(path: &Path) -> anyhow::Result<()> {
    let config = read(path)?;
    log(config.log_level);
    agent::run(path, config).await
}

async fn show_bgp(peer: Option<&str>, json: bool, socket: &Socket) -> anyhow::Result<()> {
    let view = socket.client().bgp().await?;
    let Some(name) = peer else {
        return show(json, &view, BgpView::table);
    };
    let view = view.only(name);
    if view.peers.is_empty() {
        bail!("there is no BGP peer {name}: `vipd show bgp` lists them");
    }
    show(json, &view, BgpView::details)
}

async fn reload(socket: &Socket) -> anyhow::Result<()> {
    let answer = socket.client().reload().await?;
    for message in &answer.messages {
        terminal::line(message)?;
    }
    if !answer.applied {
        bail!("refused; the old configuration stays in force");
    }
    Ok(())
}

async fn load(
    path: &Path,
    interfaces: Vec<InterfaceName>,
    mode: Option<ModeArgument>,
) -> anyhow::Result<()> {
    let config = read(path)?;
    let mut dataplane = dataplane(path, &config)?;
    if !interfaces.is_empty() {
        dataplane.interfaces = interfaces;
    }
    if let Some(mode) = mode {
        dataplane.xdp_mode = mode.into();
    }
    Ok(terminal::print(
        preload::load(path, &config, &dataplane).await?,
    )?)
}

async fn unload(config: &Path) -> anyhow::Result<()> {
    let dataplane = dataplane(config, &read(config)?)?;
    let removed = plane::unload(&dataplane, &Netlink::connect()?).await?;
    if removed.is_empty() {
        terminal::line(format_args!(
            "nothing is pinned at {}",
            dataplane.pin_path.display()
        ))?;
    }
    Ok(tell_removed(&removed)?)
}

async fn run_decap(command: Decap) -> anyhow::Result<()> {
    match command {
        Decap::Attach {
            iface,
            from,
            gue_port,
            mode,
            pin_path,
        } => {
            let link = plane::interface(&Netlink::connect()?, &iface).await?;
            decap::attach(
                &pin_path,
                &iface,
                link.ifindex,
                &from,
                gue_port,
                mode.into(),
            )?;
            Ok(terminal::line(format_args!(
                "decapsulator attached to {iface}; undo with `vipd decap detach --iface {iface}`"
            ))?)
        }
        Decap::Detach { iface, pin_path } => {
            let removed = match &iface {
                Some(name) => {
                    let link = plane::interface(&Netlink::connect()?, name).await?;
                    decap::detach(&pin_path, Some((name, link.ifindex)))?
                }
                None => decap::detach(&pin_path, None)?,
            };
            Ok(tell_removed(&removed)?)
        }
    }
}

/// Checks once. Whatever keeps it from that is unknown to whoever monitors.
fn check_once(path: &Path, target: &str, json: bool) -> anyhow::Result<ExitCode> {
    let mut verdict = Verdict::Unknown;
    let checked = in_runtime(async {
        let config = read(path)?;
        let report = check_once::run(&config, target).await;
        let report = report.map_err(anyhow::Error::msg)?;
        verdict = report.verdict();
        show(json, &report, check_once::Report::render)
    });
    match checked {
        Err(error) if error.downcast_ref::<PrintError>().is_none() => {
            terminal::line(format_args!("{verdict}: {error:#}"))?;
        }
        checked => drop(checked?),
    }
    Ok(verdict.exit_code().into())
}

/// Runs the BFD process, which has no async runtime.
fn run_bfd(path: &Path) -> anyhow::Result<ExitCode> {
    let config = read(path)?;
    log(config.log_level);
    bfd::run(path, bfd::Plan::of(&config)?)?;
    Ok(ExitCode::SUCCESS)
}

fn show_bfd(json: bool, socket: &Path) -> anyhow::Result<ExitCode> {
    show(json, &bfd::show::ask(socket)?, bfd::show::render)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what was asked for: as JSON, or for people.
fn show<T: Serialize>(
    json: bool,
    answer: &T,
    render: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    if json {
        terminal::line(serde_json::to_string_pretty(answer)?)?;
    } else {
        terminal::print(render(answer))?;
    }
    Ok(())
}

fn tell_removed(paths: &[PathBuf]) -> Result<(), PrintError> {
    let mut paths = paths.iter();
    paths.try_for_each(|path| terminal::line(format_args!("removed {}", path.display())))
}

/// A part of a second counts as one: it is not to become nothing.
fn whole_seconds(duration: Duration) -> u64 {
    let part = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(part)
}

/// Which events are wanted.
fn question(since: Option<Duration>, follow: bool) -> events::Question {
    events::Question {
        since_seconds: since.map(whole_seconds),
        follow,
    }
}

/// Reads a configuration, or says what is wrong with it.
fn read(path: &Path) -> anyhow::Result<Config> {
    match Config::load(path) {
        Ok((config, warnings)) => {
            warn(&warnings);
            Ok(config)
        }
        Err(error) => {
            warn(&error.findings);
            bail!("{} cannot be used", path.display());
        }
    }
}

fn dataplane(path: &Path, config: &Config) -> anyhow::Result<Dataplane> {
    let dataplane = config.dataplane.clone();
    dataplane.with_context(|| format!("{} has no [dataplane]", path.display()))
}

/// Logs to standard error; `RUST_LOG` has the last word.
fn log(level: LogLevel) {
    let level = format!("{level:?}").to_lowercase();
    // Ours and the XDP program's; of libraries only what is wrong.
    let ours = format!("warn,vipd={level},balancer={level}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// Checks each file; the exit code tells whether all of them can be used.
fn check(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match Config::load(file) {
            Ok((config, warnings)) => {
                warn(&warnings);
                let summary = config.summary();
                terminal::line(format_args!("{}: OK, {summary}", file.display()))?;
                for taken in config.taking.iter().flat_map(|taking| &taking.services) {
                    terminal::line(format_args!("  now {taken}"))?;
                }
            }
            Err(error) => {
                warn(&error.findings);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn warn(findings: &[Finding]) {
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stderr().is_terminal() && !no_colour;
    for finding in findings {
        terminal::tell(format_args!("{}\n", finding.render(colour)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_second_is_never_none() {
        for (millis, seconds) in [(0, 0), (1, 1), (500, 1), (1000, 1), (1500, 2), (60_000, 60)] {
            let found = whole_seconds(Duration::from_millis(millis));
            assert_eq!(found, seconds, "{millis} ms");
        }
    }

    /// What a command line asks for, or why it is refused.
    fn command(line: &str) -> Result<Command, String> {
        let arguments = Arguments::try_parse_from(line.split_whitespace());
        let arguments = arguments.map_err(|error| error.to_string());
        Ok(arguments?.command)
    }

    #[test]
    fn a_deadline_of_nothing_is_refused_and_says_what_does_that() {
        let deadline = |text| match command(&format!("vipd drain web/b1 --deadline {text}"))? {
            Command::Drain { deadline, .. } => Ok(deadline),
            _ => Err("another command".to_owned()),
        };
        let half = Duration::from_millis(500);
        assert_eq!(deadline("500ms"), Ok(Some(half)));
        let refused = deadline("0s").expect_err("it ends all flows at once");
        assert!(refused.contains("vipd disable"), "{refused}");
    }

    #[test]
    fn balancers_are_given_as_addresses_or_prefixes() {
        let line = "vipd decap attach --iface eth0 --from 192.0.2.11 --from 2001:db8::11 \
                    --from 192.0.2.64/26";
        let Ok(Command::Decap(Decap::Attach { from, .. })) = command(line) else {
            panic!("not understood: {:?}", command(line).err());
        };
        let from: Vec<_> = from.iter().map(ToString::to_string).collect();
        assert_eq!(from, ["192.0.2.11/32", "2001:db8::11/128", "192.0.2.64/26"]);
        let refused = command("vipd decap attach --iface eth0 --from b1");
        let refused = refused.err().expect("a name");
        assert!(refused.contains("address or prefix"), "{refused}");
    }
}
