//! Tokens of service accounts, for the pods of a node only.

use serde_json::Value;

use super::{Found, Refusal, Request, existing, forbid, node_of};
use crate::admission::Operation;
use crate::object::Object;

pub(super) fn admit(
    node: &str,
    request: &Request<'_>,
    new: Option<&Object>,
    found: &Found<'_>,
) -> Result<(), Refusal> {
    let (Operation::Create, Some(new)) = (request.operation, new) else { return Ok(()) };
    let bound = |key: &str| new.str_at(&["spec", "boundObjectRef", key]);
    if (bound("apiVersion"), bound("kind")) != ("v1", "Pod") || bound("name").is_empty() {
        return forbid("node requested token not bound to a pod");
    }
    let uid = bound("uid");
    if uid.is_empty() {
        return forbid("node requested token with a pod binding without a uid");
    }
    let pod = existing(found, bound("name"))?;
    if uid != pod.uid() {
        return forbid(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The \
             object might have been deleted and then recreated"
        ));
    }
    if node_of(pod) != node {
        return forbid("node requested token bound to a pod scheduled on a different node");
    }
    audience(request, new, pod)
}

/// A token is for nobody else than a volume of the pod says. Drivers of volumes and the right
/// `request-serviceaccounts-token-audience` do not exist here.
fn audience(request: &Request<'_>, new: &Object, pod: &Object) -> Result<(), Refusal> {
    let wanted = match new.list_at(&["spec", "audiences"]) {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return forbid("node may only request 0 or 1 audiences"),
    };
    let mounted = pod.list_at(&["spec", "volumes"]).iter().any(|volume| {
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
        sources.into_iter().flatten().filter_map(|it| it.get("serviceAccountToken")).any(|token| {
            token.get("audience").and_then(Value::as_str).unwrap_or_default() == wanted
        })
    });
    if !mounted {
        return forbid(format!(
            "audience {wanted:?} not found in pod spec volume, {} is not authorized to request \
             tokens for this audience",
            request.user.name
        ));
    }
    Ok(())
}
