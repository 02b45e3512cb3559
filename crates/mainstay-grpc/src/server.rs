//! Answering calls.
//!
//! # Guarantees
//!
//! - A message is at the most [`MESSAGE_MAX`](crate::MESSAGE_MAX) bytes long; a longer one is refused before it
//!   has been read.
//! - What a client sends is no reason to fail for anybody but that client.
//! - A call is dropped when its client gives it up, or when the time is over that the client gave it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use crate::chain;
use crate::message::{Encoded, Messages};
use crate::status::{Code, Status, trailers};

/// How many connections there may be; more wait in the kernel.
const CONNECTIONS: usize = 256;
/// How many calls one connection may have under way.
const CALLS: u32 = 250;
/// How long after no descriptor was left the next connection is accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// A client that gives a call no time gives it as much as nobody waits for.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What answers calls.
pub trait Service: Send + Sync + 'static {
    /// Answers one: `method` is `/package.Service/Method` as the client wrote it, `request` its message.
    fn call(
        self: Arc<Self>,
        method: String,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Reply, Status>>;
}

/// What a call is answered with.
pub enum Reply {
    /// One message.
    One(Encoded),
    /// As many as there are. An error is the last.
    Many(BoxStream<'static, Result<Encoded, Status>>),
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why a call is refused before anybody looks at what it wants.
struct Refusal {
    http: StatusCode,
    status: Status,
}

/// Answers for ever whoever connects, if it is the superuser or the user of this process.
pub async fn serve(listener: UnixListener, service: Arc<dyn Service>) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        while let Some(ended) = connections.try_join_next() {
            tell_panic(ended);
        }
        // Never closed.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        if !is_admitted(&stream) {
            continue;
        }
        let service = service.clone();
        connections.spawn(async move {
            connection(stream, service).await;
            drop(place);
        });
    }
}

fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

/// The socket's own rights let nobody else connect; this is for those who were given a descriptor.
fn is_admitted(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "a client of another user is turned away");
            false
        }
        // It is gone.
        Err(_) => false,
    }
}

async fn connection(stream: UnixStream, service: Arc<dyn Service>) {
    let service = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(answer(request, service).await) }
    });
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).max_concurrent_streams(CALLS);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error = chain(&error), "a client went away");
    }
}

async fn answer(request: Request<Incoming>, service: Arc<dyn Service>) -> Response<Body> {
    let deadline = match check(&request) {
        Ok(limit) => Instant::now() + limit.unwrap_or(FOR_EVER),
        Err(Refusal { http, status }) => {
            let mut response = failed(&status);
            *response.status_mut() = http;
            return response;
        }
    };
    let method = request.uri().path().to_owned();
    let answered = async {
        let message = read(request.into_body()).await?;
        service.call(method, message).await
    };
    match timeout_at(deadline, answered).await.unwrap_or_else(|_| Err(late())) {
        Ok(Reply::One(message)) => {
            succeeded(StreamBody::new(stream::iter([data(message), end(&Ok(()))])))
        }
        Ok(Reply::Many(messages)) => succeeded(StreamBody::new(frames(messages, deadline))),
        Err(status) => failed(&status),
    }
}

/// Whether a request is a call, and how long it may take.
///
/// Source: `operateHeaders` in `internal/transport/http2_server.go` of grpc-go.
fn check(request: &Request<Incoming>) -> Result<Option<Duration>, Refusal> {
    let headers = request.headers();
    let refused = |http, code, message| Err(Refusal { http, status: Status::new(code, message) });
    if request.method() != Method::POST {
        let message =
            format!("http2Server.operateHeaders: {} should be POST", request.method().as_str());
        return refused(StatusCode::METHOD_NOT_ALLOWED, Code::Internal, message);
    }
    let kind = headers.get("content-type").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let is_grpc = kind
        .to_ascii_lowercase()
        .strip_prefix("application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']));
    if !is_grpc {
        let message = format!("invalid gRPC request content-type {kind:?}");
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, message);
    }
    let encoding = headers.get("grpc-encoding").map(HeaderValue::as_bytes);
    if let Some(encoding) = encoding.filter(|it| !it.is_empty() && *it != b"identity") {
        let encoding = String::from_utf8_lossy(encoding);
        let message = format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}");
        return refused(StatusCode::OK, Code::Unimplemented, message);
    }
    let Some(limit) = headers.get("grpc-timeout") else { return Ok(None) };
    match limit.to_str().ok().and_then(limit_of) {
        Some(limit) => Ok(Some(limit)),
        None => {
            let message = format!("malformed grpc-timeout: {limit:?}");
            refused(StatusCode::BAD_REQUEST, Code::Internal, message)
        }
    }
}

/// Digits and a unit. Source: `Timeout` in `doc/PROTOCOL-HTTP2.md`.
fn limit_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The one message of a request.
async fn read(mut body: Incoming) -> Result<Bytes, Status> {
    let mut messages = Messages::default();
    let mut message = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::new(Code::Canceled, chain(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        messages.put(&data);
        if message.is_none() {
            message = messages.take()?;
        }
        if message.is_some() && !messages.is_empty() {
            return Err(Status::new(Code::Internal, "the call takes one message, and more came"));
        }
        if message.is_some() && body.is_end_stream() {
            break;
        }
    }
    message.ok_or_else(|| Status::new(Code::Internal, "the call takes one message, and none came"))
}

type Framed = Result<Frame<Bytes>, Infallible>;

fn data(Encoded(message): Encoded) -> Framed {
    Ok(Frame::data(message))
}

fn end(end: &Result<(), Status>) -> Framed {
    Ok(Frame::trailers(trailers(end)))
}

/// The messages as they come, and how it ended.
fn frames(
    messages: BoxStream<'static, Result<Encoded, Status>>,
    deadline: Instant,
) -> impl futures_core::Stream<Item = Framed> + Send + 'static {
    stream::unfold(Some(messages), move |messages| async move {
        let mut messages = messages?;
        Some(match timeout_at(deadline, messages.next()).await {
            Ok(Some(Ok(message))) => (data(message), Some(messages)),
            Ok(Some(Err(status))) => (end(&Err(status)), None),
            Ok(None) => (end(&Ok(())), None),
            Err(_) => (end(&Err(late())), None),
        })
    })
}

fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

fn succeeded<B>(body: B) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    response(body.boxed_unsync(), HeaderMap::new())
}

/// Nothing but how it ended.
fn failed(status: &Status) -> Response<Body> {
    let mut headers = trailers(&Err(status.clone()));
    if status.code == Code::Unimplemented {
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
    }
    response(Empty::new().boxed_unsync(), headers)
}

fn response(body: Body, headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

#[cfg(test)]
mod tests;
