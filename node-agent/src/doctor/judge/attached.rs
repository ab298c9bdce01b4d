//! What the XDP programs on the interfaces mean for the data plane.

use super::{Facts, Finding, Name, Severity, finding};
use crate::doctor::attached::{Attached, Program};

/// All that is worth saying of them.
pub fn judge(facts: &Facts) -> impl Iterator<Item = Finding> {
    let runs = facts.agent.is_some();
    facts.attached.iter().filter_map(move |it| one(it, runs))
}

/// Without an agent there may be no program: the agent is told of then.
fn one(attached: &Attached, agent: bool) -> Option<Finding> {
    let interface = &attached.interface;
    let wanted = attached.wanted.name();
    let (severity, message, fix) = match &attached.runs {
        None if agent => (
            Severity::Error,
            "the agent runs, and no XDP program does here: packets that come by it are not \
             forwarded, and if the agent had attached one, addresses are withdrawn"
                .to_owned(),
            Some("vipd reload".to_owned()),
        ),
        None => return None,
        Some(Program::Ours(mode)) if *mode == attached.wanted => return None,
        Some(Program::Ours(mode)) => (
            Severity::Warning,
            format!(
                "vipd's XDP program runs in {} mode here, and {wanted} is configured, which \
                 another start brings",
                mode.name()
            ),
            Some("systemctl restart vipd".to_owned()),
        ),
        Some(Program::Astray) => (
            Severity::Warning,
            "a vipd program runs here, and its pins are not below `pin_path` as this vipd has \
             them: it is of another version or another configuration, and stays until `vipd \
             unload` of that one"
                .to_owned(),
            None,
        ),
        Some(Program::Decap) => (
            Severity::Error,
            "the decapsulator runs here, where vipd's XDP program is to: an interface has one"
                .to_owned(),
            Some(then_attached(
                format!("vipd decap detach --iface {interface}"),
                agent,
            )),
        ),
        Some(Program::Other { program, hook }) => (
            Severity::Error,
            format!(
                "another XDP program ({program}) runs here, where vipd's is to: an interface has \
                 one (if the command is refused, stop the program that has put it there)"
            ),
            Some(then_attached(
                format!("ip link set dev {interface} {hook} off"),
                agent,
            )),
        ),
    };
    Some(finding(Name::Xdp, severity, interface, message, fix))
}

/// An agent does not attach again by itself.
fn then_attached(command: String, agent: bool) -> String {
    if agent {
        command + " && vipd reload"
    } else {
        command
    }
}
