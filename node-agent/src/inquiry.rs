//! What may be asked of the living data plane while the agent runs.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    capture::Captures,
    config::Config,
    dataplane::{apply::Applied, explainer::Explainer, pins::Pins},
    explain::{Explanation, Names, Question, interface_name},
    netlink::{Netlink, link::Link},
    plane,
};

/// Whoever answers.
#[derive(Clone)]
pub struct Inquiry {
    /// Where the data plane is pinned.
    pub pins: Pins,
    /// To ask the kernel for interfaces by.
    pub netlink: Netlink,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// What has been applied.
    pub applied: watch::Receiver<Arc<Applied>>,
    /// The capture that runs, if one does.
    pub captures: Captures,
}

impl Inquiry {
    /// What packets of a flow get, and why. `fault` says why the data plane does
    /// not forward at all, if so.
    ///
    /// # Errors
    ///
    /// When the question makes no sense or the kernel refuses, in words.
    pub async fn explain(
        &self,
        question: Question,
        fault: Option<String>,
    ) -> anyhow::Result<Explanation> {
        let name = self.interface(&question)?;
        let link = plane::interface(&self.netlink, &name).await?;
        let mac = link
            .mac
            .with_context(|| format!("{name} is no Ethernet interface"))?;
        let frame = question.frame(mac)?;
        let pins = self.pins.clone();
        let names = Names::of(&self.applied.borrow());
        let answer = spawn_blocking(move || {
            let mut explainer = Explainer::load(&pins)?;
            explainer.ask(&frame, link.ifindex)
        });
        let answer = answer.await.context("the question could not be put")??;
        Ok(Explanation {
            but: hindrance(fault.as_deref(), &link),
            ..Explanation::new(&answer, &name, &names, interface_name)
        })
    }

    /// The interface the packet comes by.
    fn interface(&self, question: &Question) -> anyhow::Result<String> {
        let config = Arc::clone(&self.config.borrow());
        let interfaces = config.dataplane.iter().flat_map(|d| &d.interfaces);
        let mut names = interfaces.map(ToString::to_string);
        let Some(wanted) = &question.interface else {
            return names.next().context("the configuration names no interface");
        };
        if !names.any(|name| name == *wanted) {
            bail!("the data plane is not on {wanted}: see dataplane.interfaces");
        }
        Ok(wanted.clone())
    }
}

/// What keeps packets from coming to the program by this interface.
fn hindrance(fault: Option<&str>, link: &Link) -> Option<String> {
    let fault = fault.map(|fault| format!("the data plane does not forward: {fault}"));
    let Link { name, .. } = link;
    let of_link = match (link.up, link.carrier) {
        (false, _) => Some(format!("{name} is down")),
        (true, false) => Some(format!("{name} has no carrier")),
        (true, true) => None,
    };
    let all: Vec<_> = fault.into_iter().chain(of_link).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::link::Xdp;

    #[test]
    fn what_keeps_packets_from_the_program_is_told() {
        let check = |sentence, fault, (up, carrier), expected: Option<&str>| {
            let link = Link {
                ifindex: 2,
                name: "eth0".to_owned(),
                mac: Some([2, 0, 0, 0, 0, 1]),
                mtu: 1500,
                up,
                arp: true,
                carrier,
                xdp: Xdp::Native(7),
                ours: false,
            };
            assert_eq!(hindrance(fault, &link).as_deref(), expected, "{sentence}");
        };
        check("all is well", None, (true, true), None);
        check(
            "the program is not there",
            Some("the XDP program has been detached from eth0"),
            (true, true),
            Some("the data plane does not forward: the XDP program has been detached from eth0"),
        );
        check("down", None, (false, false), Some("eth0 is down"));
        check(
            "no signal",
            None,
            (true, false),
            Some("eth0 has no carrier"),
        );
        check(
            "both",
            Some("no interface has a carrier"),
            (false, true),
            Some("the data plane does not forward: no interface has a carrier; eth0 is down"),
        );
    }
}
