//! docs/configuration.md is what the types say.

use std::{env, fs, path::Path};

use vipd::config::reference;

use crate::accept;

/// Set to write the page instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = reference();
    if env::var_os(UPDATE).is_some() {
        fs::write(&path, &page).expect("the reference can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/configuration.md is not what node-agent/src/config/written.rs says; write it by\n\
         {UPDATE}=1 cargo test -p vipd --test config reference"
    );
}

#[test]
fn the_examples_in_the_reference_make_one_file() {
    let page = reference();
    let mut file = String::new();
    for block in page.split("```toml\n").skip(1) {
        let (example, _) = block.split_once("```").expect("the block is closed");
        file += example;
    }
    let (config, warnings) = accept(&file);
    assert_eq!(config.model.services.len(), 1, "{file}");
    assert_eq!(warnings, []);
}
