//! `cargo xtask load` and `unload`: build, then hand over to the agent's own
//! commands of these names, which do the work and tell what they did.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    setup::{self, Scope},
    shell,
};

/// Arguments of `cargo xtask load`.
#[derive(clap::Args)]
pub struct LoadArgs {
    /// The interface to attach to
    #[arg(long)]
    iface: String,
    #[command(flatten)]
    common: Common,
    /// How to attach: native (the default) or generic
    #[arg(long)]
    mode: Option<String>,
}

/// Arguments of `cargo xtask unload`.
#[derive(clap::Args)]
pub struct UnloadArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// The configuration file
    #[arg(long)]
    config: PathBuf,
    /// The network namespace to do it in, by its name in `ip netns`
    #[arg(long)]
    netns: Option<String>,
}

/// Runs `cargo xtask load`.
pub fn load(args: &LoadArgs) -> Result<()> {
    let mut words = vec!["--iface", &args.iface];
    if let Some(mode) = &args.mode {
        words.extend(["--mode", mode]);
    }
    hand_over("load", &args.common, &words)
}

/// Runs `cargo xtask unload`.
pub fn unload(args: &UnloadArgs) -> Result<()> {
    hand_over("unload", &args.common, &[])
}

fn hand_over(task: &str, common: &Common, words: &[&str]) -> Result<()> {
    shell::require_root("loading eBPF programs")?;
    let toolchain = setup::ensure(Scope::Load)?;
    build::ebpf(&toolchain)?;
    let agent = build::agent()?;

    let mut vipd = in_namespace(common.netns.as_deref(), &agent)?;
    vipd.arg(task)
        .arg("--config")
        .arg(&common.config)
        .args(words);
    eprintln!("==> {}", shell::render(&vipd));
    let error = vipd.exec();
    Err(error).with_context(|| format!("could not start {}", agent.display()))
}

/// The program in a network namespace. `ip netns exec` would not do: it
/// mounts a fresh /sys, which hides the bpffs that pins go to.
fn in_namespace(netns: Option<&str>, program: &Path) -> Result<Command> {
    let Some(name) = netns else {
        return Ok(Command::new(program));
    };
    let place = Path::new("/run/netns").join(name);
    if !place.exists() {
        bail!("there is no network namespace {name}; `ip netns list` shows those there are");
    }
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", place.display()))
        .arg("--")
        .arg(program);
    Ok(command)
}
