//! How much of the node's disk a pod may take, and what becomes of it when it takes more.
//!
//! Source: `pkg/kubelet/eviction/eviction_manager.go`, `localStorageEviction`. A kubelet takes static pods
//! for critical and lets them take what they like; here a limit is one, whoever the pod is of, and static pods
//! are started anew, with empty volumes ([`Returns`]).

mod returns;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use mainstay_pod::{PodTotals, Quantity};

pub use returns::{Returns, comes_back};

/// Why a pod has failed that took more than it may.
pub const EVICTED: &str = "Evicted";

/// What a pod takes of the disk, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its emptyDir volumes, by name.
    pub volumes: BTreeMap<String, u64>,
    /// What its containers have written to their root file systems and logs, by name.
    pub containers: BTreeMap<String, u64>,
}

/// Whether anything of a pod has a limit that has to be watched.
pub fn is_limited(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().any(|volume| limit_of(volume).is_some())
        || limit_of_pod(spec).is_some()
}

/// Whether a volume is on the node's disk, and the pod's own.
pub fn is_on_disk(volume: &Volume) -> bool {
    volume.empty_dir.as_ref().is_some_and(|it| it.medium.as_deref().is_none_or(str::is_empty))
}

/// The first limit that is exceeded, in the kubelet's words; `None` if none is.
pub fn exceeded(spec: &PodSpec, usage: &Usage) -> Option<String> {
    for volume in spec.volumes.iter().flatten() {
        let Some((limit, text)) = limit_of(volume) else { continue };
        let name = &volume.name;
        if usage.volumes.get(name).is_some_and(|used| *used > limit) {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "));
        }
    }
    let all = usage.volumes.values().chain(usage.containers.values());
    let all = all.fold(0, |sum: u64, one| sum.saturating_add(*one));
    if let Some((_, text)) = limit_of_pod(spec).filter(|(limit, _)| all > *limit) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {text}. "
        ));
    }
    for container in &spec.containers {
        let Some((limit, text)) = limit_of_container(container) else { continue };
        let name = &container.name;
        if usage.containers.get(name).is_some_and(|used| *used > limit) {
            return Some(format!(
                "Container {name} exceeded its local ephemeral storage limit {text:?}. "
            ));
        }
    }
    None
}

/// Of memory and of huge pages the kernel takes no more than their size.
fn limit_of(volume: &Volume) -> Option<(u64, String)> {
    let limit = volume.empty_dir.as_ref().and_then(|it| it.size_limit.as_ref())?;
    amount(&limit.0).filter(|_| is_on_disk(volume))
}

fn limit_of_container(container: &Container) -> Option<(u64, String)> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    amount(&limits.get("ephemeral-storage")?.0)
}

/// Of all containers that have one together.
fn limit_of_pod(spec: &PodSpec) -> Option<(u64, String)> {
    amount(&PodTotals::said(spec).limits.get("ephemeral-storage")?.0)
}

/// Bytes, and as Kubernetes writes them; none is no limit.
pub(crate) fn amount(text: &str) -> Option<(u64, String)> {
    let quantity = Quantity::parse(text).ok()?;
    let bytes = u64::try_from(quantity.units()).ok().filter(|bytes| *bytes > 0)?;
    Some((bytes, quantity.canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(volumes: &[(&str, u64)], containers: &[(&str, u64)]) -> Usage {
        let map = |list: &[(&str, u64)]| {
            list.iter().map(|(name, used)| ((*name).to_owned(), *used)).collect()
        };
        Usage { volumes: map(volumes), containers: map(containers) }
    }

    #[test]
    fn the_first_limit_that_is_exceeded_is_told() {
        let pod = mainstay_testkit::pods::pod(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  \
             - {name: a, image: i, resources: {limits: {ephemeral-storage: 1024Ki}}}\n  \
             - {name: b, image: i, resources: {limits: {ephemeral-storage: 2Mi}}}\n  \
             - {name: c, image: i}\n  volumes:\n  - {name: v, emptyDir: {sizeLimit: 1Mi}}\n  \
             - {name: w, emptyDir: {}}\n  - {name: zero, emptyDir: {sizeLimit: 0}}\n  \
             - {name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}}\n",
        );
        let mi = 1 << 20;
        let volume = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
        let whole = "Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. ";
        let container = "Container a exceeded its local ephemeral storage limit \"1Mi\". ";
        assert!(is_limited(pod.spec()));
        for (used, expected) in [
            (usage(&[], &[]), None),
            (usage(&[("v", mi)], &[("a", mi), ("b", mi)]), None),
            (usage(&[("v", mi + 1)], &[("a", 4 * mi)]), Some(volume)),
            (usage(&[("w", 3 * mi), ("zero", 1)], &[]), Some(whole)),
            (usage(&[("w", mi)], &[("a", 1), ("c", 2 * mi)]), Some(whole)),
            (usage(&[], &[("a", mi + 1)]), Some(container)),
        ] {
            assert_eq!(exceeded(pod.spec(), &used).as_deref(), expected, "{used:?}");
        }
    }

    #[test]
    fn what_has_no_limit_is_not_watched() {
        let pod = mainstay_testkit::pods::pod(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  \
             - {name: a, image: i, resources: {requests: {ephemeral-storage: 1Gi}}}\n  volumes:\n  \
             - {name: w, emptyDir: {}}\n  - {name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}}\n",
        );
        assert!(!is_limited(pod.spec()));
        assert_eq!(exceeded(pod.spec(), &usage(&[("w", u64::MAX)], &[("a", u64::MAX)])), None);
    }
}
