//! A reload: the configuration anew, carried to each room. What can fail comes
//! first, so that a refusal changes nothing.

use std::sync::Arc;

use tracing::{error, info};

use super::{
    Agent,
    findings::{self, Findings},
    settings::{backends, local_orders, plan, secret, settings},
};
use crate::{
    api::ReloadAnswer,
    config::{Config, InterfaceName},
    memory, plane,
};

/// Why another cluster secret is refused.
const REKEYED: &str = "node.cluster_secret_file gives another secret than the one in force, with \
    which nearly every established connection would change its backend and break; it can change \
    only with a restart of the agent, which breaks them too: see \"The cluster secret\" in \
    docs/operations.md";

impl Agent {
    /// Loads the configuration anew. A bad one changes nothing.
    pub(super) async fn reload(&mut self) -> ReloadAnswer {
        let answer = match self.try_reload().await {
            Ok(messages) => ReloadAnswer {
                applied: true,
                messages,
            },
            Err(messages) => ReloadAnswer {
                applied: false,
                messages,
            },
        };
        memory::give_back();
        for message in &answer.messages {
            if answer.applied {
                info!("reload: {message}");
            } else {
                error!("reload refused, the old configuration stays in force: {message}");
            }
        }
        answer
    }

    async fn try_reload(&mut self) -> Result<Vec<String>, Vec<String>> {
        let (new, warnings) = Config::load(&self.path).map_err(|error| {
            let findings = error.findings.iter();
            findings.map(ToString::to_string).collect::<Vec<_>>()
        })?;
        let old = Arc::clone(&self.config.borrow());
        if let Some(needs) = needs_restart(&old, &new) {
            return Err(vec![format!(
                "{needs} can change only with a restart of the agent"
            )]);
        }
        let secret = secret(&new).map_err(|error| vec![format!("{error:#}")])?;
        if secret != self.plans.borrow().secret {
            return Err(vec![REKEYED.to_owned()]);
        }
        let mut messages: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        let reloads = self.orders.borrow().reloads + 1;
        let is_new = new != *old;
        messages.extend(self.put_in_force(new, secret, reloads).await?);
        messages.push(if is_new {
            format!("in force: {}", self.config.borrow().summary())
        } else {
            "the file has not changed; passwords were read anew".to_owned()
        });
        Ok(messages)
    }

    /// Takes what others have bound, or lets go of what they have taken away: the
    /// configuration in force, as it would be loaded now.
    pub(super) async fn take_found(&mut self) {
        let found = Arc::clone(&self.found.borrow_and_update());
        let old = Arc::clone(&self.config.borrow());
        let new = match old.with_found(&found) {
            None => return,
            Some(Ok(new)) => new,
            Some(Err(error)) => {
                error!("addresses of this host cannot be taken, it stays as it was: {error}");
                return;
            }
        };
        for taken in new.taking.iter().flat_map(|taking| &taking.services) {
            info!("the addresses of this host have changed: {taken}");
        }
        let secret = self.plans.borrow().secret;
        let reloads = self.orders.borrow().reloads;
        match self.put_in_force(new, secret, reloads).await {
            Ok(messages) => messages.iter().for_each(|message| info!("{message}")),
            Err(messages) => messages.iter().for_each(|message| error!("{message}")),
        }
        memory::give_back();
    }

    /// Carries a configuration to each room. Gives back what there is to tell.
    async fn put_in_force(
        &mut self,
        mut new: Config,
        secret: [u8; 16],
        reloads: u64,
    ) -> Result<Vec<String>, Vec<String>> {
        let old = Arc::clone(&self.config.borrow());
        new.share_with(&old);
        let mut messages = Vec::new();
        let Findings { errors, warnings } = findings::look(&new, &self.netlink).await;
        let moved = interfaces(&old) != interfaces(&new);
        if moved && !errors.is_empty() {
            return Err(errors);
        }
        let mut macs = self.settings.borrow().macs;
        // Also when nothing has moved: an interface may have been made anew.
        if errors.is_empty()
            && let (Some(plane), Some(dataplane)) = (&mut self.plane, &new.dataplane)
        {
            match plane::attach(&mut plane.kernel, dataplane, &self.netlink).await {
                Ok(found) => macs = found,
                Err(error) if moved => return Err(vec![format!("{error:#}")]),
                Err(error) => messages.push(format!("{error:#}")),
            }
        }
        let new = Arc::new(new);
        self.linger.send_replace(new.linger);
        self.guarded.send_replace(new.dataplane.clone());
        self.settings.send_replace(settings(&new, secret, macs));
        self.wanted.send_replace(backends(&new));
        self.disable_files.follow(&new.model).await;
        self.dependencies.follow(&new.model).await;
        self.orders.send_replace(local_orders(&new, reloads));
        self.plans.send_replace(plan(&new, secret));
        self.probes.configure(&new.model);
        self.speaker.follow_bfd(new.has_bfd());
        self.speaker.configure(new.bgp.as_ref()).await;
        self.elsewhere |= moved;
        messages.extend(self.leave_interfaces(&new).await);
        let found: Arc<[String]> = errors.into_iter().chain(warnings).collect();
        let known = self.findings.send_replace(Arc::clone(&found));
        messages.extend(found.iter().filter(|f| !known.contains(f)).cloned());
        self.config.send_replace(new);
        Ok(messages)
    }
}

/// Where the program is to be attached.
fn interfaces(config: &Config) -> Option<&[InterfaceName]> {
    let dataplane = config.dataplane.as_ref();
    dataplane.map(|dataplane| &*dataplane.interfaces)
}

/// What cannot change while the agent runs, if it does change.
fn needs_restart(old: &Config, new: &Config) -> Option<&'static str> {
    let pins = |config: &Config| config.dataplane.as_ref().map(|d| d.pin_path.clone());
    let mode = |config: &Config| config.dataplane.as_ref().map(|d| d.xdp_mode);
    let checks = [
        (
            old.dataplane.is_some() != new.dataplane.is_some(),
            "whether there is a [dataplane]",
        ),
        (pins(old) != pins(new), "dataplane.pin_path"),
        (mode(old) != mode(new), "dataplane.xdp_mode"),
        (old.control_socket != new.control_socket, "control.socket"),
        (old.bfd_socket != new.bfd_socket, "bfd.socket"),
        (
            old.state_directory != new.state_directory,
            "state.directory",
        ),
        (old.metrics != new.metrics, "[metrics]"),
        (old.log_level != new.log_level, "log.level"),
    ];
    checks
        .into_iter()
        .find(|(changed, _)| *changed)
        .map(|(_, what)| what)
}
