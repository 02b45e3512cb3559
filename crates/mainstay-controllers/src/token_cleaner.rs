//! Bootstrap tokens go when they have expired.
//!
//! Source: `pkg/controller/bootstrap/tokencleaner.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use mainstay_client::{CallError, CallErrorKind, Deletion};

use crate::context::Context;
use crate::informer::{Informer, ObjectKey};
use crate::informers::path;
use crate::queue::Queue;

/// Source: `SecretTypeBootstrapToken`.
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where tokens are.
const NAMESPACE: &str = "kube-system";
/// The longest wait: the clock may be set.
const LONGEST: Duration = Duration::from_secs(3600);

/// After what time a token has to go, which is nothing if it has expired; `None` if never.
fn goes_after(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let expiration = secret.data.as_ref()?.get("expiration")?;
    if expiration.0.is_empty() {
        return None;
    }
    let text = std::str::from_utf8(&expiration.0).unwrap_or_default();
    // One that cannot be read is over, as for whoever shows the token.
    let end = text.parse::<Timestamp>().unwrap_or(now);
    Some(Duration::try_from(end.duration_since(now)).unwrap_or_default())
}

pub(crate) async fn run(context: Context) {
    let secrets = context.informers.secrets(TYPE);
    let queue = Arc::new(Queue::new("token_cleaner"));
    let _fed = secrets.feed(&queue, |change| {
        let key = change.new.map(|it| ObjectKey::of(&it.metadata));
        key.filter(|key| key.namespace == NAMESPACE)
    });
    secrets.complete().await;
    queue.work(1, |key| sync(&context, &secrets, key)).await;
}

async fn sync(
    context: &Context,
    secrets: &Informer<Secret>,
    key: ObjectKey,
) -> Result<Option<Duration>, CallError> {
    let Some(secret) = secrets.get(&key) else { return Ok(None) };
    match goes_after(&secret, Timestamp::now()) {
        None => return Ok(None),
        Some(Duration::ZERO) => {}
        Some(wait) => return Ok(Some(wait.min(LONGEST))),
    }
    let path = path::<Secret>(&key.namespace, &key.name);
    let uid = secret.metadata.uid.as_deref().unwrap_or_default();
    match context.calls.delete(&path, Deletion::of(uid)).await {
        Err(error) if !matches!(error.kind, CallErrorKind::NotFound | CallErrorKind::Conflict) => {
            Err(error)
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn each_token_has_its_time() {
        let now: Timestamp = "2027-03-04T05:06:07Z".parse().unwrap();
        let of = |expiration: &str| {
            let data = [("expiration".to_owned(), ByteString(expiration.as_bytes().to_vec()))];
            goes_after(&Secret { data: Some(data.into()), ..Secret::default() }, now)
        };
        assert_eq!(of("2027-03-04T05:06:17Z"), Some(Duration::from_secs(10)));
        assert_eq!(of("2027-03-04T05:06:07Z"), Some(Duration::ZERO));
        assert_eq!(of("2026-03-04T05:06:07Z"), Some(Duration::ZERO));
        assert_eq!(of("soon"), Some(Duration::ZERO));
        assert_eq!(of(""), None);
        assert_eq!(goes_after(&Secret::default(), now), None);
    }
}
