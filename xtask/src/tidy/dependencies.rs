//! Rules about who may depend on whom: arrows between our crates point one
//! way, and pure crates reach nothing that touches the world.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Finding;

/// What no pure crate may reach, however indirectly: names (a `*` at the end
/// stands for anything), and what they bring in.
const IMPURE: &[(&[&str], &str)] = &[
    (
        &["tokio", "tokio-*", "async-std", "smol", "futures-executor"],
        "an async runtime",
    ),
    (
        &[
            "mio", "polling", "socket2", "hyper", "reqwest", "axum", "ureq",
        ],
        "sockets",
    ),
    (&["aya", "aya-*", "libbpf-*"], "the kernel's eBPF"),
    (
        &["netlink-*", "rtnetlink", "neli"],
        "the kernel's routes and links",
    ),
    (&["libc", "nix", "rustix", "signal-hook*"], "system calls"),
    (&["getrandom", "rand"], "randomness that no test can repeat"),
    (
        &["chrono", "time", "jiff", "quanta", "coarsetime"],
        "a clock",
    ),
];

/// Which of our crates may depend on which others of ours, also in their tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("vipd-abi", &[]),
    ("vipd-bgp", &[]),
    ("vipd-bfd", &[]),
    ("vipd-control", &["vipd-abi"]),
    ("vipd-ebpf", &["vipd-abi"]),
    (
        "vipd",
        &["vipd-abi", "vipd-bgp", "vipd-bfd", "vipd-control"],
    ),
    (
        "vipd-tests",
        &["vipd-abi", "vipd-bgp", "vipd-bfd", "vipd-control", "vipd"],
    ),
    ("xtask", &[]),
];

/// Ours, compiled into the kernel and into the agent alike: on its own.
const ALONE: &str = "vipd-abi";

/// Where pure crates live.
const PURE: &str = "crates/";

/// The packages of the workspace and of everything it depends on.
pub struct Graph {
    packages: BTreeMap<String, Package>,
}

/// One package of the graph.
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression.
    pub licence: Option<String>,
    /// Where cargo gets it; nothing for what is in this repository.
    pub source: Option<String>,
    /// Its manifest, from the root of the repository, for our own packages.
    manifest: Option<String>,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    id: String,
    /// Whether it is compiled in, rather than used by tests or build scripts only.
    is_normal: bool,
}

impl Graph {
    /// Reads what `cargo metadata --format-version 1` prints.
    pub fn parse(text: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(text).context("it is no JSON")?;
        let root = metadata["workspace_root"]
            .as_str()
            .context("workspace_root is missing")?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);

        let mut dependencies: BTreeMap<_, _> = list(&metadata["resolve"]["nodes"])
            .iter()
            .filter_map(|node| {
                let dependencies = list(&node["deps"])
                    .iter()
                    .filter_map(Dependency::parse)
                    .collect();
                Some((text(&node["id"])?, dependencies))
            })
            .collect();
        let packages = list(&metadata["packages"])
            .iter()
            .map(|package| {
                let field = |name: &str| {
                    text(&package[name]).with_context(|| format!("a package has no {name}"))
                };
                let id = field("id")?;
                let source = text(&package["source"]);
                let manifest = field("manifest_path")?;
                let manifest = manifest
                    .strip_prefix(root)
                    .map(|path| path.trim_start_matches('/'));
                let package = Package {
                    name: field("name")?,
                    version: field("version")?,
                    licence: text(&package["license"]),
                    manifest: manifest.filter(|_| source.is_none()).map(str::to_owned),
                    source,
                    dependencies: dependencies.remove(&id).unwrap_or_default(),
                };
                Ok((id, package))
            })
            .collect::<Result<_>>()?;
        Ok(Self { packages })
    }

    /// Every package that somebody else made.
    pub fn foreign(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .values()
            .filter(|package| package.manifest.is_none())
    }

    fn ours(&self) -> impl Iterator<Item = (&str, &Package, &str)> {
        self.packages
            .iter()
            .filter_map(|(id, package)| Some((id.as_str(), package, package.manifest.as_deref()?)))
    }

    /// The shortest chain of normal dependencies from a package to each that
    /// it reaches, the package itself left out.
    fn reach(&self, from: &str) -> Vec<Vec<&Package>> {
        let mut seen = BTreeSet::from([from]);
        let mut chains: Vec<(&str, Vec<&Package>)> = vec![(from, Vec::new())];
        let mut next = 0;
        while let Some((id, chain)) = chains.get(next).cloned() {
            next += 1;
            let dependencies = self.packages.get(id).map_or(&[][..], |it| &it.dependencies);
            for dependency in dependencies.iter().filter(|it| it.is_normal) {
                if let Some(package) = self.packages.get(&dependency.id)
                    && seen.insert(&dependency.id)
                {
                    let chain = chain.iter().copied().chain([package]).collect();
                    chains.push((&dependency.id, chain));
                }
            }
        }
        chains.into_iter().skip(1).map(|(_, chain)| chain).collect()
    }
}

impl Dependency {
    fn parse(value: &Value) -> Option<Self> {
        let kinds = value["dep_kinds"].as_array()?;
        Some(Self {
            id: value["pkg"].as_str()?.to_owned(),
            is_normal: kinds.iter().any(|kind| kind["kind"].is_null()),
        })
    }
}

/// Checks all rules. `manifest` gives the text of a manifest by its path.
pub fn check<'a>(graph: &Graph, manifest: &dyn Fn(&str) -> &'a str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, package, path) in graph.ours() {
        let finding = |first: &str, what, why, mend| Finding {
            path: path.into(),
            line: line_of(first, manifest(path)),
            what,
            why,
            mend,
        };
        findings.extend(arrows(graph, package, &finding));
        if path.starts_with(PURE) {
            findings.extend(purity(graph, id, package, &finding));
        }
    }
    findings
}

type MakeFinding<'a> = dyn Fn(&str, String, &'static str, &'static str) -> Finding + 'a;

fn arrows(graph: &Graph, package: &Package, finding: &MakeFinding<'_>) -> Vec<Finding> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
        return vec![finding(
            "name",
            format!(
                "{} has no place among the arrows between our crates",
                package.name
            ),
            "a crate of ours depends on others of ours by design, not by accident",
            "add it to ARROWS in xtask/src/tidy/dependencies.rs, and to ARCHITECTURE.md",
        )];
    };
    package
        .dependencies
        .iter()
        .filter_map(|dependency| graph.packages.get(&dependency.id))
        .filter(|to| to.manifest.is_some() && !allowed.contains(&to.name.as_str()))
        .map(|to| {
            finding(
                &to.name,
                format!("{} depends on {}", package.name, to.name),
                "arrows between our crates point one way, so that each can be understood alone",
                "move what is shared to where both may look, or hand it over as an argument",
            )
        })
        .collect()
}

fn purity(graph: &Graph, id: &str, package: &Package, finding: &MakeFinding<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for chain in graph.reach(id) {
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else {
            continue;
        };
        let names: Vec<_> = chain.iter().map(|package| package.name.as_str()).collect();
        let route = format!("{} -> {}", package.name, names.join(" -> "));
        if let Some(brings) = impurity(&last.name) {
            findings.push(finding(
                &first.name,
                format!("a pure crate reaches {brings}: {route}"),
                "without sockets, clock and runtime every state can be made and tested at will",
                "let the agent do it and hand over the result, or switch off the feature that asks",
            ));
        } else if package.name == ALONE && chain.len() == 1 {
            findings.push(finding(
                &first.name,
                format!("{ALONE} depends on something: {route}"),
                "it is compiled into the kernel's side and the agent's alike, and decides layouts",
                "write the few lines that are needed, or put them on the side that needs them",
            ));
        }
    }
    findings
}

fn impurity(name: &str) -> Option<&'static str> {
    let is_meant = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == *pattern,
    };
    IMPURE
        .iter()
        .find(|(names, _)| names.iter().any(is_meant))
        .map(|(_, brings)| *brings)
}

/// The line of a manifest that begins with a key, counted from 1; 1 if none does.
fn line_of(key: &str, manifest: &str) -> usize {
    let begins = |line: &str| {
        line.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with([' ', '=', '.']))
    };
    manifest
        .lines()
        .position(begins)
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Checks a workspace of these dependencies, `(from, to, kind)`, in which
    /// the crates that ARROWS knows, and `vipd-new`, are ours.
    #[track_caller]
    fn check(edges: &[(&str, &str, Option<&str>)], expected: &[&str]) {
        let names: BTreeSet<_> = edges
            .iter()
            .flat_map(|(from, to, _)| [*from, *to])
            .collect();
        let package = |name: &str| {
            let is_ours = name.starts_with("vipd");
            json!({
                "id": name, "name": name, "version": "1.0.0", "license": "MIT",
                "source": if is_ours { Value::Null } else { json!("registry") },
                "manifest_path": match name {
                    "vipd" => "/repo/node-agent/Cargo.toml".to_owned(),
                    _ if is_ours => format!("/repo/crates/{name}/Cargo.toml"),
                    _ => format!("/elsewhere/{name}/Cargo.toml"),
                },
            })
        };
        let node = |name: &str| {
            let deps: Vec<_> = edges
                .iter()
                .filter(|(from, _, _)| *from == name)
                .map(|(_, to, kind)| json!({ "pkg": to, "dep_kinds": [{ "kind": kind }] }))
                .collect();
            json!({ "id": name, "deps": deps })
        };
        let metadata = json!({
            "workspace_root": "/repo",
            "packages": names.iter().map(|name| package(name)).collect::<Vec<_>>(),
            "resolve": { "nodes": names.iter().map(|name| node(name)).collect::<Vec<_>>() },
        });
        let graph = Graph::parse(&metadata.to_string()).unwrap();
        let found: Vec<_> = super::check(&graph, &|_| "")
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        assert_eq!(found, expected, "in {edges:?}");
    }

    #[test]
    fn a_pure_crate_may_use_what_is_pure() {
        check(
            &[
                ("vipd-bgp", "thiserror", None),
                ("vipd-control", "vipd-abi", None),
            ],
            &[],
        );
    }

    #[test]
    fn a_pure_crate_reaches_no_runtime() {
        check(
            &[("vipd-bgp", "tokio", None)],
            &["a pure crate reaches an async runtime: vipd-bgp -> tokio"],
        );
    }

    #[test]
    fn a_pure_crate_reaches_no_socket_through_others_either() {
        check(
            &[
                ("vipd-bgp", "a", None),
                ("a", "b", None),
                ("b", "socket2", None),
                ("b", "a", None),
            ],
            &["a pure crate reaches sockets: vipd-bgp -> a -> b -> socket2"],
        );
    }

    #[test]
    fn a_test_of_a_pure_crate_may_use_anything() {
        check(
            &[
                ("vipd-bgp", "proptest", Some("dev")),
                ("proptest", "rand", None),
            ],
            &[],
        );
    }

    #[test]
    fn the_agent_may_use_anything() {
        check(&[("vipd", "tokio", None), ("vipd", "vipd-bgp", None)], &[]);
    }

    #[test]
    fn bgp_and_control_never_see_each_other_not_even_in_tests() {
        check(
            &[("vipd-bgp", "vipd-control", Some("dev"))],
            &["vipd-bgp depends on vipd-control"],
        );
        check(
            &[("vipd-control", "vipd-bgp", None)],
            &["vipd-control depends on vipd-bgp"],
        );
    }

    #[test]
    fn the_abi_stands_alone() {
        check(
            &[("vipd-abi", "a", None), ("a", "b", None)],
            &["vipd-abi depends on something: vipd-abi -> a"],
        );
    }

    #[test]
    fn a_new_crate_wants_a_place() {
        check(
            &[("vipd-new", "a", None)],
            &["vipd-new has no place among the arrows between our crates"],
        );
    }

    #[test]
    fn a_finding_points_at_the_line_of_the_dependency() {
        #[track_caller]
        fn check(key: &str, expected: usize) {
            let manifest =
                "[package]\n[dependencies]\ntokio-util = \"1\"\ntokio.workspace = true\n";
            assert_eq!(line_of(key, manifest), expected, "of {key}");
        }
        check("tokio", 4);
        check("tokio-util", 3);
        check("mio", 1);
    }
}
