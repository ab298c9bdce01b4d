//! The examples of the repository, as they run in a lab.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use vipd_tests::Host;

/// What every configuration of a lab's host names differently: sockets, pins and
/// state are the host's own.
pub struct Node {
    tables: String,
    pins: String,
}

impl Node {
    /// The same, for a configuration with a data plane.
    pub fn forwarding(host: &Host) -> Self {
        let pins = host.pins().join("vipd");
        Self {
            pins: format!("pin_path = \"{}\"\n", pins.display()),
            ..Self::on(host)
        }
    }

    /// On this host, for a configuration that forwards nothing.
    pub fn on(host: &Host) -> Self {
        let dir = host.dir();
        let dir = dir.display();
        Self {
            tables: format!(
                "[control]\nsocket = \"{dir}/vipd.sock\"\n\n[bfd]\nsocket = \"{dir}/bfd.sock\"\n\n\
                 [state]\ndirectory = \"{dir}/state\"\n\n"
            ),
            pins: String::new(),
        }
    }
}

/// The text of examples/NAME.toml, for a node.
pub fn example(name: &str, node: &Node) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{name}.toml"));
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // Else it would use the machine's own.
    ensure!(text.contains("[node]\n"), "{name} has no [node]");
    let text = text.replacen("[node]\n", &format!("{}[node]\n", node.tables), 1);
    Ok(text.replace("[dataplane]\n", &format!("[dataplane]\n{}", node.pins)))
}
