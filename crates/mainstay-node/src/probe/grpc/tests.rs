//! Against servers that speak gRPC, or do not.

use std::net::Ipv4Addr;

use http::Response;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

type Frames = Vec<Result<Frame<Bytes>, std::convert::Infallible>>;

/// What a server answers: the HTTP status, its headers, the message, and the trailers.
#[derive(Clone, Default)]
struct Script {
    status: Option<u16>,
    headers: Vec<(&'static str, &'static str)>,
    message: Option<&'static [u8]>,
    trailers: Vec<(&'static str, &'static str)>,
}

async fn serve(script: Script) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let script = script.clone();
            async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                assert_eq!(request.headers()["te"], "trailers");
                assert!(request.headers().contains_key("grpc-timeout"));
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03web");
                let mut frames: Frames = Vec::new();
                if let Some(message) = script.message {
                    frames.push(Ok(Frame::data(frame(message))));
                }
                if !script.trailers.is_empty() {
                    let mut trailers = HeaderMap::new();
                    for (name, value) in &script.trailers {
                        trailers.insert(*name, value.parse().unwrap());
                    }
                    frames.push(Ok(Frame::trailers(trailers)));
                }
                let mut response = Response::builder().status(script.status.unwrap_or(200));
                for (name, value) in &script.headers {
                    response = response.header(*name, *value);
                }
                response.body(StreamBody::new(futures_util::stream::iter(frames)))
            }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    });
    (port, tasks)
}

#[tokio::test]
async fn answers_are_judged_as_a_kubelet_does() {
    let served = |message| Script {
        message: Some(message),
        trailers: vec![("grpc-status", "0")],
        ..Script::default()
    };
    let refused = |code, message| Script {
        headers: vec![("grpc-status", code), ("grpc-message", message)],
        ..Script::default()
    };
    let failure = |text: &str| Answer::Failure(text.to_owned());
    for (script, expected) in [
        (served(b"\x08\x01"), Answer::Success),
        (served(b"\x12\x02xx\x08\x01"), Answer::Success),
        (served(b""), failure("service unhealthy (responded with \"UNKNOWN\")")),
        (served(b"\x08\x02"), failure("service unhealthy (responded with \"NOT_SERVING\")")),
        (
            served(b"\x08"),
            failure(
                "error: health rpc probe failed: rpc error: code = Internal desc = grpc: failed \
                 to unmarshal the received message",
            ),
        ),
        (
            refused("5", "unknown%20service"),
            failure(
                "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
            ),
        ),
        (
            refused("12", "no"),
            failure(
                "error: this server does not implement the grpc health protocol \
                 (grpc.health.v1.Health): no",
            ),
        ),
        (
            Script { status: Some(503), ..Script::default() },
            failure(
                "error: health rpc probe failed: rpc error: code = Unavailable desc = unexpected \
                 HTTP status code received from server: 503 (Service Unavailable); transport: \
                 received unexpected content-type \"\"",
            ),
        ),
        (
            served(&[b'x'; 5000]),
            failure(
                "error: health rpc probe failed: rpc error: code = ResourceExhausted desc = grpc: \
                 received message larger than max (4096)",
            ),
        ),
    ] {
        let (port, _tasks) = serve(script).await;
        assert_eq!(ask("127.0.0.1", port, "web", LONG).await, expected);
    }
}

#[tokio::test]
async fn nobody_who_speaks_it_is_a_connection_that_failed() {
    let late = |port: u16| {
        Answer::Failure(format!(
            "timeout: failed to connect service \"127.0.0.1:{port}\" within 200ms: context \
             deadline exceeded"
        ))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Nobody accepts.
    assert_eq!(ask("127.0.0.1", port, "", SHORT).await, late(port));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    assert_eq!(ask("127.0.0.1", port, "", SHORT).await, late(port));
    tasks.shutdown().await;
    assert_eq!(ask("127.0.0.1", port, "", SHORT).await, late(port));
}

#[test]
fn a_long_name_has_a_long_length() {
    let name = "x".repeat(300);
    let message = request(&name);
    assert_eq!(&message[..3], b"\x0a\xac\x02");
    assert_eq!(message.len(), 303);
}
