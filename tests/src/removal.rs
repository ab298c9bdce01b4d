//! The one way a lab ends: by its id, from what the system itself lists.

use std::{
    fs, io,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{lab::LabId, owner::Owner};

/// Removes the labs whose owner is dead, those kept on purpose too.
/// Returns how many there were.
pub fn remove_leftovers() -> Result<usize> {
    remove_where(|id| !id.owner().is_alive())
}

/// Removes the labs whose owner is dead, except those kept on purpose.
pub(crate) fn remove_dead() -> Result<usize> {
    remove_where(|id| !id.owner().is_alive() && !id.kept_mark().exists())
}

/// Removes all labs of this process.
pub(crate) fn remove_own() -> Result<usize> {
    let this = Owner::this()?;
    remove_where(|id| id.owner() == this)
}

/// Takes one lab away: processes, namespaces, pins, directory; in this order,
/// so that the directory stands as long as anything else does.
pub(crate) fn remove(id: &LabId) -> Result<()> {
    end_processes(id)?;
    delete_namespaces(id)?;
    remove_tree(&id.pins())?;
    remove_tree(&id.dir())
}

fn remove_where(unwanted: impl Fn(&LabId) -> bool) -> Result<usize> {
    let mut removed = 0;
    for id in names_in(Path::new("/tmp"))?
        .iter()
        .filter_map(|name| LabId::parse(name))
    {
        if unwanted(&id) {
            remove(&id).with_context(|| format!("remove the lab {id}"))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Kills what the lab's process list names, if it is still the same process.
fn end_processes(id: &LabId) -> Result<()> {
    let list = fs::read_to_string(id.process_list()).unwrap_or_default();
    let still_running = || {
        list.lines()
            .filter_map(|line| Some(Owner::parse(line)?.0))
            .filter(|process| process.is_alive())
            .filter_map(|process| Pid::from_raw(process.pid().cast_signed()))
            .collect::<Vec<_>>()
    };
    for pid in still_running() {
        // It may have ended in between.
        let _ = kill_process(pid, Signal::KILL);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while !still_running().is_empty() {
        ensure!(
            Instant::now() < deadline,
            "processes {:?} of the lab {id} do not end",
            still_running()
        );
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn delete_namespaces(id: &LabId) -> Result<()> {
    let prefix = id.netns("");
    let batch: String = names_in(Path::new("/run/netns"))?
        .iter()
        .filter(|name| name.starts_with(&prefix))
        .map(|name| format!("netns del {name}\n"))
        .collect();
    if batch.is_empty() {
        return Ok(());
    }
    let mut ip = Command::new("ip")
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = ip.stdin.take() {
        stdin.write_all(batch.as_bytes())?;
    }
    ip.wait()?;
    Ok(())
}

/// `remove_dir_all` that is content when the tree is gone, or is being removed
/// by somebody else at the same time.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("list {}", dir.display())),
    }
}
