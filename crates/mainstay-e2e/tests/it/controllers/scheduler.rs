//! Which node a pod gets, and what is told of one that gets none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cluster::{Cluster, name};

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A node with room for 10 pods, and 4 CPUs for them.
async fn node(cluster: &Cluster, name: &str) {
    let labels = json!({"kubernetes.io/hostname": name});
    cluster.create(NODES, json!({"metadata": {"name": name, "labels": labels}})).await;
    let has = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
    let status = json!({"status": {"capacity": has, "allocatable": has}});
    cluster.merge(&format!("{NODES}/{name}/status"), status).await;
}

fn pod(name: &str, cpu: &str) -> Value {
    let resources = json!({"requests": {"cpu": cpu}});
    json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "x", "resources": resources}]},
    })
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == kind)
}

async fn until_on(cluster: &Cluster, name: &str, node: &str) {
    let on = |pod: Option<&Value>| pod.is_some_and(|pod| pod["spec"]["nodeName"] == node);
    cluster.until(&format!("{PODS}/{name}"), on).await;
}

async fn until_waiting(cluster: &Cluster, name: &str, message: &str) {
    let waits = |pod: Option<&Value>| {
        let scheduled = pod.and_then(|pod| condition(pod, "PodScheduled"));
        scheduled.is_some_and(|it| {
            it["status"] == "False" && it["reason"] == "Unschedulable" && it["message"] == message
        })
    };
    cluster.until(&format!("{PODS}/{name}"), waits).await;
}

/// Waits for an event about a pod; answers its message.
async fn event(cluster: &Cluster, pod: &str, reason: &str) -> String {
    let is = |event: &Value| event["involvedObject"]["name"] == pod && event["reason"] == reason;
    let event = cluster.until_event(is).await;
    assert_eq!(event["source"]["component"], "default-scheduler");
    event["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_spread_over_nodes_until_these_are_full() {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        node(&cluster, name).await;
    }
    for index in 0..31 {
        cluster.create(PODS, pod(&format!("p{index}"), "10m")).await;
    }
    let full = "0/3 nodes are available: 3 Too many pods. no new claims to deallocate, preemption: \
                0/3 nodes are available: 3 No preemption victims found for incoming pod.";
    // All may have waited for the nodes at first, for another reason.
    cluster
        .until(PODS, |list| {
            let pods = list.unwrap()["items"].as_array().unwrap();
            pods.iter().filter(|pod| pod["spec"]["nodeName"].is_string()).count() == 30
                && pods.iter().any(|pod| {
                    condition(pod, "PodScheduled").is_some_and(|it| it["message"] == full)
                })
        })
        .await;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for pod in cluster.list(PODS).await {
        let name = name(&pod);
        let scheduled = condition(&pod, "PodScheduled").unwrap();
        match pod["spec"]["nodeName"].as_str() {
            Some(node) => {
                *counts.entry(node.to_owned()).or_default() += 1;
                assert_eq!(scheduled["status"], "True");
                let message = format!("Successfully assigned default/{name} to {node}");
                assert_eq!(event(&cluster, name, "Scheduled").await, message);
            }
            None => {
                assert_eq!(scheduled["status"], "False");
                let is = |event: &Value| {
                    event["involvedObject"]["name"] == name
                        && event["reason"] == "FailedScheduling"
                        && event["message"] == full
                };
                cluster.until_event(is).await;
            }
        }
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_helps_those_who_wait() {
    let cluster = Cluster::new().await;
    cluster.create(PODS, pod("first", "1")).await;
    until_waiting(&cluster, "first", "no nodes available to schedule pods").await;
    node(&cluster, "a").await;
    until_on(&cluster, "first", "a").await;

    let a = format!("{NODES}/a");
    cluster.merge(&a, json!({"spec": {"unschedulable": true}})).await;
    // Its taint tells that the controllers have heard of it.
    let is_cordoned = |node: Option<&Value>| {
        let taints = node.unwrap()["spec"]["taints"].as_array();
        let key = "node.kubernetes.io/unschedulable";
        taints.is_some_and(|taints| taints.iter().any(|it| it["key"] == key))
    };
    cluster.until(&a, is_cordoned).await;
    let useless = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption \
                   is not helpful for scheduling.";
    let cordoned = format!("0/1 nodes are available: 1 node(s) were unschedulable. {useless}");
    let mut gated = pod("second", "1");
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    let gated = cluster.create(PODS, gated).await;
    assert_eq!(condition(&gated, "PodScheduled").unwrap()["reason"], "SchedulingGated");
    cluster.create(PODS, pod("third", "99")).await;
    until_waiting(&cluster, "third", &cordoned).await;
    cluster.merge(&format!("{PODS}/second"), json!({"spec": {"schedulingGates": null}})).await;
    until_waiting(&cluster, "second", &cordoned).await;
    cluster.merge(&a, json!({"spec": {"unschedulable": null}})).await;
    until_on(&cluster, "second", "a").await;
    let lacking = format!("0/1 nodes are available: 1 Insufficient cpu. {useless}");
    until_waiting(&cluster, "third", &lacking).await;

    cluster.create(PODS, pod("fourth", "3")).await;
    let full = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
                preemption: 0/1 nodes are available: 1 No preemption victims found for incoming \
                pod.";
    until_waiting(&cluster, "fourth", full).await;
    cluster.delete(&format!("{PODS}/first"), "Background").await;
    until_on(&cluster, "fourth", "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_have_a_node_or_another_scheduler_are_left_alone() {
    let cluster = Cluster::new().await;
    node(&cluster, "a").await;
    let mut direct = pod("direct", "99");
    direct["spec"]["nodeName"] = "a".into();
    cluster.create(PODS, direct).await;
    let mut other = pod("other", "1");
    other["spec"]["schedulerName"] = "another".into();
    cluster.create(PODS, other).await;
    // What is there counts, whoever put it there; and by now the other one was looked at, too.
    cluster.create(PODS, pod("late", "1")).await;
    let full = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
                preemption: 0/1 nodes are available: 1 No preemption victims found for incoming \
                pod.";
    until_waiting(&cluster, "late", full).await;
    let other = cluster.get(&format!("{PODS}/other")).await.unwrap();
    assert_eq!(other["spec"].get("nodeName"), None);
    assert!(condition(&other, "PodScheduled").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_take_room_and_ports() {
    let cluster = Cluster::new().await;
    node(&cluster, "a").await;
    let mut mirror = pod("web-a", "3");
    mirror["spec"]["nodeName"] = "a".into();
    mirror["spec"]["hostNetwork"] = true.into();
    mirror["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "1"});
    cluster.create(PODS, mirror).await;
    let victims = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption \
                   victims found for incoming pod.";
    cluster.create(PODS, pod("large", "2")).await;
    let lacking = format!("0/1 nodes are available: 1 Insufficient cpu. {victims}");
    until_waiting(&cluster, "large", &lacking).await;
    let mut same_port = pod("same-port", "1");
    same_port["spec"]["containers"][0]["ports"] = json!([{"containerPort": 81, "hostPort": 80}]);
    cluster.create(PODS, same_port).await;
    let taken = "node(s) didn't have free ports for the requested pod ports";
    let taken = format!("0/1 nodes are available: 1 {taken}. {victims}");
    until_waiting(&cluster, "same-port", &taken).await;
    cluster.delete(&format!("{PODS}/web-a"), "Background").await;
    for name in ["large", "same-port"] {
        until_on(&cluster, name, "a").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schedulers_bind_each_pod_once() {
    let mut cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        node(&cluster, name).await;
        let is_free = |node: Option<&Value>| node.unwrap()["spec"]["taints"].is_null();
        cluster.until(&format!("{NODES}/{name}"), is_free).await;
    }
    // Each decides for itself; who comes second is told that it is bound.
    cluster.start_controllers();
    for index in 0..24 {
        cluster.create(PODS, pod(&format!("p{index}"), "10m")).await;
    }
    let bound = |list: Option<&Value>| {
        let pods = list.unwrap()["items"].as_array().unwrap().iter();
        pods.filter(|pod| pod["spec"]["nodeName"].is_string()).count() == 24
    };
    cluster.until(PODS, bound).await;
    let before = cluster.list(PODS).await;
    // It is its turn when all those before it have had theirs.
    cluster.create(PODS, pod("last", "10m")).await;
    cluster
        .until(&format!("{PODS}/last"), |pod| pod.unwrap()["spec"]["nodeName"].is_string())
        .await;
    for pod in before {
        let after = cluster.get(&format!("{PODS}/{}", name(&pod))).await.unwrap();
        assert_eq!(after["spec"]["nodeName"], pod["spec"]["nodeName"]);
        assert_eq!(condition(&after, "PodScheduled").unwrap()["status"], "True");
    }
    let told = cluster.messages("FailedScheduling").await;
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_more_important_pod_gets_the_room_of_others() {
    let cluster = Cluster::new().await;
    node(&cluster, "a").await;
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    cluster.create("/apis/scheduling.k8s.io/v1/priorityclasses", class).await;
    cluster.create(PODS, pod("low", "3")).await;
    until_on(&cluster, "low", "a").await;
    let mut high = pod("high", "4");
    high["spec"]["priorityClassName"] = "high".into();
    let high = cluster.create(PODS, high).await;

    let low = format!("{PODS}/low");
    // It was never started, but nobody is there who says so.
    cluster
        .until(&low, |pod| pod.is_some_and(|pod| pod["metadata"]["deletionTimestamp"].is_string()))
        .await;
    let leaving = cluster.get(&low).await.unwrap();
    let target = condition(&leaving, "DisruptionTarget").unwrap();
    assert_eq!(
        (&target["reason"], &target["message"]),
        (
            &json!("PreemptionByScheduler"),
            &json!("default-scheduler: preempting to accommodate a higher priority pod")
        )
    );
    let uid = high["metadata"]["uid"].as_str().unwrap();
    let message = format!("Preempted by pod {uid} on node a");
    assert_eq!(event(&cluster, "low", "Preempted").await, message);
    let nominated =
        |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["nominatedNodeName"] == "a");
    cluster.until(&format!("{PODS}/high"), nominated).await;
    cluster.delete(&low, "Background").await;
    until_on(&cluster, "high", "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_begins_anew_while_it_binds_goes_on() {
    let mut cluster = Cluster::without_controllers().await;
    for name in ["a", "b", "c"] {
        node(&cluster, name).await;
    }
    for index in 0..30 {
        cluster.create(PODS, pod(&format!("p{index}"), "10m")).await;
    }
    let nodes = |list: Option<&Value>| -> Vec<String> {
        let pods = list.unwrap()["items"].as_array().unwrap().iter();
        let nodes = pods.filter_map(|pod| pod["spec"]["nodeName"].as_str());
        nodes.map(str::to_owned).collect()
    };
    for bound in [1, 7, 15, 22, 30] {
        cluster.start_controllers();
        cluster.until(PODS, |list| nodes(list).len() >= bound).await;
        cluster.stop_controllers().await;
    }
    let all = nodes(cluster.get(PODS).await.as_ref());
    for name in ["a", "b", "c"] {
        assert_eq!(all.iter().filter(|node| *node == name).count(), 10, "{name}");
    }
}
