//! One pod on each node that takes it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cluster::Cluster;

const SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes";

fn set() -> Value {
    json!({
        "metadata": { "name": "agents" },
        "spec": {
            "selector": { "matchLabels": { "app": "agents" } },
            "template": {
                "metadata": { "labels": { "app": "agents" } },
                "spec": { "containers": [{ "name": "main", "image": "x:1" }] },
            },
        },
    })
}

async fn node(cluster: &Cluster, name: &str, taints: Value) {
    let ready = json!({ "type": "Ready", "status": "True" });
    let capacity = json!({ "cpu": "4", "memory": "8Gi", "pods": "110" });
    let status = json!({ "conditions": [ready], "capacity": capacity, "allocatable": capacity });
    let node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": { "taints": taints },
        "status": status,
    });
    cluster.create(NODES, node).await;
}

/// The nodes of the pods, and their images.
fn places(list: Option<&Value>) -> BTreeMap<String, String> {
    let pods = list.unwrap()["items"].as_array().unwrap().iter();
    let pods = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let name = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                /nodeSelectorTerms/0/matchFields/0/values/0";
    let pods = pods.map(|pod| {
        (text(pod.pointer(name).unwrap()), text(&pod["spec"]["containers"][0]["image"]))
    });
    pods.collect()
}

/// Waits until these nodes have a pod each, of this image, and no other node has one.
async fn until_on(cluster: &Cluster, nodes: &[&str], image: &str) {
    let expected: BTreeMap<String, String> =
        nodes.iter().map(|node| ((*node).to_owned(), image.to_owned())).collect();
    let is = |list: Option<&Value>| {
        places(list) == expected && list.unwrap()["items"].as_array().unwrap().len() == nodes.len()
    };
    cluster.until(PODS, is).await;
}

/// Waits until the set is as its status says so.
async fn until_status(cluster: &Cluster, fields: &[(&str, u64)]) {
    let is = |set: Option<&Value>| {
        let status = &set.unwrap()["status"];
        fields.iter().all(|(field, number)| status[field].as_u64().unwrap_or(0) == *number)
    };
    cluster.until(&format!("{SETS}/agents"), is).await;
}

/// Does what nodes would: their pods become ready, and those that are to end end.
async fn run_pods(cluster: &Cluster) {
    for pod in cluster.list(PODS).await {
        let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        if pod["metadata"]["deletionTimestamp"].is_string() {
            cluster.delete(&path, "Background").await;
        } else if pod["status"]["phase"] == "Pending" {
            let ready = json!({ "type": "Ready", "status": "True" });
            let status = json!({ "phase": "Running", "conditions": [ready] });
            cluster.merge(&format!("{path}/status"), json!({ "status": status })).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_has_one_pod() {
    let cluster = Cluster::new().await;
    node(&cluster, "n1", json!([])).await;
    let cordoned = json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]);
    node(&cluster, "n2", cordoned).await;
    node(&cluster, "n3", json!([{ "key": "own", "effect": "NoSchedule" }])).await;
    cluster.create(SETS, set()).await;
    until_on(&cluster, &["n1", "n2"], "x:1").await;
    until_status(&cluster, &[("desiredNumberScheduled", 2), ("updatedNumberScheduled", 2)]).await;
    run_pods(&cluster).await;
    until_status(&cluster, &[("numberAvailable", 2), ("numberUnavailable", 0)]).await;
    // A node that comes, one that takes pods now, and one that does not any more.
    node(&cluster, "n4", json!([])).await;
    cluster.merge(&format!("{NODES}/n3"), json!({ "spec": { "taints": null } })).await;
    until_on(&cluster, &["n1", "n2", "n3", "n4"], "x:1").await;
    let evicting = json!([{ "key": "own", "effect": "NoExecute" }]);
    cluster.merge(&format!("{NODES}/n1"), json!({ "spec": { "taints": evicting } })).await;
    let is_left = |list: Option<&Value>| !places(list).contains_key("n1");
    cluster.until(PODS, is_left).await;
    run_pods(&cluster).await;
    until_on(&cluster, &["n2", "n3", "n4"], "x:1").await;
    until_status(&cluster, &[("desiredNumberScheduled", 3), ("numberMisscheduled", 0)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_template_comes_to_one_node_after_the_other() {
    let cluster = Cluster::new().await;
    let nodes = ["n1", "n2", "n3"];
    for name in nodes {
        node(&cluster, name, json!([])).await;
    }
    cluster.create(SETS, set()).await;
    until_on(&cluster, &nodes, "x:1").await;
    run_pods(&cluster).await;
    until_status(&cluster, &[("numberAvailable", 3)]).await;
    let template = json!({ "spec": { "containers": [{ "name": "main", "image": "x:2" }] } });
    cluster.merge(&format!("{SETS}/agents"), json!({ "spec": { "template": template } })).await;
    for updated in 1..=3 {
        let is_next = |list: Option<&Value>| {
            let pods = list.unwrap()["items"].as_array().unwrap();
            let old = places(list).into_values().filter(|image| image == "x:1").count();
            // No more than one is away at any moment.
            assert!(old + updated >= 3, "{pods:#?}");
            old + updated == 3
        };
        cluster.until(PODS, is_next).await;
        // The one that goes, and then the one in its place.
        run_pods(&cluster).await;
        until_status(&cluster, &[("updatedNumberScheduled", updated as u64)]).await;
        run_pods(&cluster).await;
    }
    until_on(&cluster, &nodes, "x:2").await;
    until_status(&cluster, &[("numberAvailable", 3), ("numberReady", 3)]).await;
}
