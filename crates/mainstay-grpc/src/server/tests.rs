//! Both ends together, and clients that do not keep to the protocol.

use std::path::{Path, PathBuf};

use http_body_util::Full;
use hyper::client::conn::http2;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::message::MESSAGE_MAX;
use crate::{Channel, Endpoint, decode};

/// How long to wait for what may never come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says back what it is told, by the name of the method.
struct Echo;

impl Service for Echo {
    fn call(
        self: Arc<Self>,
        method: String,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Reply, Status>> {
        Box::pin(async move {
            let said: String = decode(request)?;
            match method.as_str() {
                "/echo.Echo/Say" => Ok(Reply::One(Encoded::of(&said))),
                "/echo.Echo/Letters" => {
                    let letters: Vec<_> =
                        said.chars().map(|letter| Ok(Encoded::of(&letter.to_string()))).collect();
                    Ok(Reply::Many(stream::iter(letters).boxed()))
                }
                "/echo.Echo/Break" => {
                    let broken = Err(Status::new(Code::DataLoss, "some is lost"));
                    Ok(Reply::Many(stream::iter([Ok(Encoded::of(&said)), broken]).boxed()))
                }
                "/echo.Echo/Never" => std::future::pending().await,
                "/echo.Echo/Hang" => Ok(Reply::Many(stream::pending().boxed())),
                other => Err(Status::unknown_method(other, &["echo.Echo"])),
            }
        })
    }
}

/// The server, its socket, and the directory that it lies in.
fn start() -> (JoinSet<()>, PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(UnixListener::bind(&socket).unwrap(), Arc::new(Echo)));
    (tasks, socket, directory)
}

fn channel(socket: &Path) -> Channel {
    Channel::new(Endpoint::Unix(socket.to_owned()), "server")
}

fn text(text: &str) -> String {
    text.to_owned()
}

#[tokio::test]
async fn calls_are_answered() {
    let (_tasks, socket, _directory) = start();
    let channel = channel(&socket);
    for said in ["", "hello", &"x".repeat(3 << 20)] {
        let answer: String =
            channel.call("/echo.Echo/Say", &text(said), Some(PATIENCE)).await.unwrap();
        assert_eq!(answer, said);
    }
    let mut answers = channel.follow("/echo.Echo/Letters", &text("abc")).await.unwrap();
    let mut letters = Vec::new();
    while let Some(letter) = answers.next().await.unwrap() {
        letters.push(decode::<String>(letter).unwrap());
    }
    assert_eq!(letters, ["a", "b", "c"]);
    let mut answers = channel.follow("/echo.Echo/Break", &text("a")).await.unwrap();
    assert!(answers.next().await.unwrap().is_some());
    assert_eq!(answers.next().await, Err(Status::new(Code::DataLoss, "some is lost")));

    let unknown = async |method| {
        let answer = channel.call::<String>(method, &text(""), Some(PATIENCE)).await;
        let Status { code, message } = answer.unwrap_err();
        assert_eq!(code, Code::Unimplemented);
        message
    };
    assert_eq!(unknown("/echo.Echo/Sing").await, "unknown method Sing for service echo.Echo");
    assert_eq!(unknown("/echo.Old/Say").await, "unknown service echo.Old");
    assert_eq!(unknown("/nothing").await, "malformed method name: \"/nothing\"");
}

#[tokio::test]
async fn a_call_over_one_connection_goes_over_no_other() {
    let (tasks, socket, _directory) = start();
    let channel = channel(&socket);
    let first = channel.connect().await.unwrap();
    assert_eq!(channel.connect().await, Ok(first));
    let say = async |connection| {
        let (method, said) = ("/echo.Echo/Say", text("a"));
        channel.call_over::<String>(connection, method, &said, None).await
    };
    assert_eq!(say(first).await, Ok(Some(text("a"))));
    drop(tasks);
    std::fs::remove_file(&socket).unwrap();
    // Once it has been noticed, nobody is asked.
    while say(first).await != Ok(None) {
        tokio::task::yield_now().await;
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(UnixListener::bind(&socket).unwrap(), Arc::new(Echo)));
    assert_eq!(say(first).await, Ok(None));
    let second = channel.connect().await.unwrap();
    assert!(second > first);
    assert_eq!(say(second).await, Ok(Some(text("a"))));
    assert_eq!(say(first).await, Ok(None));
}

#[tokio::test]
async fn a_call_takes_no_longer_than_its_client_allows() {
    let (_tasks, socket, _directory) = start();
    let mut sender = raw(&socket).await;
    for method in ["/echo.Echo/Never", "/echo.Echo/Hang"] {
        let post = post(method, &[("grpc-timeout", "20m")], framed("a"));
        assert_eq!(ended(&mut sender, post).await, (200, Code::DeadlineExceeded));
    }
}

#[test]
fn limits_are_digits_with_a_unit() {
    let check = |text: &str, limit: Option<Duration>| assert_eq!(limit_of(text), limit, "{text}");
    check("1H", Some(Duration::from_secs(3600)));
    check("2M", Some(Duration::from_secs(120)));
    check("3S", Some(Duration::from_secs(3)));
    check("99999999m", Some(Duration::from_millis(99_999_999)));
    check("5u", Some(Duration::from_micros(5)));
    check("6n", Some(Duration::from_nanos(6)));
    for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "999999999S", "1ä", " 1S"] {
        check(text, None);
    }
}

/// A connection on which anything can be asked.
async fn raw(socket: &Path) -> (http2::SendRequest<Full<Bytes>>, JoinSet<()>) {
    let stream = UnixStream::connect(socket).await.unwrap();
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, driving) = shaken.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(driving.await) });
    (sender, tasks)
}

fn post(method: &str, headers: &[(&'static str, &str)], body: Bytes) -> Request<Full<Bytes>> {
    let mut post = Request::post(format!("http://localhost{method}"));
    if headers.iter().all(|(name, _)| *name != "content-type") {
        post = post.header("content-type", "application/grpc+proto");
    }
    for (name, value) in headers {
        post = post.header(*name, *value);
    }
    post.body(Full::new(body)).unwrap()
}

fn framed(said: &str) -> Bytes {
    Encoded::of(&text(said)).0
}

/// The status of HTTP, and how the call ended.
async fn ended(
    (sender, _): &mut (http2::SendRequest<Full<Bytes>>, JoinSet<()>),
    request: Request<Full<Bytes>>,
) -> (u16, Code) {
    let answered = timeout(PATIENCE, sender.send_request(request)).await.expect("an answer");
    let response = answered.unwrap();
    let http = response.status().as_u16();
    let at_once = Status::said(response.headers());
    let body = timeout(PATIENCE, response.into_body().collect()).await.expect("an end").unwrap();
    let end = at_once.or_else(|| Status::said(body.trailers()?)).expect("how it ended is said");
    (http, end.map_or_else(|status| status.code, |()| Code::Ok))
}

#[tokio::test]
async fn what_is_no_call_is_refused_and_others_are_served() {
    let (_tasks, socket, _directory) = start();
    let mut sender = raw(&socket).await;
    let say = "/echo.Echo/Say";
    let two = [framed("a"), framed("b")].concat();
    let mut compressed = framed("a").to_vec();
    compressed[0] = 1;
    let huge = [&[0][..], &u32::try_from(MESSAGE_MAX + 1).unwrap().to_be_bytes()].concat();
    let get = Request::get("http://localhost/echo.Echo/Say").body(Full::default()).unwrap();
    for (request, expected) in [
        (get, (405, Code::Internal)),
        (post(say, &[("content-type", "text/plain")], framed("a")), (415, Code::InvalidArgument)),
        (
            post(say, &[("content-type", "application/grpcs")], framed("a")),
            (415, Code::InvalidArgument),
        ),
        (post(say, &[("grpc-encoding", "gzip")], framed("a")), (200, Code::Unimplemented)),
        (post(say, &[("grpc-encoding", "identity")], framed("a")), (200, Code::Ok)),
        (post(say, &[("grpc-timeout", "soon")], framed("a")), (400, Code::Internal)),
        (post(say, &[], compressed.into()), (200, Code::Internal)),
        (post(say, &[], huge.into()), (200, Code::ResourceExhausted)),
        (post(say, &[], Bytes::new()), (200, Code::Internal)),
        (post(say, &[], framed("abc").slice(..6)), (200, Code::Internal)),
        (post(say, &[], two.into()), (200, Code::Internal)),
        (post(say, &[], Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 9])), (200, Code::Internal)),
        (post(say, &[], framed("a")), (200, Code::Ok)),
    ] {
        let told = format!("{request:?}");
        assert_eq!(ended(&mut sender, request).await, expected, "{told}");
    }
}

#[tokio::test]
async fn whoever_speaks_something_else_is_hung_up_on() {
    let (_tasks, socket, _directory) = start();
    let channel = channel(&socket);
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxx"]
    {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // It may be told why before, or be cut off.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is hung up on");
    }
    // One that says nothing keeps nobody waiting.
    let _silent = UnixStream::connect(&socket).await.unwrap();
    let answer: String = channel.call("/echo.Echo/Say", &text("a"), Some(PATIENCE)).await.unwrap();
    assert_eq!(answer, "a");
}
