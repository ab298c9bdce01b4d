//! Damping of our own announcements, as validated.

use std::time::Duration;

use vipd_control::damping::{Figures, Terms};

use super::{report::Report, table::At, written};

/// The shortest half-life.
const HALF_LIFE_MIN: Duration = Duration::from_secs(1);

/// What waits for what, by what is written, if anything.
pub fn terms(written: Option<&At<written::Damping>>, report: &mut Report) -> Terms {
    let Some(At { value, .. }) = written else {
        return Terms::OFF;
    };
    let figures = Figures {
        withdrawal: value.withdrawal.value.0,
        attributes: value.attribute_change.value.0,
        suppress: value.suppress.value.0,
        reuse: value.reuse.value.0,
        half_life: value.half_life.value,
    };
    if figures.half_life < HALF_LIFE_MIN {
        report
            .error(&value.half_life.span, "the half-life is too short")
            .help("at least \"1s\"; routers have \"15m\"");
    }
    if figures.reuse >= figures.suppress {
        report
            .error(&value.reuse.span, "`reuse` is not below `suppress`")
            .help("routers have reuse = 750 and suppress = 2000");
    }
    if figures.withdrawal + figures.attributes >= figures.suppress {
        report
            .error(
                &value.suppress.span,
                "no improvement would ever leave room for a withdrawal",
            )
            .help("`suppress` must be above `withdrawal` and `attribute_change` together");
    }
    Terms {
        hold_down: value.hold_down.value,
        budget: value.budget.value,
        figures,
    }
}
