//! The probe that asks over HTTP.
//!
//! Source: `pkg/probe/http/http.go`; for the words, `net/http` and `net/url` of Go.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mainstay_plan::probe::{HttpGet, Redirect};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::answer::{Answer, MOST};
use super::dial::{DialError, dial, errno};
use super::tasks::{Tasks, driven};

/// Source: the default of Go's `net/http`.
const REDIRECTS: usize = 10;

/// Headers that say how a request is sent, which is not for a manifest to say. Source:
/// `reqWriteExcludeHeader` of Go's `net/http`.
const EXCLUDED: [&str; 4] = ["host", "content-length", "transfer-encoding", "trailer"];

/// What is said of a server that speaks no TLS.
pub(crate) const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

/// How many bytes of an answer's headers are read.
const MOST_HEADERS: usize = 64 << 10;

const LATE: &str = "(Client.Timeout exceeded while awaiting headers)";

/// What one request brought.
enum Outcome {
    /// An answer that counts, and the beginning of its body.
    Answer(StatusCode, Vec<u8>),
    /// An answer that is to be followed.
    Redirect(Box<HttpGet>),
    /// There are no more to be followed; where it would go.
    TooMany(String),
    /// No whole answer.
    Failed(String),
    /// The body did not come, which the kubelet takes for a failure of its own.
    Broken(String),
}

/// Why there is no answer.
enum Lost {
    /// There was none.
    Failed(String),
    /// It did not come whole.
    Broken(String),
}

/// Asks, and follows where it is sent.
pub(super) async fn ask(request: HttpGet, limit: Duration, tls: &Arc<ClientConfig>) -> Answer {
    match follow(request, Instant::now() + limit, tls).await {
        Ok((status, body)) => judge(status, &body),
        Err(Lost::Failed(why)) => Answer::Failure(why),
        Err(Lost::Broken(message)) => Answer::Error { state: "failure", message },
    }
}

/// The same for what is asked before a container's end or after its start: whatever is answered is good,
/// and there is no hurry.
///
/// # Errors
///
/// Why there is no answer.
pub(crate) async fn reach(request: HttpGet, tls: &Arc<ClientConfig>) -> Result<(), String> {
    const LONG: Duration = Duration::from_hours(24 * 365);
    match follow(request, Instant::now() + LONG, tls).await {
        Ok(_) | Err(Lost::Broken(_)) => Ok(()),
        Err(Lost::Failed(why)) => Err(why),
    }
}

async fn follow(
    mut request: HttpGet,
    deadline: Instant,
    tls: &Arc<ClientConfig>,
) -> Result<(StatusCode, Vec<u8>), Lost> {
    let mut left = REDIRECTS;
    loop {
        left -= 1;
        let failed = |url: &str, why: &str| Err(Lost::Failed(format!("Get {url:?}: {why}")));
        match Box::pin(exchange(&request, left > 0, deadline, tls)).await {
            Outcome::Redirect(next) => request = *next,
            Outcome::TooMany(location) => return failed(&location, "stopped after 10 redirects"),
            Outcome::Failed(why) => return failed(&request.url(), &why),
            Outcome::Broken(message) => return Err(Lost::Broken(message)),
            Outcome::Answer(status, body) => return Ok((status, body)),
        }
    }
}

fn judge(status: StatusCode, body: &[u8]) -> Answer {
    match status.as_u16() {
        200..300 => Answer::Success,
        300..400 => {
            let body = String::from_utf8_lossy(body);
            Answer::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        // What the body says may be a secret: https://issue.k8s.io/99425
        code => Answer::Failure(format!("HTTP probe failed with statuscode: {code}")),
    }
}

async fn exchange(
    request: &HttpGet,
    follow: bool,
    deadline: Instant,
    tls: &Arc<ClientConfig>,
) -> Outcome {
    let stream = match dial(&request.host, request.port, deadline).await {
        Ok(stream) => stream,
        Err(DialError::TimedOut(why)) => return Outcome::Failed(format!("{why} {LATE}")),
        Err(DialError::Failed(why)) => return Outcome::Failed(why),
    };
    if !request.tls {
        let way = way(&stream);
        return http1(stream, request, follow, deadline, &way).await;
    }
    let Ok(name) = ServerName::try_from(request.host.clone()) else {
        return Outcome::Failed(format!("tls: {:?} is no name for a server", request.host));
    };
    let way = way(&stream);
    let connecting = TlsConnector::from(tls.clone()).connect(name, stream);
    let stream = match timeout_at(deadline, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Outcome::Failed(tls_error(&error)),
        Err(_) => return Outcome::Failed("net/http: TLS handshake timeout".to_owned()),
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return http2(stream, request, follow, deadline, &way).await;
    }
    http1(stream, request, follow, deadline, &way).await
}

/// Both ends of a connection, as Go names them in errors.
fn way(stream: &TcpStream) -> String {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(here), Ok(there)) => format!("{here}->{there}"),
        _ => String::new(),
    }
}

fn tls_error(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        // What begins no record of TLS is most likely an answer in plain text.
        Some(rustls::Error::InvalidMessage(_)) => PLAIN_ANSWER.to_owned(),
        Some(rustls::Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
        Some(other) => format!("tls: {other}"),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => errno(error),
    }
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    request: &HttpGet,
    follow: bool,
    deadline: Instant,
    way: &str,
) -> Outcome {
    let sent = match message(request, false) {
        Ok(sent) => sent,
        Err(why) => return Outcome::Failed(why),
    };
    let mut builder = hyper::client::conn::http1::Builder::new();
    // As Go writes them; servers that are small may know no other.
    builder.title_case_headers(true).max_buf_size(MOST_HEADERS);
    let (mut sender, connection) = match builder.handshake(TokioIo::new(stream)).await {
        Ok(both) => both,
        Err(error) => return Outcome::Failed(hyper_error(&error, way)),
    };
    let work = async {
        let response = timeout_at(deadline, sender.send_request(sent)).await;
        take(request, response, follow, deadline, way).await
    };
    driven(connection, work).await
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: &HttpGet,
    follow: bool,
    deadline: Instant,
    way: &str,
) -> Outcome {
    let sent = match message(request, true) {
        Ok(sent) => sent,
        Err(why) => return Outcome::Failed(why),
    };
    let tasks = Tasks::default();
    let shake = hyper::client::conn::http2::handshake(tasks.clone(), TokioIo::new(stream));
    let (mut sender, connection) = match shake.await {
        Ok(both) => both,
        Err(error) => return Outcome::Failed(hyper_error(&error, way)),
    };
    let work = async {
        let response = timeout_at(deadline, sender.send_request(sent)).await;
        take(request, response, follow, deadline, way).await
    };
    driven(connection, work).await
}

/// The request as it is sent. What cannot be sent is told in Go's words.
pub(crate) fn message(request: &HttpGet, http2: bool) -> Result<Request<Empty<Bytes>>, String> {
    let mut headers = HeaderMap::new();
    let mut host = request.authority.clone();
    for (name, value) in &request.headers {
        let header = HeaderName::from_bytes(name.as_bytes());
        let header = header.map_err(|_| format!("net/http: invalid header field name {name:?}"))?;
        if header == HOST && !value.is_empty() && host == request.authority {
            host.clone_from(value);
        }
        if EXCLUDED.contains(&header.as_str()) {
            continue;
        }
        let value = HeaderValue::from_bytes(value.trim().as_bytes());
        let value =
            value.map_err(|_| format!("net/http: invalid header field value for {name:?}"))?;
        headers.append(header, value);
    }
    let invalid = || format!("net/http: invalid host {host:?}");
    let uri = if http2 {
        let scheme = if request.tls { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(host.as_str());
        uri.path_and_query(request.path.as_str()).build().map_err(|_| invalid())?
    } else {
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| invalid())?);
        let close = HeaderValue::from_static("close");
        headers.entry(http::header::CONNECTION).or_insert(close);
        let invalid = |_| format!("parse {:?}: invalid URI for request", request.path);
        request.path.parse().map_err(invalid)?
    };
    let mut message = Request::new(Empty::new());
    *message.uri_mut() = uri;
    *message.headers_mut() = headers;
    Ok(message)
}

/// Takes in an answer.
async fn take(
    request: &HttpGet,
    response: Result<hyper::Result<Response<Incoming>>, tokio::time::error::Elapsed>,
    follow: bool,
    deadline: Instant,
    way: &str,
) -> Outcome {
    let response = match response {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Outcome::Failed(hyper_error(&error, way)),
        Err(_) => return Outcome::Failed(format!("context deadline exceeded {LATE}")),
    };
    let (parts, body) = response.into_parts();
    if let 301 | 302 | 303 | 307 | 308 = parts.status.as_u16()
        && let Some(location) = parts.headers.get(LOCATION).filter(|it| !it.is_empty())
    {
        let location = String::from_utf8_lossy(location.as_bytes());
        match request.redirected(&location) {
            Redirect::To(_) if !follow => return Outcome::TooMany(location.into_owned()),
            Redirect::To(next) => return Outcome::Redirect(next),
            Redirect::Broken(why) => return Outcome::Failed(why),
            Redirect::Elsewhere => {}
        }
    }
    match timeout_at(deadline, beginning(body)).await {
        Ok(Ok(body)) => Outcome::Answer(parts.status, body),
        Ok(Err(error)) => Outcome::Broken(hyper_error(&error, way)),
        Err(_) => Outcome::Broken(
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
                .to_owned(),
        ),
    }
}

/// The beginning of a body, of which no more is read.
async fn beginning(mut body: Incoming) -> hyper::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < MOST
        && let Some(frame) = body.frame().await
    {
        if let Some(data) = frame?.data_ref() {
            let room = MOST - bytes.len();
            bytes.extend_from_slice(data.get(..room).unwrap_or(data));
        }
    }
    Ok(bytes)
}

fn hyper_error(error: &hyper::Error, way: &str) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            if io.raw_os_error().is_some() {
                return format!("read tcp {way}: read: {}", errno(io));
            }
            if io.kind() == std::io::ErrorKind::UnexpectedEof {
                return "unexpected EOF".to_owned();
            }
        }
        cause = inner.source();
    }
    if error.is_parse() {
        let why = mainstay_cri::chain(error);
        return format!(
            "net/http: HTTP/1.x transport connection broken: malformed response: {why}"
        );
    }
    mainstay_cri::chain(error)
}

#[cfg(test)]
mod tests;
