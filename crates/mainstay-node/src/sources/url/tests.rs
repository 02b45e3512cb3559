//! Against a server that says what it is told to.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// A server that gives its answers one after the other, each on a connection of its own.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let heard = asked.clone();
        tasks.spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                heard.lock().unwrap().push(String::from_utf8(request).unwrap());
                // Whoever has heard enough may be gone.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, asked, _tasks: tasks }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

fn url(port: u16, path: &str) -> ManifestUrl {
    let headers = vec![("X-Key".to_owned(), "secret".to_owned())];
    let url = format!("http://127.0.0.1:{port}{path}");
    ManifestUrl::new(&url, headers, Duration::from_secs(20)).unwrap()
}

#[tokio::test]
async fn only_a_whole_answer_with_something_in_it_counts() {
    let much = "x".repeat(MAX_FILE_BYTES);
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf".to_owned();
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{much}");
    for (given, expected) in [
        (answer("200 OK", "", "kind: Pod"), Ok("kind: Pod")),
        (answer("200 OK", "", ""), Err("it answers with nothing")),
        (answer("200 OK", "", " \n"), Err("it answers with nothing")),
        (answer("204 No Content", "", ""), Err("it answers 204 No Content")),
        (answer("500 Internal Server Error", "", "kind: Pod"), Err("it answers 500")),
        (cut, Err("")),
        (endless, Err("it answers with 10485760 bytes or more")),
        ("nonsense".to_owned(), Err("")),
    ] {
        let server = Server::start(vec![given.clone()]).await;
        let told = Client::default().ask(&url(server.port, "/").request).await;
        let start = given.get(..60).unwrap_or(&given).to_owned();
        match (told, expected) {
            (Ok(Some(bytes)), Ok(expected)) => assert_eq!(bytes, expected.as_bytes(), "{start}"),
            (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{start}: {error}"),
            (told, _) => panic!("{start}: {told:?}"),
        }
    }
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let server = Server::start(vec![
        answer("200 OK", "ETag: \"one\"\r\n", "a"),
        "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
        answer("200 OK", "", "b"),
        answer("200 OK", "", "b"),
    ])
    .await;
    let request = url(server.port, "/pods?token=hidden").request;
    let mut client = Client::default();
    for expected in [Some("a"), None, Some("b"), Some("b")] {
        let told = client.ask(&request).await.unwrap();
        assert_eq!(told.as_deref(), expected.map(str::as_bytes));
    }
    let asked = server.asked();
    let tagged: Vec<_> = asked.iter().map(|it| it.contains("If-None-Match: \"one\"")).collect();
    assert_eq!(tagged, [false, true, true, false]);
    assert!(asked.iter().all(|it| it.starts_with("GET /pods?token=hidden HTTP/1.1\r\n")));
    assert!(asked.iter().all(|it| it.contains("X-Key: secret\r\n")));
}

#[tokio::test]
async fn redirects_are_followed_without_telling_others_who_asks() {
    let last = Server::start(vec![answer("200 OK", "", "a")]).await;
    let there = format!("Location: http://127.0.0.1:{}/there\r\n", last.port);
    let first = Server::start(vec![
        answer("302 Found", "Location: next\r\n", ""),
        answer("307 Temporary Redirect", &there, ""),
    ])
    .await;
    let told = Client::default().ask(&url(first.port, "/dir/pods").request).await;
    assert_eq!(told.unwrap().unwrap(), b"a");
    let asked = first.asked();
    assert!(asked[1].starts_with("GET /dir/next ") && asked[1].contains("X-Key: secret"));
    let asked = last.asked();
    assert!(asked[0].starts_with("GET /there ") && !asked[0].contains("secret"), "{asked:?}");

    let round = answer("302 Found", "Location: /\r\n", "");
    let server = Server::start(vec![round; REDIRECTS]).await;
    let told = Client::default().ask(&url(server.port, "/").request).await;
    assert_eq!(told.unwrap_err(), "stopped after 10 redirects");
}

#[test]
fn tls_is_not_left_again() {
    let request = parse("https://a/x").unwrap();
    assert!(redirected(&request, "http://a/x").unwrap_err().contains("not followed"));
    assert!(redirected(&request, "http://b/x").unwrap_err().contains("not followed"));
    let next = redirected(&request, "//b/y").unwrap();
    assert_eq!(next.url(), "https://b/y");
}

#[test]
fn nothing_of_a_url_that_is_shown_is_a_secret() {
    let new = |url: &str| ManifestUrl::new(url, Vec::new(), Duration::from_secs(1));
    let url = new("https://me:pass%21@host:8443/pods.yaml?token=hidden#there").unwrap();
    assert_eq!(url.name(), Path::new("https://host:8443/pods.yaml"));
    let told = format!("{url:?}");
    assert!(!told.contains("pass") && !told.contains("hidden"), "{told}");
    let (_, sent) = url.request.headers.iter().find(|(name, _)| name == "Authorization").unwrap();
    assert_eq!(sent, "Basic bWU6cGFzcyE=");
    for wrong in ["/etc/pods", "ftp://host/", "https://", "https://me:pass@/x", "host:80"] {
        let error = new(wrong).unwrap_err().to_string();
        assert!(!error.contains("pass"), "{error}");
    }
    let headers = [("User-Agent", "me"), ("X", "1"), ("X", "2")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let url = ManifestUrl::new("http://h/", headers.clone(), Duration::from_secs(1)).unwrap();
    assert_eq!(url.request.headers[1..], headers);
    let header = vec![("X-Key".to_owned(), "a\nb".to_owned())];
    let error = ManifestUrl::new("http://h/", header, Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.to_string(), "the header \"X-Key\" cannot be sent");
}

#[tokio::test]
async fn a_failure_is_told_once_and_the_recovery_too() {
    let server = Server::start(vec![
        answer("503 Service Unavailable", "", ""),
        answer("503 Service Unavailable", "", ""),
        answer("200 OK", "", "a"),
    ])
    .await;
    let url = ManifestUrl { interval: Duration::from_millis(1), ..url(server.port, "/") };
    let name = url.name().to_owned();
    let (batches, mut found) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(watch(url, batches));
    let batch = found.recv().await.unwrap();
    assert!(matches!(&*batch, [Change::Directory { path, error: Some(error) }]
            if *path == name && error == "it answers 503 Service Unavailable"));
    let batch = found.recv().await.unwrap();
    assert!(matches!(
        &*batch,
        [Change::Read { bytes, .. }, Change::Directory { error: None, .. }] if bytes == b"a"
    ));
}
