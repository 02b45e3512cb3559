//! `pods/binding`: how a scheduler says which node a pod goes to.
//!
//! Source: `BindingREST` in `pkg/registry/core/pod/storage/storage.go`.

use http::StatusCode;
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::decode;
use crate::kind::{PLAIN, Resource};
use crate::object;
use crate::pipeline::Change;
use crate::status::{self, ApiError, Result};

/// What refusals are about.
static BINDINGS: Resource = Resource { kind: "Binding", plural: "pods/binding", ..PLAIN };

/// Binds a pod to a node.
pub(crate) async fn create(call: &Call<'_>) -> Result<Answer> {
    let binding = decode::body(call)?.object;
    let name = &call.info.name;
    if !binding.name().is_empty() && binding.name() != name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let target = binding.str_at(&["target", "name"]).to_owned();
    let kind = binding.str_at(&["target", "kind"]);
    if !matches!(kind, "" | "Node") || target.is_empty() {
        return Err(ApiError::unprocessable(
            "Binding \"\" is invalid: target.name: Required value: the name of a node",
        ));
    }
    let manager = call.manager();
    let writer = call.writer(&manager, call.info.query.dry_run());
    let change = Change {
        resource: call.resource,
        namespace: call.namespace(),
        name,
        subresource: "binding",
        may_create: false,
    };
    let annotations = binding.meta().and_then(|meta| meta.get("annotations")).cloned();
    let uid = binding.uid().to_owned();
    call.server
        .update(&change, &writer, |pod| {
            let pod = pod.ok_or_else(|| ApiError::not_found(call.resource, name))?;
            let refuse = |why: String| Err(ApiError::conflict(&BINDINGS, name, why));
            if !uid.is_empty() && uid != pod.uid() {
                return refuse(format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    pod.uid()
                ));
            }
            if pod.is_terminating() {
                return refuse(format!(
                    "pod {name} is being deleted, cannot be assigned to a host"
                ));
            }
            let bound = pod.str_at(&["spec", "nodeName"]);
            if !bound.is_empty() {
                return refuse(format!("pod {name} is already assigned to node {bound:?}"));
            }
            if !pod.list_at(&["spec", "schedulingGates"]).is_empty() {
                return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
            }
            let mut pod = pod.clone();
            pod.field_mut("spec").insert("nodeName".into(), target.clone().into());
            if let Some(Value::Object(added)) = &annotations {
                let known = object::object_of(pod.meta_mut(), "annotations");
                known.extend(added.clone());
            }
            let scheduled = json!({
                "type": "PodScheduled",
                "status": "True",
                "lastProbeTime": null,
                "lastTransitionTime": object::time(writer.now),
            });
            pod.set_condition(scheduled);
            Ok(pod)
        })
        .await?;
    Ok(Answer::json(status::created()).with_code(StatusCode::CREATED))
}
