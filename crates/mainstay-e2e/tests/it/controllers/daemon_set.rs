//! One pod on each node that takes it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cluster::{Cluster, name};

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

/// Waits until these nodes have a pod each, of this image, and no other node has one. All are bound: others would not
/// be seen to go, since they go at once.
async fn until_on(cluster: &Cluster, nodes: &[&str], image: &str) {
    let expected: BTreeMap<String, String> =
        nodes.iter().map(|node| ((*node).to_owned(), image.to_owned())).collect();
    let is = |list: Option<&Value>| {
        let pods = list.unwrap()["items"].as_array().unwrap();
        places(list) == expected
            && pods.len() == nodes.len()
            && pods.iter().all(|pod| pod["spec"]["nodeName"].is_string())
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
        let path = format!("{PODS}/{}", name(&pod));
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
async fn the_scheduler_binds_its_pods_to_cordoned_nodes_too() {
    let cluster = Cluster::new().await;
    node(&cluster, "n1", json!([])).await;
    cluster.merge(&format!("{NODES}/n1"), json!({ "spec": { "unschedulable": true } })).await;
    let is_tainted = |node: Option<&Value>| {
        let taints = node.unwrap()["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().any(|it| it["key"] == "node.kubernetes.io/unschedulable")
    };
    cluster.until(&format!("{NODES}/n1"), is_tainted).await;
    let tolerated = |host_network: bool| {
        let keys = [
            ("not-ready", "NoExecute"),
            ("unreachable", "NoExecute"),
            ("disk-pressure", "NoSchedule"),
            ("memory-pressure", "NoSchedule"),
            ("pid-pressure", "NoSchedule"),
            ("unschedulable", "NoSchedule"),
        ];
        let network = [("network-unavailable", "NoSchedule")];
        let all = keys.iter().chain(network.iter().filter(|_| host_network));
        let all = all.map(|(key, effect)| {
            let key = format!("node.kubernetes.io/{key}");
            json!({ "key": key, "operator": "Exists", "effect": effect })
        });
        Value::from_iter(all)
    };
    let mut on_host = set();
    on_host["metadata"]["name"] = "on-host".into();
    for part in ["selector", "template"] {
        let labels = match part {
            "selector" => &mut on_host["spec"][part]["matchLabels"],
            _ => &mut on_host["spec"][part]["metadata"]["labels"],
        };
        *labels = json!({ "app": "on-host" });
    }
    on_host["spec"]["template"]["spec"]["hostNetwork"] = true.into();
    cluster.create(SETS, set()).await;
    cluster.create(SETS, on_host).await;
    let are_bound = |list: Option<&Value>| {
        let pods = list.unwrap()["items"].as_array().unwrap();
        pods.len() == 2 && pods.iter().all(|pod| pod["spec"]["nodeName"] == "n1")
    };
    cluster.until(PODS, are_bound).await;
    for pod in cluster.list(PODS).await {
        let told = |event: &Value| {
            event["reason"] == "Scheduled"
                && event["source"]["component"] == "default-scheduler"
                && event["message"] == format!("Successfully assigned default/{} to n1", name(&pod))
        };
        cluster.until_event(told).await;
        let on_host = pod["metadata"]["labels"]["app"] == "on-host";
        assert_eq!(pod["spec"]["tolerations"], tolerated(on_host), "{}", name(&pod));
    }
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

const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";

/// The revisions of a list, by their numbers.
fn revisions(list: Option<&Value>) -> BTreeMap<u64, Value> {
    let items = list.unwrap()["items"].as_array().unwrap().iter();
    items.map(|it| (it["revision"].as_u64().unwrap(), it.clone())).collect()
}

fn hash(object: &Value) -> &str {
    object["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap()
}

/// Waits until a pod is to end.
async fn until_one_goes(cluster: &Cluster) {
    let goes = |list: Option<&Value>| {
        let pods = list.unwrap()["items"].as_array().unwrap();
        pods.iter().any(|pod| pod["metadata"]["deletionTimestamp"].is_string())
    };
    cluster.until(PODS, goes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_are_kept_and_come_back() {
    let cluster = Cluster::new().await;
    node(&cluster, "n1", json!([])).await;
    cluster.create(SETS, set()).await;
    until_on(&cluster, &["n1"], "x:1").await;
    cluster.until(REVISIONS, |list| revisions(list).contains_key(&1)).await;
    let first = revisions(cluster.get(REVISIONS).await.as_ref())[&1].clone();
    assert_eq!(first["metadata"]["name"], format!("agents-{}", hash(&first)));
    assert_eq!(first["metadata"]["ownerReferences"][0]["kind"], "DaemonSet");
    assert_eq!(hash(&cluster.list(PODS).await[0]), hash(&first));

    let path = format!("{SETS}/agents");
    let template = json!({ "spec": { "containers": [{ "name": "main", "image": "x:2" }] } });
    let change = json!({
        "metadata": { "annotations": { "kubernetes.io/change-cause": "newer" } },
        "spec": { "template": template, "revisionHistoryLimit": 1 },
    });
    cluster.merge(&path, change).await;
    cluster.until(REVISIONS, |list| revisions(list).contains_key(&2)).await;
    let second = revisions(cluster.get(REVISIONS).await.as_ref())[&2].clone();
    assert_eq!(second["metadata"]["annotations"]["kubernetes.io/change-cause"], "newer");
    until_one_goes(&cluster).await;
    run_pods(&cluster).await;
    until_on(&cluster, &["n1"], "x:2").await;
    run_pods(&cluster).await;
    until_status(&cluster, &[("updatedNumberScheduled", 1), ("numberAvailable", 1)]).await;

    // As `kubectl rollout undo` does it.
    cluster.patch(&path, first["data"].clone()).await;
    let is_back = |list: Option<&Value>| {
        let all = revisions(list);
        all.len() == 2
            && all.get(&3).is_some_and(|it| it["metadata"]["uid"] == first["metadata"]["uid"])
    };
    cluster.until(REVISIONS, is_back).await;
    until_one_goes(&cluster).await;
    run_pods(&cluster).await;
    until_on(&cluster, &["n1"], "x:1").await;
    assert_eq!(hash(&cluster.list(PODS).await[0]), hash(&first));

    // Of those that no pod is of, only so many are kept.
    let template = json!({ "spec": { "containers": [{ "name": "main", "image": "x:3" }] } });
    cluster.merge(&path, json!({ "spec": { "template": template } })).await;
    until_one_goes(&cluster).await;
    run_pods(&cluster).await;
    let are_left = |list: Option<&Value>| numbers(list) == [3, 4];
    cluster.until(REVISIONS, are_left).await;
}

fn numbers(list: Option<&Value>) -> Vec<u64> {
    revisions(list).into_keys().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pod_serves_before_the_old_one_goes() {
    let cluster = Cluster::new().await;
    node(&cluster, "n1", json!([])).await;
    let mut surging = set();
    surging["spec"]["updateStrategy"] =
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    cluster.create(SETS, surging).await;
    until_on(&cluster, &["n1"], "x:1").await;
    run_pods(&cluster).await;
    until_status(&cluster, &[("numberAvailable", 1)]).await;
    let template = json!({ "spec": { "containers": [{ "name": "main", "image": "x:2" }] } });
    cluster.merge(&format!("{SETS}/agents"), json!({ "spec": { "template": template } })).await;
    let are = |list: Option<&Value>, ending: usize| {
        let pods = list.unwrap()["items"].as_array().unwrap().clone();
        let ends = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_string();
        pods.len() == 2 && pods.iter().filter(ends).count() == ending
    };
    cluster.until(PODS, |list| are(list, 0)).await;
    run_pods(&cluster).await;
    cluster.until(PODS, |list| are(list, 1)).await;
    run_pods(&cluster).await;
    until_on(&cluster, &["n1"], "x:2").await;
}
