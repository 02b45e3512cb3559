//! Connections and requests.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use mainstay_cri::{Runtime, chain};
use mainstay_streams::Refusal;
use mainstay_streams::remote_command::Timeouts;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::probe::Counts;

use super::auth::{self, Denial, NodeAuth, Unauthenticated};
use super::health::{self, Health};
use super::pods::{self, Pods};
use super::route::{Route, Target, route};
use super::stats::{MeasureError, Measurement, Meter};
use super::streaming::{self, NoSession, Wish};
use super::{logs, metrics, runningpods, stats};

/// How many connections there may be; more wait in the kernel.
const CONNECTIONS: usize = 512;
/// How long a client has for its part of the TLS handshake, and for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a request's headers is read, in bytes. Source: the default of Go's `net/http`.
const MAX_HEADERS: u32 = 1 << 20;
/// How many requests one HTTP/2 connection may have under way. Source: the kubelet's own,
/// `golang.org/x/net/http2`.
const STREAMS: u32 = 250;
/// How long an HTTP/2 connection may be silent before it is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long after no descriptor was left the next connection is accepted.
const PAUSE: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What requests are answered from.
pub(crate) struct Context {
    /// The node's name.
    pub(crate) node_name: String,
    /// The pods that should run.
    pub(crate) pods: Arc<dyn Pods>,
    /// What runs them.
    pub(crate) runtime: Arc<dyn Runtime>,
    /// How the agent is.
    pub(crate) health: Arc<dyn Health>,
    /// Who may ask.
    pub(crate) auth: Arc<dyn NodeAuth>,
    /// How probes went.
    pub(crate) probes: Counts,
    /// Which parts of it there are.
    pub(crate) settings: NodeApiSettings,
    /// A directory on the file system that pods write to.
    pub(crate) root_dir: PathBuf,
}

/// Which parts of the API there are.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeApiSettings {
    /// Whether it lets people into pods and at their logs. Source: `enableDebuggingHandlers`.
    pub debugging: bool,
    /// How long a stream of a container or a port may be silent. Source:
    /// `streamingConnectionIdleTimeout`.
    pub idle: Duration,
    /// The node's configuration, as a `KubeletConfiguration`, without what is as usual.
    pub configuration: Value,
}

impl Default for NodeApiSettings {
    fn default() -> Self {
        Self { debugging: true, idle: Timeouts::default().idle, configuration: Value::Null }
    }
}

/// The API itself. Clones are handles of the same one; with the last of them its streams end.
#[derive(Clone)]
pub struct NodeApi(Arc<Shared>);

struct Shared {
    context: Context,
    /// Connections that are no HTTP any more.
    sessions: Mutex<JoinSet<()>>,
    meter: Meter,
}

/// The certificates of whoever is at the other end of a connection, their own first.
pub(super) type Certificates = Option<Arc<[CertificateDer<'static>]>>;

/// Answers on a TLS listener, for ever.
///
/// `tls` asks for client certificates without requiring them; who they are of is for
/// [`NodeAuth`] to say. Its protocols are `h2` and `http/1.1`.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, api: NodeApi) {
    let acceptor = TlsAcceptor::from(tls);
    accept(listener, |stream| {
        let (acceptor, api) = (acceptor.clone(), api.clone());
        async move {
            let Ok(accepted) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else {
                return;
            };
            match accepted {
                Ok(stream) => {
                    let certificates = stream.get_ref().1.peer_certificates();
                    let certificates = certificates.map(|it| it.to_vec().into());
                    api.serve_connection(stream, certificates).await;
                }
                Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
            }
        }
    })
    .await;
}

/// Answers everybody what can be read without getting into pods, on a plain listener, for ever. Source:
/// `ListenAndServeKubeletReadOnlyServer` in `pkg/kubelet/server/server.go`.
pub async fn serve_read_only(listener: TcpListener, api: NodeApi) {
    accept(listener, |stream| {
        let api = api.clone();
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let api = api.clone();
                async move {
                    Ok::<_, Infallible>(match route(request.method(), request.uri().path()) {
                        Ok(route) if route.is_read_only() => api.carry_out(route, request).await,
                        _ => not_found(),
                    })
                }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a client of the read-only port went away");
            }
        }
    })
    .await;
}

/// Answers `/healthz` and nothing else on a plain listener, for ever: port 10248.
pub async fn serve_health(listener: TcpListener, api: NodeApi) {
    let health = api.0.context.health.clone();
    accept(listener, |stream| {
        let health = health.clone();
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = match route(request.method(), request.uri().path()) {
                    Ok(Route::Health(which)) => {
                        healthz(health.as_ref(), which.as_deref(), &query(request.uri()))
                    }
                    _ => not_found(),
                };
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a client of the health port went away");
            }
        }
    })
    .await;
}

async fn accept<F>(listener: TcpListener, connection: impl Fn(tokio::net::TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        while connections.try_join_next().is_some() {}
        // Never closed.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Single keys are to arrive at once. Without it they arrive later.
        let _ = stream.set_nodelay(true);
        let served = connection(stream);
        connections.spawn(async move {
            served.await;
            drop(place);
        });
    }
}

impl NodeApi {
    /// The API that answers from `context`.
    pub(crate) fn new(context: Context) -> Self {
        Self(Arc::new(Shared { context, sessions: Mutex::default(), meter: Meter::default() }))
    }

    /// What the node, its pods and their containers use. Takes half a second when nobody has asked
    /// for a minute.
    ///
    /// # Errors
    ///
    /// When the runtime or the kernel does not tell.
    async fn measure(&self) -> Result<Arc<Measurement>, MeasureError> {
        self.0.meter.measure(self.0.context.runtime.as_ref()).await
    }

    /// Serves one connection, HTTP/1.1 or HTTP/2, until its end.
    pub(super) async fn serve_connection<IO>(&self, io: IO, certificates: Certificates)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let api = self.clone();
        let service = service_fn(move |request| {
            let (api, certificates) = (api.clone(), certificates.clone());
            async move { Ok::<_, Infallible>(api.answer(request, certificates.as_deref()).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(KEEP_ALIVE);
        let served = builder.serve_connection_with_upgrades(TokioIo::new(io), service).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a client of the node API went away");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        certificates: Option<&[CertificateDer<'static>]>,
    ) -> Response<Body> {
        match self.admit(&request, certificates).await {
            Ok(()) => {}
            Err(denial) => return refuse(&denial),
        }
        match route(request.method(), request.uri().path()) {
            // Source: `InstallAuthRequiredDisabledHandlers`.
            Ok(route) if route.is_debugging() && !self.0.context.settings.debugging => {
                text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.".to_owned())
            }
            Ok(route) => self.carry_out(route, request).await,
            Err(StatusCode::METHOD_NOT_ALLOWED) => {
                let mut answer =
                    text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed".to_owned());
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
                answer
            }
            Err(_) => not_found(),
        }
    }

    /// Whether whoever asks may.
    async fn admit(
        &self,
        request: &Request<Incoming>,
        certificates: Option<&[CertificateDer<'static>]>,
    ) -> Result<(), Denial> {
        let auth = self.0.context.auth.as_ref();
        let told = auth.authenticate(certificates, auth::bearer(request.headers())).await;
        let user = told.map_err(|Unauthenticated(reason)| {
            tracing::debug!(reason, "a request is not authenticated");
            Denial { status: StatusCode::UNAUTHORIZED, message: "Unauthorized".to_owned() }
        })?;
        let wanted = auth::attributes(request.method(), request.uri().path());
        auth::authorize(auth, &user, &wanted).await
    }

    async fn carry_out(&self, route: Route, request: Request<Incoming>) -> Response<Body> {
        let Context { node_name, runtime, pods, health, root_dir, .. } = &self.0.context;
        let query = query(request.uri());
        match route {
            Route::Health(which) => healthz(health.as_ref(), which.as_deref(), &query),
            Route::Pods => json(&pods::list(pods.list().iter().map(Pod::from))),
            Route::RunningPods => match runningpods::list(runtime.as_ref()).await {
                Ok(running) => json(&pods::list(running)),
                Err(error) => failed(&error),
            },
            Route::ContainerLogs(target) => self.logs(&target, &query).await,
            Route::Exec(target) => self.upgrade(Wish::Exec, &target, &query, request).await,
            Route::Attach(target) => self.upgrade(Wish::Attach, &target, &query, request).await,
            Route::Run(target) => {
                match streaming::run(runtime.as_ref(), pods.as_ref(), &target, &query).await {
                    Ok(output) => answer(StatusCode::OK, "application/json", output),
                    Err(denial) => refuse(&denial),
                }
            }
            Route::PortForward(target) => {
                self.upgrade(Wish::PortForward, &target, &query, request).await
            }
            Route::Configz => {
                let configuration = &self.0.context.settings.configuration;
                json(&serde_json::json!({ "kubeletconfig": configuration }))
            }
            Route::StatsSummary => match self.measure().await {
                Ok(measured) => json(&stats::summary(node_name, &measured, root_dir)),
                Err(error) => failed(&error),
            },
            Route::Metrics => {
                match metrics::node(node_name, pods.as_ref(), runtime.as_ref()).await {
                    Ok(told) => answer(StatusCode::OK, metrics::CONTENT_TYPE, told),
                    Err(error) => failed(&error),
                }
            }
            Route::ResourceMetrics => {
                let measured = self.measure().await;
                if let Err(error) = &measured {
                    tracing::warn!(error = chain(error), "cannot measure");
                }
                let told = metrics::resource(measured.ok().as_deref());
                answer(StatusCode::OK, metrics::CONTENT_TYPE, told)
            }
            Route::CadvisorMetrics => match self.measure().await {
                Ok(measured) => {
                    answer(StatusCode::OK, metrics::CONTENT_TYPE, metrics::cadvisor(&measured))
                }
                Err(error) => failed(&error),
            },
            Route::ProbeMetrics => answer(
                StatusCode::OK,
                metrics::CONTENT_TYPE,
                metrics::probes(&self.0.context.probes),
            ),
        }
    }

    async fn logs(&self, target: &Target, query: &[(String, String)]) -> Response<Body> {
        let Context { runtime, pods, .. } = &self.0.context;
        let options = match logs::parse(query, Timestamp::now()) {
            Ok(options) => options,
            Err(denial) => return refuse(&denial),
        };
        let Some(pod) = pods.find(&target.namespace, &target.pod) else {
            let message = format!("pod \"{}\" does not exist", target.pod);
            return text(StatusCode::NOT_FOUND, message);
        };
        let log = match logs::open(runtime.as_ref(), &pod, &target.container, &options).await {
            Ok(log) => log,
            Err(denial) => return refuse(&denial),
        };
        let (mut pieces, sending) = logs::stream(runtime.clone(), log, &options);
        self.spawn(sending);
        let pieces = futures_util::stream::poll_fn(move |context| pieces.poll_recv(context));
        let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data)));
        let mut answer = Response::new(BodyExt::boxed_unsync(body));
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        answer
    }

    /// Answers a request after which the connection is no HTTP any more.
    async fn upgrade(
        &self,
        wish: Wish,
        target: &Target,
        query: &[(String, String)],
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let Context { runtime, pods, .. } = &self.0.context;
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let (runtime, pods) = (runtime.clone(), pods.as_ref());
        let session = streaming::session(runtime.as_ref(), pods, wish, target, &parts, query).await;
        let session = match session {
            Ok(session) => session,
            Err(refusal) => return no_session(refusal),
        };
        let answer = session.response();
        let idle = self.0.context.settings.idle;
        let timeouts = Timeouts { idle, ..Timeouts::default() };
        self.spawn(async move {
            match upgrade.await {
                Ok(io) => session.serve(runtime, TokioIo::new(io), timeouts).await,
                Err(error) => tracing::debug!(%error, "a client left before it had its streams"),
            }
        });
        answer.map(|()| empty())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut sessions = self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        while sessions.try_join_next().is_some() {}
        sessions.spawn(task);
    }
}

fn healthz(health: &dyn Health, which: Option<&str>, query: &[(String, String)]) -> Response<Body> {
    match health::answer(&health.checks(), which, query) {
        Some((status, message)) => text(status, message),
        None => not_found(),
    }
}

/// The pairs of a query.
fn query(uri: &http::Uri) -> Vec<(String, String)> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

fn no_session(refusal: NoSession) -> Response<Body> {
    match refusal {
        NoSession::Denial(denial) => refuse(&denial),
        NoSession::Refusal(Refusal { status, message, headers }) => {
            let mut answer = text(status, message);
            answer.headers_mut().extend(headers);
            answer
        }
    }
}

fn failed(error: &dyn std::error::Error) -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, chain(error))
}

fn refuse(denial: &Denial) -> Response<Body> {
    text(denial.status, denial.message.clone())
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404: Page Not Found".to_owned())
}

fn json(value: &Value) -> Response<Body> {
    answer(StatusCode::OK, "application/json", value.to_string())
}

fn text(status: StatusCode, message: String) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", message)
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn empty() -> Body {
    full(Bytes::new())
}
