//! Addresses for commands, attachments and ports.
//!
//! # Flow
//!
//! A call is checked, noted under a random token, and answered with an address on the loopback interface that has
//! the token in it. Whoever comes there with it gets what was asked for, once, within [`TOKENS_FOR`]: the token
//! is all that lets somebody in. The listener is made with the first address.
//!
//! Source: `staging/src/k8s.io/kubelet/pkg/cri/streaming`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mainstay_cri::{ContainerId, ContainerState, PodSandboxState, Runtime, SandboxId};
use mainstay_grpc::{Code, Status};
use mainstay_sessions::{ContainerStreams, SandboxPorts, Wanted};
use mainstay_streams::remote_command::{self, Options, Timeouts};
use mainstay_streams::{Refusal, port_forward};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::sleep;

use super::{Answer, Server, failed, invalid};
use crate::tasks::Tasks;
use crate::wire;

/// How long an address is good. Source: `cacheTTL` in `request_cache.go`.
const TOKENS_FOR: Duration = Duration::from_secs(60);
/// How many may wait to be used. Source: `maxInFlight`, the same place.
const TOKENS: usize = 1000;
/// How long a client may take for the headers of its request.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many connections there may be; more wait in the kernel.
const CONNECTIONS: usize = 512;
/// How long after no descriptor was left the next connection is accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Grant {
    Streams { container: ContainerId, wanted: Wanted, options: Options },
    Ports { sandbox: SandboxId, ports: Vec<u16> },
}

/// The listener, and what was granted.
pub(super) struct Streaming {
    desk: Arc<Desk>,
    address: OnceCell<SocketAddr>,
    tasks: Tasks,
}

/// Where grants are handed out.
struct Desk {
    runtime: Arc<dyn Runtime>,
    grants: Mutex<HashMap<String, (Instant, Grant)>>,
    /// Connections that are no HTTP any more.
    sessions: Tasks,
}

impl Server {
    pub(super) async fn exec(
        self: Arc<Self>,
        request: wire::ExecRequest,
    ) -> Answer<wire::ExecResponse> {
        let wire::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
        let options = checked(Options { stdin, stdout, stderr, tty })?;
        if cmd.is_empty() {
            return Err(invalid("cmd is empty"));
        }
        let container = self.running(container_id).await?;
        let grant = Grant::Streams { container, wanted: Wanted::Command(cmd), options };
        Ok(wire::ExecResponse { url: self.streaming.grant("exec", grant).await? })
    }

    pub(super) async fn attach(
        self: Arc<Self>,
        request: wire::AttachRequest,
    ) -> Answer<wire::AttachResponse> {
        let wire::AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
        let options = checked(Options { stdin, stdout, stderr, tty })?;
        let container = self.running(container_id).await?;
        let grant = Grant::Streams { container, wanted: Wanted::Container, options };
        Ok(wire::AttachResponse { url: self.streaming.grant("attach", grant).await? })
    }

    pub(super) async fn port_forward(
        self: Arc<Self>,
        request: wire::PortForwardRequest,
    ) -> Answer<wire::PortForwardResponse> {
        let sandbox = SandboxId(request.pod_sandbox_id);
        let ports = request.port.iter().map(|port| match u16::try_from(*port) {
            Ok(port @ 1..) => Ok(port),
            _ => Err(invalid(format!("{port} is no port"))),
        });
        let ports = ports.collect::<Answer<_>>()?;
        let seen = self.runtime.pod_sandbox_status(&sandbox).await.map_err(failed)?;
        if seen.sandbox.state != PodSandboxState::Ready {
            let message = format!("sandbox {sandbox} is not ready");
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        let grant = Grant::Ports { sandbox, ports };
        Ok(wire::PortForwardResponse { url: self.streaming.grant("portforward", grant).await? })
    }

    /// The container, if it runs.
    async fn running(&self, id: String) -> Answer<ContainerId> {
        let id = ContainerId(id);
        let status = self.runtime.container_status(&id).await.map_err(failed)?;
        match status.state {
            ContainerState::Running { .. } => Ok(id),
            ContainerState::Created | ContainerState::Exited { .. } => {
                let message = format!("container {id} does not run");
                Err(Status::new(Code::FailedPrecondition, message))
            }
        }
    }
}

/// Source: `validateExecRequest` and its like in `server.go`.
fn checked(options: Options) -> Answer<Options> {
    if options.tty && options.stderr {
        return Err(invalid("tty and stderr cannot both be true"));
    }
    options.checked().map_err(|_| invalid("one of stdin, stdout, or stderr must be set"))
}

impl Streaming {
    pub(super) fn new(runtime: Arc<dyn Runtime>) -> Self {
        let (grants, sessions) = (Mutex::default(), Tasks::default());
        let desk = Arc::new(Desk { runtime, grants, sessions });
        Self { desk, address: OnceCell::new(), tasks: Tasks::default() }
    }

    /// An address for it.
    async fn grant(&self, kind: &str, grant: Grant) -> Answer<String> {
        let address = self.address.get_or_try_init(|| self.listen()).await?;
        let token = self.desk.note(grant, Instant::now())?;
        Ok(format!("http://{address}/{kind}/{token}"))
    }

    async fn listen(&self) -> Answer<SocketAddr> {
        let failed = |error: std::io::Error| {
            let message = format!("cannot listen on the loopback interface for streams: {error}");
            Status::new(Code::Unavailable, message)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        self.tasks.spawn(accept(listener, self.desk.clone()));
        Ok(address)
    }
}

impl Desk {
    /// Notes it under a new token.
    fn note(&self, grant: Grant, now: Instant) -> Answer<String> {
        let mut bytes = [0; 16];
        getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|error| {
            Status::new(Code::Internal, format!("cannot get random bytes: {error}"))
        })?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        grants.retain(|_, (at, _)| now.duration_since(*at) < TOKENS_FOR);
        if grants.len() >= TOKENS {
            let message = "maximum number of in-flight requests exceeded";
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        grants.insert(token.clone(), (now, grant));
        Ok(token)
    }

    /// What a path grants, which it does once.
    fn take(&self, path: &str, now: Instant) -> Option<Grant> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, grant) = grants.remove(token)?;
        let is_kind = match (&grant, kind) {
            (Grant::Streams { wanted: Wanted::Command(_), .. }, "exec")
            | (Grant::Streams { wanted: Wanted::Container, .. }, "attach")
            | (Grant::Ports { .. }, "portforward") => true,
            (Grant::Streams { .. } | Grant::Ports { .. }, _) => false,
        };
        (is_kind && now.duration_since(at) < TOKENS_FOR).then_some(grant)
    }

    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let Some(grant) = self.take(request.uri().path(), Instant::now()) else {
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        let (parts, body) = request.into_parts();
        let (session, response) = match Session::of(grant, &parts) {
            Ok(session) => session,
            Err(Refusal { status, message, headers }) => {
                let mut response = text(status, message);
                response.headers_mut().extend(headers);
                return response;
            }
        };
        let runtime = self.runtime.clone();
        self.sessions.spawn(async move {
            match hyper::upgrade::on(Request::from_parts(parts, body)).await {
                Ok(upgraded) => session.serve(runtime, TokioIo::new(upgraded)).await,
                Err(error) => tracing::debug!(%error, "a client left before it had its streams"),
            }
        });
        response.map(|()| Full::default())
    }
}

/// What goes over a connection after its answer.
enum Session {
    Streams(ContainerStreams),
    Ports(SandboxPorts),
}

impl Session {
    /// What was granted, in a protocol that the client has, and the answer to its request.
    fn of(grant: Grant, parts: &Parts) -> Result<(Self, Response<()>), Refusal> {
        Ok(match grant {
            Grant::Streams { container, wanted, options } => {
                let negotiated = remote_command::negotiate(parts)?;
                let response = negotiated.response();
                let streams = ContainerStreams { negotiated, container, wanted, options };
                (Self::Streams(streams), response)
            }
            Grant::Ports { sandbox, ports } => {
                let negotiated = port_forward::negotiate(parts)?;
                negotiated.check_ports(&ports)?;
                let response = negotiated.response();
                (Self::Ports(SandboxPorts { negotiated, sandbox, ports }), response)
            }
        })
    }

    async fn serve(self, runtime: Arc<dyn Runtime>, io: TokioIo<hyper::upgrade::Upgraded>) {
        match self {
            Self::Streams(streams) => streams.serve(runtime, io, Timeouts::default()).await,
            Self::Ports(ports) => ports.serve(runtime, io, Timeouts::default()).await,
        }
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let connections = Tasks::default();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        // Single keys are to arrive at once. Without it they arrive later.
        let _ = stream.set_nodelay(true);
        let desk = desk.clone();
        connections.spawn(async move {
            connection(stream, desk).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, desk: Arc<Desk>) {
    let service = service_fn(move |request| {
        let response = desk.clone().answer(request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let served = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client of streams went away");
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use mainstay_testkit::runtime::FakeRuntime;

    use super::*;

    fn desk() -> Desk {
        let (grants, sessions) = (Mutex::default(), Tasks::default());
        Desk { runtime: Arc::new(FakeRuntime::default()), grants, sessions }
    }

    fn ports() -> Grant {
        Grant::Ports { sandbox: SandboxId("s".into()), ports: vec![80] }
    }

    #[test]
    fn a_token_is_good_once_for_a_while_and_for_what_it_was_given() {
        let (desk, now) = (desk(), Instant::now());
        let token = desk.note(ports(), now).unwrap();
        assert_eq!(token.len(), 32);
        let path = format!("/portforward/{token}");
        assert_eq!(desk.take(&path, now), Some(ports()));
        assert_eq!(desk.take(&path, now), None);
        let token = desk.note(ports(), now).unwrap();
        assert_eq!(desk.take(&format!("/exec/{token}"), now), None);
        let token = desk.note(ports(), now).unwrap();
        assert_eq!(desk.take(&format!("/portforward/{token}"), now + TOKENS_FOR), None);
        for path in ["", "/", "portforward", "/portforward", "/portforward/", "/portforward/0/1"] {
            assert_eq!(desk.take(path, now), None, "{path}");
        }
    }

    #[test]
    fn there_are_not_more_tokens_than_that() {
        let (desk, now) = (desk(), Instant::now());
        for _ in 0..TOKENS {
            desk.note(ports(), now).unwrap();
        }
        assert_eq!(desk.note(ports(), now).unwrap_err().code, Code::ResourceExhausted);
        // Those that nobody came for make room.
        assert!(desk.note(ports(), now + TOKENS_FOR).is_ok());
    }

    #[test]
    fn a_terminal_has_no_errors_of_its_own() {
        let (stdout, tty) = (true, true);
        assert!(checked(Options { stdout, tty, ..Options::default() }).is_ok());
        let both = Options { stdout, stderr: true, tty, ..Options::default() };
        assert_eq!(checked(both).unwrap_err().code, Code::InvalidArgument);
        assert_eq!(checked(Options::default()).unwrap_err().code, Code::InvalidArgument);
    }
}
