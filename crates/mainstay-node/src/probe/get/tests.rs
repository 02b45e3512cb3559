//! Against small servers, good and bad.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// Answers every connection with the bytes that the path of its request names, and remembers the
/// requests.
struct Server {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (all, mut tasks) = (heard.clone(), JoinSet::new());
        tasks.spawn(async move {
            // Open for as long as the server is there.
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).await.is_err() {
                        break;
                    }
                    request.push(byte[0]);
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let answer = answer(request.split(' ').nth(1).unwrap_or_default());
                all.lock().unwrap().push(request);
                let said = answer.strip_suffix("hang");
                // A client that has had enough is fine.
                let _ = stream.write_all(said.unwrap_or(&answer).as_bytes()).await;
                held.extend(said.map(|_| stream));
            }
        });
        Self { port, heard, _tasks: tasks }
    }

    fn request(&self, path: &str) -> HttpGet {
        HttpGet {
            tls: false,
            host: "127.0.0.1".into(),
            port: self.port,
            authority: format!("127.0.0.1:{}", self.port),
            path: path.into(),
            headers: vec![("User-Agent".into(), "kube-probe/1.36".into())],
        }
    }

    async fn ask(&self, path: &str, limit: Duration) -> Answer {
        ask(self.request(path), limit, &tls()).await
    }
}

fn tls() -> Arc<ClientConfig> {
    let mut tls = mainstay_pki::unverified_client().unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(tls)
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(1);

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nthere")
}

fn failure(text: impl Into<String>) -> Answer {
    Answer::Failure(text.into())
}

#[tokio::test]
async fn the_status_decides() {
    let server = Server::start(|path| match path {
        "/ok" => ok("fine"),
        "/empty" => "HTTP/1.1 204 No Content\r\n\r\n".into(),
        "/not-modified" => "HTTP/1.1 304 Not Modified\r\n\r\n".into(),
        "/nowhere" => "HTTP/1.1 302 Found\r\nContent-Length: 2\r\n\r\nno".into(),
        "/old" => "HTTP/1.0 200 OK\r\n\r\nuntil its end".into(),
        _ => "HTTP/1.1 503 No\r\nContent-Length: 6\r\n\r\nsecret".into(),
    })
    .await;
    let warning =
        |body: &str| Answer::Warning(format!("Probe terminated redirects, Response body: {body}"));
    for (path, expected) in [
        ("/ok", Answer::Success),
        ("/empty", Answer::Success),
        ("/old", Answer::Success),
        ("/not-modified", warning("")),
        ("/nowhere", warning("no")),
        ("/else", failure("HTTP probe failed with statuscode: 503")),
    ] {
        assert_eq!(server.ask(path, LONG).await, expected, "{path}");
    }
    let mut request = server.request("/ok?a=b");
    request.headers.push(("Host".into(), "web".into()));
    request.headers.push(("Content-Length".into(), "9".into()));
    request.headers.push(("x-one".into(), " 1 ".into()));
    ask(request, LONG, &tls()).await;
    let expected = "GET /ok?a=b HTTP/1.1\r\nUser-Agent: kube-probe/1.36\r\nX-One: 1\r\n\
                    Host: web\r\nConnection: close\r\n\r\n";
    assert_eq!(server.heard.lock().unwrap().last().unwrap(), expected);
    let mut request = server.request("/");
    request.headers.push(("X".into(), "a\nb".into()));
    let expected = format!(
        "Get \"http://127.0.0.1:{}/\": net/http: invalid header field value for \"X\"",
        server.port
    );
    assert_eq!(ask(request, LONG, &tls()).await, failure(expected));
}

#[tokio::test]
async fn redirects_are_followed_on_the_host_and_not_for_ever() {
    let server = Server::start(|path| match path {
        "/a/b" => to("../c?d"),
        "/c?d" => ok(""),
        "/away" => to("http://example.com/"),
        "/ftp" => to("ftp://127.0.0.1/"),
        path => to(path),
    })
    .await;
    assert_eq!(server.ask("/a/b", LONG).await, Answer::Success);
    let second = server.heard.lock().unwrap().last().unwrap().clone();
    let referer = format!("Referer: http://127.0.0.1:{}/a/b\r\n", server.port);
    assert!(second.contains(&referer), "{second}");
    let away = "Probe terminated redirects, Response body: there".to_owned();
    assert_eq!(server.ask("/away", LONG).await, Answer::Warning(away));
    let before = server.heard.lock().unwrap().len();
    let expected = "Get \"/loop\": stopped after 10 redirects";
    assert_eq!(server.ask("/loop", LONG).await, failure(expected));
    assert_eq!(server.heard.lock().unwrap().len() - before, 10);
    let Answer::Failure(ftp) = server.ask("/ftp", LONG).await else { panic!() };
    assert!(ftp.ends_with("unsupported protocol scheme \"ftp\""), "{ftp}");
}

#[tokio::test]
async fn what_cannot_be_had_is_told_in_gos_words() {
    let server = Server::start(|path| match path {
        "/garbage" => "220 smtp.example.com ESMTP\r\n".into(),
        "/nothing" => String::new(),
        "/headers" => format!("HTTP/1.1 200 OK\r\nX: {}hang", "x".repeat(1 << 20)),
        "/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".into(),
        "/stalled" => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhang".into(),
        "/endless" => {
            format!("HTTP/1.1 200 OK\r\n\r\n{}hang", "x".repeat(MOST))
        }
        _ => "hang".into(),
    })
    .await;
    let get = |path: &str, why: &str| {
        failure(format!("Get \"http://127.0.0.1:{}{path}\": {why}", server.port))
    };
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    assert_eq!(server.ask("/", SHORT).await, get("/", late));
    assert_eq!(server.ask("/nothing", LONG).await, get("/nothing", "EOF"));
    // What comes of its beginning counts.
    assert_eq!(server.ask("/endless", LONG).await, Answer::Success);
    let Answer::Failure(garbage) = server.ask("/garbage", LONG).await else { panic!() };
    assert!(garbage.contains("malformed response"), "{garbage}");
    let Answer::Failure(long) = server.ask("/headers", LONG).await else { panic!() };
    assert!(long.contains("malformed response"), "{long}");
    let error = |message: &str| Answer::Error { state: "failure", message: message.into() };
    assert_eq!(server.ask("/cut", LONG).await, error("unexpected EOF"));
    let body =
        "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    assert_eq!(server.ask("/stalled", SHORT).await, error(body));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (authority, path) = (format!("127.0.0.1:{port}"), "/x".to_owned());
    let refused = HttpGet { port, authority, path, ..server.request("") };
    let expected = format!(
        "Get \"http://127.0.0.1:{port}/x\": dial tcp 127.0.0.1:{port}: connect: connection refused"
    );
    assert_eq!(ask(refused, LONG, &tls()).await, failure(expected));
}

#[tokio::test]
async fn tls_is_taken_from_whomever() {
    let certificate = rcgen::generate_simple_self_signed(["else".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.into())
        .unwrap();
    for protocol in ["h2", "http/1.1"] {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.into()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let host = request.uri().authority().map(ToString::to_string);
                let given = request.headers().get(HOST).and_then(|host| host.to_str().ok());
                let host = host.or(given.map(str::to_owned)).unwrap();
                let status = if host == "web" { 200 } else { 500 };
                Response::builder().status(status).body(Empty::<Bytes>::new())
            });
            let server =
                hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        let request = HttpGet {
            tls: true,
            host: "127.0.0.1".into(),
            port,
            authority: format!("127.0.0.1:{port}"),
            path: "/".into(),
            headers: vec![("Host".into(), "web".into())],
        };
        assert_eq!(ask(request, LONG, &tls()).await, Answer::Success, "{protocol}");
    }
    let plain = Server::start(|_| ok("")).await;
    let request = HttpGet { tls: true, ..plain.request("/") };
    let url = format!("https://127.0.0.1:{}/", plain.port);
    let Answer::Failure(text) = ask(request, SHORT, &tls()).await else { panic!() };
    assert!(text.starts_with(&format!("Get {url:?}: ")), "{text}");
}
