//! Whether a node has what a pod requests.
//!
//! Source: `pkg/scheduler/framework/plugins/noderesources/fit.go`.

use std::borrow::Cow;

use super::super::pod::PodInfo;
use super::super::resource::{Capacity, Resource};
use super::super::snapshot::NodeInfo;
use super::{Plugin, Rejection};

pub(super) fn fit(pod: &PodInfo, info: &NodeInfo) -> Result<(), Rejection> {
    let count = i64::try_from(info.pods().len()).unwrap_or(i64::MAX);
    let lacking = insufficient(&pod.requests, &info.capacity, count, &info.requested);
    if lacking.is_empty() {
        return Ok(());
    }
    let resolvable = lacking.iter().all(|lack| lack.resolvable);
    let reasons = lacking.into_iter().map(|lack| lack.reason).collect();
    Err(Rejection { plugin: Plugin::NodeResourcesFit, reasons, resolvable })
}

/// Something that a node has too little of.
#[derive(Debug)]
pub(in super::super) struct Lack {
    reason: Cow<'static, str>,
    /// Whether an empty node would have enough.
    resolvable: bool,
}

/// What is too little if so many pods use so much of a capacity.
pub(in super::super) fn insufficient(
    wanted: &Resource,
    capacity: &Capacity,
    count: i64,
    used: &Resource,
) -> Vec<Lack> {
    let mut lacking = Vec::new();
    if count.saturating_add(1) > capacity.pods {
        lacking.push(Lack { reason: "Too many pods".into(), resolvable: true });
    }
    let mut compare = |wanted: i64, has: i64, used: i64, reason: &dyn Fn() -> Cow<'static, str>| {
        if wanted > 0 && wanted > has.saturating_sub(used) {
            lacking.push(Lack { reason: reason(), resolvable: wanted <= has });
        }
    };
    let has = &capacity.resources;
    compare(wanted.cpu, has.cpu, used.cpu, &|| "Insufficient cpu".into());
    compare(wanted.memory, has.memory, used.memory, &|| "Insufficient memory".into());
    let (storage, free) = (wanted.ephemeral_storage, has.ephemeral_storage);
    compare(storage, free, used.ephemeral_storage, &|| "Insufficient ephemeral-storage".into());
    for (name, amount) in &wanted.others {
        let reason = || format!("Insufficient {name}").into();
        compare(*amount, has.other(name), used.other(name), &reason);
    }
    lacking
}
