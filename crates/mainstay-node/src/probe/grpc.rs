//! The probe that asks `grpc.health.v1.Health`, in plain text.
//!
//! Sources: `pkg/probe/grpc/grpc.go`, `grpc/health/v1/health.proto`, and
//! `doc/PROTOCOL-HTTP2.md` of gRPC for what goes over the wire.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mainstay_plan::probe::join_host_port;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::Answer;
use super::dial::dial;
use super::tasks::{Tasks, driven};
use crate::{percent, publish};

/// How long after a connection that failed the next one is tried, which grows each time. Source:
/// `backoff.DefaultConfig` of grpc-go.
const BACKOFF: Duration = Duration::from_secs(1);

/// The most that is read of an answer, which has five bytes and a number.
const MOST: usize = 4096;

/// What is known of a failed call.
struct Status {
    code: u32,
    message: String,
}

/// What one connection brought.
enum Attempt {
    /// The answer's `status`.
    Served(u64),
    /// The server's refusal.
    Refused(Status),
    /// Nobody who speaks HTTP/2.
    NotConnected,
}

/// Asks how a service is.
pub(super) async fn ask(host: &str, port: u16, service: &str, limit: Duration) -> Answer {
    let deadline = Instant::now() + limit;
    let address = join_host_port(host, port);
    let heard = Arc::new(AtomicBool::new(false));
    let asked = async {
        let mut pause = BACKOFF;
        loop {
            let attempt = attempt(host, port, &address, service, deadline, heard.clone());
            match Box::pin(attempt).await {
                // As the kubelet does, whatever the reason is.
                Attempt::NotConnected => heard.store(false, Ordering::Relaxed),
                other => return other,
            }
            sleep(pause).await;
            pause = pause * 8 / 5;
        }
    };
    let limit = publish::duration(limit);
    match timeout_at(deadline, asked).await {
        Ok(Attempt::Served(1)) => Answer::Success,
        Ok(Attempt::Served(status)) => {
            let status = match status {
                0 => "UNKNOWN".to_owned(),
                2 => "NOT_SERVING".to_owned(),
                3 => "SERVICE_UNKNOWN".to_owned(),
                other => other.to_string(),
            };
            Answer::Failure(format!("service unhealthy (responded with {status:?})"))
        }
        Ok(Attempt::Refused(Status { code: 12, message })) => Answer::Failure(format!(
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): {message}"
        )),
        Ok(Attempt::Refused(Status { code: 4, .. })) => {
            Answer::Failure(format!("timeout: health rpc did not complete within {limit}"))
        }
        Ok(Attempt::Refused(Status { code, message })) => Answer::Failure(format!(
            "error: health rpc probe failed: rpc error: code = {} desc = {message}",
            code_name(code)
        )),
        Err(_) if heard.load(Ordering::Relaxed) => {
            Answer::Failure(format!("timeout: health rpc did not complete within {limit}"))
        }
        Ok(Attempt::NotConnected) | Err(_) => Answer::Failure(format!(
            "timeout: failed to connect service {address:?} within {limit}: context deadline exceeded"
        )),
    }
}

async fn attempt(
    host: &str,
    port: u16,
    address: &str,
    service: &str,
    deadline: Instant,
    heard: Arc<AtomicBool>,
) -> Attempt {
    let Ok(stream) = dial(host, port, deadline).await else { return Attempt::NotConnected };
    let stream = TokioIo::new(Heard { stream, heard });
    let tasks = Tasks::default();
    let shake = hyper::client::conn::http2::handshake(tasks.clone(), stream).await;
    let Ok((mut sender, connection)) = shake else { return Attempt::NotConnected };
    let Some(request) = call(address, service, deadline) else {
        let message = format!("{address:?} is no name for a server");
        return Attempt::Refused(Status { code: 13, message });
    };
    let work = async {
        match sender.send_request(request).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                read(parts.status, &parts.headers, body).await
            }
            Err(_) => Attempt::NotConnected,
        }
    };
    driven(connection, work).await
}

fn call(address: &str, service: &str, deadline: Instant) -> Option<Request<Full<Bytes>>> {
    let rest = deadline.saturating_duration_since(Instant::now()).as_millis();
    Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36 grpc-go/1.72.2")
        .header("grpc-timeout", format!("{}m", rest.clamp(1, 99_999_999)))
        .body(Full::new(frame(&request(service))))
        .ok()
}

/// `HealthCheckRequest`: the field 1, if it is not empty.
fn request(service: &str) -> BytesMut {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or(0));
        message.put_slice(service.as_bytes());
    }
    message
}

/// A message that is not compressed.
fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Reads an answer to its end.
async fn read(status: http::StatusCode, headers: &HeaderMap, mut body: Incoming) -> Attempt {
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    let refused = |code, message: String| Attempt::Refused(Status { code, message });
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return refused(14, "error reading from server: the stream has ended".to_owned());
        };
        match frame.into_data() {
            Ok(data) if bytes.len() + data.len() > MOST => {
                return refused(8, format!("grpc: received message larger than max ({MOST})"));
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let said = |map: &HeaderMap| {
        let code = map.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        let message = map.get("grpc-message").map(|text| percent::decoded(text.as_bytes()));
        Some(Status { code, message: message.unwrap_or_default() })
    };
    match trailers.as_ref().and_then(said).or_else(|| said(headers)) {
        Some(Status { code: 0, .. }) => match serving(&bytes) {
            Some(status) => Attempt::Served(status),
            None => refused(13, "grpc: failed to unmarshal the received message".to_owned()),
        },
        Some(status) => Attempt::Refused(status),
        None => {
            // Source: `HTTPStatusConvTab` of grpc-go.
            let code = match status.as_u16() {
                400 => 13,
                401 => 16,
                403 => 7,
                404 => 12,
                429 | 502 | 503 | 504 => 14,
                _ => 2,
            };
            let reason = status.canonical_reason().unwrap_or_default();
            let number = status.as_u16();
            let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok());
            refused(
                code,
                format!(
                    "unexpected HTTP status code received from server: {number} ({reason}); \
                     transport: received unexpected content-type {:?}",
                    kind.unwrap_or_default()
                ),
            )
        }
    }
}

/// The field 1 of a `HealthCheckResponse`; 0 when it is not there. `None` for what is no such message.
fn serving(framed: &[u8]) -> Option<u64> {
    let (header, message) = framed.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = *header;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    if compressed != 0 || length != message.len() {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = varint(&mut rest)?,
            (_, 0) => drop(varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Source: `codes.Code.String` of grpc-go.
fn code_name(code: u32) -> String {
    let name = match code {
        0 => "OK",
        1 => "Canceled",
        2 => "Unknown",
        3 => "InvalidArgument",
        4 => "DeadlineExceeded",
        5 => "NotFound",
        6 => "AlreadyExists",
        7 => "PermissionDenied",
        8 => "ResourceExhausted",
        9 => "FailedPrecondition",
        10 => "Aborted",
        11 => "OutOfRange",
        12 => "Unimplemented",
        13 => "Internal",
        14 => "Unavailable",
        15 => "DataLoss",
        16 => "Unauthenticated",
        other => return format!("Code({other})"),
    };
    name.to_owned()
}

/// A connection that remembers whether anything came: a server of HTTP/2 greets.
struct Heard {
    stream: TcpStream,
    heard: Arc<AtomicBool>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
