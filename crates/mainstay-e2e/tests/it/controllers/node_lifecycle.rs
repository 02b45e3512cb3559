//! Nodes that are not heard of any more, and their pods. The nodes are objects that the test writes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mainstay_controllers::NodeTimes;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::cluster::Cluster;

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/default/pods";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// A node may be silent for this long, on a machine that is busy with other things.
const GRACE: Duration = Duration::from_secs(5);

async fn cluster() -> Cluster {
    Cluster::with_node_times(NodeTimes {
        monitor_period: Duration::from_millis(50),
        monitor_grace_period: GRACE,
        startup_grace_period: GRACE,
    })
    .await
}

/// A node that wrote its status once.
async fn node(cluster: &Cluster, name: &str) {
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "KubeletReady", "message": "as ever",
            "lastHeartbeatTime": Timestamp::now(), "lastTransitionTime": Timestamp::now(),
        })
    };
    let conditions = [
        condition("Ready", "True"),
        condition("MemoryPressure", "False"),
        condition("DiskPressure", "False"),
        condition("PIDPressure", "False"),
    ];
    let node = json!({ "metadata": { "name": name }, "status": { "conditions": conditions } });
    cluster.create(NODES, node).await;
}

/// Keeps a node's lease for as long as it is there.
struct Heart(#[expect(dead_code, reason = "it ends with it")] JoinSet<()>);

impl Heart {
    fn of(cluster: &Cluster, name: &str) -> Self {
        Self::ahead(cluster, name, SignedDuration::ZERO)
    }

    /// Of a node whose clock is ahead by this.
    fn ahead(cluster: &Cluster, name: &str, skew: SignedDuration) -> Self {
        let (calls, name) = (cluster.calls(), name.to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let lease = json!({ "metadata": { "name": name } });
            calls.post::<Value, _>(LEASES, &lease).await.unwrap();
            loop {
                let patch = json!({ "spec": {
                    "renewTime": format!("{:.6}", Timestamp::now() + skew),
                    "holderIdentity": name, "leaseDurationSeconds": 40,
                } });
                calls.merge::<Value>(&format!("{LEASES}/{name}"), &patch).await.unwrap();
                tokio::time::sleep(GRACE / 10).await;
            }
        });
        Self(tasks)
    }
}

/// A pod that runs on a node and is ready.
async fn pod(cluster: &Cluster, name: &str, node: &str, tolerations: Value) {
    let pod = json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": node,
            "containers": [{ "name": "main", "image": "a" }],
            "tolerations": tolerations,
        },
    });
    cluster.create(PODS, pod).await;
    let status = json!({ "status": {
        "phase": "Running",
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now() }],
    } });
    cluster.merge(&format!("{PODS}/{name}/status"), status).await;
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|it| it["type"] == kind).unwrap()
}

/// The taints of a node as `key:effect`, without the prefix of their keys.
fn taints(node: Option<&Value>) -> Vec<String> {
    let taints = node.unwrap()["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let text = |taint: &Value| {
        let key = taint["key"].as_str().unwrap();
        let key = key.trim_start_matches("node.kubernetes.io/");
        format!("{key}:{}", taint["effect"].as_str().unwrap())
    };
    let mut taints: Vec<String> = taints.iter().map(text).collect();
    taints.sort();
    taints
}

/// Waits for an event of somebody about an object.
async fn until_told(cluster: &Cluster, who: &str, about: &str, reason: &str, message: &str) {
    let is = |event: &Value| {
        event["source"]["component"] == who
            && event["involvedObject"]["name"] == about
            && event["reason"] == reason
            && event["message"] == message
    };
    cluster.until_event(is).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_silent_node_nothing_is_known_and_its_pods_go() {
    let cluster = cluster().await;
    for name in ["n1", "n2"] {
        node(&cluster, name).await;
    }
    let _lives = Heart::of(&cluster, "n2");
    let heart = Heart::of(&cluster, "n1");
    let n1 = format!("{NODES}/n1");
    // It was not known to be ready when it came.
    cluster.until(&n1, |node| taints(node).is_empty()).await;
    until_told(
        &cluster,
        "node-controller",
        "n1",
        "RegisteredNode",
        "Node n1 event: Registered Node n1 in Controller",
    )
    .await;
    let exists = |key: &str, seconds: Value| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds });
    let short = exists("node.kubernetes.io/unreachable", json!(1));
    let forever = exists("node.kubernetes.io/unreachable", Value::Null);
    pod(&cluster, "short", "n1", json!([short])).await;
    pod(&cluster, "daemon", "n1", json!([forever])).await;
    pod(&cluster, "static", "n1", json!([{ "operator": "Exists", "effect": "NoExecute" }])).await;
    pod(&cluster, "usual", "n1", json!([])).await;
    pod(&cluster, "elsewhere", "n2", json!([short])).await;

    drop(heart);
    cluster
        .until(&n1, |node| taints(node) == ["unreachable:NoExecute", "unreachable:NoSchedule"])
        .await;
    let silent = cluster.get(&n1).await.unwrap();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let it = condition(&silent, kind);
        assert_eq!(it["status"], "Unknown", "{it}");
        assert_eq!(it["reason"], "NodeStatusUnknown");
        assert_eq!(it["message"], "Kubelet stopped posting node status.");
    }
    let added = silent["spec"]["taints"].as_array().unwrap().iter();
    assert!(added.into_iter().all(|taint| taint["timeAdded"].is_string()));
    let (who, message) = ("node-controller", "Node n1 status is now: NodeNotReady");
    until_told(&cluster, who, "n1", "NodeNotReady", message).await;
    for name in ["short", "daemon", "static", "usual"] {
        cluster
            .until(&format!("{PODS}/{name}"), |pod| {
                condition(pod.unwrap(), "Ready")["status"] == "False"
            })
            .await;
        until_told(&cluster, who, name, "NodeNotReady", "Node is not ready").await;
    }
    cluster
        .until(&format!("{PODS}/short"), |pod| {
            pod.unwrap()["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    let short = cluster.get(&format!("{PODS}/short")).await.unwrap();
    let target = condition(&short, "DisruptionTarget");
    assert_eq!(
        (&target["status"], &target["reason"]),
        (&json!("True"), &json!("DeletionByTaintManager"))
    );
    assert_eq!(target["message"], "Taint manager: deleting due to NoExecute taint");
    let (who, reason) = ("taint-eviction-controller", "TaintManagerEviction");
    until_told(&cluster, who, "short", reason, "Marking for deletion Pod default/short").await;
    let elsewhere = cluster.get(&format!("{PODS}/elsewhere")).await.unwrap();
    assert_eq!(condition(&elsewhere, "Ready")["status"], "True");

    // It is heard of again, and writes its status.
    let _heart = {
        cluster.delete(&format!("{LEASES}/n1"), "Background").await;
        Heart::of(&cluster, "n1")
    };
    let ready = json!({ "status": { "conditions": [
        { "type": "Ready", "status": "True", "lastHeartbeatTime": Timestamp::now() },
    ] } });
    cluster.patch(&format!("{n1}/status"), ready).await;
    cluster.until(&n1, |node| taints(node).is_empty()).await;
    until_told(&cluster, who, "usual", reason, "Cancelling deletion of Pod default/usual").await;
    for name in ["daemon", "static", "usual"] {
        let pod = cluster.get(&format!("{PODS}/{name}")).await.unwrap();
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{name}");
    }
    cluster.delete(&n1, "Background").await;
    let message = "Node n1 event: Removing Node n1 from Controller";
    until_told(&cluster, "node-controller", "n1", "RemovingNode", message).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_nodes_clock_shows_does_not_matter() {
    let cluster = cluster().await;
    let path = |name: &str| format!("{NODES}/{name}");
    for name in ["behind", "ahead", "silent"] {
        node(&cluster, name).await;
    }
    let _lives = Heart::ahead(&cluster, "behind", SignedDuration::from_hours(-5));
    let heart = Heart::ahead(&cluster, "ahead", SignedDuration::from_hours(5));
    for name in ["behind", "ahead"] {
        cluster.until(&path(name), |node| taints(node).is_empty()).await;
    }
    let is_away =
        |node: Option<&Value>| taints(node).contains(&"unreachable:NoSchedule".to_owned());
    // It was heard of last when the others were heard of for the first time.
    cluster.until(&path("silent"), is_away).await;
    for name in ["behind", "ahead"] {
        let node = cluster.get(&path(name)).await;
        assert_eq!(taints(node.as_ref()), [""; 0], "{name}");
    }
    // What it said last is still to come.
    drop(heart);
    cluster.until(&path("ahead"), is_away).await;
    let behind = cluster.get(&path("behind")).await;
    assert_eq!(taints(behind.as_ref()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_node_is_silent_no_pod_goes() {
    let cluster = cluster().await;
    for name in ["n1", "n2"] {
        node(&cluster, name).await;
    }
    pod(&cluster, "stays", "n1", json!([])).await;
    for name in ["n1", "n2"] {
        cluster
            .until(&format!("{NODES}/{name}"), |node| taints(node) == ["unreachable:NoSchedule"])
            .await;
    }
    cluster
        .until(&format!("{PODS}/stays"), |pod| {
            condition(pod.unwrap(), "Ready")["status"] == "False"
        })
        .await;
    let _heart = Heart::of(&cluster, "n2");
    let ready = json!({ "status": { "conditions": [
        { "type": "Ready", "status": "True", "lastHeartbeatTime": Timestamp::now() },
    ] } });
    cluster.patch(&format!("{NODES}/n2/status"), ready).await;
    cluster.until(&format!("{NODES}/n2"), |node| taints(node).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_says_of_itself_keeps_pods_away() {
    let cluster = Cluster::new().await;
    node(&cluster, "n1").await;
    let n1 = format!("{NODES}/n1");
    cluster.until(&n1, |node| taints(node).is_empty()).await;
    let say = |kind: &str, status: &str| {
        let conditions = [json!({ "type": kind, "status": status })];
        cluster.patch(&format!("{n1}/status"), json!({ "status": { "conditions": conditions } }))
    };
    for kind in ["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"] {
        say(kind, "True").await;
    }
    cluster.patch(&n1, json!({ "spec": { "unschedulable": true } })).await;
    cluster
        .until(&n1, |node| {
            taints(node)
                == [
                    "disk-pressure:NoSchedule",
                    "memory-pressure:NoSchedule",
                    "network-unavailable:NoSchedule",
                    "pid-pressure:NoSchedule",
                    "unschedulable:NoSchedule",
                ]
        })
        .await;
    for kind in ["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"] {
        say(kind, "False").await;
    }
    cluster.patch(&n1, json!({ "spec": { "unschedulable": null } })).await;
    cluster.until(&n1, |node| taints(node).is_empty()).await;
    // A node that is there and not ready loses its pods, too, unless it is the only one.
    node(&cluster, "n2").await;
    cluster.until(&format!("{NODES}/n2"), |node| taints(node).is_empty()).await;
    say("Ready", "False").await;
    cluster
        .until(&n1, |node| taints(node) == ["not-ready:NoExecute", "not-ready:NoSchedule"])
        .await;
    cluster.merge(&n1, json!({ "metadata": { "labels": { "kubernetes.io/arch": "a" } } })).await;
    cluster
        .until(&n1, |node| node.unwrap()["metadata"]["labels"]["beta.kubernetes.io/arch"] == "a")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taint_of_ones_own_moves_what_does_not_tolerate_it() {
    let cluster = Cluster::new().await;
    node(&cluster, "n1").await;
    let n1 = format!("{NODES}/n1");
    cluster.until(&n1, |node| taints(node).is_empty()).await;
    let tolerates = |seconds: Value| json!([{ "key": "own", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds }]);
    pod(&cluster, "goes", "n1", json!([])).await;
    pod(&cluster, "later", "n1", tolerates(json!(1))).await;
    pod(&cluster, "much-later", "n1", tolerates(json!(3600))).await;
    pod(&cluster, "stays", "n1", tolerates(Value::Null)).await;
    let own = json!([{ "key": "own", "effect": "NoExecute" }]);
    cluster.patch(&n1, json!({ "spec": { "taints": own } })).await;
    let goes = |pod: Option<&Value>| pod.unwrap()["metadata"]["deletionTimestamp"].is_string();
    for name in ["goes", "later"] {
        cluster.until(&format!("{PODS}/{name}"), goes).await;
    }
    // A pod that comes while the taint is there.
    pod(&cluster, "late", "n1", json!([])).await;
    cluster.until(&format!("{PODS}/late"), goes).await;
    cluster.patch(&n1, json!({ "spec": { "taints": null } })).await;
    let (who, reason) = ("taint-eviction-controller", "TaintManagerEviction");
    let message = "Cancelling deletion of Pod default/much-later";
    until_told(&cluster, who, "much-later", reason, message).await;
    for name in ["much-later", "stays"] {
        assert!(!goes(cluster.get(&format!("{PODS}/{name}")).await.as_ref()), "{name}");
    }
}
