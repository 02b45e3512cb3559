//! What a Deployment remembers on its ReplicaSets: revisions, and how large it was.
//!
//! Source: `SetNewReplicaSetAnnotations` and `SetReplicasAnnotations` in
//! `pkg/controller/deployment/util/deployment_util.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::sets::{annotation, lacking};
use super::strategy::Strategy;

/// Which rollout a template was, counted from 1; on the Deployment the newest.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Which rollouts it was before, before somebody went back to it.
pub(super) const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many pods the Deployment was to have when the ReplicaSet was scaled: another number is one
/// that somebody has changed.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// And how many it might have had.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// The longest history, in bytes.
const LONGEST_HISTORY: usize = 2000;

/// What is not copied from a Deployment.
const OWN: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The annotations that the new ReplicaSet, with these metadata, still lacks: those of the
/// Deployment, and the revision, unless it has a later one.
pub(super) fn of_new(
    deployment: &Deployment,
    there: &ObjectMeta,
    revision: i64,
) -> BTreeMap<String, String> {
    let copied = deployment.metadata.annotations.iter().flatten();
    let copied = copied.filter(|(key, _)| !OWN.contains(&key.as_str()));
    let mut all: BTreeMap<_, _> = copied.map(|(key, value)| (key.clone(), value.clone())).collect();
    let before = annotation(there, REVISION);
    if revision_of(there).is_some_and(|before| before < revision) {
        all.insert(REVISION.to_owned(), revision.to_string());
        if let Some(before) = before {
            let history = with(annotation(there, HISTORY).unwrap_or_default(), before);
            all.extend(history.map(|history| (HISTORY.to_owned(), history)));
        }
    }
    lacking(there, all)
}

/// A history and one revision more, without the oldest if it is too long.
fn with(history: &str, revision: &str) -> Option<String> {
    if history.is_empty() {
        return Some(revision.to_owned());
    }
    let mut kept = history;
    loop {
        if kept.len() + 1 + revision.len() <= LONGEST_HISTORY {
            return Some(format!("{kept},{revision}"));
        }
        (_, kept) = kept.split_once(',')?;
    }
}

/// The revision, zero if there is none; `None` if it is no number. Source: `Revision`.
pub(super) fn revision_of(meta: &ObjectMeta) -> Option<i64> {
    annotation(meta, REVISION).map_or(Some(0), |revision| revision.parse().ok())
}

/// How large a Deployment is.
pub(super) fn of_size(strategy: &Strategy) -> BTreeMap<String, String> {
    let numbers = [(DESIRED, strategy.wanted), (MAX, strategy.most())];
    numbers.map(|(key, number)| (key.to_owned(), number.to_string())).into()
}

/// The highest revision of some ReplicaSets, or zero.
pub(super) fn highest<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i64 {
    let revisions = sets.into_iter().filter_map(|set| revision_of(&set.metadata));
    revisions.max().unwrap_or(0).max(0)
}
