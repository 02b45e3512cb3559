mod model;
mod numbers;
mod progress;
mod steps;

use k8s_openapi::api::apps::v1::DeploymentCondition;

use super::decide::Decision;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "main", "image": image }] },
    })
}

/// A Deployment of the template `new`, whose spec has these fields.
fn deployment(spec: &Value) -> Deployment {
    let mut all = json!({
        "replicas": 3,
        "selector": { "matchLabels": { "app": "web" } },
        "template": template("new"),
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" },
        },
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 10,
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    let meta = json!({ "name": "web", "namespace": "a", "uid": "web", "generation": 1 });
    serde_json::from_value(json!({ "metadata": meta, "spec": all, "status": {} })).unwrap()
}

/// A Deployment that may have so many pods more and so many fewer.
fn rolling(replicas: i32, surge: &Value, unavailable: &Value) -> Deployment {
    let rolling = json!({ "maxSurge": surge, "maxUnavailable": unavailable });
    let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": rolling });
    deployment(&json!({ "replicas": replicas, "strategy": strategy }))
}

fn recreate() -> Deployment {
    deployment(&json!({ "strategy": { "type": "Recreate" } }))
}

/// A ReplicaSet, called as its template, that was made at a second, with so many pods wanted,
/// there, and available.
fn set(image: &str, made: i64, [size, actual, available]: [i32; 3]) -> ReplicaSet {
    let mut template = template(image);
    template["metadata"]["labels"][super::template::HASH] = image.into();
    let meta = json!({
        "name": image,
        "namespace": "a",
        "uid": image,
        "creationTimestamp": at(made),
        "annotations": { annotations::REVISION: made.to_string() },
    });
    let mut set: ReplicaSet = serde_json::from_value(json!({
        "metadata": meta,
        "spec": { "replicas": size, "selector": {}, "template": template },
        "status": {
            "replicas": actual,
            "readyReplicas": available,
            "availableReplicas": available,
            "terminatingReplicas": 0,
            "observedGeneration": 1,
        },
    }))
    .unwrap();
    set.metadata.generation = Some(1);
    set
}

/// It was made or scaled when the Deployment was to have so many pods, and at most so many.
fn sized(mut set: ReplicaSet, desired: i64, max: i64) -> ReplicaSet {
    let sizes = [(annotations::DESIRED, desired), (annotations::MAX, max)];
    let sizes = sizes.map(|(key, number)| (key.to_owned(), number.to_string()));
    set.metadata.annotations.get_or_insert_default().extend(sizes);
    set
}

fn decide_without_pods(deployment: &Deployment, sets: &[ReplicaSet], now: Timestamp) -> Decision {
    let sets = sets.iter().cloned().map(Arc::new).collect();
    decide(deployment, sets, |_| Vec::new(), now)
}

/// What is written but for the status.
fn writes(decision: &Decision) -> Vec<String> {
    let told = |write: &Write| match write {
        Write::Create(set) => Some(format!("create {}", sets::size(set))),
        Write::Update { set, .. } => Some(format!("update {}", sets::name(set))),
        Write::Scale { set, from, to, .. } => Some(format!("{} {from}->{to}", sets::name(set))),
        Write::Delete(set) => Some(format!("delete {}", sets::name(set))),
        Write::Status { .. } => None,
    };
    decision.writes.iter().filter_map(told).collect()
}

fn status(decision: &Decision) -> &DeploymentStatus {
    let status = decision.writes.iter().find_map(|write| match write {
        Write::Status { status, .. } => Some(status),
        Write::Create(_) | Write::Update { .. } | Write::Scale { .. } | Write::Delete(_) => None,
    });
    status.unwrap()
}

/// Its type, status, reason and message.
fn told(condition: &DeploymentCondition) -> [&str; 4] {
    let [reason, message] =
        [&condition.reason, &condition.message].map(|text| text.as_deref().unwrap_or_default());
    [&condition.type_, &condition.status, reason, message]
}

fn conditions_of(status: &DeploymentStatus) -> Vec<[&str; 4]> {
    status.conditions.iter().flatten().map(told).collect()
}
