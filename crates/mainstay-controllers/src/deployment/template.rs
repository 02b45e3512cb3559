//! From the template of a Deployment to a ReplicaSet, and back.
//!
//! Source: `getNewReplicaSet` in `pkg/controller/deployment/sync.go`, `EqualIgnoreHash` in
//! `pkg/controller/deployment/util/deployment_util.go` and `ComputeHash` in
//! `pkg/controller/controller_utils.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::owner;

/// The label that tells the pods of one template from those of another.
pub(super) const HASH: &str = "pod-template-hash";

/// The longest name of a ReplicaSet.
const LONGEST_NAME: usize = 253;

/// What a hash is written with: no vowels, so that it says nothing. Source:
/// `staging/src/k8s.io/apimachinery/pkg/util/rand/rand.go`.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

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

/// The same for the same template, for ever: it names a ReplicaSet.
///
/// It is not the number that another implementation computes from its own form of a template, and
/// needs not to be: what is there already is found by its template.
pub(super) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // A template without what is not set, fields and keys in the order of the alphabet. It can be
    // written as JSON always.
    let mut bytes = serde_json::to_value(template).unwrap_or_default().to_string().into_bytes();
    if let Some(collisions) = collisions {
        bytes.extend(collisions.to_le_bytes());
        bytes.extend([0; 4]);
    }
    let digits = fnv32a(&bytes).to_string().into_bytes().into_iter();
    digits.map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
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
