//! Rules about documents: a path that a document names must exist.

use super::{File, Finding};

/// Endings that make a word with a slash in it the path of a file of ours.
const ENDINGS: [&str; 8] = [
    "/", ".rs", ".toml", ".md", ".sh", ".json", ".yml", ".service",
];

/// Checks one document. `exists` tells whether a path from the root is there.
pub fn check(document: &File, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_fence = false;
    for (number, line) in (1..).zip(document.text.lines()) {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        } else if !in_fence {
            let gone = code_spans(line)
                .filter(|word| is_our_path(word, exists))
                .chain(link_targets(line))
                .filter(|path| !exists(path.trim_end_matches('/')));
            findings.extend(gone.map(|path| Finding {
                path: document.path.clone(),
                line: number,
                what: format!("there is no {path}"),
                why: "a map that has gone stale misleads everyone who trusts it",
                mend: "name what is there now, or take the sentence out",
            }));
        }
    }
    findings
}

/// What stands between single backticks.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Targets of Markdown links into the repository, without their anchors.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')')?.0.split('#').next())
        .filter(|target| {
            !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")
        })
}

/// Whether a word can only be meant as a path in this repository: relative,
/// and either below a directory that is here or ending like one of our files.
/// What a build makes (`target/...`) comes and goes.
fn is_our_path(word: &str, exists: &dyn Fn(&str) -> bool) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if !word.chars().all(is_plain) || word.starts_with('/') || word.starts_with("target/") {
        return false;
    }
    match word.split_once('/') {
        Some((top, _)) => exists(top) || ENDINGS.iter().any(|ending| word.ends_with(ending)),
        None => word.ends_with(".md"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a document in a repository that has `crates/bgp/src/lib.rs`,
    /// `README.md` and nothing else; expects these paths to be found gone.
    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str)]) {
        let here = [
            "crates",
            "crates/bgp",
            "crates/bgp/src",
            "crates/bgp/src/lib.rs",
            "README.md",
        ];
        let document = File {
            path: "ARCHITECTURE.md".into(),
            text: text.into(),
        };
        let found: Vec<_> = super::check(&document, &|path| here.contains(&path))
            .into_iter()
            .map(|finding| (finding.line, finding.what))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, path)| (*line, format!("there is no {path}")))
            .collect();
        assert_eq!(found, expected, "in {text:?}");
    }

    #[test]
    fn a_path_that_is_here_is_fine() {
        check(
            "See `crates/bgp/`, `crates/bgp/src/lib.rs` and `README.md`.",
            &[],
        );
        check(
            "See [the codec](crates/bgp/src/lib.rs#L3) or [below](#limits).",
            &[],
        );
    }

    #[test]
    fn a_path_that_is_gone_is_found_with_its_line() {
        check(
            "One.\nSee `crates/bfd/src/lib.rs`.",
            &[(2, "crates/bfd/src/lib.rs")],
        );
        check(
            "`crates/bfd` and `fuzz/`",
            &[(1, "crates/bfd"), (1, "fuzz/")],
        );
        check(
            "`packaging/vipd.service`, `CHANGELOG.md`",
            &[(1, "packaging/vipd.service"), (1, "CHANGELOG.md")],
        );
        check("[changes](CHANGELOG.md)", &[(1, "CHANGELOG.md")]);
    }

    #[test]
    fn what_is_no_path_of_ours_is_left_alone() {
        check(
            "`/etc/vipd/vipd.toml`, `application/json`, `cargo xtask test`",
            &[],
        );
        check(
            "`target/bpf/balancer`, `crates/*`, `std::fmt`, `vipd.toml`",
            &[],
        );
        check("[a site](https://example.net/README.md)", &[]);
        check("```\ncat `crates/bfd/Cargo.toml`\n```\n", &[]);
    }
}
