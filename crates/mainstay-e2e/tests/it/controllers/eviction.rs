//! What the eviction of a pod is answered, as the numbers of its budget are.

use serde_json::{Value, json};

use super::cluster::Cluster;

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const PODS: &str = "/api/v1/namespaces/default/pods";

const VIOLATED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// A pod `app: web`, which somebody holds, so that what became of it can be seen.
async fn pod(cluster: &Cluster, name: &str, phase: &str, ready: bool) {
    let pod = json!({
        "metadata": {
            "name": name, "labels": { "app": "web" }, "finalizers": ["example.com/held"],
        },
        "spec": { "containers": [{ "name": "main", "image": "x" }], "nodeName": "n1" },
    });
    cluster.create(PODS, pod).await;
    let ready = json!({ "type": "Ready", "status": if ready { "True" } else { "False" } });
    let status = json!({ "status": { "phase": phase, "conditions": [ready] } });
    cluster.merge(&format!("{PODS}/{name}/status"), status).await;
}

/// A budget for the pods `app: web`. These have been counted for its generation: healthy, wanted, to spare.
async fn budget(cluster: &Cluster, name: &str, mut spec: Value, numbers: [u32; 3]) {
    spec["selector"] = json!({ "matchLabels": { "app": "web" } });
    cluster.create(BUDGETS, json!({ "metadata": { "name": name }, "spec": spec })).await;
    count(cluster, name, 1, numbers).await;
}

async fn count(cluster: &Cluster, name: &str, generation: u64, numbers: [u32; 3]) {
    let [healthy, desired, allowed] = numbers;
    let status = json!({
        "observedGeneration": generation, "expectedPods": healthy, "currentHealthy": healthy,
        "desiredHealthy": desired, "disruptionsAllowed": allowed,
    });
    cluster.merge(&format!("{BUDGETS}/{name}/status"), json!({ "status": status })).await;
}

/// Evicts a pod: the status of the answer, its text, and after how long to ask again.
async fn evict(cluster: &Cluster, pod: &str) -> (u16, Option<String>, Value) {
    let eviction =
        json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod } });
    cluster.answer(&format!("{PODS}/{pod}/eviction"), &eviction).await
}

async fn until_ending(cluster: &Cluster, pod: &str) {
    let ends =
        |pod: Option<&Value>| pod.is_none_or(|it| it["metadata"]["deletionTimestamp"].is_string());
    cluster.until(&format!("{PODS}/{pod}"), ends).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_run_and_what_ends_already_asks_no_budget() {
    let cluster = Cluster::without_controllers().await;
    budget(&cluster, "none", json!({ "maxUnavailable": 0 }), [1, 1, 0]).await;
    for phase in ["Succeeded", "Failed", "Pending"] {
        let name = phase.to_lowercase();
        pod(&cluster, &name, phase, true).await;
        let (code, _, status) = evict(&cluster, &name).await;
        assert_eq!((code, &status["status"]), (201, &json!("Success")), "{phase}");
        until_ending(&cluster, &name).await;
    }
    pod(&cluster, "runs", "Running", true).await;
    assert_eq!(evict(&cluster, "runs").await.0, 429);
    let calls = cluster.calls();
    let runs = cluster.get(&format!("{PODS}/runs")).await.unwrap();
    let uid = runs["metadata"]["uid"].as_str().unwrap();
    let deletion = mainstay_client::Deletion { uid, ..mainstay_client::Deletion::default() };
    calls.delete(&format!("{PODS}/runs"), deletion).await.unwrap();
    assert_eq!(evict(&cluster, "runs").await.0, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_one_budget_is_one_too_many() {
    let cluster = Cluster::without_controllers().await;
    for name in ["one", "two"] {
        budget(&cluster, name, json!({ "minAvailable": 0 }), [1, 0, 1]).await;
    }
    pod(&cluster, "runs", "Running", true).await;
    let (code, _, status) = evict(&cluster, "runs").await;
    let expected = "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                    does not support.";
    assert_eq!((code, &status["message"]), (500, &json!(expected)));
    assert_eq!(
        (&status["status"], &status["reason"]),
        (&json!("Failure"), &json!("InternalError"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_says_what_it_lacks() {
    let cluster = Cluster::without_controllers().await;
    budget(&cluster, "web", json!({ "minAvailable": 2 }), [2, 2, 0]).await;
    pod(&cluster, "runs", "Running", true).await;
    let refused = |answer: (u16, Option<String>, Value), cause: &str, again: Option<&str>| {
        let (code, after, status) = answer;
        assert_eq!((code, &status["message"]), (429, &json!(VIOLATED)), "{status}");
        assert_eq!(status["reason"], "TooManyRequests");
        let causes = json!([{ "reason": "DisruptionBudget", "message": cause }]);
        assert_eq!(status["details"]["causes"], causes);
        assert_eq!(after.as_deref(), again);
        let seconds = status["details"]["retryAfterSeconds"].as_u64().map(|it| it.to_string());
        assert_eq!(seconds.as_deref(), again);
    };
    let lacks = "The disruption budget web needs 2 healthy pods and has 2 currently";
    refused(evict(&cluster, "runs").await, lacks, None);
    // It is another one now, which nobody has counted for.
    let less = json!({ "spec": { "minAvailable": 1 } });
    let changed = cluster.merge(&format!("{BUDGETS}/web"), less).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    let unseen = "The disruption budget web is still being processed by the server.";
    refused(evict(&cluster, "runs").await, unseen, Some("10"));
    count(&cluster, "web", 2, [2, 1, 1]).await;
    assert_eq!(evict(&cluster, "runs").await.0, 201);
    // It was spent, and is remembered until the pod is gone.
    let spent = cluster.get(&format!("{BUDGETS}/web")).await.unwrap();
    assert_eq!(spent["status"]["disruptionsAllowed"], 0);
    assert!(spent["status"]["disruptedPods"]["runs"].is_string(), "{spent}");
    let runs = cluster.get(&format!("{PODS}/runs")).await.unwrap();
    let conditions = runs["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|it| it["type"] == "DisruptionTarget").unwrap();
    assert_eq!(target["status"], "True");
    assert_eq!(
        (&target["reason"], &target["message"]),
        (&json!("EvictionByEvictionAPI"), &json!("Eviction API: evicting"))
    );
    assert_eq!(runs["metadata"]["deletionGracePeriodSeconds"], 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ready_may_go_where_enough_others_are() {
    for (numbers, policy, ready, code) in [
        ([2, 2, 0], Value::Null, false, 201),
        ([2, 2, 0], Value::Null, true, 429),
        ([3, 2, 0], json!("IfHealthyBudget"), false, 201),
        ([1, 2, 0], Value::Null, false, 429),
        ([0, 0, 0], Value::Null, false, 429),
        ([1, 2, 0], json!("AlwaysAllow"), false, 201),
        ([1, 2, 0], json!("AlwaysAllow"), true, 429),
    ] {
        let cluster = Cluster::without_controllers().await;
        let spec = json!({ "minAvailable": numbers[1], "unhealthyPodEvictionPolicy": policy });
        budget(&cluster, "web", spec, numbers).await;
        pod(&cluster, "runs", "Running", ready).await;
        let answer = evict(&cluster, "runs").await;
        assert_eq!(answer.0, code, "{numbers:?} {policy} {ready}: {}", answer.2);
    }
}
