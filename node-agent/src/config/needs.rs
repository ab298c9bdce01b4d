//! How many backends a service needs, as read and as validated.

use toml::de::DeValue;
use vipd_control::model::{Mark, Needs, Role, Share, Tally};

use super::{
    report::{Report, Span},
    table::{At, Value},
    value::{read_integer, read_text, read_word, words},
    written,
};

/// A percentage from 1 to 100.
#[derive(Clone, Copy, Debug)]
pub struct Percent(pub u8);

/// The most backends that can be asked for by their number.
const COUNT_MAX: i64 = 65_536;

words! { Role {
    "active" => Self::Active,
    "backup" => Self::Backup,
    "sorry" => Self::Sorry,
} }

impl Value for Percent {
    fn kind() -> String {
        String::from("percentage")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        read_text(value, span, report, "\"50%\"", |text| {
            let number = text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok());
            let number = number.filter(|number| (1..=100).contains(number));
            number
                .map(Self)
                .ok_or_else(|| format!("`{text}` is not a percentage from 1% to 100%"))
        })
    }
}

impl Value for Share {
    fn kind() -> String {
        String::from("number or percentage")
    }

    fn read(value: &DeValue<'_>, span: &Span, report: &mut Report) -> Option<Self> {
        if value.as_str().is_some() {
            return Percent::read(value, span, report)
                .map(|Percent(percent)| Self::Percent(percent));
        }
        let number = read_integer(value, span, report, (1, COUNT_MAX))?;
        u32::try_from(number).ok().map(Self::Count)
    }
}

/// What the service needs. Says so where that can never be had.
pub fn needs(service: &written::Service, report: &mut Report) -> Needs {
    let active = active(service);
    let weight = |key: &Option<At<Percent>>| key.as_ref().map(|at| at.value.0);
    let minimum = Mark {
        backends: service.min_healthy.value,
        weight: weight(&service.min_weight).unwrap_or(0),
    };
    let recover = service.recover_healthy.as_ref();
    let recovery = Mark {
        backends: recover.map_or(minimum.backends, |at| at.value),
        weight: weight(&service.recover_weight).unwrap_or(minimum.weight),
    };
    check_reachable(&service.min_healthy, "never announced", active, report);
    let others = [
        (recover, "never announced again once they were too few"),
        (service.degraded_below.as_ref(), "always degraded"),
    ];
    for (share, lest) in others {
        if let Some(share) = share {
            check_reachable(share, lest, active, report);
        }
    }
    if let Some(recover) = recover
        && recover.value.of(active.backends) < minimum.backends.of(active.backends)
    {
        report
            .error(&recover.span, "`recover_healthy` is below `min_healthy`")
            .related(&service.min_healthy.span, "`min_healthy` here")
            .help("as much or more, or leave it out");
    }
    if let Some(recover) = &service.recover_weight
        && recovery.weight < minimum.weight
    {
        report
            .error(&recover.span, "`recover_weight` is below `min_weight`")
            .help("as much or more, or leave it out");
    }
    let good = service.degraded_below.as_ref();
    Needs {
        minimum,
        recovery,
        good: good.map_or(Share::Count(0), |at| at.value),
    }
}

/// The active backends that take traffic.
fn active(service: &written::Service) -> Tally {
    let mut tally = Tally::default();
    if service.backends().is_empty() && !service.forwards() {
        // This host stands for itself.
        tally.add(1);
    }
    for backend in service.backends() {
        if backend.value.role.value == Role::Active {
            tally.add(backend.value.weight.value.0);
        }
    }
    tally
}

fn check_reachable(share: &At<Share>, lest: &str, active: Tally, report: &mut Report) {
    let (wanted, there) = (share.value.of(active.backends), active.backends);
    // That there is none at all has been said.
    if wanted > there && there > 0 {
        let title = format!("{wanted} healthy backends wanted of {there} that take traffic");
        report
            .error(&share.span, title)
            .help(format!("at most {there}, or the addresses are {lest}"));
    }
}
