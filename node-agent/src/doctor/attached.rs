//! What XDP program runs on the interfaces of the configuration, and whose it is.

use std::collections::BTreeMap;

use aya::programs::loaded_programs;

use crate::{
    config::{Config, Dataplane},
    dataplane::{kernel::Mode, pins::Pins},
    netlink::link::{Link, Xdp},
    plane,
};

/// The kernel's names of our programs; also the one that captures has the first.
const BALANCER: &str = "balancer";
const DECAP: &str = "decap";

/// An interface of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub interface: String,
    /// How vipd's program is to run there.
    pub wanted: Mode,
    /// What runs there.
    pub runs: Option<Program>,
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// That of the data plane.
    Ours(Mode),
    /// That of a data plane whose pins are not where the configuration has them.
    Astray,
    /// The decapsulator, which is for backends.
    Decap,
    /// Another.
    Other {
        /// What the kernel knows of it.
        program: String,
        /// Where it runs, as `ip link` has it.
        hook: &'static str,
    },
}

/// The interfaces that are there.
pub(super) fn look(config: &Config, links: &BTreeMap<u32, Link>) -> Vec<Attached> {
    let Some(dataplane) = &config.dataplane else {
        return Vec::new();
    };
    let named = |link: &&Link| {
        let mut names = dataplane.interfaces.iter();
        names.any(|name| name.as_str() == link.name)
    };
    let links: Vec<_> = links.values().filter(named).collect();
    let names = if links.iter().any(|link| link.xdp != Xdp::None) {
        names()
    } else {
        BTreeMap::new()
    };
    let attached = links.into_iter().map(|link| Attached {
        interface: link.name.clone(),
        wanted: plane::mode(dataplane.xdp_mode),
        runs: Program::read(link.xdp, &names, is_pinned(dataplane, link)),
    });
    attached.collect()
}

/// Whether our data plane has a link to this interface, though maybe no longer one
/// that is in force. Who may not look there does not know of another.
fn is_pinned(dataplane: &Dataplane, link: &Link) -> bool {
    let pins = Pins::new(&dataplane.pin_path);
    pins.link(link.ifindex).try_exists().unwrap_or(true)
}

/// Programs by the kernel's ids, as far as it tells.
fn names() -> BTreeMap<u32, String> {
    let programs = loaded_programs().filter_map(Result::ok);
    let names = programs.filter_map(|info| Some((info.id(), info.name_as_str()?.to_owned())));
    names.collect()
}

impl Program {
    fn read(xdp: Xdp, names: &BTreeMap<u32, String>, pinned: bool) -> Option<Self> {
        let (id, hook, mode) = match xdp {
            Xdp::None => return None,
            Xdp::Native(id) => (id, "xdpdrv", Some(Mode::Native)),
            Xdp::Generic(id) => (id, "xdpgeneric", Some(Mode::Generic)),
            Xdp::Offloaded(id) => (id, "xdpoffload", None),
        };
        let name = names.get(&id).map(String::as_str);
        Some(match (name, mode) {
            (None | Some(BALANCER), Some(mode)) if pinned => Self::Ours(mode),
            (Some(BALANCER), Some(_)) => Self::Astray,
            (Some(DECAP), _) => Self::Decap,
            (Some(name), _) => Self::Other {
                program: format!("`{name}`, number {id}"),
                hook,
            },
            (None, _) => Self::Other {
                program: format!("number {id}"),
                hook,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_ours_by_its_name_and_the_pin_of_its_link() {
        let names = [(5, "balancer"), (6, "decap"), (7, "pass")];
        let names = names.map(|(id, name)| (id, name.to_owned())).into();
        let other = |program: &str, hook| Program::Other {
            program: program.to_owned(),
            hook,
        };
        for (sentence, xdp, pinned, expected) in [
            ("none", Xdp::None, true, None),
            (
                "ours in the driver",
                Xdp::Native(5),
                true,
                Some(Program::Ours(Mode::Native)),
            ),
            (
                "ours behind it",
                Xdp::Generic(5),
                true,
                Some(Program::Ours(Mode::Generic)),
            ),
            (
                "that of another vipd",
                Xdp::Native(5),
                false,
                Some(Program::Astray),
            ),
            (
                "another in the place of ours",
                Xdp::Generic(7),
                true,
                Some(other("`pass`, number 7", "xdpgeneric")),
            ),
            (
                "one on the card",
                Xdp::Offloaded(7),
                false,
                Some(other("`pass`, number 7", "xdpoffload")),
            ),
            (
                "the decapsulator",
                Xdp::Native(6),
                false,
                Some(Program::Decap),
            ),
            (
                "one whose name is not told, and nothing is pinned",
                Xdp::Native(9),
                false,
                Some(other("number 9", "xdpdrv")),
            ),
            (
                "the same where something is",
                Xdp::Native(9),
                true,
                Some(Program::Ours(Mode::Native)),
            ),
        ] {
            assert_eq!(Program::read(xdp, &names, pinned), expected, "{sentence}");
        }
    }
}
