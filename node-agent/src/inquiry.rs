//! What may be asked of the living data plane while the agent runs.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    capture::Captures,
    config::Config,
    dataplane::{apply::Applied, explainer::Explainer, pins::Pins},
    explain::{Explanation, Names, Question, interface_name},
    netlink::Netlink,
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
    /// What packets of a flow get, and why.
    ///
    /// # Errors
    ///
    /// When the question makes no sense or the kernel refuses, in words.
    pub async fn explain(&self, question: Question) -> anyhow::Result<Explanation> {
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
        Ok(Explanation::new(&answer, &name, &names, interface_name))
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
