//! Aggregates as validated.

use vipd_control::{aggregate::Aggregate, model::Vip};

use super::{
    address::{Vips, check_unicast},
    report::Report,
    table::At,
    valid::check_unique,
    written,
};

/// All aggregates in the order of their prefixes, or `None` when one of them is
/// wrong.
pub fn aggregates(
    written: &[At<written::Aggregate>],
    vips: &Vips,
    report: &mut Report,
) -> Option<Vec<Aggregate>> {
    let prefixes = written.iter().filter_map(|at| at.value.prefix.as_ref());
    check_unique(prefixes, "aggregate", report);
    let all = written.iter().map(|at| aggregate(&at.value, vips, report));
    let all: Vec<Option<Aggregate>> = all.collect();
    let mut all: Vec<_> = all.into_iter().collect::<Option<_>>()?;
    all.sort_by_key(|aggregate| aggregate.prefix);
    Some(all)
}

fn aggregate(written: &written::Aggregate, vips: &Vips, report: &mut Report) -> Option<Aggregate> {
    let At {
        value: prefix,
        span,
    } = written.prefix.as_ref()?;
    check_unicast(prefix.prefix(), span, report);
    if let Some((_, vip)) = vips.iter().find(|(vip, _)| *vip == prefix) {
        report
            .error(
                span,
                format!("the aggregate {prefix} is a virtual prefix itself"),
            )
            .related(vip, "virtual prefix here")
            .help("remove one of them");
        return None;
    }
    let inside = vips.iter().filter(|(vip, _)| prefix.contains(**vip));
    let (inside, wanted) = (inside.count(), written.min_alive.value.0);
    if vips.grows() {
        // What is inside may come and go.
    } else if inside == 0 {
        report
            .warning(span, never(*prefix, "no virtual address is inside it"))
            .help("put a service on an address inside it, or remove it");
    } else if wanted as usize > inside {
        let lack = format!("{wanted} alive are wanted, and {inside} are inside");
        report
            .error(&written.min_alive.span, never(*prefix, &lack))
            .help(format!("at most {inside}"));
    }
    Some(Aggregate {
        prefix: *prefix,
        min_alive: wanted,
        suppress: written.suppress.value,
    })
}

fn never(prefix: Vip, why: &str) -> String {
    format!("the aggregate {prefix} is never announced: {why}")
}
