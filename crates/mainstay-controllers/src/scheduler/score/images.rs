//! Whether a node has a pod's images already.
//!
//! Source: `pkg/scheduler/framework/plugins/imagelocality/image_locality.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::pod::PodInfo;
use super::super::snapshot::{Slot, Snapshot};
use super::{Feasible, MAX, real, whole};

/// Images smaller than this together are pulled sooner than a pod is placed well, in bytes.
const LEAST: i64 = 23 << 20;
/// More than this per container counts no more, in bytes.
const MOST: i64 = 1000 << 20;

pub(super) fn scores(pod: &PodInfo, snapshot: &Snapshot, nodes: &[Feasible<'_>]) -> Vec<i64> {
    let spec = pod.spec();
    let demand = &pod.object.demand;
    let count = i64::try_from(demand.containers).unwrap_or(i64::MAX);
    let of_containers = demand.images.iter().map(String::as_str);
    let volumes = spec.volumes.iter().flatten();
    let of_volumes = volumes.filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
    let images: Vec<&BTreeMap<Slot, i64>> = of_containers
        .chain(of_volumes)
        .filter_map(|image| snapshot.image(&tagged(image)))
        .collect();
    if images.is_empty() {
        return Vec::new();
    }
    let all = i64::try_from(snapshot.nodes().count()).unwrap_or(i64::MAX);
    let score = |feasible: &Feasible<'_>| {
        // What many nodes have counts more: else all pods of an image would go where the first one went.
        let there = images.iter().filter_map(|sizes| {
            let size = sizes.get(&feasible.slot)?;
            let on = i64::try_from(sizes.len()).unwrap_or(i64::MAX);
            Some(whole(real(*size) * (real(on) / real(all))))
        });
        part(there.sum(), count)
    };
    nodes.iter().map(score).collect()
}

/// From 0 to [`MAX`].
fn part(bytes: i64, containers: i64) -> i64 {
    let most = MOST.saturating_mul(containers.max(1));
    MAX * (bytes.clamp(LEAST, most) - LEAST) / (most - LEAST)
}

/// A reference as nodes name their images. Source: `normalizedImageName`.
fn tagged(image: &str) -> Cow<'_, str> {
    match image.rfind(':') <= image.rfind('/') {
        true => format!("{image}:latest").into(),
        false => image.into(),
    }
}
