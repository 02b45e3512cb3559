//! `create`

use crate::call::{Answer, Call};
use crate::decode;
use crate::status::{ApiError, Result};
use crate::verbs::{get, reviews};

/// Makes an object.
pub(crate) async fn create(call: &Call<'_>) -> Result<Answer> {
    let resource = call.resource;
    if !call.info.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    if resource.namespaced && call.namespace().is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let decoded = decode::body(call)?;
    if let Some(answer) = reviews::answer(call, &decoded.object).await? {
        return Ok(answer);
    }
    let manager = call.manager();
    let writer = call.writer(&manager, call.info.query.dry_run());
    let namespace = call.namespace();
    let changed = call.server.create(resource, namespace, decoded.object, &writer).await?;
    Ok(get::written(call, changed, decoded.warnings))
}
