//! Requests do not pile up: what was answered goes after an hour, what nobody has answered after a day.
//!
//! Source: `pkg/controller/certificates/cleaner/cleaner.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use mainstay_client::CallError;

use super::{condition, is_decided, is_issued};
use crate::context::Context;
use crate::expiry::expire;
use crate::informer::{Informer, ObjectKey};
use crate::queue::Queue;

/// After what time requests go. Source: `approvedExpiration`, `deniedExpiration`, `pendingExpiration`.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// When a request goes.
fn goes_at(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let since = |kind| condition(request, kind)?.last_update_time.as_ref().map(|it| it.0);
    let created = request.metadata.creation_timestamp.as_ref().map(|it| it.0);
    let answered = since("Denied").or_else(|| since("Failed")).map(|it| (it, ANSWERED));
    let approved = || {
        let life = if is_issued(request) { ANSWERED } else { PENDING };
        since("Approved").map(|it| (it, life))
    };
    let pending = || created.filter(|_| !is_decided(request)).map(|it| (it, PENDING));
    let (since, life) = answered.or_else(approved).or_else(pending)?;
    since.checked_add(life).ok()
}

pub(crate) async fn run(context: Context) {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let queue = Arc::new(Queue::new("csr_cleaning"));
    let _fed =
        requests.feed(&queue, |change| change.new.map(|it| ObjectKey::of(&it.metadata).name));
    requests.complete().await;
    queue.work(1, |name| sync(&context, &requests, name)).await;
}

async fn sync(
    context: &Context,
    requests: &Informer<CertificateSigningRequest>,
    name: String,
) -> Result<Option<Duration>, CallError> {
    let Some(request) = requests.get(&ObjectKey::new("", &name)) else { return Ok(None) };
    let Some(at) = goes_at(&request) else { return Ok(None) };
    // A time that has passed is no wait.
    let wait = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
    expire::<CertificateSigningRequest>(context, &request.metadata, wait).await
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::super::tests::{Asked, NOW, with};
    use super::*;

    #[test]
    fn each_has_its_time() {
        let now: Timestamp = NOW.parse().unwrap();
        let of = |kinds: &[&str], issued: bool| {
            let mut request = Asked::of_node("n1").request();
            for kind in kinds {
                request = with(request, kind);
            }
            if issued {
                let status = request.status.get_or_insert_default();
                status.certificate = Some(ByteString(b"PEM".to_vec()));
            }
            goes_at(&request).unwrap().duration_since(now)
        };
        assert_eq!(of(&[], false), PENDING);
        assert_eq!(of(&["Held"], false), PENDING);
        assert_eq!(of(&["Approved"], false), PENDING);
        assert_eq!(of(&["Approved"], true), ANSWERED);
        assert_eq!(of(&["Approved", "Failed"], false), ANSWERED);
        assert_eq!(of(&["Denied"], false), ANSWERED);
    }
}
