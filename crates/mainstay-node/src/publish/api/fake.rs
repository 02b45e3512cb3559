//! A small Kubernetes API in memory: requests go in, answers come out, as of a real one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers.
    Well,
    /// It answers that it cannot.
    Down,
    /// It never answers.
    Wedged,
}

/// The API.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

struct State {
    mood: Mood,
    version: u64,
    /// By path.
    objects: BTreeMap<String, Value>,
    /// Everything that happened to what is watched: version, path, kind, object.
    log: Vec<(u64, String, &'static str, Value)>,
    /// Versions up to this one cannot be watched from any more.
    compacted: u64,
    /// Breaks every watch when it changes.
    epoch: u64,
    requests: Vec<String>,
    refusal: Option<(u16, &'static str, String)>,
    /// How many watches were begun.
    watches: usize,
    /// Watches end at once.
    brief: bool,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        let state = State {
            mood: Mood::Well,
            version: 1,
            objects: BTreeMap::new(),
            log: Vec::new(),
            compacted: 0,
            epoch: 0,
            requests: Vec::new(),
            refusal: None,
            watches: 0,
            brief: false,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(watch::Sender::new(0)) }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.with(|state| {
            state.mood = mood;
            state.epoch += 1;
        });
    }

    /// Breaks all watches, and forgets what had happened.
    pub(crate) fn compact(&self) {
        self.with(|state| {
            state.compacted = state.version;
            state.epoch += 1;
        });
    }

    /// From now on watches end at once.
    pub(crate) fn end_watches(&self) {
        self.with(|state| state.brief = true);
    }

    /// How many watches were begun.
    pub(crate) fn watches(&self) -> usize {
        self.state.lock().unwrap().watches
    }

    /// From now on every write of this method (`POST`, ...) to pods is refused; with `GET`, to be shown other
    /// objects.
    pub(crate) fn refuse(&self, code: u16, reason: &'static str, method: &str) {
        self.with(|state| state.refusal = Some((code, reason, method.to_owned())));
    }

    pub(crate) fn relent(&self) {
        self.with(|state| state.refusal = None);
    }

    /// The requests that changed something or tried to, since this was asked last.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn list(&self, part: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let objects = state.objects.iter().filter(|(path, _)| path.contains(part));
        objects.map(|(_, object)| object.clone()).collect()
    }

    /// As somebody else does it.
    pub(crate) fn do_put(&self, path: &str, object: Value) -> Value {
        self.with(|state| state.put(path, object))
    }

    pub(crate) fn do_delete(&self, path: &str, grace: u64) {
        self.with(|state| drop(state.delete(path, &json!({"gracePeriodSeconds": grace}))));
    }

    /// Waits until a test holds of what is there.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !holds(self) {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(300), wait).await;
        if waited.is_err() {
            let objects = self.state.lock().unwrap().objects.clone();
            panic!("it never holds: {objects:#?} {:#?}", self.requests());
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let result = work(&mut self.state.lock().unwrap());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mood = self.state.lock().unwrap().mood;
        match mood {
            Mood::Well => {}
            Mood::Down => return status(503, "ServiceUnavailable", "down"),
            Mood::Wedged => return std::future::pending().await,
        }
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        if parts.method == Method::GET {
            return match query.contains("watch=true") {
                true => self.watch(&path, &query),
                false => self.state.lock().unwrap().get(&path, &query),
            };
        }
        self.with(|state| state.write(&parts.method, &path, body))
    }

    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        // Pods are watched in all namespaces.
        let (kind, namespace) = (path.rsplit('/').next().unwrap(), path.to_owned());
        let (kind, name) = (format!("/{kind}/"), selected(query));
        let ours = move |path: &str| {
            path.contains(&kind)
                && (kind == "/pods/"
                    || name.is_none()
                    || path.strip_prefix(&format!("{namespace}/")) == name.as_deref())
        };
        let from: u64 = query
            .split('&')
            .find_map(|part| part.strip_prefix("resourceVersion="))
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let (compacted, brief, epoch) = self.with(|state| {
            state.watches += 1;
            (state.compacted, state.brief, state.epoch)
        });
        if from < compacted {
            return status(410, "Expired", "too old");
        }
        if brief {
            return Response::new(Full::default().boxed_unsync());
        }
        let changed = self.changed.subscribe();
        let api = self.clone();
        let labeled = query.contains("labelSelector=");
        let ours = Arc::new(move |path: &str, object: &Value| {
            ours(path) && (!labeled || is_labeled(object))
        });
        let events = stream::unfold((from, changed), move |(from, mut changed)| {
            let (api, ours) = (api.clone(), ours.clone());
            async move {
                loop {
                    {
                        let state = api.state.lock().unwrap();
                        if state.epoch != epoch {
                            return None;
                        }
                        let mut log = state.log.iter();
                        let next = log.find(|(version, path, _, object)| {
                            *version > from && ours(path, object)
                        });
                        if let Some((version, _, kind, object)) = next {
                            let line = format!("{}\n", json!({"type": kind, "object": object}));
                            return Some((Bytes::from(line), (*version, changed)));
                        }
                    }
                    changed.changed().await.ok()?;
                }
            }
        });
        let frames = events.map(|line| Ok(Frame::data(line)));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

impl State {
    fn get(&self, path: &str, query: &str) -> Response<Body> {
        if let Some(object) = self.objects.get(path) {
            return answer(200, object);
        }
        if path.ends_with("/configmaps") || path.ends_with("/secrets") {
            if let Some((code, reason, of)) = &self.refusal
                && of == "GET"
            {
                return status(*code, reason, "refused");
            }
            let items: Vec<&Value> = match selected(query) {
                Some(name) => self.objects.get(&format!("{path}/{name}")).into_iter().collect(),
                // By a label.
                None => {
                    let kind = format!("{}/", path.rsplit_once('/').unwrap().1);
                    let all = self.objects.iter().filter(|(path, _)| path.contains(&kind));
                    all.map(|(_, it)| it).filter(|it| is_labeled(it)).collect()
                }
            };
            let version = self.version.to_string();
            return answer(200, &json!({"metadata": {"resourceVersion": version}, "items": items}));
        }
        if !path.ends_with("/pods") {
            return status(404, "NotFound", &format!("{path} not found"));
        }
        let node =
            query.split('&').find_map(|it| it.strip_prefix("fieldSelector=spec.nodeName%3D"));
        let ours = |object: &&Value| node.is_none_or(|node| object["spec"]["nodeName"] == node);
        let pods = self.objects.iter().filter(|(path, _)| path.contains("/pods/"));
        let items: Vec<&Value> = pods.map(|(_, object)| object).filter(ours).collect();
        let version = self.version.to_string();
        answer(200, &json!({"metadata": {"resourceVersion": version}, "items": items}))
    }

    fn write(&mut self, method: &Method, path: &str, body: Value) -> Response<Body> {
        self.requests.push(format!("{method} {path}"));
        if let Some((code, reason, of)) = &self.refusal
            && method.as_str() == of
            && path.contains("/pods")
        {
            return status(*code, reason, "refused");
        }
        let object = path.strip_suffix("/status").unwrap_or(path).to_owned();
        match *method {
            Method::POST => {
                let Some(name) = body["metadata"]["name"].as_str() else {
                    return status(422, "Invalid", "no name");
                };
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return status(409, "AlreadyExists", &format!("{path} already exists"));
                }
                let mut body = body;
                if path.contains("/pods/") {
                    body["status"] = json!({"phase": "Pending"});
                }
                answer(201, &self.put(&path, body))
            }
            Method::PATCH | Method::PUT => {
                let Some(mut known) = self.objects.get(&object).cloned() else {
                    return status(404, "NotFound", &format!("{object} not found"));
                };
                let uid = &body["metadata"]["uid"];
                if !uid.is_null() && *uid != known["metadata"]["uid"] {
                    return status(409, "Conflict", "the UID in the precondition is another one");
                }
                match *method == Method::PUT {
                    true => {
                        let metadata = known["metadata"].clone();
                        known = body;
                        known["metadata"]["uid"] = metadata["uid"].clone();
                    }
                    false => merge(&mut known, &body),
                }
                answer(200, &self.put(&object, known))
            }
            Method::DELETE => self.delete(path, &body),
            _ => status(405, "MethodNotAllowed", "no"),
        }
    }

    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let added = !self.objects.contains_key(path);
        if added {
            object["metadata"]["uid"] = format!("uid-{}", self.version).into();
        }
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        self.tell(path, if added { "ADDED" } else { "MODIFIED" }, &object);
        object
    }

    fn delete(&mut self, path: &str, options: &Value) -> Response<Body> {
        let Some(mut object) = self.objects.get(path).cloned() else {
            return status(404, "NotFound", &format!("{path} not found"));
        };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return status(409, "Conflict", "the UID in the precondition is another one");
        }
        let grace = options["gracePeriodSeconds"].as_u64().unwrap_or(30);
        if grace > 0 {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into();
            object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
            return answer(200, &self.put(path, object));
        }
        if object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty()) {
            if object["metadata"]["deletionGracePeriodSeconds"] == 0 {
                return answer(200, &object);
            }
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
            return answer(200, &self.put(path, object));
        }
        self.version += 1;
        self.objects.remove(path);
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell(path, "DELETED", &object);
        answer(200, &object)
    }

    fn tell(&mut self, path: &str, kind: &'static str, object: &Value) {
        let pod = path.contains("/pods/") && object["spec"]["nodeName"] == "n1";
        if pod || path.contains("/configmaps/") || path.contains("/secrets/") {
            self.log.push((self.version, path.to_owned(), kind, object.clone()));
        }
    }
}

/// Whether a node finds it among what lies beside its manifests.
fn is_labeled(object: &Value) -> bool {
    object["metadata"]["labels"]["mainstay.dev/config.node"] == "n1"
}

/// The name that a query selects.
fn selected(query: &str) -> Option<String> {
    let mut parts = query.split('&');
    parts.find_map(|it| it.strip_prefix("fieldSelector=metadata.name%3D")).map(str::to_owned)
}

/// A strategic merge, as far as statuses need one.
fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else { return *into = patch.clone() };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, change) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let key = match name.as_str() {
            "conditions" => Some("type"),
            "podIPs" | "hostIPs" => Some("ip"),
            _ => None,
        };
        match (key, change) {
            (_, Value::Null) => drop(into.as_object_mut().unwrap().remove(name)),
            (Some(key), Value::Array(changes)) => {
                let mut list = into[name].as_array().cloned().unwrap_or_default();
                for change in changes {
                    let at = list.iter().position(|item| item[key] == change[key]);
                    match (at, change.get("$patch")) {
                        (Some(at), Some(_)) => drop(list.remove(at)),
                        (Some(at), None) => merge(&mut list[at], change),
                        (None, Some(_)) => {}
                        (None, None) => list.push(change.clone()),
                    }
                }
                into[name] = list.into();
            }
            (None, Value::Array(items)) => {
                let items = items.iter().filter(|item| item.get("$patch").is_none());
                into[name] = items.cloned().collect();
            }
            (_, Value::Object(_)) => merge(&mut into[name], change),
            _ => into[name] = change.clone(),
        }
    }
}

fn answer(code: u16, object: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(object.to_string())).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    answer(code, &status)
}
