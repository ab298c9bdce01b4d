//! `vipd check` as it is run.

use std::{
    io,
    path::Path,
    process::{Command, Output, Stdio},
};

#[test]
fn check_goes_through_all_files_and_fails_when_one_is_bad() {
    let good = "tests/config/good.toml";
    let output = vipd_check(&[good, "tests/config/main.rs", good]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let summary = format!("{good}: OK, 2 services, 3 virtual addresses, 3 backends, 2 BGP peers\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), summary.repeat(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("--> tests/config/main.rs:1:1"), "{stderr}");
    assert!(
        !stderr.contains('\u{1b}'),
        "no colour without a terminal: {stderr}"
    );
}

#[test]
fn check_of_a_good_file_succeeds() {
    let output = vipd_check(&["tests/config/good.toml"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn check_without_a_file_says_how_it_is_used() {
    let output = vipd_check(&[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn check_ends_quietly_when_nobody_reads() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let mut command = command(&["tests/config/good.toml"]);
    command.stdout(writer).stderr(Stdio::piped());
    let child = command.spawn().expect("vipd can be run");
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(141), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

fn vipd_check(files: &[&str]) -> Output {
    command(files).output().expect("vipd can be run")
}

fn command(files: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vipd"));
    command.arg("check").args(files);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    command
}
