//! Interfaces that the configuration does not name any more.

use super::Agent;
use crate::{bfd::client::OrderError, config::Config, plane};

impl Agent {
    /// Has BFD follow the configuration, and then takes XDP off interfaces that
    /// are not named any more. In this order: BFD takes all sessions down when an
    /// interface that it knows of has no program. Gives back what there is to
    /// tell.
    pub(super) async fn leave_interfaces(&mut self, config: &Config) -> Vec<String> {
        let mut messages = Vec::new();
        let knows_others = match self.speaker.reload_bfd().await {
            Ok(changed) => {
                messages.extend(changed);
                false
            }
            Err(error) => {
                messages.push(format!("BFD goes by what it has read before: {error}"));
                // One that is not there will read what there is.
                !matches!(error, OrderError::Unreachable)
            }
        };
        let (Some(plane), Some(dataplane)) = (&mut self.plane, &config.dataplane) else {
            return messages;
        };
        if self.elsewhere && knows_others {
            messages.push(
                "XDP stays where it was, on interfaces that are not named any more too, lest BFD \
                 take all sessions down: when BFD follows, `vipd reload` takes it off"
                    .to_owned(),
            );
        } else if self.elsewhere {
            let detached = plane::detach_others(&mut plane.kernel, dataplane, &self.netlink).await;
            match detached {
                Ok(()) => self.elsewhere = false,
                Err(error) => {
                    messages.push(format!("XDP may still be on other interfaces: {error:#}"));
                }
            }
        }
        messages
    }
}
