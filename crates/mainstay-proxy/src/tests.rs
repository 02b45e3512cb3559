use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Whether a server is behind the proxy.
fn is_behind(proxies: &Proxies, server: &str) -> bool {
    proxies.to(&server.parse().unwrap()).is_some()
}

#[test]
fn servers_of_ones_own_are_asked_directly() {
    let without = "10.0.0.0/8, .corp.example.com,registry.example.org";
    let proxies = Proxies::of(Some("http://me:secret@proxy.example.com:3128"), without).unwrap();
    for (server, expected) in [
        ("https://registry-1.docker.io/v2/", true),
        ("https://192.0.2.1:6443", true),
        ("https://10.1.2.3:6443", false),
        ("https://images.corp.example.com", false),
        ("https://registry.example.org:5000", false),
        ("https://localhost:5000", false),
        ("https://127.0.0.1:5000", false),
        ("https://[::1]:5000", false),
        // Nobody would see what is said.
        ("http://registry-1.docker.io", false),
    ] {
        assert_eq!(is_behind(&proxies, server), expected, "{server}");
    }
    assert!(is_behind(&Proxies::one("http://proxy:3128").unwrap(), "https://127.0.0.1:6443"));
    assert!(!is_behind(&Proxies::none(), "https://192.0.2.1"));
}

#[test]
fn what_is_no_proxy_is_named_without_its_password() {
    for text in
        ["https://me:secret@proxy:3128", "ftp://me:secret@proxy", "http://", "me:secret@p p"]
    {
        let error = Proxies::one(text).unwrap_err().to_string();
        assert!(error.contains(FORM) && !error.contains("secret"), "{error}");
    }
    for text in ["http://proxy:3128", "proxy:3128", "socks5://proxy:1080", "socks5h://a:b@proxy:1"]
    {
        assert!(Proxies::one(text).is_ok(), "{text}");
    }
}

/// Dials a server through a proxy, which answers so what it hears first; tells what that was, and what then came
/// through.
async fn dialed(scheme: &str, answer: &'static [u8]) -> (Vec<u8>, Result<String, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("{scheme}://me:secret@{}", listener.local_addr().unwrap());
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let mut dialer = Dialer::new(tcp, Proxies::one(&proxy).unwrap());
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 512];
        let length = stream.read(&mut heard).await.unwrap();
        heard.truncate(length);
        stream.write_all(answer).await.unwrap();
        heard
    };
    let called = async {
        let stream = dialer.call("https://api.example.com:6443".parse().unwrap()).await;
        let mut stream: TcpStream = match stream.map(TokioIo::into_inner) {
            Ok(stream) => stream,
            Err(error) => return Err(format!("{error}: {}", error.source().unwrap())),
        };
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        Ok(text)
    };
    tokio::join!(served, called)
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_server_and_then_passes_everything_on() {
    let (heard, passed) = dialed("http", b"HTTP/1.1 200 OK\r\n\r\n").await;
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.starts_with("CONNECT api.example.com:6443 HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"), "{heard}");
    assert_eq!(passed.unwrap(), "");

    let (_, refused) = dialed("http", b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    let refused = refused.unwrap_err();
    assert!(
        refused.starts_with("cannot reach api.example.com through the proxy http://127.0.0.1:")
    );
    assert!(refused.contains("authorization required") && !refused.contains("secret"), "{refused}");

    // It offers a name and a password, and nobody wants them.
    let (heard, refused) = dialed("socks5", &[5, 0xff]).await;
    assert_eq!(heard, [5, 1, 2]);
    assert!(refused.unwrap_err().contains("through the proxy socks5://127.0.0.1:"));
}
