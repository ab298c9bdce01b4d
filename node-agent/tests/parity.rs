//! The pages in docs/parity: each option of another program has an answer, and what
//! an answer names is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use vipd::config::{Config, reference};

/// What a word begins with that names a key.
const TABLES: [&str; 6] = ["bgp", "dataplane", "hook", "log", "service", "stop"];

#[test]
fn each_option_is_here_or_not_here_for_a_reason_or_to_come() {
    for (page, text) in pages() {
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
    for (page, text) in pages() {
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
fn commands_that_are_named_are_there_with_their_options() {
    let mut asked = 0;
    for (page, text) in pages() {
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
    for (page, text) in pages() {
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
fn pages() -> Vec<(String, String)> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/parity");
    let entries = fs::read_dir(&place).expect("docs/parity is there");
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
