//! Who owns an object.

use k8s_openapi::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use mainstay_client::Object;

/// The one owner that controls an object, if there is one. Source: `GetControllerOfNoCopy` in
/// `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/controller_ref.go`.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let mut owners = meta.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

/// A reference to the controller of an object, for which that waits. Source: `NewControllerRef`, there.
pub(crate) fn reference<K: Resource + Object>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether a reference is to the kind, in whatever version.
pub(crate) fn is_of<K: Resource>(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    owner.kind == K::KIND && group == K::GROUP
}
