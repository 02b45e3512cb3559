//! From the template of a Deployment to a ReplicaSet, and back.
//!
//! Source: `getNewReplicaSet` in `pkg/controller/deployment/sync.go` and `EqualIgnoreHash` in
//! `pkg/controller/deployment/util/deployment_util.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::owner;
use crate::template_hash::hash;

/// The label that tells the pods of one template from those of another.
pub(super) const HASH: &str = "pod-template-hash";

/// The longest name of a ReplicaSet.
const LONGEST_NAME: usize = 253;

/// Whether both are the same but for the hash. The API has put both into the same form.
pub(super) fn is_same(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    one.spec == other.spec && plain(one.metadata.as_ref()) == plain(other.metadata.as_ref())
}

fn plain(meta: Option<&ObjectMeta>) -> ObjectMeta {
    let mut meta = meta.cloned().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH);
    }
    meta.labels = meta.labels.filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    meta
}

/// The ReplicaSet of the template as it is now.
pub(super) fn new_set(
    deployment: &Deployment,
    size: i64,
    annotations: BTreeMap<String, String>,
) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash(&spec.template, collisions);
    let (mut template, mut selector) = (spec.template, spec.selector);
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());
    let labels = meta.labels.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(set_name(deployment, &hash)),
            namespace: deployment.metadata.namespace.clone(),
            owner_references: Some(vec![owner::reference(deployment)]),
            labels,
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(i32::try_from(size).unwrap_or(i32::MAX)),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Source: `generateReplicaSetName`.
fn set_name(deployment: &Deployment, hash: &str) -> String {
    let mut name = deployment.metadata.name.clone().unwrap_or_default();
    // Names are ASCII.
    name.truncate(LONGEST_NAME - 1 - hash.len());
    format!("{name}-{hash}")
}
