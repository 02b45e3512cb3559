//! Who set which field: `metadata.managedFields`, and what an apply makes of an object.

use mainstay_schema::managed::{self, ApplyError};
use serde_json::Value;

use crate::call::Call;
use crate::kind::Resource;
use crate::object::Object;
use crate::pipeline::Writer;
use crate::status::{ApiError, Cause, Result};

/// Who sets fields, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manager<'a> {
    /// The name that the client gives itself.
    pub(crate) name: &'a str,
    /// Whether the fields have been told apart already, by an apply.
    pub(crate) applied: bool,
}

/// Notes what a write sets.
pub(crate) fn track(
    resource: &Resource,
    subresource: &str,
    old: Option<&Object>,
    new: &mut Object,
    writer: &Writer<'_>,
) {
    if writer.manager.applied {
        return;
    }
    let Some(of) = mainstay_schema::of(resource.group, resource.version, resource.kind) else {
        return;
    };
    let live = old.map(|old| old.to_value(resource));
    let mut value = std::mem::take(new).into_value(resource);
    let version = resource.api_version();
    let by = of_schema(resource, &version, subresource, writer);
    managed::update(live, &mut value, of, &by);
    *new = Object::from_json(value);
}

/// What an apply makes of an object, to be held against its schema.
///
/// # Errors
///
/// 409 when others own fields that it sets, unless it takes them.
pub(crate) fn apply(
    call: &Call<'_>,
    current: Option<&Object>,
    wanted: &Value,
    force: bool,
    writer: &Writer<'_>,
) -> Result<Value> {
    let resource = call.resource;
    let Some(of) = mainstay_schema::of(resource.group, resource.version, resource.kind) else {
        return Err(ApiError::unsupported_media_type("application/merge-patch+json"));
    };
    let live = current.map(|current| current.to_value(resource));
    let version = resource.api_version();
    let by = of_schema(resource, &version, &call.info.subresource, writer);
    match managed::apply(live, wanted, of, &by, force) {
        Ok(applied) => Ok(applied),
        Err(ApplyError::BadRequest(text)) => Err(ApiError::bad_request(text)),
        Err(ApplyError::Untyped(text)) => Err(ApiError::unknown(text)),
        Err(ApplyError::Conflicts(conflicts)) => {
            let causes = conflicts
                .iter()
                .map(|conflict| Cause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: conflict.message(),
                    field: conflict.field(),
                })
                .collect();
            Err(ApiError::apply_conflict(conflicts.to_string(), causes))
        }
    }
}

fn of_schema<'a>(
    resource: &Resource,
    version: &'a str,
    subresource: &'a str,
    writer: &'a Writer<'_>,
) -> managed::Writer<'a> {
    managed::Writer {
        manager: writer.manager.name,
        api_version: version,
        subresource,
        resets: resource.strategy.resets(subresource),
        only: resource.strategy.sets_only(subresource),
        now: writer.now,
    }
}
