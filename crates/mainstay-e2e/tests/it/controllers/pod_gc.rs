//! Pods that nobody runs any more.

use serde_json::{Value, json};

use super::cluster::Cluster;

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": { "name": name, "finalizers": ["example.com/held"] },
        "spec": {
            "nodeName": node,
            "containers": [{ "name": "main", "image": "a" }],
            "tolerations": [{ "operator": "Exists" }],
        },
    })
}

/// Whether a pod has failed and has no time left.
fn has_failed(pod: Option<&Value>) -> bool {
    let pod = pod.unwrap();
    pod["status"]["phase"] == "Failed" && pod["metadata"]["deletionGracePeriodSeconds"] == 0
}

/// Lets go of what holds a pod, which goes then.
async fn let_go(cluster: &Cluster, path: &str) {
    cluster.merge(path, json!({ "metadata": { "finalizers": null } })).await;
    cluster.until_gone(path).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_node_and_is_to_end_fails() {
    let cluster = Cluster::new().await;
    cluster.create(PODS, pod("a", "")).await;
    let path = format!("{PODS}/a");
    cluster.delete(&path, "Background").await;
    cluster.until(&path, has_failed).await;
    let_go(&cluster, &path).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_end_on_a_node_that_is_off_goes() {
    let cluster = Cluster::new().await;
    cluster.create(NODES, json!({ "metadata": { "name": "n1" } })).await;
    for name in ["ends", "stays"] {
        cluster.create(PODS, pod(name, "n1")).await;
    }
    let path = format!("{PODS}/ends");
    // Its node has 30 seconds to end it.
    cluster.evict("ends").await.unwrap();
    let ends = cluster.get(&path).await.unwrap();
    assert_eq!(ends["metadata"]["deletionGracePeriodSeconds"], 30);
    let taint = json!({ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" });
    cluster.merge(&format!("{NODES}/n1"), json!({ "spec": { "taints": [taint] } })).await;
    cluster.until(&path, has_failed).await;
    let_go(&cluster, &path).await;
    let stays = cluster.get(&format!("{PODS}/stays")).await.unwrap();
    assert!(stays["metadata"]["deletionTimestamp"].is_null());
}
