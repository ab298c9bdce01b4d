//! Rules about documents: a path that a document names must exist, and so must
//! the heading that a link leads to.

use std::collections::BTreeSet;

use super::{File, Finding};

/// Endings that make a word with a slash in it the path of a file of ours.
const ENDINGS: [&str; 8] = [
    "/", ".rs", ".toml", ".md", ".sh", ".json", ".yml", ".service",
];

/// The repository, as far as documents lead to it.
pub trait Repository {
    /// Whether a path from the root is there.
    fn exists(&self, path: &str) -> bool;
    /// The text of a file, by its path from the root.
    fn text(&self, path: &str) -> Option<&str>;
}

/// Checks one document. Paths in words are from the root, or from the document's
/// directory; those of links are from the document's directory, as Markdown has
/// it.
pub fn check(document: &File, repository: &dyn Repository) -> Vec<Finding> {
    let directory = document.path.rsplit_once('/').map_or("", |(at, _)| at);
    let exists = |path: &str| repository.exists(path.trim_end_matches('/'));
    let mut findings = Vec::new();
    for (number, line) in prose(&document.text) {
        let gone_word = |word: &&str| {
            is_our_path(word, repository) && !exists(word) && !exists(&join(directory, word))
        };
        let words = code_spans(line).filter(gone_word).map(str::to_owned);
        let links = link_targets(line).filter_map(|target| {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => document.path.clone(),
                path => join(directory, path),
            };
            if !exists(&path) {
                return Some(path);
            }
            let has_anchor = match repository.text(&path) {
                Some(text) if path.ends_with(".md") && !anchor.is_empty() => {
                    anchors(text).contains(anchor)
                }
                Some(_) | None => true,
            };
            (!has_anchor).then(|| format!("{path}#{anchor}"))
        });
        findings.extend(words.chain(links).map(|what| Finding {
            path: document.path.clone(),
            line: number,
            what: format!("there is no {what}"),
            why: "a map that has gone stale misleads everyone who trusts it",
            mend: "name what is there now, or take the sentence out",
        }));
    }
    findings
}

/// The lines outside of fences, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_fence = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_fence ^= is_fence;
        !in_fence && !is_fence
    })
}

/// A path from the root, given one from a directory.
fn join(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => (),
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What stands between single backticks.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Targets of Markdown links into the repository.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .filter(|target| {
            !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")
        })
}

/// What links to the headings of a document are called, by GitHub's rule: in
/// small letters, without punctuation, hyphens for spaces, and a number behind
/// what is there already.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let headings = prose(text).filter(|(_, line)| {
        let words = line.trim_start_matches('#');
        words.len() < line.len() && words.starts_with(' ')
    });
    for (_, heading) in headings {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || "-_".contains(c) => Some(c),
            _ => None,
        });
        let anchor: String = kept.collect();
        let again = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = [anchor.clone()].into_iter().chain(again);
        if let Some(free) = names.find(|name| !anchors.contains(name)) {
            anchors.insert(free);
        }
    }
    anchors
}

/// Whether a word can only be meant as a path in this repository: relative,
/// and either below a directory that is here or ending like one of our files.
/// What a build makes (`target/...`) comes and goes.
fn is_our_path(word: &str, repository: &dyn Repository) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if !word.chars().all(is_plain) || word.starts_with('/') || word.starts_with("target/") {
        return false;
    }
    match word.split_once('/') {
        Some((top, _)) => {
            repository.exists(top) || ENDINGS.iter().any(|ending| word.ends_with(ending))
        }
        None => word.ends_with(".md"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository that has these and nothing else.
    struct Small;

    const HERE: [(&str, Option<&str>); 6] = [
        ("crates", None),
        ("crates/bgp", None),
        ("crates/bgp/src", None),
        ("crates/bgp/src/lib.rs", Some("//! No heading\n")),
        (
            "docs/bgp.md",
            Some("# BGP\n\n## Timers\n\n### `[bgp.peer]` (new)\n\n## Timers\n"),
        ),
        (
            "README.md",
            Some("# vipd\n\n```\n# no heading\n```\n## Limits\n"),
        ),
    ];

    impl Repository for Small {
        fn exists(&self, path: &str) -> bool {
            HERE.iter().any(|(here, _)| *here == path)
        }

        fn text(&self, path: &str) -> Option<&str> {
            HERE.iter().find(|(here, _)| *here == path)?.1
        }
    }

    /// Checks a document with that text; expects these to be found gone.
    #[track_caller]
    fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
        let document = File {
            path: path.into(),
            text: text.into(),
        };
        let found: Vec<_> = super::check(&document, &Small)
            .into_iter()
            .map(|finding| (finding.line, finding.what))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, path)| (*line, format!("there is no {path}")))
            .collect();
        assert_eq!(found, expected, "in {path}: {text:?}");
    }

    #[test]
    fn a_path_that_is_here_is_fine() {
        for text in [
            "See `crates/bgp/`, `crates/bgp/src/lib.rs` and `README.md`.",
            "See [the codec](crates/bgp/src/lib.rs#L3) or [below](README.md#limits).",
            "See [timers](docs/bgp.md#timers).",
        ] {
            check("ARCHITECTURE.md", text, &[]);
        }
    }

    #[test]
    fn a_path_that_is_gone_is_found_with_its_line() {
        for (text, gone) in [
            (
                "One.\nSee `crates/bfd/src/lib.rs`.",
                &[(2, "crates/bfd/src/lib.rs")][..],
            ),
            (
                "`crates/bfd` and `fuzz/`",
                &[(1, "crates/bfd"), (1, "fuzz/")],
            ),
            (
                "`packaging/vipd.service`, `CHANGELOG.md`",
                &[(1, "packaging/vipd.service"), (1, "CHANGELOG.md")],
            ),
            ("[changes](CHANGELOG.md)", &[(1, "CHANGELOG.md")]),
        ] {
            check("ARCHITECTURE.md", text, gone);
        }
    }

    #[test]
    fn links_are_from_where_the_document_is_and_words_from_there_or_from_the_root() {
        let text = "[bgp](bgp.md), [vipd](../README.md), [codec](../crates/bgp/src/lib.rs), \
                    `bgp.md`, `crates/bgp/`";
        check("docs/bfd.md", text, &[]);
        let text = "[bgp](docs/bgp.md) and `bfd.md`";
        let gone = [(1, "bfd.md"), (1, "docs/docs/bgp.md")];
        check("docs/configuration.md", text, &gone);
    }

    #[test]
    fn a_link_leads_to_a_heading() {
        let good = "[a](bgp.md#bgp) [b](bgp.md#timers-1) [c](bgp.md#bgppeer-new)";
        check("docs/bfd.md", good, &[]);
        check("docs/bgp.md", "[here](#timers)", &[]);
        let gone = [(1, "docs/bgp.md#timer"), (1, "docs/bgp.md#timers-2")];
        check(
            "docs/bfd.md",
            "[a](bgp.md#timer) [b](bgp.md#timers-2)",
            &gone,
        );
        let gone = [(2, "README.md#no-heading")];
        check("README.md", "\n[code](#no-heading)", &gone);
    }

    #[test]
    fn what_is_no_path_of_ours_is_left_alone() {
        for text in [
            "`/etc/vipd/vipd.toml`, `application/json`, `cargo xtask test`",
            "`target/bpf/balancer`, `crates/*`, `std::fmt`, `vipd.toml`",
            "[a site](https://example.net/README.md#nowhere)",
            "```\ncat `crates/bfd/Cargo.toml`\n```\n",
        ] {
            check("ARCHITECTURE.md", text, &[]);
        }
    }
}
