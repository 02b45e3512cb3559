//! Disruption budgets, and evictions that ask them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::cluster::{Cluster, name, owner_reference};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const BUDGET: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/web";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// The budget `web` for the pods `app: web`.
async fn budget(cluster: &Cluster, mut spec: Value) {
    spec["selector"] = json!({ "matchLabels": { "app": "web" } });
    cluster.create(BUDGETS, json!({ "metadata": { "name": "web" }, "spec": spec })).await;
}

/// The Deployment `web` of so many pods.
async fn deployment(cluster: &Cluster, replicas: u32) {
    let deployment = json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": "a" }] },
            },
        },
    });
    cluster.create(DEPLOYMENTS, deployment).await;
}

/// Lets the pods be ready until the budget has these numbers: expected, healthy, wanted, allowed.
async fn until_ready(cluster: &Cluster, numbers: [u32; 4]) {
    let mut last = None;
    let ready = async {
        loop {
            cluster.run_pods().await;
            let budget = cluster.get(BUDGET).await.unwrap();
            if has(&budget, numbers) {
                return;
            }
            last = Some(budget);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), ready).await;
    assert!(waited.is_ok(), "{last:#?}");
}

fn has(budget: &Value, numbers: [u32; 4]) -> bool {
    let fields = ["expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed"];
    fields.into_iter().zip(numbers).all(|(field, number)| budget["status"][field] == number)
        && budget["status"]["observedGeneration"] == budget["metadata"]["generation"]
}

fn condition(budget: &Value) -> &Value {
    &budget["status"]["conditions"][0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_the_budget_and_goes_on() {
    let cluster = Cluster::new().await;
    budget(&cluster, json!({ "maxUnavailable": 1 })).await;
    // With no pods nothing is allowed.
    cluster.until(BUDGET, |it| has(it.unwrap(), [0, 0, 0, 0])).await;
    deployment(&cluster, 3).await;
    until_ready(&cluster, [3, 3, 2, 1]).await;
    let there = cluster.get(BUDGET).await.unwrap();
    assert_eq!(condition(&there)["reason"], "SufficientPods");
    for pod in cluster.list(PODS).await {
        until_ready(&cluster, [3, 3, 2, 1]).await;
        cluster.evict(name(&pod)).await.unwrap();
        cluster.until_gone(&format!("{PODS}/{}", name(&pod))).await;
        // The one in its place is not ready.
        cluster.until(BUDGET, |it| has(it.unwrap(), [3, 2, 2, 0])).await;
        let there = cluster.get(BUDGET).await.unwrap();
        assert_eq!(condition(&there)["reason"], "InsufficientPods");
        let pods = cluster.list(PODS).await;
        let other = pods.iter().find(|it| it["status"]["phase"] == "Running").unwrap();
        let refused = cluster.evict(name(other)).await.unwrap_err();
        let expected = "Cannot evict pod as it would violate the pod's disruption budget.";
        assert_eq!(refused.answer, expected);
    }
    until_ready(&cluster, [3, 3, 2, 1]).await;
    assert_eq!(cluster.get(BUDGET).await.unwrap()["status"]["disruptedPods"], json!(null));
    // More of them are wanted.
    let more = json!({ "spec": { "replicas": 5 } });
    cluster.merge(&format!("{DEPLOYMENTS}/web"), more).await;
    until_ready(&cluster, [5, 5, 4, 1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_eviction_is_granted_twice() {
    let cluster = Arc::new(Cluster::new().await);
    budget(&cluster, json!({ "minAvailable": "60%" })).await;
    deployment(&cluster, 10).await;
    until_ready(&cluster, [10, 10, 6, 4]).await;
    let pods = cluster.list(PODS).await;
    let mut evictions = JoinSet::new();
    for pod in pods {
        let cluster = cluster.clone();
        evictions.spawn(async move { cluster.evict(name(&pod)).await });
    }
    let granted = evictions.join_all().await;
    assert_eq!(granted.iter().filter(|it| it.is_ok()).count(), 4, "{granted:?}");
    cluster.until(BUDGET, |it| has(it.unwrap(), [10, 6, 6, 0])).await;
    until_ready(&cluster, [10, 10, 6, 4]).await;
}

/// Waits until the budget allows nothing because of this.
async fn until_failed(cluster: &Cluster, why: &str) {
    let has_failed = |it: Option<&Value>| condition(it.unwrap())["reason"] == "SyncFailed";
    cluster.until(BUDGET, has_failed).await;
    let there = cluster.get(BUDGET).await.unwrap();
    assert_eq!(condition(&there)["message"], why);
    assert_eq!(there["status"]["disruptionsAllowed"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_scale_is_told() {
    let cluster = Cluster::new().await;
    let map = cluster.config_map("map", &[]).await;
    let mut owner = owner_reference(&map);
    owner["controller"] = true.into();
    let pod = |name: &str, owners: Value| {
        json!({
            "metadata": { "name": name, "labels": { "app": "web" }, "ownerReferences": owners },
            "spec": { "containers": [{ "name": "main", "image": "a" }] },
        })
    };
    cluster.create(PODS, pod("owned", json!([owner]))).await;
    budget(&cluster, json!({ "maxUnavailable": 1 })).await;
    until_failed(&cluster, "configmaps does not implement the scale subresource").await;
    let until_told = |reason: &'static str| {
        cluster.until_event(move |event| {
            event["reason"] == reason && event["source"]["component"] == "controllermanager"
        })
    };
    until_told("CalculateExpectedPodCountFailed").await;
    // One without a controller is only left out.
    cluster.delete(&format!("{PODS}/owned"), "Background").await;
    cluster.create(PODS, pod("bare", json!([]))).await;
    until_told("UnmanagedPods").await;
    until_ready(&cluster, [0, 1, 0, 0]).await;
    let integer = json!({ "spec": { "maxUnavailable": null, "minAvailable": 0 } });
    cluster.merge(BUDGET, integer).await;
    until_ready(&cluster, [1, 1, 0, 1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_are_counted_where_a_budget_has_a_number() {
    let cluster = Cluster::new().await;
    cluster.mirror().await;
    budget(&cluster, json!({ "maxUnavailable": 1 })).await;
    until_failed(&cluster, "nodes does not implement the scale subresource").await;
    let integer = |least: u32| json!({ "spec": { "maxUnavailable": null, "minAvailable": least } });
    cluster.merge(BUDGET, integer(1)).await;
    until_ready(&cluster, [1, 1, 1, 0]).await;
    cluster.merge(BUDGET, integer(0)).await;
    until_ready(&cluster, [1, 1, 0, 1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_was_not_disrupted_says_so() {
    let cluster = Cluster::new().await;
    let pod = json!({
        "metadata": { "name": "a" },
        "spec": { "containers": [{ "name": "main", "image": "a" }] },
    });
    cluster.create(PODS, pod).await;
    let target = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": "2020-01-01T00:00:00Z",
    });
    let path = format!("{PODS}/a");
    let status = json!({ "status": { "phase": "Running", "conditions": [target] } });
    cluster.merge(&format!("{path}/status"), status).await;
    let is_over = |pod: Option<&Value>| {
        let conditions = pod.unwrap()["status"]["conditions"].as_array().unwrap();
        conditions.iter().any(|it| {
            it["type"] == "DisruptionTarget"
                && it["status"] == "False"
                && it["reason"].is_null()
                && it["message"].is_null()
                && it["lastTransitionTime"] != "2020-01-01T00:00:00Z"
        })
    };
    cluster.until(&path, is_over).await;
}
