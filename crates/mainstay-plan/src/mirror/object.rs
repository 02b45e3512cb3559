//! A mirror pod as it is created, and what its status says.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod as KubernetesPod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use mainstay_pod::Pod;

use super::Wanted;
use crate::status::gates;

pub use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;

/// The condition of a mirror whose manifest, as it is now, is not what runs.
pub const INVALID_CONDITION: &str = "ManifestInvalid";

/// The mirror of a static pod, as it is created: the whole pod, owned by its Node (name and UID).
pub fn object(pod: &Pod, node_name: &str, node_uid: &str) -> KubernetesPod {
    let metadata = pod.metadata();
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    annotations.insert(CONFIG_MIRROR_ANNOTATION.to_owned(), pod.uid().to_owned());
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        // NodeRestriction refuses it.
        block_owner_deletion: None,
    };
    KubernetesPod {
        metadata: ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            labels: metadata.labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(pod.spec().clone()),
        status: None,
    }
}

/// What the status should be. `held` is what it is.
pub(super) fn status(wanted: &Wanted<'_>, held: &PodStatus, now: Timestamp) -> PodStatus {
    let mut status = wanted.status.clone();
    let spec = wanted.pod.spec();
    status.conditions.get_or_insert_default().extend(gates::held(spec, held).cloned());
    gates::judge(spec, &mut status, held);
    if let Some(message) = wanted.invalid {
        let known = held.conditions.iter().flatten();
        let mut known = known.filter(|it| it.type_ == INVALID_CONDITION && it.status == "True");
        let since = known.next().and_then(|it| it.last_transition_time.clone());
        status.conditions.get_or_insert_default().push(PodCondition {
            type_: INVALID_CONDITION.to_owned(),
            status: "True".to_owned(),
            reason: Some(INVALID_CONDITION.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(since.unwrap_or(Time(now))),
            ..PodCondition::default()
        });
    }
    status
}
