//! `patch`: in each of the four languages.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

use serde_json::Value;

use crate::body::MAX_BODY;
use crate::call::{Answer, Call};
use crate::decode::{self, Decoded};
use crate::kind::Resource;
use crate::managed;
use crate::object::Object;
use crate::pipeline::{Change, Writer};
use crate::status::{ApiError, Result};
use crate::verbs::get;

/// More operations than this in one JSON patch are refused. Source: `maxJSONPatchOperations`.
const MAX_OPERATIONS: usize = 10_000;

/// What patches are written in that are of any object.
const CHANGES: &str = "application/json-patch+json, application/merge-patch+json, \
                       application/strategic-merge-patch+json";

/// A patch, read.
pub(crate) enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    /// The fields that the client wants, and whether it takes them from others.
    Apply(Value, bool),
}

/// Changes an object by a patch.
pub(crate) async fn patch(call: &Call<'_>) -> Result<Answer> {
    let resource = call.resource;
    let query = &call.info.query;
    let patch = Patch::read(call)?;
    let dry_run = call.dry_run()?;
    let applies = matches!(patch, Patch::Apply(..));
    let mut manager = call.manager();
    if applies {
        manager = query.get("fieldManager").to_owned();
        if manager.is_empty() {
            return Err(ApiError::unprocessable(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required \
                 for apply patch",
            ));
        }
    } else if query.flag("force") {
        return Err(ApiError::unprocessable(
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for \
             non-apply patch",
        ));
    }
    let mut writer = call.writer(&manager, dry_run);
    writer.manager.applied = applies;
    let subresource = call.info.subresource.as_str();
    let change = Change {
        resource,
        namespace: call.namespace(),
        name: &call.info.name,
        subresource,
        may_create: applies && subresource.is_empty(),
    };
    let mut warnings = Vec::new();
    let transform = |current: Option<&Object>| -> Result<Object> {
        let decoded = transform(call, &patch, &writer, current)?;
        warnings = decoded.warnings;
        Ok(decoded.object)
    };
    let changed = call.server.update(&change, &writer, transform).await?;
    Ok(get::written(call, changed, warnings))
}

impl Patch {
    /// The patch in the body of a request.
    ///
    /// # Errors
    ///
    /// 400 when it is none, 415 when it is written as something else.
    pub(crate) fn read(call: &Call<'_>) -> Result<Self> {
        let media = decode::media_type(call.headers);
        let json = || -> Result<Value> {
            serde_json::from_slice(&call.body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
        };
        match media {
            "application/json-patch+json" => {
                let patch: json_patch::Patch =
                    serde_json::from_value(json()?).map_err(|error| {
                        ApiError::bad_request(format!("error decoding patch: {error}"))
                    })?;
                if patch.0.len() > MAX_OPERATIONS {
                    let count = patch.0.len();
                    return Err(ApiError::too_large(MAX_BODY).with_message(format!(
                        "Request entity too large: The allowed maximum operations in a JSON patch is \
                         {MAX_OPERATIONS}, got {count}"
                    )));
                }
                Ok(Self::Json(patch))
            }
            "application/merge-patch+json" => Ok(Self::Merge(json()?)),
            "application/strategic-merge-patch+json" => {
                let value = json()?;
                if !value.is_object() {
                    return Err(ApiError::bad_request(
                        "error decoding patch: json: cannot unmarshal into Go value of type \
                         map[string]interface {}",
                    ));
                }
                Ok(Self::Strategic(value))
            }
            "application/apply-patch+yaml" => {
                let value = decode::yaml(&call.body)?;
                Ok(Self::Apply(value, call.info.query.flag("force")))
            }
            _ => {
                let all = format!("{CHANGES}, application/apply-patch+yaml");
                Err(ApiError::unsupported_media_type(&all))
            }
        }
    }

    /// Makes of a value what the patch says.
    ///
    /// # Errors
    ///
    /// 422 when it cannot be done; 415 of an apply, which says more than a value shows.
    pub(crate) fn change(&self, resource: &Resource, mut value: Value) -> Result<Value> {
        match self {
            // Which operation it was is told to nobody, as upstream.
            Self::Json(patch) => json_patch::patch(&mut value, patch).map_err(|_| {
                ApiError::unprocessable(
                    "the server rejected our request due to an error in our request",
                )
            })?,
            Self::Merge(patch) => json_patch::merge(&mut value, patch),
            Self::Strategic(patch) => value = decode::strategic(resource, value, patch)?,
            Self::Apply(..) => return Err(ApiError::unsupported_media_type(CHANGES)),
        }
        Ok(value)
    }
}

/// The new object of the one that is there.
fn transform(
    call: &Call<'_>,
    patch: &Patch,
    writer: &Writer<'_>,
    current: Option<&Object>,
) -> Result<Decoded> {
    let resource = call.resource;
    let Patch::Apply(wanted, force) = patch else {
        let Some(current) = current else {
            return Err(ApiError::not_found(resource, &call.info.name));
        };
        return decode::patched(call, patch.change(resource, current.to_value(resource))?);
    };
    // What is wrong with what was sent, and not with what comes of it.
    let warnings = decode::value(call, wanted.clone())?.warnings;
    let mut wanted = wanted.clone();
    name(&mut wanted, &call.info.name)?;
    let object =
        decode::patched(call, managed::apply(call, current, &wanted, *force, writer)?)?.object;
    Ok(Decoded { object, warnings })
}

/// Sees to it that what is applied is named as the path says.
fn name(wanted: &mut Value, name: &str) -> Result<()> {
    let Some(meta) = wanted.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    match meta.get("name").and_then(Value::as_str) {
        None | Some("") => {
            meta.insert("name".into(), name.into());
            Ok(())
        }
        Some(same) if same == name => Ok(()),
        Some(other) => Err(ApiError::bad_request(format!(
            "the name of the object ({other}) does not match the name on the URL ({name})"
        ))),
    }
}
