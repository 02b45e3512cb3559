//! What is to be known of one ReplicaSet, and of many.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// How many pods it is to have.
pub(super) fn size(set: &ReplicaSet) -> i64 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).into()
}

/// Whether it is to have pods.
pub(super) fn is_active(set: &ReplicaSet) -> bool {
    size(set) > 0
}

/// How many pods it has.
pub(super) fn actual(set: &ReplicaSet) -> i64 {
    counted(set, |status| Some(status.replicas))
}

/// How many of them are ready.
pub(super) fn ready(set: &ReplicaSet) -> i64 {
    counted(set, |status| status.ready_replicas)
}

/// How many of them have been ready for long enough.
pub(super) fn available(set: &ReplicaSet) -> i64 {
    counted(set, |status| status.available_replicas)
}

fn counted(set: &ReplicaSet, count: impl Fn(&ReplicaSetStatus) -> Option<i32>) -> i64 {
    set.status.as_ref().and_then(count).unwrap_or_default().into()
}

/// The sum over all of them.
pub(super) fn total(sets: &[Arc<ReplicaSet>], count: impl Fn(&ReplicaSet) -> i64) -> i64 {
    sets.iter().map(|set| count(set)).sum()
}

/// How many of their pods are being deleted; `None` if one of them does not say that. Source:
/// `GetTerminatingReplicaCountForReplicaSets`.
pub(super) fn terminating(sets: &[Arc<ReplicaSet>]) -> Option<i64> {
    let statuses = sets.iter().filter_map(|set| set.status.as_ref());
    let looked_at = statuses.filter(|status| {
        // Nobody has looked at one that says neither.
        status.observed_generation.unwrap_or_default() != 0 || status.terminating_replicas.is_some()
    });
    looked_at.map(|status| status.terminating_replicas.map(i64::from)).sum()
}

/// By this the older one comes first. Source: `ReplicaSetsByCreationTimestamp`.
pub(super) fn age(set: &ReplicaSet) -> (Option<Timestamp>, Option<&str>) {
    let made = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (made, set.metadata.name.as_deref())
}

pub(super) fn name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A number of pods that an annotation says. Source: `getNonNegativeInt32FromAnnotation`.
pub(super) fn number(set: &ReplicaSet, key: &str) -> Option<i64> {
    let number: u32 = annotation(&set.metadata, key)?.parse().ok()?;
    i32::try_from(number).ok().map(i64::from)
}

/// Those of the annotations that an object does not have, or has with another value.
pub(super) fn lacking(
    meta: &ObjectMeta,
    mut annotations: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    annotations.retain(|key, value| annotation(meta, key) != Some(value));
    annotations
}
