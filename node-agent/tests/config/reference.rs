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
fn the_examples_in_the_reference_make_one_file_and_its_variants() {
    let page = reference();
    let mut examples: Vec<(&str, &str)> = Vec::new();
    let mut variants = Vec::new();
    for section in page.split("\n## ") {
        let blocks = section.split("```toml\n").skip(1);
        let mut blocks = blocks.map(|rest| rest.split_once("```").expect("it is closed").0);
        let title = section.lines().next().unwrap_or_default();
        let Some(first) = blocks.next() else { continue };
        examples.push((title, first));
        // What stands instead when a word in it is another.
        variants.extend(blocks.map(|variant| (title, variant)));
    }
    let file = |variant: Option<(&str, &str)>| -> String {
        let examples = examples.iter().map(|(title, example)| match variant {
            Some((of, variant)) if of == *title => variant,
            _ => example,
        });
        examples.collect()
    };
    assert!(
        variants.len() >= 7,
        "one for each kind of check: {variants:?}"
    );
    for variant in [None].into_iter().chain(variants.into_iter().map(Some)) {
        let file = file(variant);
        let (config, warnings) = accept(&file);
        assert_eq!(config.model.services.len(), 3, "{file}");
        assert_eq!(warnings, []);
    }
}
