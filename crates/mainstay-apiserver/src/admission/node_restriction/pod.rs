//! Pods: mirrors are made and deleted, of all others of the node the status is told.

use std::collections::BTreeMap;

use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use mainstay_pod::validate::Reference;
use serde_json::Value;

use super::{Found, Refusal, Request, existing, forbid, node_of, object_name, operation};
use crate::admission::Operation;
use crate::object::Object;

pub(super) fn itself(
    node: &str,
    request: &Request<'_>,
    new: Option<&Object>,
    found: &Found<'_>,
) -> Result<(), Refusal> {
    match (request.operation, new) {
        (Operation::Create, Some(pod)) => create(node, pod, found),
        (Operation::Delete, _) => {
            if node_of(existing(found, request.name)?) != node {
                return forbid(format!(
                    "node {node:?} can only delete pods with spec.nodeName set to itself"
                ));
            }
            Ok(())
        }
        (Operation::Create | Operation::Update, _) => forbid(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            operation(request)
        )),
    }
}

fn create(node: &str, pod: &Object, found: &Found<'_>) -> Result<(), Refusal> {
    if pod.annotation(CONFIG_MIRROR_ANNOTATION).is_none() {
        return forbid(format!(
            "pod does not have {CONFIG_MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if node_of(pod) != node {
        return forbid(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    owner(node, "pods", pod, found)?;
    let Ok(pod) = pod.typed::<k8s_openapi::api::core::v1::Pod>() else {
        return forbid("error checking mirror pod for API references: the pod cannot be read");
    };
    match mainstay_pod::validate::api_references(&pod).first() {
        Some(reference) => forbid(format!(
            "node {node:?} can not create pods that reference {}",
            reference.resource
        )),
        None => Ok(()),
    }
}

pub(super) fn is_mirror(pod: &Object) -> bool {
    pod.annotation(CONFIG_MIRROR_ANNOTATION).is_some()
}

/// A mirror that was made anew gets the containers that were added to the static pod. As a new one it refers to
/// nothing of the API.
pub(super) fn ephemeral_containers(
    node: &str,
    request: &Request<'_>,
    new: Option<&Object>,
    old: Option<&Object>,
) -> Result<(), Refusal> {
    let (new, old) = own_update(node, request, new, old, "ephemeral containers of pods")?;
    let references = |pod: &Object| {
        let pod = pod.typed::<k8s_openapi::api::core::v1::Pod>().ok();
        pod.map(|pod| mainstay_pod::validate::api_references(&pod))
    };
    let (Some(references), Some(known)) = (references(new), references(old)) else {
        return forbid("error checking mirror pod for API references: the pod cannot be read");
    };
    // A patch does not keep the order of a list, so they are counted.
    let count = |list: &[Reference], of: &Reference| {
        list.iter().filter(|it| it.resource == of.resource).count()
    };
    match references.iter().find(|it| count(&references, it) > count(&known, it)) {
        Some(added) => {
            forbid(format!("node {node:?} can not update pods to reference {}", added.resource))
        }
        None => Ok(()),
    }
}

/// An update of a subresource, `what`, of a pod of this node.
fn own_update<'a>(
    node: &str,
    request: &Request<'_>,
    new: Option<&'a Object>,
    old: Option<&'a Object>,
    what: &str,
) -> Result<(&'a Object, &'a Object), Refusal> {
    let (Operation::Update, Some(new), Some(old)) = (request.operation, new, old) else {
        return forbid(format!("unexpected operation {:?}", operation(request)));
    };
    if node_of(old) != node {
        return forbid(format!(
            "node {node:?} can only update {what} with spec.nodeName set to itself"
        ));
    }
    Ok((new, old))
}

/// Whether the node, as it is there, owns what it makes: a mirror belongs to its node and goes away with it.
pub(super) fn owner(
    node: &str,
    what: &str,
    object: &Object,
    found: &Found<'_>,
) -> Result<(), Refusal> {
    let owners = object.meta().and_then(|meta| meta.get("ownerReferences")?.as_array());
    let owner = match owners.map_or(&[][..], Vec::as_slice) {
        [owner] => owner,
        [] => {
            return forbid(format!(
                "node {node:?} can only create {what} with an owner reference set to itself"
            ));
        }
        _ => {
            return forbid(format!(
                "node {node:?} can only create {what} with a single owner reference set to itself"
            ));
        }
    };
    let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
    let flag = |key: &str| owner.get(key).and_then(Value::as_bool).unwrap_or_default();
    if (text("apiVersion"), text("kind"), text("name")) != ("v1", "Node", node) {
        return forbid(format!(
            "node {node:?} can only create {what} with an owner reference set to itself"
        ));
    }
    if !flag("controller") {
        return forbid(format!(
            "node {node:?} can only create {what} with a controller owner reference set to itself"
        ));
    }
    if flag("blockOwnerDeletion") {
        return forbid(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    let Some(object) = found.node else {
        return Err(Refusal::NotFound { resource: "nodes", name: node.to_owned() });
    };
    if text("uid") != object.uid() {
        return forbid(format!(
            "node {node} UID mismatch: expected {} got {}",
            text("uid"),
            object.uid()
        ));
    }
    Ok(())
}

pub(super) fn status(
    node: &str,
    request: &Request<'_>,
    new: Option<&Object>,
    old: Option<&Object>,
) -> Result<(), Refusal> {
    let (new, old) = own_update(node, request, new, old, "pod status for pods")?;
    if labels(old).collect::<BTreeMap<_, _>>() != labels(new).collect() {
        return forbid(format!("node {node:?} cannot update labels through pod status"));
    }
    let same = |key: &str| {
        none_if_empty(old.at(&["status", key])) == none_if_empty(new.at(&["status", key]))
    };
    if !same("resourceClaimStatuses") {
        return forbid(format!("node {node:?} cannot update resource claim statues"));
    }
    if !same("extendedResourceClaimStatus") {
        return forbid(format!("node {node:?} cannot update extended resource claim status"));
    }
    Ok(())
}

pub(super) fn labels(object: &Object) -> impl Iterator<Item = (&String, &Value)> {
    let labels = object.meta().and_then(|meta| meta.get("labels")?.as_object());
    labels.into_iter().flatten()
}

fn none_if_empty(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()))
}

pub(super) fn eviction(
    node: &str,
    request: &Request<'_>,
    new: Option<&Object>,
    found: &Found<'_>,
) -> Result<(), Refusal> {
    if request.operation != Operation::Create {
        return forbid(format!("unexpected operation {}", operation(request)));
    }
    let name = object_name(request, new);
    if name.is_empty() {
        return forbid("could not determine pod from request data");
    }
    if node_of(existing(found, name)?) != node {
        return forbid(format!("node {node} can only evict pods with spec.nodeName set to itself"));
    }
    Ok(())
}
