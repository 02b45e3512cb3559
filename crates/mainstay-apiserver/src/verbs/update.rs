//! `update`: a whole object, or its status, instead of the one that is there.

use crate::call::{Answer, Call};
use crate::decode;
use crate::pipeline::Change;
use crate::request::dry_run;
use crate::status::Result;
use crate::verbs::get;

/// Replaces an object.
pub(crate) async fn update(call: &Call<'_>) -> Result<Answer> {
    let decoded = decode::body(call)?;
    let dry_run = dry_run(call.info.query.all("dryRun").iter().map(String::as_str))?;
    let manager = call.manager();
    let writer = call.writer(&manager, dry_run);
    let subresource = call.info.subresource.as_str();
    let change = Change {
        resource: call.resource,
        namespace: call.namespace(),
        name: &call.info.name,
        subresource,
        may_create: subresource.is_empty() && call.resource.strategy.allows_create_on_update(),
    };
    let changed = call.server.update(&change, &writer, |_| Ok(decoded.object.clone())).await?;
    let code = if changed.created { http::StatusCode::CREATED } else { http::StatusCode::OK };
    let mut warnings = decoded.warnings.clone();
    warnings.extend(changed.warnings);
    Ok(get::answer(call, code, &changed.stored).with_warnings(warnings))
}
