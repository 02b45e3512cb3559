//! Requests that end elsewhere: at a node's own API, as logs, exec, attach and port-forward do, or at a pod.
//! They are passed on, upgrades included; the streams inside are none of this server's business.
//!
//! Source: `pkg/registry/core/pod/rest/subresources.go`, `pkg/registry/core/pod/strategy.go`
//! (`LogLocation`, `streamLocation`) and `staging/src/k8s.io/apimachinery/pkg/util/proxy`.

mod backend;
mod pod_proxy;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use rustls::pki_types::ServerName;
use serde_json::Value;

use self::backend::Backend;
use crate::body::{self, Body};
use crate::kind::Resource;
use crate::kinds;
use crate::object::Object;
use crate::request::{Query, RequestInfo};
use crate::server::{Inner, Reply};
use crate::status::{ApiError, Result};

/// How long a node may take to answer what the server itself asks.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer of a node that is read whole.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// How the server shows itself to nodes, and which of them it believes.
#[derive(Clone)]
pub struct Nodes {
    tls: Arc<rustls::ClientConfig>,
}

impl Nodes {
    /// With the client's side of TLS: the node's authority, and a certificate that nodes trust.
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        Self { tls }
    }
}

/// Whether a request is passed on to a node.
pub(crate) fn is_connect(resource: &Resource, info: &RequestInfo) -> bool {
    let sub = info.subresource.as_str();
    match (resource.group, resource.plural) {
        ("", "pods") => matches!(sub, "log" | "exec" | "attach" | "portforward" | "proxy"),
        ("", "nodes") => sub == "proxy",
        _ => false,
    }
}

/// Passes a request on.
pub(crate) async fn connect(
    server: &Inner,
    resource: &'static Resource,
    info: &RequestInfo,
    parts: &mut Parts,
    body: Body,
) -> Result<Reply> {
    if resource.plural == "pods" && info.subresource == "proxy" {
        return pod_proxy::proxy(server, info, parts, body).await;
    }
    let stored = server.storage.get(resource, info.namespace_of(resource), &info.name).await?;
    let (node, path) = match resource.plural {
        "nodes" => (stored.object, with_query(&format!("/{}", info.rest), parts.uri.query())),
        _ => {
            let pod = stored.object;
            let path = pod_path(&pod, info)?;
            if info.subresource == "log" && pod.str_at(&["spec", "nodeName"]).is_empty() {
                // As upstream: nothing has been said yet.
                return Ok(Reply::Whole(Response::new(body::full(""))));
            }
            (node_of(server, &pod).await?, path)
        }
    };
    let response = dial(server, &node).await?.pass_on(server, &path, parts, body).await?;
    match info.subresource.as_str() {
        "log" if !response.status().is_success() => Err(log_error(response).await),
        _ => Ok(Reply::Whole(response)),
    }
}

/// What a node says about a log that it does not have. Source: `GenericHttpResponseChecker`.
async fn log_error(response: Response<Body>) -> ApiError {
    let code = response.status();
    let body = body::read(response.into_body()).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    match code {
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => ApiError::not_found_text(text),
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::internal(text),
        code => ApiError::unavailable(text).with_code(code),
    }
}

/// The node that a pod is on.
async fn node_of(server: &Inner, pod: &Object) -> Result<Object> {
    let name = pod.str_at(&["spec", "nodeName"]);
    if name.is_empty() {
        let pod = pod.name();
        return Err(ApiError::bad_request(format!("pod {pod} does not have a host assigned")));
    }
    Ok(server.storage.get(&kinds::NODES, "", name).await?.object)
}

/// Where a node's API has what is asked of a pod.
fn pod_path(pod: &Object, info: &RequestInfo) -> Result<String> {
    let (namespace, name) = (pod.namespace(), pod.name());
    let query = &info.query;
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    let mut pass = |from: &str, to: &str| {
        for value in query.all(from) {
            pairs.append_pair(to, value);
        }
    };
    let path = match info.subresource.as_str() {
        "log" => {
            let container = container(pod, query)?;
            for key in [
                "follow",
                "previous",
                "timestamps",
                "sinceSeconds",
                "sinceTime",
                "tailLines",
                "limitBytes",
                "stream",
            ] {
                pass(key, key);
            }
            check_log_options(query)?;
            format!("/containerLogs/{namespace}/{name}/{container}")
        }
        sub @ ("exec" | "attach") => {
            let container = container(pod, query)?;
            let on = |key: &str| query.flag(key);
            if sub == "exec" && query.all("command").is_empty() {
                return Err(ApiError::bad_request(
                    "you must specify at least 1 command for the container",
                ));
            }
            if !on("stdin") && !on("stdout") && !on("stderr") {
                return Err(ApiError::bad_request(
                    "you must specify at least 1 of stdin, stdout, stderr",
                ));
            }
            if on("tty") && on("stderr") {
                return Err(ApiError::bad_request("tty and stderr cannot both be true"));
            }
            for (from, to) in
                [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
            {
                if on(from) {
                    pairs.append_pair(to, "1");
                }
            }
            for argument in query.all("command") {
                pairs.append_pair("command", argument);
            }
            format!("/{sub}/{namespace}/{name}/{container}")
        }
        "portforward" => {
            pass("ports", "port");
            format!("/portForward/{namespace}/{name}")
        }
        _ => return Err(ApiError::no_such_path()),
    };
    let query = pairs.finish();
    Ok(with_query(&path, (!query.is_empty()).then_some(query.as_str())))
}

fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// Source: `ValidatePodLogOptions`.
fn check_log_options(query: &Query) -> Result<()> {
    let invalid = |field: &str, value: &str, why: &str| {
        Err(ApiError::unprocessable(format!(
            "PodLogOptions \"\" is invalid: {field}: Invalid value: {value}: {why}"
        )))
    };
    for (key, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        match query.number(key)? {
            Some(number) if number < least => {
                let why = match least {
                    0 => "must be greater than or equal to 0",
                    _ => "must be greater than 0",
                };
                return invalid(key, &number.to_string(), why);
            }
            _ => {}
        }
    }
    if !query.get("sinceSeconds").is_empty() && !query.get("sinceTime").is_empty() {
        return Err(ApiError::unprocessable(
            "PodLogOptions \"\" is invalid: : Forbidden: at most one of `sinceTime` or \
             `sinceSeconds` may be specified",
        ));
    }
    Ok(())
}

/// The container that is meant. Source: `validateContainer`.
fn container(pod: &Object, query: &Query) -> Result<String> {
    let names = |list: &str| -> Vec<&str> {
        let containers = pod.list_at(&["spec", list]).iter();
        containers.filter_map(|it| it.get("name").and_then(Value::as_str)).collect()
    };
    let main = names("containers");
    let all = [names("initContainers"), main.clone(), names("ephemeralContainers")].concat();
    let name = pod.name();
    match (query.get("container"), main.as_slice()) {
        ("", [one]) => Ok((*one).to_owned()),
        ("", []) => {
            Err(ApiError::bad_request(format!("a container name must be specified for pod {name}")))
        }
        ("", _) => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
        (given, _) if all.contains(&given) => Ok(given.to_owned()),
        (given, _) => {
            Err(ApiError::bad_request(format!("container {given} is not valid for pod {name}")))
        }
    }
}

/// Where a node's API is: its address and port, and the name that its certificate is for.
struct Place {
    host: String,
    port: u16,
}

fn place(node: &Object) -> Result<Place> {
    let name = node.name();
    let addresses = node.list_at(&["status", "addresses"]);
    let of = |kind: &str| {
        let found =
            addresses.iter().find(|it| it.get("type").and_then(Value::as_str) == Some(kind));
        found.and_then(|it| it.get("address")?.as_str())
    };
    // Source: the default of `--kubelet-preferred-address-types`, but for the host's name, which is a
    // name in somebody's DNS.
    let host = of("InternalIP").or_else(|| of("ExternalIP")).or_else(|| of("Hostname"));
    let port = node.i64_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
    match (host, u16::try_from(port)) {
        (Some(host), Ok(port)) if port > 0 => Ok(Place { host: host.to_owned(), port }),
        _ => Err(ApiError::internal(format!(
            "node {name} does not say where its API is (status.addresses and \
             status.daemonEndpoints): its agent has not reported yet"
        ))),
    }
}

/// A connection to a node's API.
async fn dial<'a>(server: &Inner, node: &'a Object) -> Result<Backend<'a>> {
    let Some(nodes) = &server.nodes else {
        return Err(ApiError::unavailable("this server has no credentials for nodes"));
    };
    let Place { host, port } = place(node)?;
    let name = node.name();
    let dialed = async {
        // Its addresses may change while its certificate lives.
        let certified = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        backend::dial((host.as_str(), port), Some((nodes.tls.clone(), certified))).await
    };
    let stream = dialed.await.map_err(|error| {
        ApiError::internal(format!(
            "error dialing backend: dial tcp {host}:{port}: {error}; is the agent of node {name} \
             running?"
        ))
    })?;
    let broken = move |error: &str| ApiError::internal(format!("error of node {name}: {error}"));
    let host = HeaderValue::from_str(&format!("{host}:{port}")).map_err(ApiError::internal)?;
    Ok(Backend { stream, host, broken: Box::new(broken) })
}

impl Inner {
    /// What a node answers to a GET, whole.
    pub(crate) async fn ask_node(&self, node: &Object, path: &str) -> Result<bytes::Bytes> {
        use http_body_util::{BodyExt as _, Limited};
        let name = node.name();
        let asked = async {
            let node = dial(self, node).await?;
            let response = node.send(self, path, Request::new(body::full(""))).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let bytes = body.map_err(ApiError::internal)?.to_bytes();
            if status.is_success() {
                return Ok(bytes);
            }
            let text = String::from_utf8_lossy(&bytes);
            Err(ApiError::unavailable(format!("node {name}: {status}: {}", text.trim())))
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::timeout(format!("node {name} does not answer"))),
        }
    }
}
