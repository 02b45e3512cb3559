//! `update`: a whole object, or its status, instead of the one that is there.

use crate::call::{Answer, Call};
use crate::decode::{self, Decoded};
use crate::pipeline::Change;
use crate::status::Result;
use crate::verbs::get;

/// Replaces an object.
pub(crate) async fn update(call: &Call<'_>) -> Result<Answer> {
    let Decoded { object, warnings } = decode::body(call)?;
    let manager = call.manager();
    let writer = call.writer(&manager, call.info.query.dry_run());
    let subresource = call.info.subresource.as_str();
    let change = Change {
        resource: call.resource,
        namespace: call.namespace(),
        name: &call.info.name,
        subresource,
        may_create: subresource.is_empty() && call.resource.strategy.allows_create_on_update(),
    };
    let changed = call.server.update(&change, &writer, |_| Ok(object.clone())).await?;
    Ok(get::written(call, changed, warnings))
}
