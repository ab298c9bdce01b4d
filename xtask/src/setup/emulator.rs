//! An older kernel and an emulator to run it in, for the test that every
//! program loads there. Both come from Debian's packages, unpacked into
//! `target/emulator` and not installed: a kernel has no business in this
//! machine's boot menu, nor an emulator's thirty libraries among its own.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use super::packages;
use crate::shell;

/// What needs it, for those who ask why.
pub const WHY: &str = "a lab loads every program into Debian 12's kernel, the oldest supported";

/// The kernel of Debian 12, in its smallest build.
const KERNEL: (&str, &str) = ("linux-image-6.1.0-", "-cloud-amd64");
const QEMU: &str = "qemu-system-x86";

/// Where both are, if they are.
pub fn find() -> Option<PathBuf> {
    let place = place();
    place.exists().then_some(place)
}

/// Downloads and unpacks both.
pub fn install() -> Result<()> {
    if shell::find_program("apt-get").is_none() {
        bail!(
            "this machine has no apt-get, and setup knows no other way to get an emulator and \
             Debian 12's kernel"
        );
    }
    packages::refresh_lists();
    let mut names = packages::missing_with(QEMU)?;
    names.push(newest_kernel()?);
    shell::step(
        "unpacking an emulator and Debian 12's kernel into target/emulator",
        || {
            // Nothing counts before everything is there.
            let unfinished = place().with_extension("unfinished");
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished)
                    .with_context(|| format!("cannot remove {}", unfinished.display()))?;
            }
            packages::unpack(&names, &unfinished)?;
            fs::rename(&unfinished, place())
                .with_context(|| format!("cannot rename {}", unfinished.display()))
        },
    )
}

fn place() -> PathBuf {
    shell::root().join("target/emulator")
}

/// The newest of the kernel's packages that apt offers.
fn newest_kernel() -> Result<String> {
    let (before, after) = KERNEL;
    let offered = shell::capture(Command::new("apt-cache").args(["pkgnames", before]));
    newest(&offered.unwrap_or_default()).with_context(|| {
        format!(
            "apt offers no kernel {before}*{after}: add Debian 12 (bookworm) to apt's sources, \
             then run `cargo xtask setup` again"
        )
    })
}

/// Of names such as `linux-image-6.1.0-56-cloud-amd64`, the one with the
/// highest number.
fn newest(names: &str) -> Option<String> {
    let (before, after) = KERNEL;
    let number = |name: &str| -> Option<u32> {
        let name = name.strip_prefix(before)?.strip_suffix(after)?;
        name.parse().ok()
    };
    names
        .lines()
        .filter_map(|name| Some((number(name)?, name)))
        .max()
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_has_the_highest_number() {
        #[track_caller]
        fn check(names: &str, expected: Option<&str>) {
            assert_eq!(newest(names).as_deref(), expected, "of {names:?}");
        }
        check(
            "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
             linux-image-6.1.0-56-cloud-amd64-dbg\nlinux-image-6.1.0-57-amd64\n",
            Some("linux-image-6.1.0-56-cloud-amd64"),
        );
        check("", None);
    }
}
