//! Rules about what others made: licences, banned crates and registries, as
//! deny.toml lists them. It is cargo-deny's file; the lists that are read here
//! are the ones that need neither its database nor its minutes of building.

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::{
    Finding,
    dependencies::{Graph, Package},
};

/// The file with the rules.
pub const RULES: &str = "deny.toml";

/// Checks every crate of others against the text of deny.toml.
pub fn check(graph: &Graph, rules: &str) -> Result<Vec<Finding>> {
    let rules = Rules::parse(rules)?;
    Ok(graph
        .foreign()
        .flat_map(|package| rules.judge(package))
        .collect())
}

struct Rules {
    licences: Vec<String>,
    banned: Vec<String>,
    registries: Vec<String>,
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let table: Table = text
            .parse()
            .with_context(|| format!("{RULES} is not valid TOML"))?;
        let list = |section: &str, key: &str| -> Result<Vec<Value>> {
            let list = table
                .get(section)
                .and_then(|section| section.get(key)?.as_array());
            list.cloned()
                .with_context(|| format!("{RULES} has no list {section}.{key}"))
        };
        let words = |list: Vec<Value>| -> Vec<String> {
            list.iter()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect()
        };
        Ok(Self {
            licences: words(list("licenses", "allow")?),
            banned: list("bans", "deny")?
                .iter()
                .filter_map(|ban| Some(ban.get("crate")?.as_str()?.to_owned()))
                .collect(),
            registries: words(list("sources", "allow-registry")?),
        })
    }

    fn judge(&self, package: &Package) -> Vec<Finding> {
        let Package {
            name,
            version,
            licence,
            source,
            ..
        } = package;
        let finding = |what, why, mend| Finding {
            path: RULES.into(),
            line: 1,
            what,
            why,
            mend,
        };
        let mut findings = Vec::new();
        let licence = licence.as_deref().unwrap_or("no licence at all");
        if !self.allows(licence) {
            findings.push(finding(
                format!("{name} {version} is under {licence}, which licenses.allow does not have"),
                "whoever builds vipd may pass it on under Apache-2.0 or MIT, with all it contains",
                "do without the crate; add the licence only when it asks no more than those two",
            ));
        }
        if self.banned.contains(name) {
            findings.push(finding(
                format!("{name} {version} is banned by bans.deny"),
                "its reason stands beside it in deny.toml",
                "find who asks for it with `cargo tree --invert --package NAME`",
            ));
        }
        let source = source
            .as_deref()
            .unwrap_or("a directory outside of the repository");
        let is_known = |registry: &String| source.strip_prefix("registry+") == Some(registry);
        if !self.registries.iter().any(is_known) {
            findings.push(finding(
                format!("{name} {version} comes from {source}"),
                "a build must be possible years from now, from what was published",
                "depend on a published release",
            ));
        }
        findings
    }

    /// Whether an SPDX expression can be met with the allowed licences alone.
    /// A slash is the old way to write OR. AND binds closer than OR.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let words: Vec<_> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        self.any(&mut rest) && rest.is_empty()
    }

    fn any(&self, rest: &mut &[&str]) -> bool {
        let mut met = self.all(rest);
        while let ["OR", others @ ..] = *rest {
            *rest = others;
            met |= self.all(rest);
        }
        met
    }

    fn all(&self, rest: &mut &[&str]) -> bool {
        let mut met = self.one(rest);
        while let ["AND", others @ ..] = *rest {
            *rest = others;
            met &= self.one(rest);
        }
        met
    }

    fn one(&self, rest: &mut &[&str]) -> bool {
        match *rest {
            ["(", others @ ..] => {
                *rest = others;
                let met = self.any(rest);
                match *rest {
                    [")", others @ ..] => *rest = others,
                    _ => return false,
                }
                met
            }
            [licence, "WITH", exception, others @ ..] => {
                *rest = others;
                self.licences
                    .contains(&format!("{licence} WITH {exception}"))
            }
            [licence, others @ ..] => {
                *rest = others;
                self.licences.iter().any(|allowed| allowed == licence)
            }
            [] => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::parse(
            "[licenses]\nallow = ['MIT', 'Apache-2.0', 'Zlib']\n\
             [bans]\ndeny = [{ crate = 'openssl', reason = 'not ours' }]\n\
             [sources]\nallow-registry = ['https://registry.example/index']\n",
        )
        .unwrap()
    }

    #[test]
    fn an_expression_is_met_by_allowed_licences_alone() {
        #[track_caller]
        fn check(expression: &str, expected: bool) {
            assert_eq!(rules().allows(expression), expected, "for {expression:?}");
        }
        check("MIT", true);
        check("GPL-3.0-only", false);
        check("MIT OR GPL-3.0-only", true);
        check("MIT AND GPL-3.0-only", false);
        check("MIT/Apache-2.0", true);
        check("GPL-3.0-only OR MIT AND Zlib", true);
        check("(GPL-3.0-only OR MIT) AND Zlib", true);
        check("(MIT OR Apache-2.0) AND GPL-3.0-only", false);
        check("Apache-2.0 WITH LLVM-exception", false);
        check("Apache-2.0 WITH LLVM-exception OR MIT", true);
        check("(MIT", false);
        check("MIT MIT", false);
        check("", false);
    }

    #[test]
    fn a_crate_of_others_is_judged_by_licence_name_and_origin() {
        #[track_caller]
        fn check(name: &str, licence: Option<&str>, source: Option<&str>, expected: &[&str]) {
            let metadata = serde_json::json!({
                "workspace_root": "/repo",
                "packages": [{
                    "id": name, "name": name, "version": "1.0.0", "license": licence,
                    "source": source, "manifest_path": "/elsewhere/Cargo.toml",
                }],
            });
            let graph = Graph::parse(&metadata.to_string()).unwrap();
            let found: Vec<_> = graph
                .foreign()
                .flat_map(|package| rules().judge(package))
                .map(|finding| finding.what)
                .collect();
            assert_eq!(found, expected, "for {name}, {licence:?}, {source:?}");
        }
        let registry = Some("registry+https://registry.example/index");
        check("a", Some("MIT"), registry, &[]);
        check(
            "a",
            None,
            registry,
            &["a 1.0.0 is under no licence at all, which licenses.allow does not have"],
        );
        check(
            "openssl",
            Some("MIT"),
            registry,
            &["openssl 1.0.0 is banned by bans.deny"],
        );
        check(
            "a",
            Some("MIT"),
            Some("git+https://git.example/a"),
            &["a 1.0.0 comes from git+https://git.example/a"],
        );
        check(
            "a",
            Some("MIT"),
            None,
            &["a 1.0.0 comes from a directory outside of the repository"],
        );
    }

    #[test]
    fn rules_without_a_list_are_refused() {
        assert!(Rules::parse("[licenses]\nallow = ['MIT']\n").is_err());
    }
}
