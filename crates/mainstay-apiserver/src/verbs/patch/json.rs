//! JSON patches, as Kubernetes reads them and carries them out.
//!
//! Source: `jsonPatcher` in `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go` and
//! `gopkg.in/evanphx/json-patch.v4`.

use json_patch::{AddOperation, PatchOperation, ReplaceOperation};
use serde_json::{Map, Value};

use crate::body::MAX_BODY;
use crate::status::{ApiError, Result};

/// More operations than this in one patch are refused. Source: `maxJSONPatchOperations`.
const MAX_OPERATIONS: usize = 10_000;

/// What an operation has; each is a text but for the value.
const FIELDS: [&str; 4] = ["op", "path", "from", "value"];

/// The operations of a patch, one after the other.
pub(super) struct Operations {
    /// `None` if one is no operation, which is found out when they are carried out.
    known: Option<Vec<PatchOperation>>,
}

impl Operations {
    /// Reads a patch; what nobody knows in it is added to its problems.
    ///
    /// # Errors
    ///
    /// 400 when it is no list of objects, 413 when they are too many.
    pub(super) fn read(patch: Value, problems: &mut Vec<String>) -> Result<Self> {
        for problem in &mut *problems {
            problem.insert_str(0, "json patch ");
        }
        let items = match patch {
            Value::Null => Vec::new(),
            Value::Array(items) => items,
            other => return Err(super::mistyped(&other, "value", "[]handlers.jsonPatchOp")),
        };
        if items.len() > MAX_OPERATIONS {
            return Err(ApiError::too_large(MAX_BODY).with_message(format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is \
                 {MAX_OPERATIONS}, got {}",
                items.len()
            )));
        }
        let mut known = Some(Vec::with_capacity(items.len()));
        for (at, item) in items.into_iter().enumerate() {
            let fields = match item {
                Value::Null => Map::new(),
                Value::Object(fields) => fields,
                other => return Err(super::mistyped(&other, "value", "handlers.jsonPatchOp")),
            };
            for (key, value) in &fields {
                match key.as_str() {
                    "value" => {}
                    key if !FIELDS.contains(&key) => {
                        problems.push(format!("json patch unknown field \"[{at}].{key}\""));
                    }
                    key if !value.is_string() && !value.is_null() => {
                        let place = format!("struct field jsonPatchOp.{key}");
                        return Err(super::mistyped(value, &place, "string"));
                    }
                    _ => {}
                }
            }
            match (operation(fields), &mut known) {
                (Some(operation), Some(known)) => known.push(operation),
                _ => known = None,
            }
        }
        Ok(Self { known })
    }

    /// # Errors
    ///
    /// 422 when one cannot be done. Which one it was is told to nobody, as upstream.
    pub(super) fn carry_out(&self, value: &mut Value) -> Result<()> {
        let done = self.known.as_ref().is_some_and(|operations| {
            operations.iter().all(|operation| {
                let operation = settled(operation, value);
                json_patch::patch(value, std::slice::from_ref(&operation)).is_ok()
            })
        });
        if done { Ok(()) } else { Err(ApiError::rejected()) }
    }
}

fn operation(mut fields: Map<String, Value>) -> Option<PatchOperation> {
    fields.entry("value").or_insert(Value::Null);
    serde_json::from_value(Value::Object(fields)).ok()
}

/// In an object, what is not there yet may be replaced.
fn settled(operation: &PatchOperation, value: &Value) -> PatchOperation {
    if let PatchOperation::Replace(ReplaceOperation { path, value: new }) = operation
        && value.pointer(path.as_str()).is_none()
        && path
            .parent()
            .is_some_and(|parent| value.pointer(parent.as_str()).is_some_and(Value::is_object))
    {
        return PatchOperation::Add(AddOperation { path: path.clone(), value: new.clone() });
    }
    operation.clone()
}
