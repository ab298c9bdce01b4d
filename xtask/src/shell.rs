//! Running other programs: where they are, what they print, how a failure is told.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

/// The root of the repository, absolute.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// A command that will run in the root of the repository.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// `cargo` in the root of the repository, by the toolchain that runs us.
pub fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = command("cargo");
    command.args(args);
    command
}

/// Does one long step: says that it starts, and when it ended.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let started = Instant::now();
    let result = work();
    let outcome = if result.is_ok() { "done" } else { "failed" };
    eprintln!(
        "    {outcome} after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    result
}

/// Runs a command with our own standard streams. When it fails, the error
/// holds the whole command line and `hint`, a sentence on how to go on.
pub fn run(command: &mut Command, hint: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("could not start `{}`\n{hint}", render(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})\n{hint}", render(command));
    }
    Ok(())
}

/// Standard output of a command that succeeds; `None` when it cannot be
/// started or fails. Its error output is thrown away.
pub fn capture(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is. The `sbin` directories are searched too, since they
/// are seldom on the `PATH` of somebody who is not root.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Whether we have root's rights (the effective user is 0).
pub fn is_root() -> bool {
    // The entry of a process belongs to its effective user.
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// The command as one could type it in the root of the repository.
pub fn render(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(line, "{}={} ", name.display(), quote(value));
        }
    }
    line.push_str(&quote(command.get_program()));
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&quote(arg));
    }
    line
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendered_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("printf");
        command
            .args(["%s", "it's", "a b", ""])
            .env("LANG", "C.UTF-8");
        let line = render(&command);
        assert_eq!(line, r"LANG=C.UTF-8 printf %s 'it'\''s' 'a b' ''");
    }
}
