//! A mirror pod as it is created, and what its status says.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, EphemeralContainer, Pod as KubernetesPod, PodCondition,
    PodSpec, PodStatus, ProjectedVolumeSource,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use mainstay_pod::identity::CONFIG_REFERENCES_ANNOTATION;
use mainstay_pod::{ObjectName, Pod};

use super::{Mirror, Wanted};
use crate::references;
use crate::status::{gates, keep_ends};

pub use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;

/// The condition of a mirror whose manifest, as it is now, is not what runs.
pub const INVALID_CONDITION: &str = "ManifestInvalid";

/// The mirror of a static pod, as it is created: the whole pod, owned by its Node (name and UID), but for what
/// it takes from ConfigMaps and Secrets. Those lie beside its manifest, and an API server refuses mirrors that
/// refer to its own (`plugin/pkg/admission/noderestriction/admission.go`); an annotation names them.
pub fn object(pod: &Pod, node_name: &str, node_uid: &str) -> KubernetesPod {
    let metadata = pod.metadata();
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    annotations.insert(CONFIG_MIRROR_ANNOTATION.to_owned(), pod.uid().to_owned());
    let references = references::of(pod);
    if !references.is_empty() {
        let name = |it: &ObjectName| format!("{}/{}", it.kind.plural(), it.name);
        let names: Vec<String> = references.iter().map(name).collect();
        annotations.insert(CONFIG_REFERENCES_ANNOTATION.to_owned(), names.join(","));
    }
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
        spec: Some(without_references(pod.spec().clone())),
        status: None,
    }
}

/// Variables keep their names, volumes and their mounts stay.
fn without_references(mut spec: PodSpec) -> PodSpec {
    // No API server takes them with a new pod.
    spec.ephemeral_containers = None;
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        without(&mut container.env, &mut container.env_from);
    }
    spec.image_pull_secrets = None;
    for volume in spec.volumes.iter_mut().flatten() {
        let map = volume.config_map.take().map(|it| it.default_mode);
        let secret = volume.secret.take().map(|it| it.default_mode);
        if let Some(default_mode) = map.or(secret) {
            volume.projected = Some(ProjectedVolumeSource { default_mode, sources: None });
        }
        if let Some(sources) = volume.projected.as_mut().and_then(|it| it.sources.as_mut()) {
            sources.retain(|it| it.config_map.is_none() && it.secret.is_none());
        }
    }
    spec
}

fn without(env: &mut Option<Vec<EnvVar>>, env_from: &mut Option<Vec<EnvFromSource>>) {
    for variable in env.iter_mut().flatten() {
        let refers =
            |it: &mut EnvVarSource| it.config_map_key_ref.is_some() || it.secret_key_ref.is_some();
        variable.value_from.take_if(refers);
    }
    // There is no other source.
    *env_from = None;
}

/// The containers of a static pod that were added to a mirror before this one, as it gets them.
pub(super) fn missing(pod: &Pod, mirror: &Mirror) -> Vec<EphemeralContainer> {
    let known = |name: &str| mirror.ephemeral.iter().any(|it| it.name == name);
    let added = pod.spec().ephemeral_containers.iter().flatten();
    let as_it_gets_it = |mut container: EphemeralContainer| {
        without(&mut container.env, &mut container.env_from);
        container
    };
    added.filter(|it| !known(&it.name)).cloned().map(as_it_gets_it).collect()
}

/// What the status should be. `held` is what it is.
pub(super) fn status(wanted: &Wanted<'_>, held: &PodStatus, now: Timestamp) -> PodStatus {
    let mut status = wanted.status.clone();
    let spec = wanted.pod.spec();
    status.conditions.get_or_insert_default().extend(gates::held(spec, held).cloned());
    gates::judge(spec, &mut status, held);
    keep_ends(&mut status, held);
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
