//! Who may use the pins, and what a start that fails leaves of them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use vipd::dataplane::{kernel::Kernel, pins::Pins};
use vipd_tests::Scratch;

/// No user of this machine.
const STRANGER: u32 = 64_321;

/// Pins that somebody has meddled with are refused, and the command that is told
/// makes them usable.
#[track_caller]
fn check(sentence: &str, meddle: impl FnOnce(&Path, &Pins), expected: &str) {
    let scratch = Scratch::new("meddled");
    let root = scratch.path().join("vipd");
    let pins = Pins::new(&root);
    drop(pins.take().expect("what was just made is ours"));
    meddle(&root, &pins);
    for refused in [
        pins.take().map(|_| ()),
        pins.take_existing().map(|_| ()),
        pins.prepare(),
    ] {
        let told = refused.expect_err(sentence).to_string();
        assert!(told.contains(expected), "{sentence}: {told}");
    }
    let told = pins.prepare().expect_err(sentence).to_string();
    let mut parts = told.split('`');
    let remedy = parts.nth(1).expect("a command stands in backquotes");
    let done = Command::new("sh").args(["-c", remedy]).status();
    assert!(done.expect("there is a shell").success(), "{remedy}");
    let after = pins.take().map(|_| ());
    assert!(after.is_ok(), "{sentence}: after `{remedy}`: {after:?}");
}

#[test]
fn pins_that_others_could_change_are_refused() {
    let open = |path: &Path, mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(path, permissions).expect("it is ours");
    };
    let give = |path: &Path| chown(path, Some(STRANGER), None).expect("we are root");
    check(
        "somebody else has made the directory",
        |root, _| give(root),
        "vipd belongs to user 64321",
    );
    check(
        "somebody else has made the directory of the layout",
        |_, pins| give(&pins.directory()),
        "belongs to user 64321",
    );
    check(
        "anybody may write, if only new things",
        |root, _| open(root, 0o1777),
        "writable by others (mode 1777)",
    );
    check(
        "a group may write",
        |_, pins| open(&pins.directory(), 0o770),
        "writable by others (mode 0770)",
    );
    check(
        "anybody may rename the directory",
        |root, _| open(root.parent().expect("a parent"), 0o777),
        "writable by others (mode 0777)",
    );
    check(
        "somebody else has pinned something",
        |_, pins| {
            let pin = pins.map("PLANE");
            symlink("/nowhere", &pin).expect("it can be made");
            rustix::fs::chownat(
                rustix::fs::CWD,
                &pin,
                Some(rustix::fs::Uid::from_raw(STRANGER)),
                None,
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )
            .expect("we are root");
        },
        "PLANE belongs to user 64321",
    );
}

#[test]
fn whoever_has_the_pins_has_them_whatever_becomes_of_their_directory() {
    let scratch = Scratch::new("taken");
    let pins = Pins::new(scratch.path());
    let nothing = pins.take_existing().expect("there is nothing to refuse");
    assert!(nothing.is_none(), "there is nothing to take");
    let lock = pins.take().expect("it is ours");
    fs::remove_dir(pins.directory()).expect("it is empty");
    for refused in [pins.take_existing().map(|_| ()), pins.take().map(|_| ())] {
        let told = refused.expect_err("an agent runs").to_string();
        assert!(told.contains("another vipd uses"), "{told}");
    }
    drop(lock);
    assert!(pins.take_existing().expect("it is free").is_some());
    fs::create_dir(scratch.path().join("v0")).expect("it can be made");
    let told = pins.take_existing().expect_err("is refused").to_string();
    assert!(
        told.contains("v0 holds a data plane of another layout"),
        "{told}"
    );
}

#[test]
fn a_start_that_fails_leaves_what_it_has_found_and_no_more() {
    let scratch = Scratch::new("failed");
    let load = || {
        let loaded = Kernel::load(Some(scratch.path()), false);
        loaded.unwrap_or_else(|error| {
            panic!("{error}\nthe packet tier needs root and `cargo xtask setup`")
        })
    };
    // It may make maps, but not load a program of this type.
    let refused = thread::scope(|scope| {
        let start = || {
            let mut sets = capabilities(None).expect("the kernel says");
            sets.effective -= CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
            set_capabilities(None, sets).expect("fewer are allowed");
            let refused = Kernel::load(Some(scratch.path()), false).err();
            refused.map(|error| error.to_string())
        };
        scope.spawn(start).join().expect("it does not panic")
    });
    let told = refused.expect("it is refused");
    assert!(told.contains("does not take the XDP program"), "{told}");
    assert!(!scratch.path().exists(), "maps are left");

    drop(load());
    assert!(!scratch.path().exists(), "a start that went no further");

    let (mut kernel, tables) = load();
    kernel.settle();
    drop((kernel, tables));
    let found = pinned(scratch.path());
    assert_eq!(found.len(), 3, "two maps and a program: {found:?}");
    fs::remove_file(&found[0]).expect("it was pinned");
    drop(load());
    assert_eq!(pinned(scratch.path()), found[1..], "what was there before");
}

fn pinned(root: &Path) -> Vec<PathBuf> {
    let directory = Pins::new(root).directory();
    let entries = fs::read_dir(directory).expect("it is there").flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}
