//! `get`: one object.

use http::StatusCode;
use jiff::Timestamp;

use crate::call::{Answer, Call};
use crate::object::{self, Object};
use crate::pipeline::Changed;
use crate::status::{ApiError, Result};
use crate::storage;
use crate::table;

/// Answers one object.
pub(crate) async fn get(call: &Call<'_>) -> Result<Answer> {
    let (resource, name) = (call.resource, &call.info.name);
    call.not_older_than_asked().await?;
    let entry = call.server.storage.entry(resource, call.namespace(), name).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found(resource, name))?;
    if call.is_raw() {
        let mut out = Vec::with_capacity(entry.value.len() + 128);
        object::render(&mut out, resource, &entry.value, entry.revision);
        return Ok(Answer::json_bytes(out));
    }
    Ok(answer(call, storage::decode(resource, &entry.value, entry.revision)?))
}

/// An object as the client wants it.
pub(crate) fn answer(call: &Call<'_>, object: Object) -> Answer {
    let (shape, now) = (&call.accept.shape, Timestamp::now());
    Answer::json(table::shaped(call.resource, shape, call.include(), object, now))
}

/// An object that was written, as the client wants it, with what it should know about what it sent.
pub(crate) fn written(call: &Call<'_>, changed: Changed, mut warnings: Vec<String>) -> Answer {
    warnings.extend(changed.warnings);
    let code = if changed.created { StatusCode::CREATED } else { StatusCode::OK };
    answer(call, changed.stored.object).with_code(code).with_warnings(warnings)
}
