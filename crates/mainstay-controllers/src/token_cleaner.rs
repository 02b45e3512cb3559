//! Bootstrap tokens go when they have expired.
//!
//! Source: `pkg/controller/bootstrap/tokencleaner.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use mainstay_client::CallError;
use mainstay_pki::BOOTSTRAP_SECRET_TYPE;

use crate::context::Context;
use crate::expiry::expire;
use crate::informer::{Informer, ObjectKey};
use crate::queue::Queue;

/// Where tokens are.
const NAMESPACE: &str = "kube-system";

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
    let secrets = context.informers.secrets(BOOTSTRAP_SECRET_TYPE);
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
    let Some(wait) = goes_after(&secret, Timestamp::now()) else { return Ok(None) };
    expire::<Secret>(context, &secret.metadata, wait).await
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
