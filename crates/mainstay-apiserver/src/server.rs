//! A request's way: who asks, for what, whether he may, and who answers.
//!
//! Source: `DefaultBuildHandlerChain` in `staging/src/k8s.io/apiserver/pkg/server/config.go`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use mainstay_pki::ClientCertificate;
use mainstay_store::Store;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::access::Access;
use crate::authn::User;
use crate::body::{self, Body};
use crate::call::{Answer, Call, Content};
use crate::connect::Nodes;
use crate::kind::Resource;
use crate::managed::Manager;
use crate::pipeline::Writer;
use crate::request::{Accept, RequestInfo};
use crate::status::{ApiError, Result};
use crate::storage::Storage;
use crate::{connect, decode, kinds, nonresource, subresource, verbs};

/// How long a request may take that is not a watch, a log or the like. Source: `RequestTimeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests that are answered at the same time; more are told to come again. Source: the sum of
/// `MaxRequestsInFlight` and `MaxMutatingRequestsInFlight`.
const IN_FLIGHT: usize = 600;

/// What the server is made with.
pub struct Config {
    /// Where objects are.
    pub store: Arc<dyn Store>,
    /// Who is who, and who may do what.
    pub access: Access,
    /// How nodes are reached for logs, exec and the like; without, those are refused.
    pub nodes: Option<Nodes>,
    /// What `kubectl version` shows as the server's, such as `v1.36.0+mainstay-0.1.0`.
    pub version: String,
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Inner>);

/// What all requests share.
pub(crate) struct Inner {
    pub(crate) storage: Storage,
    pub(crate) access: Access,
    pub(crate) nodes: Option<Nodes>,
    pub(crate) version: String,
    in_flight: Semaphore,
    /// Connections to nodes, and what follows the store.
    pub(crate) streams: Streams,
}

/// Tasks that outlive the request that began them, and end with the server.
#[derive(Default)]
pub(crate) struct Streams(Mutex<JoinSet<()>>);

impl Streams {
    pub(crate) fn spawn(&self, stream: impl Future<Output = ()> + Send + 'static) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = streams.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a stream to a node broke");
            }
        }
        streams.spawn(stream);
    }
}

/// What is known of who sends a request before its headers are read.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A part of this process.
    Trusted(User),
    /// Somebody on a connection, with the client certificate that was checked, if there was one.
    Connection(Option<Arc<ClientCertificate>>),
}

impl ApiServer {
    /// A server over a store, into which it puts what belongs to every cluster.
    ///
    /// # Errors
    ///
    /// When the store does not work, or holds what cannot be read.
    pub async fn open(config: Config) -> Result<Self> {
        let Config { store, access, nodes, version } = config;
        let inner = Inner {
            storage: Storage::new(store),
            access,
            nodes,
            version,
            in_flight: Semaphore::new(IN_FLIGHT),
            streams: Streams::default(),
        };
        let (rules, store) = (inner.storage.rules.clone(), inner.storage.store.clone());
        let learned = rules.learn(&*store).await?;
        inner.streams.spawn(rules.follow(store, learned));
        inner.bootstrap().await?;
        Ok(Self(Arc::new(inner)))
    }

    /// Answers a request.
    pub async fn handle(&self, request: Request<Body>, peer: &Peer) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let head = parts.method == Method::HEAD;
        let info = RequestInfo::parse(&parts.method, &parts.uri);
        let accept = parts.headers.get(ACCEPT).and_then(|it| it.to_str().ok());
        let accept = Accept::parse(accept.unwrap_or_default());
        // What is about no object has types of its own.
        let yaml = accept.as_ref().is_ok_and(|accept| accept.yaml);
        let answered = self.0.answer(&mut parts, body, peer, &info, accept).await;
        let mut response = match answered {
            Ok(Reply::Answer(answer)) => respond(answer, yaml, info.query.is_pretty()),
            Ok(Reply::Whole(response)) => response,
            Err(error) => refuse(&error),
        };
        if head {
            *response.body_mut() = body::full("");
        }
        response
    }
}

/// What a request comes to.
pub(crate) enum Reply {
    /// To be made into a response.
    Answer(Answer),
    /// A response with headers of its own, such as of an upgrade.
    Whole(Response<Body>),
}

impl Inner {
    async fn answer(
        &self,
        parts: &mut Parts,
        body: Body,
        peer: &Peer,
        info: &RequestInfo,
        accept: Result<Accept>,
    ) -> Result<Reply> {
        let user = self.authenticate(parts, peer, info).await?;
        self.authorize(&user, info)?;
        if !info.is_resource {
            return nonresource::answer(self, parts, info).await.map(Reply::Answer);
        }
        if let Some(answer) = crate::metrics_api::answer(self, info).await? {
            return Ok(Reply::Answer(answer));
        }
        let resource = kinds::find(&info.group, &info.version, &info.resource)
            .ok_or_else(ApiError::no_such_path)?;
        if !resource.namespaced && info.resource != "namespaces" && !info.namespace.is_empty() {
            return Err(ApiError::no_such_path());
        }
        allowed(resource, info)?;
        if connect::is_connect(resource, info) {
            return connect::connect(self, resource, info, parts, body).await;
        }
        let long = info.verb == "watch";
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(ApiError::too_many_requests(
                "Too many requests, please try again later.",
                1,
            ));
        };
        let accept = accept?;
        let answered = async {
            let body = body::read(body).await?;
            let call = Call {
                server: self,
                info,
                user: &user,
                resource,
                accept,
                headers: &parts.headers,
                body,
            };
            let mut answer = crate::current::answer(&call).await?;
            if !resource.deprecated.is_empty() {
                answer.warnings.insert(0, resource.deprecated.to_owned());
            }
            Ok(answer)
        };
        if long {
            return answered.await.map(Reply::Answer);
        }
        match tokio::time::timeout(REQUEST_TIMEOUT, answered).await {
            Ok(answered) => answered.map(Reply::Answer),
            Err(_) => {
                Err(ApiError::timeout("request did not complete within the allotted timeout"))
            }
        }
    }
}

/// Whether a method means something for what a path names.
fn allowed(resource: &Resource, info: &RequestInfo) -> Result<()> {
    if info.subresource.is_empty() {
        // One object is made by its collection, and changed by its name.
        let named = !matches!(info.verb, "update" | "patch") || !info.name.is_empty();
        let known = resource.allows(info.verb) && named;
        return if known { Ok(()) } else { Err(ApiError::method_not_allowed()) };
    }
    let subresource = resource.subresource(&info.subresource).ok_or_else(ApiError::no_such_path)?;
    let known = subresource.verbs.contains(&info.verb);
    if known { Ok(()) } else { Err(ApiError::method_not_allowed()) }
}

/// Answers out of what has been seen of the store.
pub(crate) async fn dispatch(call: &Call<'_>) -> Result<Answer> {
    let media = decode::media_type(call.headers);
    verbs::options::check_write(call.info.verb, media, &call.info.query)?;
    if let Some(answer) = subresource::answer(call).await? {
        return Ok(answer);
    }
    match call.info.verb {
        "get" => verbs::get::get(call).await,
        "list" => verbs::list::list(call).await,
        "watch" => verbs::watch::watch(call).await,
        "create" => verbs::create::create(call).await,
        "update" => verbs::update::update(call).await,
        "patch" => verbs::patch::patch(call).await,
        "delete" => verbs::delete::delete(call).await,
        "deletecollection" => verbs::delete::delete_collection(call).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

impl Call<'_> {
    /// The name that the client has for itself as the owner of fields.
    ///
    /// Source: `managerOrUserAgent` in `endpoints/handlers/create.go`.
    pub(crate) fn manager(&self) -> String {
        match self.info.query.get("fieldManager") {
            "" => {
                let agent = self.headers.get(http::header::USER_AGENT);
                let agent = agent.and_then(|it| it.to_str().ok()).unwrap_or_default();
                let name = agent.split('/').next().unwrap_or_default();
                let end = name.floor_char_boundary(128);
                name.get(..end).unwrap_or_default().to_owned()
            }
            name => name.to_owned(),
        }
    }

    pub(crate) fn writer<'a>(&'a self, manager: &'a str, dry_run: bool) -> Writer<'a> {
        Writer {
            user: self.user,
            manager: Manager { name: manager, applied: false },
            dry_run,
            now: Timestamp::now(),
        }
    }
}

fn respond(answer: Answer, yaml: bool, pretty: bool) -> Response<Body> {
    let (media, body) = match answer.content {
        Content::Json(bytes) => ("application/json", body::full(bytes)),
        // Every JSON text is one of YAML.
        Content::Value(value) if yaml => ("application/yaml", body::full(text(&value, true))),
        Content::Value(value) => ("application/json", body::full(text(&value, pretty))),
        Content::Stream(media, body) => (media, body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    for warning in answer.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(http::header::WARNING, value);
        }
    }
    response
}

fn text(value: &Value, pretty: bool) -> String {
    let text =
        if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    // A value has string keys only.
    text.map_or_else(|error| error.to_string(), |text| text + "\n")
}

/// A refusal as a response.
pub(crate) fn refuse(error: &ApiError) -> Response<Body> {
    if error.code.is_server_error() && error.code != StatusCode::GATEWAY_TIMEOUT {
        tracing::warn!(code = error.code.as_u16(), "{}", error.message);
    }
    let mut response = Response::new(body::full(text(&error.to_json(), false)));
    *response.status_mut() = error.code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    let after = error.details.as_ref().map_or(0, |details| details.retry_after);
    if after > 0 {
        headers.insert(RETRY_AFTER, HeaderValue::from(after));
    }
    response
}
