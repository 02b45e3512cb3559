//! Many nodes that nobody runs, and pods for them.

mod nodes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::{Method, StatusCode};
use mainstay_e2e::api::Connection;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::{Instance, LOOK, milliseconds};
use nodes::Counts;

/// How many requests are under way at a time.
const AT_ONCE: usize = 16;
/// How often nodes say that they are there.
const HEARTBEAT: Duration = Duration::from_secs(10);
const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

const NAMESPACE: &str = "bench-scale";
const PODS: &str = "/api/v1/namespaces/bench-scale/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/bench-scale/deployments";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/bench-scale/deployments/web";

/// Has pods scheduled onto nodes that it plays itself, and a Deployment settle there, for each of some sizes.
/// The answer has a number for each size: the milliseconds from the first pod's request to the last one's
/// answer (`created`) and to the last binding (`bound`), those from the Deployment's request until all of its
/// pods are available (`settled`), and the bytes of memory that the agent has then (`memory`).
#[derive(Deserialize)]
pub(crate) struct Job {
    /// The node that is there, which takes none of them.
    cordoned: String,
    nodes: usize,
    sizes: Vec<usize>,
    /// The process whose memory is measured.
    agent: u32,
}

/// Evicts all pods of a node as `kubectl drain` does, but with no limit of its own on requests: the
/// milliseconds until the last one is gone.
#[derive(Deserialize)]
pub(crate) struct Drain {
    node: String,
    /// How many there are.
    pods: usize,
}

impl Job {
    pub(crate) async fn carry_out(self, api: &Instance) -> anyhow::Result<Value> {
        let connection = Arc::new(api.connect().await?);
        let cordon = json!({ "spec": { "unschedulable": true } });
        patch(&connection, &format!("/api/v1/nodes/{}", self.cordoned), &cordon).await?;
        let namespace = json!({ "metadata": { "name": NAMESPACE } });
        post(&connection, "/api/v1/namespaces", &namespace).await?;
        let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
        until_there(&connection, &account).await?;
        nodes::create(&connection, self.nodes).await?;
        let (tell, counts) = watch::channel(Counts::default());
        let played = nodes::play(connection.clone(), self.nodes, tell);
        tokio::select! {
            // Cancel-safe: whichever ends first ends the other with all it has.
            result = self.measure(&connection, counts) => result,
            ended = played => Err(ended),
        }
    }

    async fn measure(
        &self,
        connection: &Arc<Connection>,
        mut counts: watch::Receiver<Counts>,
    ) -> anyhow::Result<Value> {
        let (mut created, mut bound) = (Vec::new(), Vec::new());
        let (mut settled, mut memory) = (Vec::new(), Vec::new());
        for size in &self.sizes {
            let start = Instant::now();
            create_pods(connection, *size).await?;
            created.push(milliseconds(start.elapsed()));
            counts.wait_for(|counts| counts.bound == *size).await?;
            bound.push(milliseconds(start.elapsed()));
            counts.wait_for(|counts| counts.running == *size).await?;
            let all = format!("{PODS}?gracePeriodSeconds=0");
            connection.done(Method::DELETE, &all, "", Vec::new()).await?;
            counts.wait_for(|counts| counts.there == 0).await?;

            let start = Instant::now();
            post(connection, DEPLOYMENTS, &deployment(*size)).await?;
            until_available(connection, *size).await?;
            settled.push(milliseconds(start.elapsed()));
            memory.push(memory_of(self.agent)?);
            connection.done(Method::DELETE, DEPLOYMENT, "", Vec::new()).await?;
            counts.wait_for(|counts| counts.there == 0).await?;
        }
        Ok(json!({ "created": created, "bound": bound, "settled": settled, "memory": memory }))
    }
}

impl Drain {
    pub(crate) async fn carry_out(self, api: &Instance) -> anyhow::Result<Value> {
        let connection = Arc::new(api.connect().await?);
        let on = format!("fieldSelector=spec.nodeName%3D{}", self.node);
        let pods = list(&connection, &format!("/api/v1/pods?{on}")).await?;
        ensure!(pods.len() == self.pods, "{} pods are there", pods.len());
        let mut watch = connection.watch(&format!("/api/v1/pods?watch=true&{on}")).await?;
        let start = Instant::now();
        let cordon = json!({ "spec": { "unschedulable": true } });
        patch(&connection, &format!("/api/v1/nodes/{}", self.node), &cordon).await?;
        let mut evictions = JoinSet::new();
        for pod in pods {
            let metadata = pod["metadata"].clone();
            let connection = connection.clone();
            evictions.spawn(async move {
                let (namespace, name) = (metadata["namespace"].as_str(), metadata["name"].as_str());
                let (namespace, name) = namespace.zip(name).context("a pod has no name")?;
                let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
                let eviction = json!({
                    "apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata,
                });
                post(&connection, &path, &eviction).await
            });
        }
        let mut gone = 0;
        while gone < self.pods {
            let line = watch.next().await?.context("the watch has ended")?;
            let event: Value = serde_json::from_slice(&line).context("an event is no JSON")?;
            ensure!(event["type"] != "ERROR", "the watch has failed: {event}");
            gone += usize::from(event["type"] == "DELETED");
        }
        let took = milliseconds(start.elapsed());
        while let Some(evicted) = evictions.join_next().await {
            evicted??;
        }
        Ok(json!(took))
    }
}

async fn create_pods(connection: &Arc<Connection>, count: usize) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut requests = JoinSet::new();
    for number in 0..count {
        let (connection, permits) = (connection.clone(), permits.clone());
        requests.spawn(async move {
            let _permit = permits.acquire().await?;
            let mut pod = json!({ "spec": spec() });
            pod["metadata"] = json!({ "name": format!("pod-{number}") });
            post(&connection, PODS, &pod).await
        });
    }
    while let Some(done) = requests.join_next().await {
        done??;
    }
    Ok(())
}

/// What pods ask for.
fn spec() -> Value {
    let resources = json!({ "requests": { "cpu": "100m", "memory": "64Mi" } });
    json!({
        "containers": [{ "name": "main", "image": "local/web:1", "resources": resources }],
        "terminationGracePeriodSeconds": 0,
    })
}

fn deployment(replicas: usize) -> Value {
    let labels = json!({ "app": "web" });
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": spec() },
        },
    })
}

async fn until_available(connection: &Connection, replicas: usize) -> anyhow::Result<()> {
    let path = format!("{DEPLOYMENTS}?watch=true&fieldSelector=metadata.name%3Dweb");
    let mut watch = connection.watch(&path).await?;
    loop {
        let line = watch.next().await?.context("the watch has ended")?;
        let event: Value = serde_json::from_slice(&line).context("an event is no JSON")?;
        ensure!(event["type"] != "ERROR", "the watch has failed: {event}");
        if event["object"]["status"]["availableReplicas"] == replicas {
            return Ok(());
        }
    }
}

async fn until_there(connection: &Connection, path: &str) -> anyhow::Result<()> {
    loop {
        let (status, _) = connection.answer(Method::GET, path, "", Vec::new()).await?;
        match status {
            StatusCode::OK => return Ok(()),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn list(connection: &Connection, path: &str) -> anyhow::Result<Vec<Value>> {
    let body = connection.done(Method::GET, path, "", Vec::new()).await?;
    let mut list: Value = serde_json::from_slice(&body).context("a list is no JSON")?;
    Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

async fn post(connection: &Connection, path: &str, object: &Value) -> anyhow::Result<()> {
    let body = serde_json::to_vec(object)?;
    connection.done(Method::POST, path, JSON, body).await.map(drop)
}

async fn patch(connection: &Connection, path: &str, patch: &Value) -> anyhow::Result<()> {
    let body = serde_json::to_vec(patch)?;
    connection.done(Method::PATCH, path, MERGE_PATCH, body).await.map(drop)
}

/// Bytes of memory that a process has to itself, with its part of what it shares.
/// Source: proc_pid_smaps(5).
fn memory_of(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("{path} has no Pss"))? * 1024)
}
