//! Examples in the pages of docs: each is accepted in a file that it fits.

use std::{fs, path::Path};

use crate::accept;

/// What the examples leave to the reader; any table may follow.
const NODE: &str = r#"
[dataplane]
interfaces = ["eth0"]
tunnel_source_ipv4 = "192.0.2.11"

[bgp]
local_as = 64500
router_id = "192.0.2.11"

[[bgp.peer]]
name = "provider"
address = "192.0.2.7"
as = 64507

[[bgp.aggregate]]
prefix = "198.51.100.0/24"

[[service]]
name = "two"
vips = ["198.51.100.53"]
protocol = "tcp"
port = 443
mode = "ipip"

[[service.backend]]
name = "n1"
address = "192.0.2.31"
"#;

/// The same of a service; its tables may follow.
const SERVICE: &str = r#"
[[service]]
name = "one"
vips = ["198.51.100.10"]
protocol = "tcp"
port = 80
mode = "ipip"
"#;

const BACKEND: &str = r#"
[[service.backend]]
name = "more"
address = "192.0.2.99"
"#;

#[test]
fn examples_are_accepted_where_they_belong_and_nothing_is_warned_of() {
    let examples = examples();
    for (place, example) in &examples {
        let file = file(example);
        println!("{place}:\n{file}");
        let (_, warnings) = accept(&file);
        assert_eq!(warnings, [], "{place}");
    }
    let pages = ["bfd.md", "bgp.md", "checks.md", "decision.md", "hooks.md"];
    for page in pages {
        let is_there = examples.iter().any(|(place, _)| place.starts_with(page));
        assert!(is_there, "{page} has no example that is found");
    }
}

/// A whole file with an example in it.
fn file(example: &str) -> String {
    let (table, _) = example.split_once('\n').unwrap_or_default();
    match table {
        "[service.check]" => [NODE, SERVICE, example, BACKEND].concat(),
        "[[service]]" => {
            let (_, service) = SERVICE.split_once("name = \"one\"\n").unwrap_or_default();
            let whole = example.replacen("# ...\n", service, 1);
            assert_ne!(
                whole, example,
                "an example says where it leaves something out"
            );
            let backends = ["97", "98", "99"].map(|number| {
                format!(
                    "\n[[service.backend]]\nname = \"more{number}\"\naddress = \"192.0.2.{number}\"\n"
                )
            });
            [NODE, &whole, &backends.concat()].concat()
        }
        _ => [NODE, example, SERVICE, BACKEND].concat(),
    }
}

/// Each with its page and line. docs/configuration.md has a test of its own.
fn examples() -> Vec<(String, String)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let entries = fs::read_dir(docs).expect("docs is there");
    let mut examples = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        let page = path.file_name().unwrap_or_default().to_string_lossy();
        if !page.ends_with(".md") || page == "configuration.md" {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a page can be read");
        let mut before = 1;
        for (i, part) in text.split("```toml\n").enumerate() {
            if i > 0 {
                let (example, _) = part.split_once("```").expect("the example is closed");
                examples.push((format!("{page}:{before}"), example.to_owned()));
            }
            before += part.lines().count() + 1;
        }
    }
    examples
}
