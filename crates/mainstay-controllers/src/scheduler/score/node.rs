//! Taints that a node would rather have respected, and affinity that a pod would rather have.
//!
//! Source: the plugins `tainttoleration` and `nodeaffinity`.

use k8s_openapi::api::core::v1::Toleration;
use mainstay_pod::scheduling::node_affinity;
use mainstay_pod::scheduling::taints as taint;

use super::super::pod::PodInfo;
use super::super::snapshot;
use super::{Feasible, normalize};

/// The fewer of its taints of the effect `PreferNoSchedule` the pod does not tolerate, the better.
pub(super) fn taints(pod: &PodInfo, nodes: &[Feasible<'_>]) -> Vec<i64> {
    let tolerations = pod.spec().tolerations.iter().flatten();
    let of_effect = tolerations.filter(|it| {
        it.effect.as_ref().is_none_or(|it| it.is_empty() || it == taint::PREFER_NO_SCHEDULE)
    });
    let tolerations: Vec<Toleration> = of_effect.cloned().collect();
    let scores = nodes.iter().map(|feasible| {
        let taints = snapshot::taints(feasible.node).iter();
        let soft = taints.filter(|it| it.effect == taint::PREFER_NO_SCHEDULE);
        let count = soft.filter(|it| !taint::is_tolerated(it, &tolerations)).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    });
    let mut scores: Vec<i64> = scores.collect();
    normalize(&mut scores, true);
    scores
}

/// The sum of the weights of the terms that hold.
pub(super) fn affinity(pod: &PodInfo, nodes: &[Feasible<'_>]) -> Vec<i64> {
    if !node_affinity::prefers(pod.spec()) {
        return Vec::new();
    }
    let weight =
        |feasible: &Feasible<'_>| node_affinity::preferred_weight(pod.spec(), feasible.node);
    let mut scores: Vec<i64> = nodes.iter().map(weight).collect();
    normalize(&mut scores, false);
    scores
}
