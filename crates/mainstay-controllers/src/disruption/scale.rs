//! How many pods the controllers of pods want.
//!
//! Source: `finders` in `pkg/controller/disruption/disruption.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v1 as autoscaling;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResourceList, OwnerReference};
use mainstay_client::{CallError, CallErrorKind, Calls};

use crate::informer::{Informer, ObjectKey};
use crate::informers::{object_path, version_path};
use crate::owner::{controller, is_of};
use crate::pods::Pod;

/// What a controller wants.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    /// Whose it is: of a ReplicaSet that a Deployment controls it is that one's.
    pub(super) uid: String,
    pub(super) replicas: i32,
}

/// By the UID of the pods' controller. None is one that is not there; an error is what is told
/// about it.
pub(super) type Scales = BTreeMap<String, Result<Option<Scale>, String>>;

/// The scales of the controllers of pods of one namespace.
///
/// # Errors
///
/// When the API cannot be asked.
pub(super) async fn of_pods(
    calls: &Calls,
    sets: &Informer<ReplicaSet>,
    deployments: &Informer<Deployment>,
    pods: &[Arc<Pod>],
) -> Result<Scales, CallError> {
    let mut scales = Scales::new();
    for pod in pods {
        let Some(owner) = controller(&pod.metadata) else { continue };
        if scales.contains_key(&owner.uid) {
            continue;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let found = match known(sets, deployments, owner, namespace) {
            Some(scale) => Ok(Some(scale)),
            None => match ask(calls, owner, namespace).await {
                Ok(found) => found,
                Err(error) if error.kind == CallErrorKind::Away => return Err(error),
                Err(error) => Err(error.answer),
            },
        };
        scales.insert(owner.uid.clone(), found);
    }
    Ok(scales)
}

/// That of a ReplicaSet, or of its Deployment, as far as they have been heard of.
fn known(
    sets: &Informer<ReplicaSet>,
    deployments: &Informer<Deployment>,
    owner: &OwnerReference,
    namespace: &str,
) -> Option<Scale> {
    if !is_of::<ReplicaSet>(owner) {
        return None;
    }
    let set = sets.get(&ObjectKey::new(namespace, &owner.name))?;
    set.metadata.uid.as_ref().filter(|uid| **uid == owner.uid)?;
    // The API has a number for each.
    match controller(&set.metadata).filter(|it| is_of::<Deployment>(it)) {
        Some(owner) => {
            let deployment = deployments.get(&ObjectKey::new(namespace, &owner.name))?;
            let uid = deployment.metadata.uid.clone().filter(|uid| *uid == owner.uid)?;
            Some(Scale { uid, replicas: deployment.spec.as_ref()?.replicas? })
        }
        None => Some(Scale { uid: owner.uid.clone(), replicas: set.spec.as_ref()?.replicas? }),
    }
}

/// That of a controller of whatever kind, which the API may have a scale of. Source:
/// `getScaleController`.
async fn ask(
    calls: &Calls,
    owner: &OwnerReference,
    namespace: &str,
) -> Result<Result<Option<Scale>, String>, CallError> {
    let OwnerReference { api_version, kind, name, uid, .. } = owner;
    let unknown = || format!("no matches for kind {kind:?} in version {api_version:?}");
    if !is_plain(&api_version.replacen('/', "", 1)) {
        return Ok(Err(unknown()));
    }
    let list: APIResourceList = match calls.get(&version_path(api_version)).await {
        Err(error) if error.kind == CallErrorKind::NotFound => return Ok(Err(unknown())),
        list => list?,
    };
    let mut kinds = list.resources.iter().filter(|it| !it.name.contains('/'));
    let Some(found) = kinds.find(|it| it.kind == *kind) else { return Ok(Err(unknown())) };
    let plural = &found.name;
    if !list.resources.iter().any(|it| it.name == format!("{plural}/scale") && it.kind == "Scale") {
        let dotted = api_version.split_once('/').map(|(group, _)| format!(".{group}"));
        let dotted = dotted.unwrap_or_default();
        return Ok(Err(format!("{plural}{dotted} does not implement the scale subresource")));
    }
    if !is_plain(name) {
        return Ok(Ok(None));
    }
    let path = format!("{}/scale", object_path(api_version, plural, namespace, name));
    let scale: autoscaling::Scale = match calls.get(&path).await {
        Err(error) if error.kind == CallErrorKind::NotFound => return Ok(Ok(None)),
        scale => scale?,
    };
    if scale.metadata.uid.as_ref() != Some(uid) {
        return Ok(Ok(None));
    }
    let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
    Ok(Ok(Some(Scale { uid: uid.clone(), replicas })))
}

/// Whether what somebody wrote as a reference can stand in a path as it is.
fn is_plain(part: &str) -> bool {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_');
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain)
}
