//! The pages in docs/parity and docs/scenarios: each option of another program has an
//! answer, and what an answer or a story names is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use vipd::config::{Config, reference};

const PARITY: &str = "docs/parity";
const STORIES: &str = "docs/scenarios";

/// What a word begins with that names a key.
const TABLES: [&str; 6] = ["bgp", "dataplane", "hook", "log", "service", "stop"];

#[test]
fn each_option_is_here_or_not_here_for_a_reason_or_to_come() {
    for (page, text) in pages(PARITY) {
        let mut answers = 0;
        for row in text.lines().filter_map(row) {
            let [option, answer] = row;
            if ["here", "---"].contains(&answer) {
                continue;
            }
            answers += 1;
            let here = answer.starts_with("Here ");
            let reason = answer.starts_with("Not here") && answer.contains(", because ");
            let known = here || reason || answer.starts_with("To come");
            // As above: the reason is.
            let known = known || answer == "Not here, as above.";
            assert!(known, "{page}: {option}: {answer}");
        }
        assert!(answers > 10, "{page} has {answers} answers");
    }
}

#[test]
fn keys_that_are_named_are_in_the_reference() {
    let known = keys(&reference());
    assert!(known.contains("service.check.rise"), "{known:?}");
    assert!(known.contains("bgp.peer.bfd.min_tx"), "{known:?}");
    let mut gone = BTreeSet::new();
    for (page, text) in pages(PARITY) {
        let words = text.split('`').skip(1).step_by(2);
        let keys = words.filter_map(|span| span.split(' ').next());
        for key in keys.filter(|word| is_key(word)) {
            if !known.contains(key) {
                gone.insert(format!("{page}: {key}"));
            }
        }
    }
    assert!(gone.is_empty(), "{gone:#?}");
}

#[test]
fn tables_and_keys_that_a_story_names_are_in_the_reference() {
    let known = keys(&reference());
    let (mut named, mut gone) = (0, BTreeSet::new());
    for (page, text) in pages(STORIES) {
        let ours = ours(&text);
        for span in ours.split('`').skip(1).step_by(2) {
            let Some(is_there) = is_there(span, &known) else {
                continue;
            };
            named += 1;
            if !is_there {
                gone.insert(format!("{page}: {span}"));
            }
        }
    }
    assert!(gone.is_empty(), "{gone:#?}");
    assert!(named > 50, "{named} tables and keys are named");
}

#[test]
fn what_is_written_like_a_table_or_a_key_is_looked_for() {
    let known = keys(&reference());
    for (span, expected) in [
        ("[bgp.damping]", Some(true)),
        ("[[bgp.peer]]", Some(true)),
        ("[bgp.dampening]", Some(false)),
        ("[stop] local = \"keep\"", Some(true)),
        ("[stop] locale = \"keep\"", Some(false)),
        ("[bgp] local = \"keep\"", Some(false)),
        ("rise = 3", Some(true)),
        ("raise = 3", Some(false)),
        ("hold_down", Some(true)),
        ("hold_up", Some(false)),
        ("198.18.0.0/23", None),
        ("down", None),
        ("vipd show bgp", None),
        ("isolated: none of 2 BGP sessions is up", None),
    ] {
        assert_eq!(is_there(span, &known), expected, "{span}");
    }
}

#[test]
fn commands_that_are_named_are_there_with_their_options() {
    let mut asked = 0;
    for (page, text) in pages(PARITY).into_iter().chain(pages(STORIES)) {
        for span in text.split('`').skip(1).step_by(2) {
            let Some(command) = span.strip_prefix("vipd ") else {
                continue;
            };
            let (name, options) = command.split_once(' ').unwrap_or((command, ""));
            let help = Command::new(env!("CARGO_BIN_EXE_vipd"))
                .args([name, "--help"])
                .output()
                .expect("vipd can be run");
            assert!(help.status.success(), "{page}: there is no `{span}`");
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            for option in options.split(' ').filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{page}: `{span}`: {help}");
            }
            asked += 1;
        }
    }
    assert!(asked > 10, "{asked} commands are named");
}

#[test]
fn configurations_are_accepted() {
    let mut accepted = 0;
    for (page, text) in pages(PARITY) {
        for block in text.split("```toml\n").skip(1) {
            let (text, _) = block.split_once("```").expect("the block is closed");
            let answer = Config::parse(text, "vipd.toml");
            assert!(answer.is_ok(), "{page}: {answer:?}");
            accepted += 1;
        }
    }
    assert!(accepted > 0, "none of the pages has one");
}

/// By their names.
fn pages(folder: &str) -> Vec<(String, String)> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let entries = fs::read_dir(&place).expect(folder);
    let paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(paths.len() >= 4, "{paths:?}");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a page can be read");
        (path.display().to_string(), text)
    };
    paths.into_iter().map(read).collect()
}

/// Both cells of a table's row.
fn row(line: &str) -> Option<[&str; 2]> {
    let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
    let (option, answer) = cells.split_once(" | ")?;
    Some([option, answer])
}

/// A page without the first cells of its tables: these have the words of others.
fn ours(text: &str) -> String {
    let line = |line: &str| match row(line) {
        Some([_, here]) => format!("{here}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Whether the table or key that a span names is known; `None` when it names none. A
/// key need not have its table with it.
fn is_there(span: &str, known: &BTreeSet<String>) -> Option<bool> {
    if let Some((table, rest)) = span.rsplit_once(']') {
        let table = table.strip_prefix('[')?.trim_matches(['[', ']']);
        let key = rest.split_whitespace().next().unwrap_or_default();
        let path = format!("{table}.{key}");
        return Some(match key {
            "" => known.iter().any(|known| known.starts_with(&path)),
            _ => known.contains(&path),
        });
    }
    let (key, is_set) = match span.split_once(" = ") {
        Some((key, _)) => (key, true),
        None => (span, false),
    };
    let is_name = key
        .chars()
        .all(|c| c.is_ascii_lowercase() || "_46".contains(c));
    if !is_name || !(is_set || key.contains('_')) {
        return None;
    }
    let mut known = known.iter();
    Some(known.any(|known| known.rsplit('.').next() == Some(key)))
}

/// All keys with their tables, as `service.check.rise`.
fn keys(reference: &str) -> BTreeSet<String> {
    let mut table = String::new();
    let mut keys = BTreeSet::new();
    for line in reference.lines() {
        if line.starts_with('#') {
            let name = line.split('`').nth(1).unwrap_or_default();
            table = name.trim_matches(['[', ']']).to_owned();
        } else if let Some(key) = line.strip_prefix("| `").and_then(|it| it.split('`').next()) {
            let path = [table.as_str(), key]
                .into_iter()
                .filter(|part| !part.is_empty());
            keys.insert(path.collect::<Vec<_>>().join("."));
        }
    }
    keys
}

/// Whether a word is written like a key with its table.
fn is_key(word: &str) -> bool {
    let mut parts = word.split('.');
    let table = parts.next().unwrap_or_default();
    let key_like = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || "_46".contains(c))
    };
    TABLES.contains(&table) && parts.clone().count() > 0 && parts.all(key_like)
}
