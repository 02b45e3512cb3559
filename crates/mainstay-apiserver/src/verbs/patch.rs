//! `patch`: in each of the four languages.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

mod json;

use mainstay_schema::{decode as schema, go};
use serde_json::{Map, Value};

use self::json::Operations;
use crate::call::{Answer, Call};
use crate::decode::{self, Decoded};
use crate::kind::Resource;
use crate::managed;
use crate::object::Object;
use crate::pipeline::{Change, Writer};
use crate::status::{ApiError, Result};
use crate::verbs::get;

/// What patches are written in that are of any object.
const CHANGES: &str = "application/json-patch+json, application/merge-patch+json, \
                       application/strategic-merge-patch+json";

/// A patch, read.
pub(crate) struct Patch {
    language: Language,
    /// Fields that are in it twice, or that nobody knows.
    problems: Vec<String>,
}

enum Language {
    Json(Operations),
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
    let applies = matches!(patch.language, Language::Apply(..));
    let manager = call.manager();
    let mut writer = call.writer(&manager, query.dry_run());
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
        let body = || {
            schema::json(&call.body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
        };
        let mut problems = Vec::new();
        let language = match decode::media_type(call.headers) {
            "application/json-patch+json" => {
                let value;
                (value, problems) = body()?;
                Language::Json(Operations::read(value, &mut problems)?)
            }
            "application/merge-patch+json" => {
                let value;
                (value, problems) = body()?;
                match value {
                    Value::Object(_) => Language::Merge(value),
                    Value::Null => return Err(ApiError::bad_request("Invalid JSON Patch")),
                    other => return Err(mistyped(&other, "value", "map[string]interface {}")),
                }
            }
            "application/strategic-merge-patch+json" => {
                let value;
                (value, problems) = schema::json(&call.body)
                    .map_err(|error| ApiError::bad_request(error.to_string()))?;
                match value {
                    Value::Object(_) => Language::Strategic(value),
                    Value::Null => Language::Strategic(Value::Object(Map::new())),
                    other => {
                        let text = cannot_unmarshal(&other, "value", "map[string]interface {}");
                        return Err(ApiError::bad_request(text));
                    }
                }
            }
            "application/apply-patch+yaml" => match decode::yaml(&call.body)? {
                wanted @ Value::Object(_) => Language::Apply(wanted, call.info.query.flag("force")),
                other => {
                    let text = cannot_unmarshal(&other, "value", "map[string]interface {}");
                    return Err(ApiError::bad_request(format!(
                        "error decoding YAML: error unmarshaling JSON: while decoding JSON: {text}"
                    )));
                }
            },
            _ => {
                let all = format!("{CHANGES}, application/apply-patch+yaml");
                return Err(ApiError::unsupported_media_type(&all));
            }
        };
        Ok(Self { language, problems })
    }

    /// Makes of an object what the patch says, and holds it against its schema.
    ///
    /// # Errors
    ///
    /// 422 when it cannot be done or the result is no such object; 415 of an apply, which says more than
    /// an object shows.
    pub(crate) fn change(
        &self,
        call: &Call<'_>,
        resource: &Resource,
        current: impl Fn() -> Value,
    ) -> Result<Decoded> {
        let changed = || {
            let mut value = current();
            match &self.language {
                Language::Json(operations) => operations.carry_out(&mut value)?,
                Language::Merge(patch) => json_patch::merge(&mut value, patch),
                Language::Strategic(_) | Language::Apply(..) => {
                    return Err(ApiError::unsupported_media_type(CHANGES));
                }
            }
            Ok(value)
        };
        if let Language::Strategic(patch) = &self.language {
            let mut left = patch.clone();
            let value = decode::strategic(resource, current(), &mut left)?;
            return decode::merged(call, value, &self.problems, || go::display(&left));
        }
        // Only refusals show it, and those may cost more.
        let shown = || changed().map(|value| value.to_string()).unwrap_or_default();
        decode::patched(call, changed()?, &self.problems, shown)
    }
}

/// 400 for a patch that is, or has in some place, a value of another type than belongs there.
fn mistyped(value: &Value, place: &str, wanted: &str) -> ApiError {
    let text = cannot_unmarshal(value, place, wanted);
    ApiError::bad_request(format!("error decoding patch: {text}"))
}

fn cannot_unmarshal(value: &Value, place: &str, wanted: &str) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {found} into Go {place} of type {wanted}")
}

/// The new object of the one that is there.
fn transform(
    call: &Call<'_>,
    patch: &Patch,
    writer: &Writer<'_>,
    current: Option<&Object>,
) -> Result<Decoded> {
    let resource = call.resource;
    if let Language::Apply(wanted, force) = &patch.language {
        let applied = managed::apply(call, current, wanted, *force, writer)?;
        return decode::applied(call, applied, wanted);
    }
    let Some(current) = current else {
        return Err(ApiError::not_found(resource, &call.info.name));
    };
    patch.change(call, resource, || current.to_value(resource))
}
