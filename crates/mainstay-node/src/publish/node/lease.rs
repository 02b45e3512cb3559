//! The node's lease, renewed for ever.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use mainstay_plan::node_status::{LEASE_NAMESPACE, lease};
use tokio::sync::watch;

use crate::publish::api::{CallError, CallErrorKind, Calls, Trouble};

/// How often it is renewed while it holds. Source: `nodeLeaseRenewIntervalFraction`, a quarter.
const RENEWALS: u32 = 4;

/// Keeps the lease of a node, whose UID is on the channel when it is registered.
pub(crate) async fn keep(
    calls: Calls,
    name: String,
    duration: Duration,
    mut node: watch::Receiver<Option<String>>,
) {
    let mut held = None;
    let mut trouble = Trouble::default();
    loop {
        let uid = match node.wait_for(Option::is_some).await {
            Ok(uid) => uid.clone().unwrap_or_default(),
            Err(_) => return,
        };
        let wait = match renew(&calls, &name, &uid, duration, &mut held).await {
            Ok(()) => {
                trouble.end();
                duration / RENEWALS
            }
            Err(error) => {
                if trouble.is_news(&error) {
                    tracing::warn!(error = error.message, "cannot renew the node's lease");
                }
                trouble.count(error.longest())
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn renew(
    calls: &Calls,
    name: &str,
    uid: &str,
    duration: Duration,
    held: &mut Option<Lease>,
) -> Result<(), CallError> {
    let collection = format!("/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases");
    let path = format!("{collection}/{name}");
    if held.is_none() {
        *held = match calls.get(&path).await {
            Ok(found) => Some(found),
            Err(error) if error.kind == CallErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
    }
    let renewed = lease(held.as_ref(), name, uid, duration, Timestamp::now());
    let answer = match &held {
        Some(_) => calls.put(&path, &renewed).await,
        None => calls.post(&collection, &renewed).await,
    };
    match answer {
        Ok(renewed) => {
            *held = Some(renewed);
            Ok(())
        }
        Err(error) => {
            // It may be another one by now.
            *held = None;
            Err(error)
        }
    }
}
