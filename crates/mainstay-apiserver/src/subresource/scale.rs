//! `scale`: the number of replicas of a Deployment or a ReplicaSet, as an object of its own.
//!
//! Source: `ScaleREST` in `pkg/registry/apps/{deployment,replicaset}/storage/storage.go`.

use mainstay_pod::validate::{Errors, Path, metadata};
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::decode;
use crate::kind::{PLAIN, Resource};
use crate::object::Object;
use crate::pipeline::{Change, check_name};
use crate::status::{ApiError, Result};
use crate::verbs::patch::Patch;

/// What refusals are about.
static SCALES: Resource =
    Resource { group: "autoscaling", kind: "Scale", plural: "scales", ..PLAIN };

/// Answers what is asked of the scale of an object.
pub(crate) async fn answer(call: &Call<'_>) -> Result<Answer> {
    let (resource, name) = (call.resource, &call.info.name);
    let current = call.server.storage.get(resource, call.namespace(), name).await?.object;
    let wanted = match call.info.verb {
        "get" => return Ok(Answer::json(scale(&current))),
        "patch" => Patch::read(call)?.change(call, &SCALES, || scale(&current))?.object,
        _ => decode::body(call)?.object,
    };
    check(&wanted, name)?;
    let replicas = wanted.i64_at(&["spec", "replicas"]);
    let manager = call.manager();
    let writer = call.writer(&manager, call.info.query.dry_run());
    let change = Change {
        resource,
        namespace: call.namespace(),
        name,
        subresource: "scale",
        may_create: false,
    };
    let set = |object: Option<&Object>| {
        let mut object = object.ok_or_else(|| ApiError::not_found(resource, name))?.clone();
        let version = wanted.resource_version();
        if !version.is_empty() && version != object.resource_version() {
            return Err(ApiError::modified(resource, name));
        }
        object.field_mut("spec").insert("replicas".into(), replicas.into());
        Ok(object)
    };
    let changed = call.server.update(&change, &writer, set).await?;
    Ok(Answer::json(scale(&changed.stored.object)))
}

/// The scale of an object. Source: `scaleFromDeployment`.
fn scale(object: &Object) -> Value {
    let meta = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let meta: serde_json::Map<String, Value> =
        meta.into_iter().map(|key| (key.to_owned(), Value::from(object.meta_str(key)))).collect();
    let mut spec = json!({});
    let replicas = object.i64_at(&["spec", "replicas"]);
    if replicas != 0 {
        spec["replicas"] = replicas.into();
    }
    let mut status = json!({ "replicas": object.i64_at(&["status", "replicas"]) });
    let selector = object.at(&["spec", "selector"]).map(crate::label_selector::text);
    if let Some(selector) = selector.filter(|text| !text.is_empty()) {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": spec,
        "status": status,
    })
}

fn check(wanted: &Object, name: &str) -> Result<()> {
    check_name(wanted, name)?;
    let mut errors = Errors::default();
    let path = Path::new("spec");
    let replicas = wanted.i64_at(&["spec", "replicas"]);
    metadata::non_negative(replicas, &path.field("replicas"), &mut errors);
    match errors.0.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid(&SCALES, name, &errors.0)),
    }
}
