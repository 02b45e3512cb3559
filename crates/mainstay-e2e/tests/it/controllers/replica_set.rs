//! As many pods as a ReplicaSet says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::cluster::{Cluster, name, owner_reference, uid};

const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn set(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "main", "image": "x" }] },
            },
        },
    })
}

/// Waits until a number of the status is this one, and all that was asked for was seen.
async fn until_status(cluster: &Cluster, name: &str, field: &str, number: u32) {
    let is = |set: Option<&Value>| {
        let set = set.unwrap();
        set["status"][field].as_u64().unwrap_or(0) == u64::from(number)
            && set["status"]["observedGeneration"] == set["metadata"]["generation"]
    };
    cluster.until(&format!("{SETS}/{name}"), is).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_as_many_pods_as_it_says() {
    let cluster = Cluster::new().await;
    let owner = cluster.create(SETS, set("web", 20)).await;
    until_status(&cluster, "web", "replicas", 20).await;
    let pods = cluster.list(PODS).await;
    assert_eq!(pods.len(), 20);
    let mut expected = owner_reference(&owner);
    expected["controller"] = true.into();
    for pod in &pods {
        assert!(name(pod).starts_with("web-"));
        assert_eq!(pod["metadata"]["ownerReferences"], json!([expected]));
    }
    cluster.run_pods().await;
    until_status(&cluster, "web", "availableReplicas", 20).await;
    cluster.merge(&format!("{SETS}/web"), json!({ "spec": { "replicas": 3 } })).await;
    until_status(&cluster, "web", "replicas", 3).await;
    // One that is over is replaced.
    let left = cluster.list(PODS).await;
    let over = left.iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null()).unwrap();
    let over = format!("{PODS}/{}", name(over));
    cluster.merge(&format!("{over}/status"), json!({ "status": { "phase": "Failed" } })).await;
    until_status(&cluster, "web", "readyReplicas", 2).await;
    until_status(&cluster, "web", "replicas", 3).await;
    // Every pod that ever was is told of; none was made twice.
    cluster.until_event(|event| event["reason"] == "SuccessfulDelete").await;
    let made = cluster.messages("SuccessfulCreate").await;
    assert!(made.iter().any(|it| it.starts_with("Created pod: web-")), "{made:?}");
    cluster.delete(&format!("{SETS}/web"), "Background").await;
    let gone = |list: Option<&Value>| list.unwrap()["items"].as_array().unwrap().is_empty();
    cluster.until(PODS, gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pod_is_made_twice() {
    let mut cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        cluster.create(SETS, set(name, 40)).await;
    }
    // Whenever it ends, the next one goes on from there.
    for _ in 0..5 {
        let before = cluster.list(PODS).await.len();
        cluster
            .until(PODS, |list| {
                let pods = list.unwrap()["items"].as_array().unwrap().len();
                pods > before || pods >= 120
            })
            .await;
        cluster.stop_controllers().await;
        cluster.start_controllers();
    }
    for name in ["a", "b", "c"] {
        until_status(&cluster, name, "replicas", 40).await;
    }
    let pods = cluster.list(PODS).await;
    assert_eq!(pods.len(), 120);
    let owners: BTreeSet<&str> = pods
        .iter()
        .map(|pod| pod["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap())
        .collect();
    assert_eq!(owners.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_adopted_and_let_go() {
    let cluster = Cluster::new().await;
    let pod = json!({
        "metadata": { "name": "free", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "main", "image": "x" }] },
    });
    cluster.create(PODS, pod).await;
    // Who has not heard of it makes another one. The scheduler says that it has, and hears what all controllers do.
    let is_heard_of = |pod: Option<&Value>| pod.unwrap()["status"]["conditions"].is_array();
    cluster.until(&format!("{PODS}/free"), is_heard_of).await;
    let owner = cluster.create(SETS, set("web", 1)).await;
    until_status(&cluster, "web", "replicas", 1).await;
    let free = cluster.get(&format!("{PODS}/free")).await.unwrap();
    assert_eq!(free["metadata"]["ownerReferences"][0]["uid"], uid(&owner));
    assert_eq!(cluster.list(PODS).await.len(), 1);
    // It is not one of them any more, and another one is made.
    cluster
        .merge(&format!("{PODS}/free"), json!({ "metadata": { "labels": { "app": "other" } } }))
        .await;
    let is_free = |pod: Option<&Value>| pod.unwrap()["metadata"]["ownerReferences"].is_null();
    cluster.until(&format!("{PODS}/free"), is_free).await;
    let two = |list: Option<&Value>| list.unwrap()["items"].as_array().unwrap().len() == 2;
    cluster.until(PODS, two).await;
    until_status(&cluster, "web", "replicas", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_are_nobodys_but_their_nodes() {
    let cluster = Cluster::new().await;
    let of_node = cluster.mirror().await;
    cluster.create(SETS, set("web", 2)).await;
    until_status(&cluster, "web", "replicas", 2).await;
    assert_eq!(cluster.list(PODS).await.len(), 3);
    cluster.merge(&format!("{SETS}/web"), json!({ "spec": { "replicas": 0 } })).await;
    until_status(&cluster, "web", "replicas", 0).await;
    let mirror = cluster.get(&format!("{PODS}/web-n1")).await.unwrap();
    assert_eq!(mirror["metadata"]["ownerReferences"], json!([of_node]));
    assert!(mirror["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_made_is_told() {
    let cluster = Cluster::new().await;
    let mut refused = set("web", 7);
    refused["spec"]["template"]["spec"]["serviceAccountName"] = "nobody".into();
    cluster.create(SETS, refused).await;
    let fails =
        |set: Option<&Value>| set.unwrap()["status"]["conditions"][0]["reason"] == "FailedCreate";
    cluster.until(&format!("{SETS}/web"), fails).await;
    let is_told = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        event["reason"] == "FailedCreate"
            && event["type"] == "Warning"
            && message.starts_with("Error creating: pods \"web-")
            && message.ends_with("serviceaccount \"nobody\" not found")
    };
    cluster.until_event(is_told).await;
    let account = json!({ "metadata": { "name": "nobody" } });
    cluster.create("/api/v1/namespaces/default/serviceaccounts", account).await;
    until_status(&cluster, "web", "replicas", 7).await;
    let is_well = |set: Option<&Value>| set.unwrap()["status"]["conditions"].is_null();
    cluster.until(&format!("{SETS}/web"), is_well).await;
}
