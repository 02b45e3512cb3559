//! Which of several processes runs the controllers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cluster::Cluster;

const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";

/// Says that it is dropped.
struct Running(Arc<watch::Sender<bool>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Waits until the work runs, or does not.
async fn runs(running: &watch::Sender<bool>, expected: bool) {
    let mut running = running.subscribe();
    let waited = timeout(Duration::from_secs(60), running.wait_for(|it| *it == expected));
    waited.await.expect("it comes to that").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_loses_the_lease_ends_what_it_does() {
    let cluster = Cluster::without_controllers().await;
    let running = Arc::new(watch::Sender::new(false));
    let (clients, told) = (cluster.clients(), running.clone());
    let mut leading = JoinSet::new();
    leading.spawn(async move {
        let work = || async {
            told.send_replace(true);
            let _running = Running(told.clone());
            std::future::pending::<()>().await;
        };
        mainstay_controllers::lead(&clients, "one", work).await;
    });
    runs(&running, true).await;
    let spec = cluster.get(LEASE).await.unwrap()["spec"].clone();
    assert_eq!(
        (&spec["holderIdentity"], &spec["leaseDurationSeconds"]),
        (&json!("one"), &json!(15))
    );
    // Somebody else has it, whyever.
    let hold = async |holder: &str| {
        let patch = json!({ "spec": { "holderIdentity": holder } });
        cluster.calls().merge::<Value>(LEASE, &patch).await.unwrap()
    };
    hold("other").await;
    runs(&running, false).await;
    assert_eq!(cluster.get(LEASE).await.unwrap()["spec"]["holderIdentity"], "other");
    // It is given up, and taken at once.
    hold("").await;
    runs(&running, true).await;
    let spec = cluster.get(LEASE).await.unwrap()["spec"].clone();
    assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&json!("one"), &json!(1)));
    leading.shutdown().await;
}
