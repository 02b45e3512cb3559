//! `get`: one object.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::object::{self, Object};
use crate::request::Shape;
use crate::status::{ApiError, Result};
use crate::storage::{self, Stored};
use crate::table::{self, IncludeObject};

/// Answers one object.
pub(crate) async fn get(call: &Call<'_>) -> Result<Answer> {
    let (resource, name) = (call.resource, &call.info.name);
    call.not_older_than_asked().await?;
    let entry = call.server.storage.entry(resource, call.namespace(), name).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found(resource, name))?;
    if call.accept.shape == Shape::Plain && !call.accept.yaml && !resource.strategy.converts() {
        let mut out = Vec::with_capacity(entry.value.len() + 128);
        object::render(&mut out, resource, &entry.value, entry.revision);
        return Ok(Answer::json_bytes(http::StatusCode::OK, out));
    }
    let object = storage::decode(resource, &entry.value, entry.revision)?;
    Ok(Answer::json(shaped(call, &object)))
}

/// An object as the client wants it.
pub(crate) fn shaped(call: &Call<'_>, object: &Object) -> Value {
    let resource = call.resource;
    match call.accept.shape {
        Shape::Plain => object.to_value(resource),
        Shape::Partial => table::partial(object, "v1"),
        Shape::Table(version) => {
            let list = json!({ "resourceVersion": object.resource_version() });
            let include = IncludeObject::parse(call.info.query.get("includeObject"));
            let objects = std::slice::from_ref(object);
            table::table(resource, version, &list, objects, include, Timestamp::now())
        }
    }
}

/// An object that was written, as the client wants it.
pub(crate) fn answer(call: &Call<'_>, code: http::StatusCode, stored: &Stored) -> Answer {
    Answer::json(shaped(call, &stored.object)).with_code(code)
}
