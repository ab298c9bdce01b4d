//! What is shown of the operator's orders.

use std::sync::Arc;

use vipd_control::model::Model;

use super::Views;
use crate::{
    overrides::{Target, Will},
    status,
};

impl Views {
    /// All orders, each with the flows that its backend has.
    pub(super) fn overrides_shown(&self, model: &Model) -> Vec<status::Override> {
        let overrides = Arc::clone(&self.overrides.borrow());
        let shown = overrides.iter().map(|(target, over)| {
            let (deadline, ended) = match over.will {
                Will::Drain { deadline, over } => (deadline, over),
                Will::Disable => (None, false),
            };
            status::Override {
                target: target.to_string(),
                will: over.will.label().to_owned(),
                by: over.by.clone(),
                at_seconds: over.at,
                reason: over.reason.clone(),
                deadline_seconds: deadline,
                over: ended,
                configured: target.is_in(model),
                flows: self.flows(target),
            }
        });
        shown.collect()
    }

    fn flows(&self, target: &Target) -> Option<(u64, u64)> {
        let backend = target.backend.as_ref()?;
        let applied = self.dataplane.as_ref()?.applied.borrow();
        let flows = applied.flows.get(&target.service)?.get(backend)?;
        Some((flows.live, flows.closing))
    }
}
