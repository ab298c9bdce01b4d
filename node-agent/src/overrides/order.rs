//! Orders of the operator, and what comes of them.

use serde::{Deserialize, Serialize};
use vipd_control::{
    announcement::State,
    decide::{Desired, ServicePlan},
    model::{Model, Service},
    standing::Standing,
};

use super::{Anchor, Override, Overrides, Target, Will};
use crate::request;

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What.
    pub act: Act,
    /// Also if the service then dies.
    #[serde(default)]
    pub force: bool,
    /// Who says so.
    #[serde(default)]
    pub by: String,
    /// Why, in the operator's words.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What is to be done with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Give a backend no new flows.
    Drain {
        /// Whom.
        target: Target,
        /// After so many seconds it leaves, although flows remain.
        deadline_seconds: Option<u64>,
    },
    /// End a drain.
    Undrain(Target),
    /// Take a backend, or a whole service, out of service at once.
    Disable(Target),
    /// End that.
    Enable(Target),
    /// Forget what was ordered about one, or all of it.
    Clear(Option<Target>),
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it is as wanted, be it that it was so before.
    pub done: bool,
    /// What is so now, or why not.
    pub message: String,
}

/// An order on its way to the engine.
pub type Request = request::Request<Order, Answer>;

impl Act {
    /// Whom it is about; of all, nobody.
    #[must_use]
    pub const fn target(&self) -> Option<&Target> {
        match self {
            Self::Drain { target, .. }
            | Self::Undrain(target)
            | Self::Disable(target)
            | Self::Enable(target) => Some(target),
            Self::Clear(target) => target.as_ref(),
        }
    }
}

impl Overrides {
    /// Carries out an order under what is decided now. A refusal says why, and
    /// what there is.
    ///
    /// # Errors
    ///
    /// When there is no such backend or service, or it could not be done without.
    pub fn carry_out(
        &mut self,
        order: &Order,
        model: &Model,
        desired: &Desired,
        now: u64,
    ) -> Result<String, String> {
        match &order.act {
            Act::Drain {
                target,
                deadline_seconds,
            } => {
                let deadline = deadline_seconds.map(|seconds| now.saturating_add(seconds));
                let over = false;
                self.impose(
                    target,
                    Will::Drain { deadline, over },
                    order,
                    (model, desired),
                    now,
                )
            }
            Act::Disable(target) => {
                self.impose(target, Will::Disable, order, (model, desired), now)
            }
            Act::Undrain(target) => self.lift(target, "drained", model, desired),
            Act::Enable(target) => self.lift(target, "disabled", model, desired),
            Act::Clear(Some(target)) => match self.0.remove(target) {
                Some(over) => Ok(format!("{target} is not {} any more", over.will.label())),
                None => Err(format!("nothing was ordered about {target}")),
            },
            Act::Clear(None) => {
                let all = std::mem::take(&mut self.0);
                let names = all.keys().map(ToString::to_string);
                Ok(match all.len() {
                    0 => "nothing was ordered".to_owned(),
                    _ => format!("as configured again: {}", list(names)),
                })
            }
        }
    }

    fn impose(
        &mut self,
        target: &Target,
        will: Will,
        order: &Order,
        (model, desired): (&Model, &Desired),
        now: u64,
    ) -> Result<String, String> {
        let (service, place) = find(model, target)?;
        let word = will.label();
        let plan = desired.service(&service.name);
        match (self.0.get(target).map(|over| over.will), will, place) {
            (Some(Will::Disable), Will::Drain { .. }, _) => {
                return Err(format!(
                    "{target} is disabled, which is more than a drain: `vipd enable {target}` first"
                ));
            }
            (_, Will::Drain { .. }, None) => {
                return Err(format!(
                    "{target} is a service, and backends are drained, as SERVICE/BACKEND; `vipd \
                     disable {target}` takes the whole service away"
                ));
            }
            (Some(Will::Disable), Will::Disable, _)
            | (Some(Will::Drain { deadline: None, .. }), Will::Drain { deadline: None, .. }, _) => {
                return Ok(format!("{target} is {word} already"));
            }
            (None, _, Some(place)) => {
                if let Some(plan) = plan.filter(|_| !order.force) {
                    refuse_the_last(target, word, plan, place)?;
                }
            }
            _ => {}
        }
        let over = Override {
            will,
            by: order.by.clone(),
            at: now,
            reason: order.reason.clone(),
            known_by: Anchor::of(target, model),
        };
        self.0.insert(target.clone(), over);
        let answers = place.map_or("", |place| answers(plan, place));
        Ok(match (will, place) {
            (Will::Disable, None) => {
                format!("{target} is disabled: its addresses are announced as such, or withdrawn")
            }
            (Will::Disable, Some(_)) => format!(
                "{target} is disabled: it takes no traffic and its flows end; checks go on{answers}"
            ),
            (Will::Drain { deadline, .. }, _) => {
                let then = deadline.map(|at| {
                    let seconds = at.saturating_sub(now);
                    format!("; after {seconds} s it leaves, whatever flows remain")
                });
                let then = then.unwrap_or_default();
                format!(
                    "{target} is drained: it gets no new flows and keeps those it has{then}{answers}"
                )
            }
        })
    }

    /// Ends what was ordered in that word. Also of what is not configured.
    fn lift(
        &mut self,
        target: &Target,
        word: &str,
        model: &Model,
        desired: &Desired,
    ) -> Result<String, String> {
        let Some(over) = self.0.get(target) else {
            find(model, target)?;
            return Ok(format!("{target} is not {word} already"));
        };
        let is = over.will.label();
        if is != word {
            let undo = match over.will {
                Will::Drain { .. } => "undrain",
                Will::Disable => "enable",
            };
            return Err(format!(
                "{target} is not {word} but {is}: `vipd {undo} {target}` ends that"
            ));
        }
        self.0.remove(target);
        Ok(match find(model, target) {
            Ok((service, Some(place))) => {
                let answers = answers(desired.service(&service.name), place);
                format!("{target} takes new flows again{answers}")
            }
            Ok((_, None)) => format!("{target} is enabled again"),
            Err(_) => format!("{target} is not {word} any more, and not configured"),
        })
    }
}

/// What checks say of a backend, where an operator may expect otherwise.
fn answers(plan: Option<&std::sync::Arc<ServicePlan>>, place: usize) -> &'static str {
    match plan.and_then(|plan| plan.standing.get(place)) {
        Some(Standing::Failing) => ", but fails its checks",
        Some(Standing::Dead) | None => ", but is down",
        Some(Standing::Available | Standing::Draining) => "",
    }
}

/// The service, and the backend's place in it if one is meant.
fn find<'a>(model: &'a Model, target: &Target) -> Result<(&'a Service, Option<usize>), String> {
    let Target { service, backend } = target;
    let found = model.services.iter().find(|s| s.name == *service);
    let found = found.ok_or_else(|| {
        let names = model
            .services
            .iter()
            .map(|service| service.name.to_string());
        format!("there is no service {service}; there is {}", list(names))
    })?;
    let Some(backend) = backend else {
        return Ok((found, None));
    };
    let place = found.backends.iter().position(|b| b.name == *backend);
    let place = place.ok_or_else(|| {
        let names = found
            .backends
            .iter()
            .map(|backend| backend.name.to_string());
        format!(
            "service {service} has no backend {backend}; it has {}",
            list(names)
        )
    })?;
    Ok((found, Some(place)))
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// An error when the service would be dead without this backend.
fn refuse_the_last(
    target: &Target,
    word: &str,
    plan: &ServicePlan,
    place: usize,
) -> Result<(), String> {
    let counts = plan.available[place] && plan.service.backends[place].weight > 0;
    let before = plan.condition.duty.state;
    let after = plan.without(place);
    let others = plan.service.backends.iter().zip(&plan.standing).enumerate();
    let is_last = !others.into_iter().any(|(i, (backend, standing))| {
        i != place && standing.takes_flows() && after.line.weight(backend) > 0
    });
    if !counts || (!is_last && (after.state > State::Down || before == State::Down)) {
        return Ok(());
    }
    let left = after.active.backends;
    let needed = plan.service.needs.minimum.backends;
    let needed = needed.of(after.configured.backends);
    let why = if is_last {
        "it is the last one that takes flows: nobody else could take the new ones, so they would \
         still go there"
            .to_owned()
    } else if left >= needed {
        "what would be left has less of the weight than is wanted (min_weight)".to_owned()
    } else {
        format!("{left} healthy backends would be left and {needed} are wanted (min_healthy)")
    };
    Err(format!(
        "{target} is not {word}: {why}, and the addresses of {} would be withdrawn unless another \
         service keeps them. Bring another backend up or undrain one first, or do it all the same \
         with --force",
        target.service
    ))
}
