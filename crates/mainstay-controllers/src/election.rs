//! Who of several processes runs the controllers: whoever holds a Lease.
//!
//! It is `kube-system/kube-controller-manager`, also for the scheduler: here they run together, and a
//! kube-controller-manager of somebody else keeps out of its way.
//!
//! # Guarantees
//!
//! - The controllers run after the Lease was taken, and end as soon as another holder is seen, or when it
//!   could not be renewed for [`RENEW_DEADLINE`], which is before anybody else may take it.
//! - A clock that is wrong harms nobody: how old a Lease is says how long ago it was seen to change.
//!
//! Source: `staging/src/k8s.io/client-go/tools/leaderelection/leaderelection.go`, with the defaults of
//! `staging/src/k8s.io/component-base/config/v1alpha1/defaults.go`.

mod candidate;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use mainstay_client::{CallError, CallErrorKind, Calls, Trouble};
use tokio::time::{Instant, sleep, timeout};

use crate::context::{AGENT, Clients, READER};
use candidate::{Candidate, Claim};

/// How long a Lease holds that is not renewed.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long it is tried to renew it before the controllers end.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, and looked at by those who do not hold it.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

const COLLECTION: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const PATH: &str =
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";

/// Does `work` whenever this process, which no other has the name of, holds the Lease. Never ends.
pub async fn lead<F>(clients: &dyn Clients, identity: &str, work: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    let calls = clients.calls(READER, AGENT);
    let mut candidate = Candidate::new(identity);
    loop {
        take(&calls, &mut candidate).await;
        tracing::info!("the controllers run here from now on");
        tokio::select! {
            // First, so that nothing more is done when it is lost.
            biased;
            // Whatever is dropped half way is asked anew: the Lease tells how it stands.
            why = keep(&calls, &mut candidate) => {
                tracing::warn!(why, "the controllers do not run here any more");
            }
            () = work() => {}
        }
    }
}

/// Until the Lease is taken.
async fn take(calls: &Calls, candidate: &mut Candidate) {
    let mut trouble = Trouble::default();
    loop {
        match claim(calls, candidate).await {
            Ok(()) if candidate.leads() => return,
            Ok(()) => {
                trouble.end();
            }
            Err(error) => {
                if trouble.is_news(&error) {
                    tracing::warn!(
                        error = error.message,
                        "it is not known who runs the controllers; it is asked again"
                    );
                }
                trouble.count(RETRY_PERIOD);
            }
        }
        sleep(RETRY_PERIOD + jitter()).await;
    }
}

/// Until the Lease is lost, and why.
async fn keep(calls: &Calls, candidate: &mut Candidate) -> String {
    loop {
        sleep(RETRY_PERIOD).await;
        let mut last = None;
        let renewed = timeout(RENEW_DEADLINE, async {
            loop {
                match claim(calls, candidate).await {
                    Ok(()) => return,
                    Err(error) => last = Some(error),
                }
                sleep(RETRY_PERIOD).await;
            }
        });
        if renewed.await.is_err() {
            let seconds = RENEW_DEADLINE.as_secs();
            let why = last.map_or_else(|| "no answer".to_owned(), |error| error.message);
            return format!("the Lease could not be renewed for {seconds} s: {why}");
        }
        if !candidate.leads() {
            return format!("{} holds the Lease now", candidate.holder());
        }
    }
}

/// Takes or renews the Lease, if that may be done.
async fn claim(calls: &Calls, candidate: &mut Candidate) -> Result<(), CallError> {
    let asked = Instant::now().into_std();
    if let Some(lease) = candidate.renewal(asked, Timestamp::now()) {
        // If it has changed meanwhile, that is found next.
        if let Ok(written) = calls.put(PATH, &lease).await {
            candidate.wrote(written, asked);
            return Ok(());
        }
    }
    let found: Option<Lease> = match calls.get(PATH).await {
        Ok(found) => Some(found),
        Err(error) if error.kind == CallErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let asked = Instant::now().into_std();
    let written = match candidate.found(found, asked, Timestamp::now()) {
        Claim::Create(lease) => calls.post(COLLECTION, &lease).await?,
        Claim::Replace(lease) => calls.put(PATH, &lease).await?,
        Claim::None => return Ok(()),
    };
    candidate.wrote(written, asked);
    Ok(())
}

/// So that not all who wait ask at once. Source: `JitterFactor`, 1.2.
fn jitter() -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let most = RETRY_PERIOD.as_millis() * 12 / 10;
    Duration::from_millis(u64::try_from(u128::from(random) % most).unwrap_or_default())
}
