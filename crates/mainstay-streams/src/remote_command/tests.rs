use std::cell::Cell;
use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use http::Request;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;
use crate::spdy::frame::Control;
use crate::spdy::reader::Event;
use crate::testing::{Heard, SpdyClient, WebSocketClient, client_frame};
use crate::websocket::frame::Opcode;

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };
const TTY: Options = Options { stdin: true, stdout: true, stderr: false, tty: true };
const OUT: Options = Options { stdin: false, stdout: true, stderr: false, tty: false };
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

fn parts(transport: Transport, protocol: &str) -> Parts {
    let request = Request::builder().header("Connection", "Upgrade");
    let request = match transport {
        Transport::Spdy => {
            let request = request.method("POST").header("Upgrade", "SPDY/3.1");
            request.header("X-Stream-Protocol-Version", protocol)
        }
        Transport::WebSocket => request
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Protocol", protocol),
    };
    request.body(()).unwrap().into_parts().0
}

async fn serve(
    transport: Transport,
    protocol: &str,
    io: DuplexStream,
    options: Options,
) -> Result<RemoteCommand, Error> {
    let negotiated = negotiate(&parts(transport, protocol)).unwrap();
    assert_eq!(negotiated.response().status(), 101);
    negotiated.remote_command(io, options, Timeouts::default()).await
}

/// Both ends of a command over SPDY, and the numbers of the streams in their order.
async fn spdy(
    protocol: &str,
    options: Options,
    types: &[&str],
) -> (RemoteCommand, SpdyClient, Vec<u32>) {
    let (server, client) = duplex(1 << 16);
    let mut client = SpdyClient::new(client);
    let opening = async {
        let mut ids = Vec::new();
        for kind in types {
            ids.push(client.open(&[("streamtype", kind)]).await);
        }
        ids
    };
    let (command, ids) = tokio::join!(serve(Transport::Spdy, protocol, server, options), opening);
    (command.unwrap(), client, ids)
}

/// Both ends of a command over WebSocket.
async fn websocket(protocol: &str, options: Options) -> (RemoteCommand, WebSocketClient) {
    let (server, client) = duplex(1 << 16);
    let command = serve(Transport::WebSocket, protocol, server, options).await.unwrap();
    (command, WebSocketClient::new(client))
}

#[test]
fn protocols() {
    let cases = [
        (Transport::Spdy, "v4.channel.k8s.io", Ok(Wire::Spdy(4))),
        (Transport::Spdy, "v5.channel.k8s.io,v3.channel.k8s.io", Ok(Wire::Spdy(3))),
        (Transport::Spdy, "channel.k8s.io", Ok(Wire::Spdy(1))),
        (Transport::Spdy, "v5.channel.k8s.io", Err(403)),
        (Transport::Spdy, "portforward.k8s.io", Err(403)),
        (Transport::WebSocket, "v5.channel.k8s.io", Ok(Wire::WebSocket(5, Codec::RawWithClose))),
        (Transport::WebSocket, "", Ok(Wire::WebSocket(1, Codec::Raw))),
        (
            Transport::WebSocket,
            "v3.channel.k8s.io, base64.channel.k8s.io",
            Ok(Wire::WebSocket(1, Codec::Base64)),
        ),
        (Transport::WebSocket, "SPDY/3.1+portforward.k8s.io", Err(403)),
    ];
    for (transport, protocol, expected) in cases {
        let found = negotiate(&parts(transport, protocol));
        let found = found.map(|found| found.wire).map_err(|refusal| refusal.status.as_u16());
        assert_eq!(found, expected, "{protocol}");
    }
}

#[tokio::test]
async fn spdy_from_first_to_last_byte() {
    let types = ["error", "stdin", "stdout", "stderr"];
    let (mut command, mut client, ids) = spdy("v4.channel.k8s.io", ALL, &types).await;

    client.data(ids[1], b"hel", false).await;
    client.data(ids[1], b"lo", true).await;
    let mut input = String::new();
    command.stdin.unwrap().read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "hello");

    command.stdout.as_mut().unwrap().write_all(b"out").await.unwrap();
    command.stderr.as_mut().unwrap().write_all(b"err").await.unwrap();
    // The writers are still there: what they have written comes before the status.
    let (exit, collected) = tokio::join!(command.finish.exit(&Outcome::Exited(0)), async move {
        let collected = client.collect(&ids).await;
        assert_eq!(client.next().await, None, "GOAWAY is the last frame");
        drop(client);
        collected
    });
    exit.unwrap();
    let text = |text: &str| (text.to_owned(), true);
    assert_eq!(collected, [text(SUCCESS), text(""), text("out"), text("err")]);
    let late = command.stdout.as_mut().unwrap().write_all(b"late").await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn exit_codes_by_version() {
    let text = "command terminated with non-zero exit code: command terminated with exit code 3";
    for (protocol, outcome, expected) in [
        ("v4.channel.k8s.io", Outcome::Exited(3), Outcome::Exited(3).to_json()),
        ("v3.channel.k8s.io", Outcome::Exited(3), text.to_owned()),
        ("v2.channel.k8s.io", Outcome::Exited(0), String::new()),
        ("channel.k8s.io", Outcome::Failed("x".into()), "Internal error occurred: x".to_owned()),
    ] {
        let (command, mut client, ids) = spdy(protocol, OUT, &["error", "stdout"]).await;
        drop(command.stdout);
        let (exit, collected) = tokio::join!(command.finish.exit(&outcome), async {
            let collected = client.collect(&ids).await;
            drop(client);
            collected
        });
        exit.unwrap();
        assert_eq!(collected, [(expected, true), (String::new(), true)], "{protocol}");
    }
}

#[tokio::test]
async fn terminals_and_their_size() {
    let types = ["error", "stdin", "stdout", "resize"];
    let (mut command, mut client, ids) = spdy("v3.channel.k8s.io", TTY, &types).await;
    assert!(command.stderr.is_none());
    client.data(ids[3], b"{\"Width\":80,\"Height\":24}\n{\"Wid", false).await;
    assert_eq!(command.resize.next().await, Some(TerminalSize { width: 80, height: 24 }));
    client.data(ids[3], b"th\":132,\"Height\":50}\n", true).await;
    assert_eq!(command.resize.next().await, Some(TerminalSize { width: 132, height: 50 }));
    assert_eq!(command.resize.next().await, None);

    // Version 2 has no sizes.
    let (mut command, ..) = spdy("v2.channel.k8s.io", TTY, &types[..3]).await;
    assert_eq!(command.resize.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn streams_that_do_not_come() {
    let (server, client) = duplex(1 << 16);
    let mut client = SpdyClient::new(client);
    client.syn(&[("streamtype", "error")]).await;
    let missing = serve(Transport::Spdy, "v4.channel.k8s.io", server, OUT).await;
    assert_eq!(missing.unwrap_err(), Error::StreamsMissing);

    let (server, client) = duplex(1 << 16);
    drop(client);
    let gone = serve(Transport::Spdy, "v4.channel.k8s.io", server, OUT).await;
    assert_eq!(gone.unwrap_err(), Error::Gone(Gone::Broken(ErrorKind::UnexpectedEof)));

    let (server, _client) = duplex(1 << 16);
    let nothing = Options { stderr: true, tty: true, ..Options::default() };
    let nothing = serve(Transport::Spdy, "v4.channel.k8s.io", server, nothing).await;
    assert_eq!(nothing.unwrap_err(), Error::NoStreams);
}

#[tokio::test]
async fn streams_that_nobody_wants_are_reset() {
    let (mut command, mut client, ids) = spdy("v4.channel.k8s.io", OUT, &["error", "stdout"]).await;
    let mut refused = Vec::new();
    refused.push((client.syn(&[("streamtype", "stdout")]).await, 3));
    refused.push((client.syn(&[("streamtype", "other")]).await, 3));
    refused.push((client.syn(&[]).await, 3));
    // Numbers that are even, or not above the last.
    for id in [2, 5] {
        let frame = client.syn_frame(id, &[("streamtype", "stdin")]);
        client.to.write_all(&frame).await.unwrap();
        refused.push((id, 1));
    }
    for (stream, status) in refused {
        let reset = Control::RstStream { stream, status };
        assert_eq!(client.next().await, Some(Event::Control(reset)));
    }
    // None of which does harm, nor do frames for streams that never were.
    client.data(77, b"?", true).await;
    client.control(&Control::RstStream { stream: 99, status: 5 }).await;
    client.control(&Control::WindowUpdate { stream: ids[1], delta: 7 }).await;
    client.control(&Control::Settings).await;
    client.control(&Control::Ping { id: 9 }).await;
    assert_eq!(client.next().await, Some(Event::Control(Control::Ping { id: 9 })));
    command.stdout.as_mut().unwrap().write_all(b"x").await.unwrap();
    let data = Event::Data { stream: ids[1], bytes: "x".into(), fin: false };
    assert_eq!(client.next().await, Some(data));
}

#[tokio::test]
async fn a_client_that_dies_ends_both_halves() {
    for over_spdy in [true, false] {
        let types = ["error", "stdin", "stdout", "stderr"];
        let mut command = if over_spdy {
            spdy("v4.channel.k8s.io", ALL, &types).await.0
        } else {
            websocket("v5.channel.k8s.io", ALL).await.0
        };
        let gone = command.finish.gone().await;
        assert_eq!(gone, Gone::Broken(ErrorKind::UnexpectedEof));
        let read = command.stdin.unwrap().read_to_end(&mut Vec::new()).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        let written = command.stdout.as_mut().unwrap().write_all(b"x").await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(command.finish.exit(&Outcome::Exited(0)).await, Err(gone));
    }
}

#[tokio::test]
async fn clients_that_leave_in_order() {
    let types = ["error", "stdin", "stdout"];
    let (command, mut client, ids) =
        spdy("v4.channel.k8s.io", Options { stderr: false, ..ALL }, &types).await;
    client.data(ids[1], b"in", false).await;
    client.control(&Control::RstStream { stream: ids[1], status: 5 }).await;
    client.control(&Control::GoAway { last_good: 0, status: 0 }).await;
    assert_eq!(command.finish.gone().await, Gone::Closed);
    let mut input = Vec::new();
    let end = command.stdin.unwrap().read_to_end(&mut input).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(input, b"in", "what came before is not lost");

    // Before version 5 of the channels the close frame is the only end of the input.
    let (command, mut client) = websocket("v4.channel.k8s.io", ALL).await;
    assert_eq!(client.next().await, Heard::Message(vec![1]));
    client.message(b"\0in").await;
    client.frame(true, Opcode::Close, &1000_u16.to_be_bytes()).await;
    let mut input = Vec::new();
    command.stdin.unwrap().read_to_end(&mut input).await.unwrap();
    assert_eq!(input, b"in");
    assert_eq!(client.next().await, Heard::Close);
    assert_eq!(client.next().await, Heard::End);
}

#[tokio::test]
async fn websocket_from_first_to_last_byte() {
    let (mut command, mut client) = websocket("v5.channel.k8s.io", ALL).await;
    assert_eq!(client.next().await, Heard::Message(vec![1]), "the server says that it is there");

    client.message(b"\0hel").await;
    client.frame(true, Opcode::Ping, b"?").await;
    assert_eq!(client.next().await, Heard::Pong(Vec::new()));
    // Channels that only go the other way, and ones that are not there.
    client.message(b"\x01x").await;
    client.message(b"\x63x").await;
    client.message(b"").await;
    client.frame(true, Opcode::Text, b"\0lo").await;
    client.message(b"\x04{\"Width\":1,\"Height\":2}").await;
    client.message(b"\xff\x00").await;
    let mut input = String::new();
    command.stdin.unwrap().read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "hello");
    assert_eq!(command.resize.next().await, Some(TerminalSize { width: 1, height: 2 }));

    command.stdout.as_mut().unwrap().write_all(b"out").await.unwrap();
    assert_eq!(client.next().await, Heard::Message(b"\x01out".to_vec()));
    command.stderr.as_mut().unwrap().write_all(b"err").await.unwrap();
    let (exit, ()) = tokio::join!(command.finish.exit(&Outcome::Exited(0)), async {
        assert_eq!(client.next().await, Heard::Message(b"\x02err".to_vec()));
        let status = [b"\x03", SUCCESS.as_bytes()].concat();
        assert_eq!(client.next().await, Heard::Message(status));
        assert_eq!(client.next().await, Heard::Close);
        client.frame(true, Opcode::Close, &1000_u16.to_be_bytes()).await;
        assert_eq!(client.next().await, Heard::End);
        drop(client);
    });
    exit.unwrap();
}

#[tokio::test]
async fn base64_channels() {
    let (mut command, mut client) = websocket("v4.base64.channel.k8s.io", ALL).await;
    assert_eq!(client.next().await, Heard::Text("1".into()));
    client.frame(true, Opcode::Text, b"0Zm9vCgo=").await;
    let mut input = [0; 5];
    command.stdin.as_mut().unwrap().read_exact(&mut input).await.unwrap();
    assert_eq!(&input, b"foo\n\n");
    command.stdout.as_mut().unwrap().write_all(b"\n").await.unwrap();
    assert_eq!(client.next().await, Heard::Text("1Cg==".into()));
}

#[tokio::test]
async fn what_breaks_the_protocol() {
    let (command, mut client) = websocket("v5.channel.k8s.io", ALL).await;
    assert_eq!(client.next().await, Heard::Message(vec![1]));
    // Without a mask.
    client.to.write_all(&[0x82, 1, 0]).await.unwrap();
    let gone = command.finish.gone().await;
    assert_eq!(gone, Gone::Violation("a WebSocket frame of a client has no mask"));
    assert_eq!(client.next().await, Heard::Close);
    let read = command.stdin.unwrap().read_to_end(&mut Vec::new()).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionAborted);

    let (command, mut client, ids) = spdy("v4.channel.k8s.io", OUT, &["error", "stdout"]).await;
    client.to.write_all(&[0; 8]).await.unwrap();
    let gone = command.finish.gone().await;
    assert_eq!(gone, Gone::Violation("a SPDY data frame is for stream 0"));
    let go_away = Control::GoAway { last_good: ids[1], status: 1 };
    assert_eq!(client.next().await, Some(Event::Control(go_away)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_stops_the_process_and_loses_nothing() {
    for over_spdy in [true, false] {
        let (server, io) = duplex(1 << 10);
        let (mut command, client) = if over_spdy {
            let mut client = SpdyClient::new(io);
            let (command, _) =
                tokio::join!(serve(Transport::Spdy, "v4.channel.k8s.io", server, OUT), async {
                    client.open(&[("streamtype", "error")]).await;
                    client.open(&[("streamtype", "stdout")]).await
                });
            (command.unwrap(), Ok(client))
        } else {
            let command = serve(Transport::WebSocket, "v5.channel.k8s.io", server, OUT).await;
            (command.unwrap(), Err(WebSocketClient::new(io)))
        };
        let mut stdout = command.stdout.take().unwrap();
        let line = |number: u32| format!("{number:09}\n").into_bytes();
        // Writes until it is stopped.
        let mut written = 0;
        while let Ok(result) =
            tokio::time::timeout(Duration::from_secs(1), stdout.write_all(&line(written))).await
        {
            result.unwrap();
            written += 1;
        }
        assert!(written * 10 < 300_000, "{written} lines are queued");
        let writing = async move {
            // The line that was begun when the time was up may be there in part.
            for number in written + 1..written + 50_000 {
                stdout.write_all(&line(number)).await.unwrap();
            }
        };
        let finish = command.finish;
        let reading = async {
            match client {
                Ok(mut client) => client.collect(&[3]).await.remove(0).0,
                Err(mut client) => String::from_utf8(client.channel(1).await).unwrap(),
            }
        };
        let (exit, text) = tokio::join!(
            async {
                writing.await;
                finish.exit(&Outcome::Exited(0)).await
            },
            reading
        );
        exit.unwrap();
        assert!(text.starts_with("000000000\n000000001\n"));
        assert!(text.ends_with(&format!("{:09}\n", written + 49_999)));
        let length = u32::try_from(text.len()).unwrap();
        assert!(length >= (written + 49_999) * 10, "{length} bytes of {written} lines and 49999");
    }
}

#[tokio::test(start_paused = true)]
async fn input_that_nobody_reads_stops_the_client() {
    let (mut command, mut client) = websocket("v5.channel.k8s.io", ALL).await;
    assert_eq!(client.next().await, Heard::Message(vec![1]));
    let WebSocketClient { mut messages, mut to } = client;
    let sent = Cell::new(0);
    let mut sending = pin!(async {
        let frame = client_frame(true, Opcode::Binary, &[0; 10_000]);
        while sent.get() < 1_000_000 {
            to.write_all(&frame).await.unwrap();
            sent.set(sent.get() + frame.len());
        }
    });
    let limit = Duration::from_secs(1);
    assert!(tokio::time::timeout(limit, &mut sending).await.is_err());
    assert!(sent.get() < 300_000, "{} bytes were taken", sent.get());
    // The server looks whether the client is alive; when the process closes its input, it goes on.
    let ping = messages.next().await.unwrap();
    assert!(matches!(ping, Some(crate::websocket::reader::Event::Ping(_))), "{ping:?}");
    command.stdin = None;
    sending.await;
}

#[tokio::test]
async fn a_process_that_closes_its_input_lets_the_client_go_on() {
    let types = ["error", "stdin", "stdout", "stderr"];
    let (mut command, mut client, ids) = spdy("v4.channel.k8s.io", ALL, &types).await;
    assert!(client.hears_nothing().await);
    command.stdin = None;
    let end = Event::Data { stream: ids[1], bytes: "".into(), fin: true };
    assert_eq!(client.next().await, Some(end), "the client is told");
    for _ in 0..100 {
        client.data(ids[1], &[0; 10_000], false).await;
    }
    command.stdout.as_mut().unwrap().write_all(b"still here").await.unwrap();
    let data = Event::Data { stream: ids[2], bytes: "still here".into(), fin: false };
    assert_eq!(client.next().await, Some(data));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends() {
    let (command, mut client) = websocket("v5.channel.k8s.io", ALL).await;
    let idle = Timeouts::default().idle;
    tokio::time::sleep(idle - Duration::from_secs(1)).await;
    client.message(b"\0x").await;
    tokio::time::sleep(idle - Duration::from_secs(1)).await;
    let early = tokio::time::timeout(Duration::ZERO, command.finish.gone()).await;
    assert!(early.is_err(), "a byte keeps it up");
    assert_eq!(command.finish.gone().await, Gone::Idle(idle));
    let read = command.stdin.unwrap().read_to_end(&mut Vec::new()).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_close_is_not_waited_for_long() {
    let (command, mut client) = websocket("v5.channel.k8s.io", ALL).await;
    let start = tokio::time::Instant::now();
    command.finish.exit(&Outcome::Exited(0)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    // What it missed is there all the same.
    assert_eq!(client.channel(3).await, SUCCESS.as_bytes());
}

#[tokio::test]
async fn dropping_it_breaks_the_connection() {
    let (command, mut client, _) = spdy("v4.channel.k8s.io", OUT, &["error", "stdout"]).await;
    drop(command);
    assert_eq!(client.next().await, None);
}
