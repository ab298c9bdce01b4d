//! The reference of the file, in Markdown, made from the declarations of its
//! tables.

use super::{
    table::{KeyDoc, Need, TableDoc, Value, choice::listed},
    written::File,
};

const INTRODUCTION: &str = "\
# Configuration

<!-- Do not edit: this is made from node-agent/src/config/written.rs by
     UPDATE_DOCS=1 cargo test -p vipd --test config reference -->

The agent reads one file, `/etc/vipd/vipd.toml` unless told otherwise, in
[TOML](https://toml.io). `vipd check FILE` says everything that is wrong with a
file, with line, column and a hint, and exits with 1; what is only doubtful is
printed as a warning. An unknown key is an error. Whole files to start from are
in [examples/](../examples).

- Durations are strings of a whole number and a unit: `\"100ms\"`, `\"2s\"`,
  `\"1m\"`, `\"1h\"`.
- Addresses are strings. A virtual address is never accepted where the address
  of a host is wanted.
- Names have up to 64 letters, digits and `-_.:`.
- Relative paths start from the directory of the file.
- Secrets stand in files of their own, alone on one line, which nobody but
  owner and group may open.
";

/// The whole reference.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    for table in File::tables() {
        page.push('\n');
        page.push_str(&section(&table));
    }
    page
}

fn section(table: &TableDoc) -> String {
    let title = match (table.header, table.words.as_slice()) {
        ("", _) => String::from("## Tables"),
        (header, []) => format!("## `{header}`"),
        (header, words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            format!("### `{header}` of {}", listed(&words, "and"))
        }
    };
    let about: String = table
        .about
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n")
        .collect();
    let rows: String = table.keys.iter().map(row).collect();
    format!(
        "{title}\n\n{about}\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n{rows}"
    )
}

fn row(key: &KeyDoc) -> String {
    let without = match key.need {
        Need::Required => String::from("required"),
        Need::Default("{}") if key.kind == "table" => String::from("its own defaults"),
        Need::Default("[]" | "{}") => String::from("none"),
        Need::Default(value) => format!("`{value}`"),
        Need::Optional(words) => words.to_owned(),
    };
    let about: Vec<&str> = key.about.lines().map(str::trim).collect();
    let about = about.join(" ");
    format!(
        "| `{}` | {} | {without} | {} |\n",
        key.name,
        key.kind,
        about.trim()
    )
}
