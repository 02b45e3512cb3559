//! An API with controllers, without nodes.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use jiff::Timestamp;
use mainstay_apiserver::{Access, ApiServer, Config, Peer, User, boxed};
use mainstay_client::{CallError, CallErrorKind, Calls, Deletion};
use mainstay_controllers::{Clients, Facts, NodeTimes};
use mainstay_pki::{Pki, StaticTokens, Wanted};
use mainstay_store::embedded::{EmbeddedStore, Options};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// How long anything may take; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

const PODS: &str = "/api/v1/namespaces/default/pods";
const EVENTS: &str = "/api/v1/namespaces/default/events";

/// The root certificate that the controllers are told of.
pub(crate) const ROOT_CA: &str = "-----BEGIN CERTIFICATE-----\n";

/// What is there as long as this is.
pub(crate) struct Cluster {
    server: ApiServer,
    calls: Calls,
    controllers: JoinSet<()>,
    _directory: TempDir,
}

struct Server(ApiServer);

impl Clients for Server {
    fn calls(&self, user: &str, agent: &str) -> Calls {
        let mut groups = vec!["system:authenticated".to_owned()];
        if user.starts_with("system:serviceaccount:") {
            groups.push("system:serviceaccounts".to_owned());
        }
        let user = User { name: user.to_owned(), groups, ..User::default() };
        Calls::new(client(&self.0, user), agent)
    }
}

fn client(server: &ApiServer, user: User) -> kube::Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (server, peer) = (server.clone(), Peer::Trusted(user.clone()));
        async move { Ok::<_, Infallible>(server.handle(request.map(boxed), &peer).await) }
    });
    kube::Client::new(service, "default")
}

impl Cluster {
    /// With all controllers.
    pub(crate) async fn new() -> Self {
        let mut cluster = Self::without_controllers().await;
        cluster.start_controllers();
        cluster
    }

    /// With all controllers, that wait for nodes so long.
    pub(crate) async fn with_node_times(node_times: NodeTimes) -> Self {
        let mut cluster = Self::without_controllers().await;
        cluster.start(node_times);
        cluster
    }

    pub(crate) async fn without_controllers() -> Self {
        let directory = TempDir::new().unwrap();
        let store = EmbeddedStore::open(&directory.path().join("api.redb"), Options::default());
        let wanted = Wanted {
            node_name: "n1".into(),
            host_name: "n1".into(),
            addresses: BTreeSet::new(),
            extra: BTreeSet::new(),
        };
        let (pki, _) = Pki::open(&directory.path().join("pki"), &wanted, Timestamp::now()).unwrap();
        let config = Config {
            store: Arc::new(store.unwrap()),
            access: Access::new(pki.tokens().clone(), StaticTokens::default()),
            nodes: None,
            version: "v1.36.0".into(),
        };
        let server = ApiServer::open(config).await.unwrap();
        let calls = Calls::new(client(&server, User::master("admin")), "test");
        Self { server, calls, controllers: JoinSet::new(), _directory: directory }
    }

    /// How controllers reach the API.
    pub(crate) fn clients(&self) -> impl Clients + use<> {
        Server(self.server.clone())
    }

    pub(crate) fn start_controllers(&mut self) {
        self.start(NodeTimes::default());
    }

    fn start(&mut self, node_times: NodeTimes) {
        let server = Server(self.server.clone());
        self.controllers.spawn(async move {
            let facts = Facts { root_ca: ROOT_CA.to_owned(), node_times, ..Facts::default() };
            mainstay_controllers::run(&server, facts, &"*".parse().unwrap()).await;
        });
    }

    /// Ends the controllers.
    pub(crate) async fn stop_controllers(&mut self) {
        self.controllers.shutdown().await;
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        match self.calls.get(path).await {
            Ok(object) => Some(object),
            Err(error) if error.kind == CallErrorKind::NotFound => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The objects of a list.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await.unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Makes an object; answers it.
    #[track_caller]
    pub(crate) fn create(&self, path: &str, object: Value) -> impl Future<Output = Value> {
        let calls = self.calls.clone();
        let path = path.to_owned();
        async move { calls.post(&path, &object).await.unwrap() }
    }

    /// Asks for a pod of `default` to be evicted, as `kubectl drain` does.
    pub(crate) async fn evict(&self, pod: &str) -> Result<(), CallError> {
        let path = format!("/api/v1/namespaces/default/pods/{pod}/eviction");
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod },
        });
        self.calls.post::<Value, _>(&path, &eviction).await.map(drop)
    }

    /// Posts something; the status of the answer, what its `Retry-After` says, and its body.
    pub(crate) async fn answer(&self, path: &str, body: &Value) -> (u16, Option<String>, Value) {
        let body = kube::client::Body::from(serde_json::to_vec(body).unwrap());
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(boxed(body)).unwrap();
        let peer = Peer::Trusted(User::master("admin"));
        let answer = self.server.handle(request, &peer).await;
        let (head, body) = answer.into_parts();
        let again = head.headers.get("retry-after").map(|it| it.to_str().unwrap().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), again, serde_json::from_slice(&body).unwrap())
    }

    /// Sends requests as somebody who may do everything.
    pub(crate) fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// A strategic merge patch.
    pub(crate) fn patch(&self, path: &str, patch: Value) -> impl Future<Output = ()> + use<> {
        let (calls, path) = (self.calls.clone(), path.to_owned());
        async move { drop(calls.patch::<Value>(&path, &patch).await.unwrap()) }
    }

    pub(crate) async fn merge(&self, path: &str, patch: Value) -> Value {
        self.calls.merge(path, &patch).await.unwrap()
    }

    /// Deletes an object at once, and says what becomes of what it owns.
    pub(crate) async fn delete(&self, path: &str, propagation: &str) {
        let there = self.get(path).await.unwrap();
        let deletion = Deletion {
            uid: uid(&there),
            propagation: Some(propagation),
            grace: Some(0),
            ..Deletion::default()
        };
        self.calls.delete(path, deletion).await.unwrap();
    }

    /// Waits until what is at a path is as it should be.
    pub(crate) async fn until(&self, path: &str, is: impl Fn(Option<&Value>) -> bool) {
        let mut last = None;
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.get(path).await;
                if is(last.as_ref()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let waited = waited.await;
        assert!(waited.is_ok(), "{path} is not as it should be: {last:#?}");
    }

    pub(crate) async fn until_gone(&self, path: &str) {
        self.until(path, |object| object.is_none()).await;
    }

    /// Waits for an event in `default`; answers it.
    pub(crate) async fn until_event(&self, is: impl Fn(&Value) -> bool) -> Value {
        let happened = |list: Option<&Value>| {
            let events = list.unwrap()["items"].as_array().unwrap();
            events.iter().any(&is)
        };
        self.until(EVENTS, happened).await;
        self.list(EVENTS).await.into_iter().find(&is).unwrap()
    }

    /// What the events in `default` with this reason say.
    pub(crate) async fn messages(&self, reason: &str) -> Vec<String> {
        let events = self.list(EVENTS).await.into_iter();
        let events = events.filter(|event| event["reason"] == reason);
        events.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Lets the pods of `default` be ready, but for those that are to end.
    pub(crate) async fn run_pods(&self) {
        for pod in self.list(PODS).await {
            let is_new = pod["status"]["phase"] != "Running";
            if is_new && pod["metadata"]["deletionTimestamp"].is_null() {
                let path = format!("{PODS}/{}/status", name(&pod));
                let ready = json!({ "type": "Ready", "status": "True" });
                let status = json!({ "phase": "Running", "conditions": [ready] });
                self.merge(&path, json!({ "status": status })).await;
            }
        }
    }

    /// Makes the node `n1`, and a mirror there that belongs to it and has the label that sets and budgets
    /// look for; answers the reference to the node.
    pub(crate) async fn mirror(&self) -> Value {
        let node = self.create("/api/v1/nodes", json!({ "metadata": { "name": "n1" } })).await;
        let mut owner = owner_reference(&node);
        (owner["kind"], owner["controller"]) = ("Node".into(), true.into());
        let mirror = json!({
            "metadata": {
                "name": "web-n1", "labels": { "app": "web" }, "ownerReferences": [&owner],
                "annotations": { "kubernetes.io/config.mirror": "1" },
            },
            "spec": { "nodeName": "n1", "containers": [{ "name": "main", "image": "a" }] },
        });
        self.create("/api/v1/namespaces/default/pods", mirror).await;
        owner
    }

    /// Makes a ConfigMap `name` in `default` that these own, which it blocks.
    pub(crate) async fn config_map(&self, name: &str, owners: &[&Value]) -> Value {
        let owners: Vec<Value> = owners.iter().map(|owner| owner_reference(owner)).collect();
        let map = json!({ "metadata": { "name": name, "ownerReferences": owners } });
        self.create("/api/v1/namespaces/default/configmaps", map).await
    }
}

/// A reference that blocks its owner.
pub(crate) fn owner_reference(owner: &Value) -> Value {
    let or = |field: &str, default: &str| match &owner[field] {
        Value::Null => default.into(),
        known => known.clone(),
    };
    json!({
        "apiVersion": or("apiVersion", "v1"),
        "kind": or("kind", "ConfigMap"),
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": true,
    })
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub(crate) fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap()
}
