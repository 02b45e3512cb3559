use http::request::Parts;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::{port_forward as forwarding, remote_command as commands};

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };

/// What a server is asked, whatever the address is.
fn asked(kind: Kind) -> Parts {
    let uri: Uri = "http://127.0.0.1:7/exec/token".parse().unwrap();
    request(&uri, kind).unwrap().into_parts().0
}

/// A process, and whoever serves it.
async fn process(options: Options) -> (Process, commands::RemoteCommand) {
    let (here, there) = duplex(1 << 10);
    let negotiated = commands::negotiate(&asked(Kind::RemoteCommand)).unwrap();
    let answer = negotiated.response();
    assert!(is_agreed(answer.status(), answer.headers()));
    let serving = negotiated.remote_command(there, options, Timeouts::default());
    let (process, served) =
        tokio::join!(remote_command(here, options, Timeouts::default()), serving);
    (process, served.unwrap())
}

async fn all(mut from: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text).await.map(|_| text)
}

#[test]
fn what_is_asked_for_is_what_servers_take() {
    let parts = asked(Kind::RemoteCommand);
    assert_eq!((parts.uri.to_string(), parts.method), ("/exec/token".into(), Method::POST));
    assert_eq!(parts.headers["host"], "127.0.0.1:7");
    assert!(forwarding::negotiate(&asked(Kind::PortForward)).is_ok());
    assert!(!is_agreed(StatusCode::OK, &HeaderMap::new()));
    assert!(!is_agreed(StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new()));
}

#[tokio::test]
async fn a_process_reads_writes_and_ends() {
    let (mut process, mut served) = process(ALL).await;
    process.stdin.as_mut().unwrap().write_all(b"in").await.unwrap();
    drop(process.stdin.take());
    assert_eq!(all(served.stdin.take().unwrap()).await.unwrap(), "in");
    served.stdout.as_mut().unwrap().write_all(b"out").await.unwrap();
    served.stderr.as_mut().unwrap().write_all(b"err").await.unwrap();
    assert!(process.sizes.is_none());
    let (stdout, stderr) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
    // Whether the server hears of our leaving before it has said all is a matter of who is faster.
    let (_, out, err, end) = tokio::join!(
        served.finish.exit(&Outcome::Exited(3)),
        all(stdout),
        all(stderr),
        process.end.wait()
    );
    assert_eq!(
        (out.unwrap(), err.unwrap(), end),
        ("out".into(), "err".into(), Ok(Outcome::Exited(3)))
    );
}

#[tokio::test]
async fn a_terminal_is_told_its_size() {
    let (process, mut served) = process(Options { tty: true, ..ALL }).await;
    assert!(process.stderr.is_none());
    let size = TerminalSize { width: 80, height: 25 };
    assert!(process.sizes.as_ref().unwrap().tell(size));
    assert_eq!(served.resize.next().await, Some(size));
    let end = Outcome::Failed("no such file".into());
    let (finished, ended) = tokio::join!(served.finish.exit(&end), process.end.wait());
    let Ok(Outcome::Failed(told)) = ended else { unreachable!("{ended:?}") };
    assert!(told.ends_with("no such file"), "{told}");
    finished.unwrap();
}

#[tokio::test]
async fn a_server_that_breaks_off_is_not_taken_for_an_end() {
    let (mut process, served) = process(ALL).await;
    drop(served);
    let error = all(process.stdout.take().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert!(matches!(process.end.wait().await, Err(Gone::Broken(_))));
}

#[tokio::test]
async fn whoever_leaves_is_noticed() {
    let (process, served) = process(ALL).await;
    drop(process);
    served.finish.gone().await;
    assert_eq!(
        all(served.stdin.unwrap()).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionAborted
    );
}

/// A connection to port 80, and that of whoever serves it.
async fn forwarded() -> (Forwarded, forwarding::Connection, forwarding::PortForward) {
    let (here, there): (DuplexStream, _) = duplex(1 << 10);
    let negotiated = forwarding::negotiate(&asked(Kind::PortForward)).unwrap();
    let mut served = negotiated.port_forward(there, &[], Timeouts::default()).await;
    let forwarded = port_forward(here, 80, Timeouts::default()).await;
    let connection = served.next().await.unwrap();
    assert_eq!(connection.port, 80);
    (forwarded, connection, served)
}

#[tokio::test]
async fn a_port_is_connected_to() {
    let (mut here, mut connection, _served) = forwarded().await;
    here.write_all(b"to").await.unwrap();
    here.shutdown().await.unwrap();
    assert_eq!(all(&mut connection.data).await.unwrap(), "to");
    connection.data.write_all(b"fro").await.unwrap();
    drop(connection);
    assert_eq!(all(here).await.unwrap(), "fro");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told_of() {
    let (here, connection, _served) = forwarded().await;
    connection.fail("connection refused");
    assert_eq!(all(here).await.unwrap_err().to_string(), "connection refused");
}
