//! Nodes as far as an API knows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use hyper::Method;
use mainstay_e2e::api::Connection;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::{AT_ONCE, HEARTBEAT, JSON, PODS, list, patch, post};
use crate::LOOK;

const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// The pods that there are, those that have a node, and those that run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) there: usize,
    pub(super) bound: usize,
    pub(super) running: usize,
}

/// What there is of a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits,
    Bound,
    Runs,
    Ends,
}

impl Counts {
    /// A pod was in one stage and is in another.
    fn change(&mut self, before: Option<Stage>, after: Option<Stage>) {
        let has = |stage: Option<Stage>| {
            let bound = stage.is_some_and(|it| it != Stage::Waits);
            [stage.is_some(), bound, stage == Some(Stage::Runs)]
        };
        let counts = [&mut self.there, &mut self.bound, &mut self.running];
        for (count, (before, after)) in
            counts.into_iter().zip(has(before).into_iter().zip(has(after)))
        {
            *count = *count + usize::from(after) - usize::from(before);
        }
    }
}

fn name(number: usize) -> String {
    format!("fake-{number}")
}

/// Makes nodes that are ready, and waits until pods may come.
pub(super) async fn create(connection: &Arc<Connection>, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        let name = name(number);
        let capacity = json!({ "cpu": "8", "memory": "16Gi", "pods": "110" });
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        });
        let node = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": { "capacity": capacity, "allocatable": capacity, "conditions": [ready] },
        });
        post(connection, NODES, &node).await?;
        post(connection, LEASES, &json!({ "metadata": { "name": name } })).await?;
        beat(connection, number).await?;
    }
    let is_free = |node: &Value| {
        let ours = node["metadata"]["name"].as_str().is_some_and(|it| it.starts_with("fake-"));
        ours && node["spec"]["taints"].is_null()
    };
    while list(connection, NODES).await?.iter().filter(|node| is_free(node)).count() < count {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Says that a node is there.
async fn beat(connection: &Connection, number: usize) -> anyhow::Result<()> {
    let name = name(number);
    let spec = json!({
        "holderIdentity": name, "leaseDurationSeconds": 40,
        "renewTime": format!("{:.6}", jiff::Timestamp::now()),
    });
    patch(connection, &format!("{LEASES}/{name}"), &json!({ "spec": spec })).await
}

/// Does what nodes do, and tells what pods there are: why it has ended.
pub(super) async fn play(
    connection: Arc<Connection>,
    count: usize,
    tell: watch::Sender<Counts>,
) -> anyhow::Error {
    tokio::select! {
        // Cancel-safe: neither has an end but a failure.
        error = beat_all(&connection, count) => error,
        ended = run_pods(&connection, &tell) => match ended {
            Ok(()) => anyhow::anyhow!("the watch of pods has ended"),
            Err(error) => error,
        },
    }
}

async fn beat_all(connection: &Connection, count: usize) -> anyhow::Error {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        for number in 0..count {
            if let Err(error) = beat(connection, number).await {
                return error;
            }
        }
    }
}

async fn run_pods(
    connection: &Arc<Connection>,
    tell: &watch::Sender<Counts>,
) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut requests: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let mut stages: BTreeMap<String, Stage> = BTreeMap::new();
    let mut watch = connection.watch(&format!("{PODS}?watch=true")).await?;
    loop {
        let line = tokio::select! {
            // Cancel-safe: what has come of a line stays in the watch.
            line = watch.next() => line?,
            Some(done) = requests.join_next() => {
                done??;
                continue;
            }
        };
        let Some(line) = line else { return Ok(()) };
        let event: Value = serde_json::from_slice(&line).context("an event is no JSON")?;
        anyhow::ensure!(event["type"] != "ERROR", "the watch has failed: {event}");
        let pod = &event["object"];
        let name = pod["metadata"]["name"].as_str().context("a pod has no name")?.to_owned();
        if event["type"] == "DELETED" {
            let before = stages.remove(&name);
            tell.send_modify(|counts| counts.change(before, None));
        } else {
            let stage = stage(pod);
            let before = stages.insert(name.clone(), stage);
            tell.send_modify(|counts| counts.change(before, Some(stage)));
            if before != Some(stage) && matches!(stage, Stage::Bound | Stage::Ends) {
                let (connection, permits) = (connection.clone(), permits.clone());
                let uid = pod["metadata"]["uid"].clone();
                requests.spawn(async move {
                    let _permit = permits.acquire().await?;
                    match stage {
                        Stage::Ends => end(&connection, &name, uid).await,
                        _ => run(&connection, &name).await,
                    }
                });
            }
        }
    }
}

fn stage(pod: &Value) -> Stage {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        Stage::Ends
    } else if pod["spec"]["nodeName"].is_null() {
        Stage::Waits
    } else if pod["status"]["phase"] == "Running" {
        Stage::Runs
    } else {
        Stage::Bound
    }
}

/// Says that a pod runs.
async fn run(connection: &Connection, name: &str) -> anyhow::Result<()> {
    let condition = |kind: &str| json!({ "type": kind, "status": "True" });
    let conditions = ["Initialized", "ContainersReady", "Ready"].map(condition);
    let container = json!({
        "name": "main", "ready": true, "restartCount": 0, "image": "local/web:1", "imageID": "",
        "containerID": format!("fake://{name}"), "state": { "running": {} },
    });
    let status = json!({
        "phase": "Running", "conditions": conditions, "containerStatuses": [container],
        "podIP": "10.1.2.3", "podIPs": [{ "ip": "10.1.2.3" }], "hostIP": "10.0.0.1",
    });
    let body = serde_json::to_vec(&json!({ "status": status }))?;
    let path = format!("{PODS}/{name}/status");
    let answer = connection.answer(Method::PATCH, &path, STRATEGIC, body).await?;
    there(&path, answer)
}

/// Says that a pod has ended.
async fn end(connection: &Connection, name: &str, uid: Value) -> anyhow::Result<()> {
    let options = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": uid } });
    let path = format!("{PODS}/{name}");
    let body = serde_json::to_vec(&options)?;
    let answer = connection.answer(Method::DELETE, &path, JSON, body).await?;
    there(&path, answer)
}

/// It may be gone before it is told.
fn there(path: &str, (status, body): (hyper::StatusCode, bytes::Bytes)) -> anyhow::Result<()> {
    let is_gone = [hyper::StatusCode::NOT_FOUND, hyper::StatusCode::CONFLICT].contains(&status);
    let text = String::from_utf8_lossy(&body);
    anyhow::ensure!(status.is_success() || is_gone, "{path}: {status}: {text}");
    Ok(())
}
