//! `metrics.k8s.io`: what nodes and pods use, as `kubectl top` asks for it. Nodes are asked when somebody
//! wants to know; nothing is kept.
//!
//! Source: `staging/src/k8s.io/metrics/pkg/apis/metrics/v1beta1/types.go`, and metrics-server for what it
//! takes from a node's summary.

use serde_json::{Value, json};

use crate::call::Answer;
use crate::discovery::METRICS;
use crate::kind::api_version;
use crate::kinds;
use crate::object::Object;
use crate::request::RequestInfo;
use crate::selector::Selector;
use crate::server::Inner;
use crate::status::{ApiError, Result};

/// Answers a request for metrics; `None` for one that is about something else.
pub(crate) async fn answer(server: &Inner, info: &RequestInfo) -> Result<Option<Answer>> {
    if (info.group.as_str(), info.version.as_str()) != METRICS {
        return Ok(None);
    }
    if !matches!(info.verb, "get" | "list") || !info.subresource.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let answer = match info.resource.as_str() {
        "nodes" => nodes(server, info).await?,
        "pods" => pods(server, info).await?,
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(Some(Answer::json(answer)))
}

fn list(kind: &str, items: Vec<Value>) -> Value {
    let version = api_version(METRICS.0, METRICS.1);
    let mut list = json!({ "kind": kind, "apiVersion": version, "metadata": {} });
    // What `json!` is given is copied.
    list["items"] = items.into();
    list
}

async fn nodes(server: &Inner, info: &RequestInfo) -> Result<Value> {
    let resource = &kinds::NODES;
    let selector = Selector::parse(resource, info.query.get("labelSelector"), "")?;
    if !info.name.is_empty() {
        let none = || no_metrics("nodes", &info.name);
        let node = server.storage.find(resource, "", &info.name).await?.ok_or_else(none)?.object;
        return node_metrics(&node, &summary(server, &node).await?).ok_or_else(none);
    }
    let mut items = Vec::new();
    for node in server.storage.all(resource, "").await? {
        if !selector.matches(resource, &node) {
            continue;
        }
        // A node that does not answer has no metrics; the others have theirs.
        if let Ok(summary) = summary(server, &node).await {
            items.extend(node_metrics(&node, &summary));
        }
    }
    Ok(list("NodeMetricsList", items))
}

async fn pods(server: &Inner, info: &RequestInfo) -> Result<Value> {
    let resource = &kinds::PODS;
    let query = &info.query;
    let selector =
        Selector::parse(resource, query.get("labelSelector"), query.get("fieldSelector"))?;
    let namespace = info.namespace_of(resource);
    let mut wanted = match info.name.as_str() {
        "" => server.storage.all(resource, namespace).await?,
        name => {
            let found = server.storage.find(resource, namespace, name).await?;
            found.into_iter().map(|stored| stored.object).collect()
        }
    };
    wanted.retain(|pod| selector.matches(resource, pod));
    let mut items = Vec::new();
    for node in server.storage.all(&kinds::NODES, "").await? {
        let here = |pod: &&Object| pod.str_at(&["spec", "nodeName"]) == node.name();
        let here: Vec<&Object> = wanted.iter().filter(here).collect();
        if here.is_empty() {
            continue;
        }
        let Ok(summary) = summary(server, &node).await else { continue };
        items.extend(here.iter().filter_map(|pod| pod_metrics(pod, &summary)));
    }
    if info.name.is_empty() {
        return Ok(list("PodMetricsList", items));
    }
    items.pop().ok_or_else(|| no_metrics("pods", &format!("{}/{}", info.namespace, info.name)))
}

/// Source: metrics-server's answer for what it knows nothing of.
fn no_metrics(plural: &str, name: &str) -> ApiError {
    ApiError::not_found_text(format!("{plural}.metrics.k8s.io {name:?} not found"))
}

async fn summary(server: &Inner, node: &Object) -> Result<Value> {
    let bytes = server.ask_node(node, "/stats/summary").await?;
    serde_json::from_slice(&bytes).map_err(ApiError::internal)
}

/// Processor and memory of a part of a summary; `None` while one of them is not known.
fn usage(part: &Value) -> Option<Value> {
    let nanocores = part.pointer("/cpu/usageNanoCores")?.as_u64()?;
    let bytes = part.pointer("/memory/workingSetBytes")?.as_u64()?;
    Some(json!({ "cpu": format!("{nanocores}n"), "memory": format!("{}Ki", bytes / 1024) }))
}

fn timestamp(part: &Value) -> Value {
    part.pointer("/cpu/time").cloned().unwrap_or(Value::Null)
}

fn metadata(object: &Object) -> Value {
    let mut meta = json!({
        "name": object.name(),
        "creationTimestamp": object.meta_str("creationTimestamp"),
    });
    if !object.namespace().is_empty() {
        meta["namespace"] = object.namespace().into();
    }
    if let Some(labels) = object.meta().and_then(|meta| meta.get("labels")) {
        meta["labels"] = labels.clone();
    }
    meta
}

fn node_metrics(node: &Object, summary: &Value) -> Option<Value> {
    let part = summary.get("node")?;
    Some(json!({
        "kind": "NodeMetrics",
        "apiVersion": api_version(METRICS.0, METRICS.1),
        "metadata": metadata(node),
        "timestamp": timestamp(part),
        "window": WINDOW,
        "usage": usage(part)?,
    }))
}

/// Over which time a node averages.
const WINDOW: &str = "10s";

fn pod_metrics(pod: &Object, summary: &Value) -> Option<Value> {
    let reference = |part: &&Value| {
        let text = |key: &str| part.pointer(&format!("/podRef/{key}")).and_then(Value::as_str);
        text("name") == Some(pod.name()) && text("namespace") == Some(pod.namespace())
    };
    let part = summary.get("pods")?.as_array()?.iter().find(reference)?;
    let containers: Vec<Value> = part
        .get("containers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|it| Some(json!({ "name": it.get("name")?, "usage": usage(it)? })))
        .collect();
    if containers.is_empty() {
        return None;
    }
    Some(json!({
        "kind": "PodMetrics",
        "apiVersion": api_version(METRICS.0, METRICS.1),
        "metadata": metadata(pod),
        "timestamp": timestamp(part),
        "window": WINDOW,
        "containers": containers,
    }))
}
