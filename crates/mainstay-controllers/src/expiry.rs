//! Objects that go when their time is over.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_client::{CallError, Deletion};

use crate::context::Context;
use crate::informer::ObjectKey;
use crate::informers::{Kind, path};

/// The longest wait: the clock may be set.
const LONGEST: Duration = Duration::from_secs(3600);

/// Deletes an object whose time is over; of one that has to wait still, answers when to look again.
pub(crate) async fn expire<K: Kind>(
    context: &Context,
    metadata: &ObjectMeta,
    wait: Duration,
) -> Result<Option<Duration>, CallError> {
    if !wait.is_zero() {
        return Ok(Some(wait.min(LONGEST)));
    }
    let ObjectKey { namespace, name } = ObjectKey::of(metadata);
    let uid = metadata.uid.as_deref().unwrap_or_default();
    match context.calls.delete(&path::<K>(&namespace, &name), Deletion::of(uid)).await {
        Err(error) if !error.is_of_another() => Err(error),
        _ => Ok(None),
    }
}
