//! Metrics of what changes: orders of the operator, and how soon routers hear of
//! decisions.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::{count, gauges};
use crate::status::{OVERRIDE_WILLS, Status};

pub(super) fn encode(status: &Status, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Orders of the operator that differ from the configuration.";
    let mut overrides = gauges(page, "overrides", help, None)?;
    for will in OVERRIDE_WILLS {
        let all = status.overrides.iter();
        let number = all.filter(|it| it.will == will).count() as u64;
        overrides.gauge(&[("will", will)], count(number))?;
    }
    let help = "From a decision until the kernel has the UPDATE to a peer: of what gets worse, and \
                of what gets better, which waits for the maps first.";
    let mut durations = page.encode_descriptor(
        "decision_to_update",
        help,
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for latency in &status.decision_to_update {
        let labels = [("change", latency.change.as_str())];
        let mut buckets = latency.buckets.clone();
        let bounded: u64 = buckets.iter().map(|(_, number)| number).sum();
        buckets.push((f64::INFINITY, latency.count.saturating_sub(bounded)));
        durations
            .encode_family(&labels)?
            .encode_histogram::<NoLabelSet>(latency.sum_seconds, latency.count, &buckets, None)?;
    }
    Ok(())
}
