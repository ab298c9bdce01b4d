//! Rules about the text of one file.

use std::path::Path;

use super::{File, Finding};

/// From here on a source file wants to be two.
const LONGEST: usize = 600;

/// Source files that are longer with a reason: path, reason.
const LONG: &[(&str, &str)] = &[];

/// Checks one file.
pub fn check(file: &File) -> Vec<Finding> {
    let extension = Path::new(&file.path).extension().and_then(|it| it.to_str());
    let mut findings = Vec::new();
    // Snapshots are what a program printed, spaces and all.
    if extension != Some("snap") {
        findings.extend(trailing_whitespace(file));
    }
    if extension == Some("rs") {
        findings.extend(module_line(file));
        findings.extend(allow_attributes(file));
        findings.extend(length(file, LONG));
    }
    findings
}

/// Checks the list of long files itself: an entry whose file is gone or no
/// longer long would hide the next one of that name.
pub fn check_long_list(files: &[File]) -> Vec<Finding> {
    LONG.iter()
        .filter(|(path, _)| {
            !files
                .iter()
                .any(|file| file.path == *path && file.text.lines().count() > LONGEST)
        })
        .map(|(path, _)| Finding {
            path: "xtask/src/tidy/text.rs".into(),
            line: 1,
            what: format!("the list LONG excuses {path}, which is gone or no longer long"),
            why: "an excuse without a need hides the next breach",
            mend: "take it off the list",
        })
        .collect()
}

fn trailing_whitespace(file: &File) -> impl Iterator<Item = Finding> {
    numbered(file)
        .filter(|(_, line)| line.ends_with(char::is_whitespace))
        .map(|(number, _)| Finding {
            path: file.path.clone(),
            line: number,
            what: "white space at the end of the line".into(),
            why: "it makes differences that nobody can see",
            mend: "remove it (in Rust `cargo fmt --all` does)",
        })
}

fn module_line(file: &File) -> Option<Finding> {
    let first = file.text.lines().next().unwrap_or_default();
    let says_something = first
        .strip_prefix("//!")
        .is_some_and(|said| !said.trim().is_empty());
    (!says_something).then(|| Finding {
        path: file.path.clone(),
        line: 1,
        what: "the file does not begin with a `//!` line".into(),
        why: "a newcomer finds the room for a line of code by what each room says it owns",
        mend: "say in its first line what the module owns",
    })
}

fn allow_attributes(file: &File) -> impl Iterator<Item = Finding> {
    numbered(file)
        .filter(|(_, line)| {
            let line = line.trim_start();
            (line.starts_with("#[") || line.starts_with("#![")) && line.contains("allow(")
        })
        .map(|(number, _)| Finding {
            path: file.path.clone(),
            line: number,
            what: "a lint is switched off by `allow`".into(),
            why: "an `allow` stays when its reason is gone; an unneeded `expect` is reported",
            mend: "follow the lint, or write `#[expect(lint, reason = \"...\")]`",
        })
}

fn length(file: &File, excused: &[(&str, &str)]) -> Option<Finding> {
    let lines = file.text.lines().count();
    let is_excused = excused.iter().any(|(path, _)| *path == file.path);
    (lines > LONGEST && !is_excused).then(|| Finding {
        path: file.path.clone(),
        line: LONGEST,
        what: format!("the file has {lines} lines, more than {LONGEST}"),
        why: "a file that is read in one go has one owner and one subject",
        mend: "split it by noun, or excuse it with a reason in LONG, xtask/src/tidy/text.rs",
    })
}

/// Lines with their numbers; a carriage return counts as part of its line.
fn numbered(file: &File) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(file.text.split_terminator('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a file of that content; expects these lines of findings, each
    /// with a word of what was found.
    #[track_caller]
    fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
        let file = File {
            path: path.into(),
            text: text.into(),
        };
        let found = super::check(&file);
        let matches = found.len() == expected.len()
            && found.iter().zip(expected).all(|(finding, (line, word))| {
                finding.line == *line && finding.what.contains(word)
            });
        assert!(
            matches,
            "expected {expected:?} in {text:?}, found {found:#?}"
        );
    }

    #[test]
    fn a_line_must_not_end_with_white_space() {
        check(
            "README.md",
            "one\ntwo \nthree\t\n",
            &[(2, "white space"), (3, "white space")],
        );
        check(
            "README.md",
            "from another system\r\n",
            &[(1, "white space")],
        );
        check("README.md", "one\n\ntwo", &[]);
    }

    #[test]
    fn a_snapshot_may_end_lines_as_the_program_did() {
        check("tests/snapshots/a.snap", "one \n", &[]);
    }

    #[test]
    fn a_source_file_begins_with_what_it_owns() {
        check("src/lib.rs", "//! Owns the codec.\n", &[]);
        check(
            "src/lib.rs",
            "use std::fmt;\n//! Too late.\n",
            &[(1, "`//!`")],
        );
        check(
            "src/lib.rs",
            "//!\n//! An empty first line.\n",
            &[(1, "`//!`")],
        );
        check("src/lib.rs", "", &[(1, "`//!`")]);
        check("script.sh", "echo\n", &[]);
    }

    #[test]
    fn a_lint_is_never_allowed() {
        check(
            "a.rs",
            "//! A.\n#[allow(dead_code)]\nfn a() {}\n",
            &[(2, "allow")],
        );
        check(
            "a.rs",
            "//! A.\n#![cfg_attr(test, allow(unused))]\n",
            &[(2, "allow")],
        );
        check(
            "a.rs",
            "//! A.\n    #[allow(\n    unused)]\n",
            &[(2, "allow")],
        );
        check(
            "a.rs",
            "//! A.\n#[expect(dead_code, reason = \"later\")]\n",
            &[],
        );
        check("a.rs", "//! A.\nself.allow(peer);\n", &[]);
    }

    #[test]
    fn a_source_file_has_at_most_600_lines() {
        let lines = |count: usize| format!("//! Long.\n{}", "\n".repeat(count - 1));
        check("a.rs", &lines(600), &[]);
        check("a.rs", &lines(601), &[(600, "601 lines")]);
        check("table.md", &lines(601), &[]);
    }

    #[test]
    fn a_long_file_can_be_excused() {
        let file = File {
            path: "a.rs".into(),
            text: "\n".repeat(601),
        };
        assert_eq!(length(&file, &[("a.rs", "one table")]), None);
        assert_ne!(length(&file, &[("b.rs", "one table")]), None);
    }
}
