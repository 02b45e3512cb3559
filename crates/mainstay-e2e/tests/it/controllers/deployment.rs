//! Deployments, and the ReplicaSets that they have for their templates.

use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Cluster, name};

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";

/// The Deployment `web` of three pods.
fn deployment(strategy: &Value) -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": strategy,
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "main", "image": "a" }] },
            },
        },
    })
}

/// Another template.
fn image(image: &str) -> Value {
    let containers = json!([{ "name": "main", "image": image }]);
    json!({ "spec": { "template": { "spec": { "containers": containers } } } })
}

/// Lets the pods be ready until the rollout of this generation is complete; answers the Deployment.
async fn until_complete(cluster: &Cluster, generation: u64) -> Value {
    let rollout = async {
        loop {
            cluster.run_pods().await;
            let deployment = cluster.get(WEB).await.unwrap();
            if is_complete(&deployment, generation) {
                return deployment;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), rollout).await.unwrap()
}

/// As `kubectl rollout status` sees it.
fn is_complete(deployment: &Value, generation: u64) -> bool {
    let (status, wanted) = (&deployment["status"], &deployment["spec"]["replicas"]);
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let is_available = |it: &Value| it["reason"] == "NewReplicaSetAvailable";
    status["observedGeneration"] == generation
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|it| status[*it] == *wanted)
        && conditions.into_iter().any(is_available)
}

/// Waits until this has been told of a ReplicaSet.
async fn until_scaled(cluster: &Cluster, message: &str) {
    let is = |event: &Value| event["reason"] == "ScalingReplicaSet" && event["message"] == message;
    cluster.until_event(is).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_is_rolled_out_and_back() {
    let cluster = Cluster::new().await;
    cluster.create(DEPLOYMENTS, deployment(&json!({}))).await;
    let first = until_complete(&cluster, 1).await;
    assert_eq!(first["metadata"]["annotations"][REVISION], "1");
    cluster.merge(WEB, image("b")).await;
    let second = until_complete(&cluster, 2).await;
    assert_eq!(second["metadata"]["annotations"][REVISION], "2");
    cluster.merge(WEB, image("a")).await;
    let third = until_complete(&cluster, 3).await;
    assert_eq!(third["metadata"]["annotations"][REVISION], "3");
    let sets = cluster.list(SETS).await;
    assert_eq!(sets.len(), 2);
    let set = sets.iter().find(|set| set["spec"]["replicas"] == 3).unwrap();
    assert_eq!(set["metadata"]["annotations"][REVISION], "3");
    assert_eq!(set["metadata"]["annotations"][HISTORY], "1");
    until_scaled(&cluster, &format!("Scaled up replica set {} from 0 to 3", name(set))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_old_pods_are_gone_first() {
    let cluster = Cluster::new().await;
    cluster.create(DEPLOYMENTS, deployment(&json!({ "type": "Recreate" }))).await;
    until_complete(&cluster, 1).await;
    let old = cluster.list(SETS).await;
    let mut patch = image("b");
    patch["spec"]["revisionHistoryLimit"] = 0.into();
    cluster.merge(WEB, patch).await;
    until_complete(&cluster, 2).await;
    cluster.until_gone(&format!("{SETS}/{}", name(&old[0]))).await;
    let new = cluster.list(SETS).await;
    let steps = [(&old[0], "up", 0, 3), (&old[0], "down", 3, 0), (&new[0], "up", 0, 3)];
    for (set, direction, from, to) in steps {
        let step = format!("Scaled {direction} replica set {} from {from} to {to}", name(set));
        until_scaled(&cluster, &step).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_taken_is_avoided() {
    let cluster = Cluster::new().await;
    cluster.create(DEPLOYMENTS, deployment(&json!({}))).await;
    until_complete(&cluster, 1).await;
    let sets = cluster.list(SETS).await;
    // It is let go, and keeps its name.
    let labels = json!({ "metadata": { "labels": { "app": "other" } } });
    cluster.merge(&format!("{SETS}/{}", name(&sets[0])), labels).await;
    let has_collided = |it: Option<&Value>| it.unwrap()["status"]["collisionCount"] == 1;
    cluster.until(WEB, has_collided).await;
    let has_both = |it: Option<&Value>| it.unwrap()["items"].as_array().unwrap().len() == 2;
    cluster.until(SETS, has_both).await;
    until_complete(&cluster, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_set_of_the_same_template_is_adopted() {
    let cluster = Cluster::new().await;
    cluster.create(DEPLOYMENTS, deployment(&json!({}))).await;
    until_complete(&cluster, 1).await;
    cluster.delete(WEB, "Orphan").await;
    cluster.until_gone(WEB).await;
    // Whoever has heard of what is changed now has heard that it is nobody's.
    let set = format!("{SETS}/{}", name(&cluster.list(SETS).await[0]));
    cluster.merge(&set, json!({ "spec": { "replicas": 2 } })).await;
    cluster.until(&set, |it| it.unwrap()["status"]["replicas"] == 2).await;
    let there = cluster.create(DEPLOYMENTS, deployment(&json!({}))).await;
    until_complete(&cluster, 1).await;
    let sets = cluster.list(SETS).await;
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0]["metadata"]["ownerReferences"][0]["uid"], there["metadata"]["uid"]);
}
