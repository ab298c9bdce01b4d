//! Who may use the pins.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    process::Command,
};

use vipd::dataplane::pins::Pins;
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
