//! What is below objects and is not simply a part of them.

mod binding;
mod eviction;
mod scale;
mod token;

use crate::call::{Answer, Call};
use crate::status::{ApiError, Result};

/// Answers a request for a subresource that has ways of its own; `None` for one that is a part of its
/// object, such as `status`.
pub(crate) async fn answer(call: &Call<'_>) -> Result<Option<Answer>> {
    let sub = call.info.subresource.as_str();
    match (call.resource.group, call.resource.plural, sub) {
        (_, _, "") => Ok(None),
        ("", "pods", "binding") => binding::create(call).await.map(Some),
        ("", "pods", "eviction") => eviction::create(call).await.map(Some),
        ("", "services", "proxy") => Err(no_endpoints(call).await?),
        ("", "serviceaccounts", "token") => token::create(call).await.map(Some),
        ("apps", _, "scale") => scale::answer(call).await.map(Some),
        _ => Ok(None),
    }
}

/// Nothing leads from a Service to pods here, which a real server would say of one without pods.
async fn no_endpoints(call: &Call<'_>) -> Result<ApiError> {
    // `name`, `name:port` or `scheme:name:port`
    let parts: Vec<&str> = call.info.name.split(':').collect();
    let ([_, name, _] | [name, _] | [name]) = parts.as_slice() else {
        let why = format!("invalid service request {:?}", call.info.name);
        return Ok(ApiError::bad_request(why));
    };
    call.server.storage.get(call.resource, call.namespace(), name).await?;
    Ok(ApiError::unavailable(format!("no endpoints available for service {name:?}")))
}
