use std::io::ErrorKind;
use std::time::Duration;

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;

use super::*;
use crate::spdy::frame::Control;
use crate::spdy::reader::Event;
use crate::testing::{Heard, SpdyClient, WebSocketClient, tunnel};
use crate::websocket::frame::Opcode;

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

async fn spdy() -> (PortForward, SpdyClient) {
    let (server, client) = duplex(1 << 16);
    let negotiated = negotiate(&parts(Transport::Spdy, "portforward.k8s.io")).unwrap();
    let forward = negotiated.port_forward(server, &[], Timeouts::default()).await;
    (forward, SpdyClient::new(client))
}

async fn channels(ports: &[u16]) -> (PortForward, WebSocketClient) {
    let (server, client) = duplex(1 << 16);
    let negotiated = negotiate(&parts(Transport::WebSocket, "v4.channel.k8s.io")).unwrap();
    negotiated.check_ports(ports).unwrap();
    let forward = negotiated.port_forward(server, ports, Timeouts::default()).await;
    (forward, WebSocketClient::new(client))
}

/// Opens both streams of a connection: the error stream and the data stream.
async fn open(client: &mut SpdyClient, port: &str, request: &str) -> (u32, u32) {
    let headers = |kind| [("streamtype", kind), ("port", port), ("requestid", request)];
    let error = client.open(&headers("error")).await;
    client.data(error, b"", true).await;
    (error, client.open(&headers("data")).await)
}

/// Answers with what it gets, after the end of it.
async fn echo(mut connection: Connection) {
    let mut bytes = Vec::new();
    connection.data.read_to_end(&mut bytes).await.unwrap();
    connection.data.write_all(&bytes).await.unwrap();
}

#[test]
fn protocols() {
    let cases = [
        (Transport::Spdy, "portforward.k8s.io", Ok(Wire::Spdy)),
        (Transport::Spdy, "v4.channel.k8s.io", Err(403)),
        (Transport::WebSocket, "SPDY/3.1+portforward.k8s.io", Ok(Wire::Tunnel)),
        (Transport::WebSocket, "v4.base64.channel.k8s.io", Ok(Wire::Channels(Codec::Base64))),
        (Transport::WebSocket, "", Ok(Wire::Channels(Codec::Raw))),
        (Transport::WebSocket, "v5.channel.k8s.io", Err(403)),
    ];
    for (transport, protocol, expected) in cases {
        let found = negotiate(&parts(transport, protocol));
        let found = found.map(|found| found.wire).map_err(|refusal| refusal.status.as_u16());
        assert_eq!(found, expected, "{protocol}");
    }
}

#[test]
fn ports_of_the_query() {
    let channels = negotiate(&parts(Transport::WebSocket, "v4.channel.k8s.io")).unwrap();
    let cases: [(&[u16], Option<&str>); 5] = [
        (&[80], None),
        (&[], Some("query parameter \"ports\" is required")),
        (&[80, 0], Some("port \"0\" must be > 0")),
        (&[1; 128], None),
        (&[1; 129], Some("query parameter \"ports\" has more than 128 ports")),
    ];
    for (ports, expected) in cases {
        let refusal = channels.check_ports(ports).err().map(|refusal| refusal.message);
        assert_eq!(refusal.as_deref(), expected, "{ports:?}");
    }
    let spdy = negotiate(&parts(Transport::Spdy, "portforward.k8s.io")).unwrap();
    spdy.check_ports(&[]).unwrap();
}

#[tokio::test]
async fn directions_end_apart() {
    let (mut forward, mut client) = spdy().await;
    let ((error, data), connection) = tokio::join!(open(&mut client, "8080", "0"), forward.next());
    let mut connection = connection.unwrap();
    assert_eq!(connection.port, 8080);
    client.data(data, b"request", true).await;
    let mut request = String::new();
    connection.data.read_to_string(&mut request).await.unwrap();
    assert_eq!(request, "request");
    assert!(client.hears_nothing().await, "the other direction is open");
    connection.data.write_all(b"response").await.unwrap();
    let response = Event::Data { stream: data, bytes: "response".into(), fin: false };
    assert_eq!(client.next().await, Some(response));
    drop(connection);
    let mut ended = Vec::new();
    for _ in 0..2 {
        let Some(Event::Data { stream, bytes, fin: true }) = client.next().await else { panic!() };
        assert!(bytes.is_empty());
        ended.push(stream);
    }
    ended.sort_unstable();
    assert_eq!(ended, [error, data]);
}

#[tokio::test]
async fn failures_are_told() {
    let (mut forward, mut client) = spdy().await;
    let ((error, data), connection) = tokio::join!(open(&mut client, "1", "0"), forward.next());
    connection.unwrap().fail("error forwarding port 1: connection refused");
    let message = Event::Data {
        stream: error,
        bytes: "error forwarding port 1: connection refused".into(),
        fin: false,
    };
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(client.next().await.unwrap());
    }
    let reset = |stream| Event::Control(Control::RstStream { stream, status: 5 });
    let message_at = events.iter().position(|event| *event == message).unwrap();
    let reset_at = events.iter().position(|event| *event == reset(error)).unwrap();
    assert!(message_at < reset_at);
    assert!(events.contains(&reset(data)));
}

#[tokio::test]
async fn clients_that_give_a_connection_up() {
    let (mut forward, mut client) = spdy().await;
    let ((_, data), connection) = tokio::join!(open(&mut client, "80", "0"), forward.next());
    let mut connection = connection.unwrap();
    client.data(data, b"part", false).await;
    client.control(&Control::RstStream { stream: data, status: 5 }).await;
    let mut bytes = Vec::new();
    let end = connection.data.read_to_end(&mut bytes).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(bytes, b"part");
    let written = connection.data.write_all(b"x").await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::BrokenPipe);
    // The others live on.
    let (_, other) = tokio::join!(open(&mut client, "80", "1"), forward.next());
    let mut other = other.unwrap();
    client.control(&Control::GoAway { last_good: 0, status: 0 }).await;
    assert!(forward.next().await.is_none());
    assert_eq!(forward.gone().await, Gone::Closed);
    let end = other.data.read_to_end(&mut bytes).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn old_clients_give_no_number() {
    let (mut forward, mut client) = spdy().await;
    let opening = async {
        let headers = |kind| [("streamtype", kind), ("port", "80")];
        client.open(&headers("error")).await;
        client.open(&headers("data")).await;
    };
    let ((), connection) = tokio::join!(opening, forward.next());
    assert_eq!(connection.unwrap().port, 80);
}

#[tokio::test(start_paused = true)]
async fn half_a_connection_is_not_kept() {
    let (mut forward, mut client) = spdy().await;
    let error = client.syn(&[("streamtype", "error"), ("port", "80"), ("requestid", "7")]).await;
    let limit = Timeouts::default().stream_creation + Duration::from_secs(1);
    assert!(tokio::time::timeout(limit, forward.next()).await.is_err());
    assert!(matches!(client.next().await, Some(Event::Control(Control::SynReply { .. }))));
    let message = "(request=7) timed out waiting for streams";
    let message = Event::Data { stream: error, bytes: message.into(), fin: false };
    assert_eq!(client.next().await, Some(message));
    let reset = Event::Control(Control::RstStream { stream: error, status: 5 });
    assert_eq!(client.next().await, Some(reset));
}

#[tokio::test]
async fn the_same_half_twice() {
    let (mut forward, mut client) = spdy().await;
    let headers = |kind| [("streamtype", kind), ("port", "80"), ("requestid", "7")];
    let error = client.syn(&headers("error")).await;
    let second = client.syn(&headers("error")).await;
    let data = client.syn(&headers("data")).await;
    // The connection comes about all the same.
    let _connection = forward.next().await.unwrap();
    let told = client.collect_until_reset(second).await;
    let message = "error processing stream for request 7: error stream already assigned";
    assert_eq!(told, [(error, message.to_owned())]);
    assert!(data > second);
}

#[tokio::test]
async fn streams_without_sense_are_reset() {
    let (_forward, mut client) = spdy().await;
    for headers in [
        &[("streamtype", "data")][..],
        &[("streamtype", "data"), ("port", "http")],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "stdin"), ("port", "80")],
        &[("port", "80")],
    ] {
        let stream = client.syn(headers).await;
        let reset = Control::RstStream { stream, status: 3 };
        assert_eq!(client.next().await, Some(Event::Control(reset)), "{headers:?}");
    }
}

#[tokio::test]
async fn there_is_an_end_to_streams() {
    let (mut forward, mut client) = spdy().await;
    let mut held = Vec::new();
    let taking = async {
        while held.len() < connection::STREAMS_MAX / 2 {
            held.push(forward.next().await.unwrap());
        }
    };
    let opening = async {
        for request in 0..connection::STREAMS_MAX / 2 {
            open(&mut client, "80", &request.to_string()).await;
        }
    };
    tokio::join!(taking, opening);
    let stream = client.syn(&[("streamtype", "data"), ("port", "80")]).await;
    let reset = Control::RstStream { stream, status: 3 };
    assert_eq!(client.next().await, Some(Event::Control(reset)));
    // The place of those that are over is given to others, however they ended.
    for (number, connection) in held.drain(..10).enumerate() {
        match number % 2 {
            0 => connection.fail("over"),
            _ => drop(connection),
        }
    }
    for number in 0..10 {
        client.data(3 + 4 * number, b"", true).await;
    }
    let mut over = 0;
    while over < 20 {
        match client.next().await.unwrap() {
            Event::Data { fin: true, .. } | Event::Control(Control::RstStream { .. }) => over += 1,
            _ => {}
        }
    }
    let (_, again) = tokio::join!(open(&mut client, "80", "again"), forward.next());
    assert!(again.is_some());
}

/// Sends different bytes on `count` connections at once, which all come back.
async fn many_at_once(mut forward: PortForward, io: DuplexStream, count: usize) {
    let mut echoes = JoinSet::new();
    let serving = async {
        while let Some(connection) = forward.next().await {
            echoes.spawn(echo(connection));
        }
        while let Some(echoed) = echoes.join_next().await {
            echoed.unwrap();
        }
    };
    let SpdyClient { mut frames, to, .. } = SpdyClient::new(io);
    let body = |number: usize| {
        b"abcdefghijklmnopqrstuvwxyz"[number % 26..][..1].repeat(20_000 + number * 100)
    };
    let mut sender = SpdyClient::halved(to);
    let sending = async {
        for number in 0..count {
            let request = number.to_string();
            for kind in ["error", "data"] {
                let headers = [("streamtype", kind), ("port", "80"), ("requestid", &*request)];
                let stream = sender.syn(&headers).await;
                let bytes = if kind == "data" { body(number) } else { Vec::new() };
                for piece in bytes.chunks(7_000) {
                    sender.data(stream, piece, false).await;
                }
                sender.data(stream, b"", true).await;
            }
        }
        sender
    };
    let receiving = async {
        let mut received = vec![Vec::new(); count];
        let mut ended = 0;
        while ended < 2 * count {
            if let Event::Data { stream, bytes, fin } = frames.next().await.unwrap().unwrap() {
                // The data streams have the numbers 3, 7, 11.
                received[stream as usize / 4].extend_from_slice(&bytes);
                ended += usize::from(fin);
            }
        }
        received
    };
    let (mut sender, received) = tokio::join!(
        async {
            let (sender, received) = tokio::join!(sending, receiving);
            let mut sender = sender;
            sender.control(&Control::GoAway { last_good: 0, status: 0 }).await;
            (sender, received)
        },
        serving
    )
    .0;
    for (number, bytes) in received.into_iter().enumerate() {
        assert!(bytes == body(number), "connection {number}");
    }
    sender.to.shutdown().await.unwrap();
}

#[tokio::test]
async fn many_connections_at_once() {
    let (server, client) = duplex(1 << 12);
    let negotiated = negotiate(&parts(Transport::Spdy, "portforward.k8s.io")).unwrap();
    let forward = negotiated.port_forward(server, &[], Timeouts::default()).await;
    many_at_once(forward, client, 200).await;
}

#[tokio::test]
async fn many_connections_through_a_tunnel() {
    let (server, client) = duplex(1 << 12);
    let negotiated = negotiate(&parts(Transport::WebSocket, "SPDY/3.1+portforward.k8s.io"));
    let forward = negotiated.unwrap().port_forward(server, &[], Timeouts::default()).await;
    let (inside, _tasks) = tunnel(client);
    many_at_once(forward, inside, 50).await;
}

#[tokio::test]
async fn a_tunnel_is_closed_in_order() {
    let (server, client) = duplex(1 << 12);
    let protocol = "SPDY/3.1+portforward.k8s.io";
    let negotiated = negotiate(&parts(Transport::WebSocket, protocol)).unwrap();
    let forward = negotiated.port_forward(server, &[], Timeouts::default()).await;
    let mut client = WebSocketClient::new(client);
    let (closed, ()) = tokio::join!(forward.close(), async {
        let go_away = [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(client.next().await, Heard::Message(go_away.to_vec()));
        assert_eq!(client.next().await, Heard::Close);
        drop(client);
    });
    closed.unwrap();

    // A text message has no business in it.
    let (server, client) = duplex(1 << 12);
    let negotiated = negotiate(&parts(Transport::WebSocket, protocol)).unwrap();
    let mut forward = negotiated.port_forward(server, &[], Timeouts::default()).await;
    let mut client = WebSocketClient::new(client);
    client.frame(true, Opcode::Text, b"?").await;
    assert!(forward.next().await.is_none());
    let gone = forward.gone().await;
    assert_eq!(gone, Gone::Violation("a message in the tunnel is not binary"));
    assert_eq!(client.next().await, Heard::Close);
}

#[tokio::test(start_paused = true)]
async fn a_blocked_connection_holds_little() {
    let (mut forward, mut client) = spdy().await;
    let ((_, data), connection) = tokio::join!(open(&mut client, "80", "0"), forward.next());
    let mut connection = connection.unwrap();
    // Nobody reads in the pod; the client is stopped.
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_secs(1), client.data(data, &[1; 10_000], false))
        .await
        .is_ok()
    {
        sent += 1;
    }
    assert!(sent * 10_000 < 300_000, "{sent} frames were taken");
    // The pod's answers are not.
    connection.data.write_all(b"answer").await.unwrap();
    let answer = Event::Data { stream: data, bytes: "answer".into(), fin: false };
    assert_eq!(client.next().await, Some(answer));
    // When the pod gives up, the client goes on.
    drop(connection);
    let mut fins = 0;
    while fins < 2 {
        if let Some(Event::Data { fin: true, .. }) = client.next().await {
            fins += 1;
        }
    }
}

#[tokio::test]
async fn channels_of_named_ports() {
    let (mut forward, mut client) = channels(&[80, 0x1234]).await;
    for (channel, port) in [(0, [80, 0]), (1, [80, 0]), (2, [0x34, 0x12]), (3, [0x34, 0x12])] {
        let greeting = [&[channel][..], &port].concat();
        assert_eq!(client.next().await, Heard::Message(greeting), "both channels name the port");
    }
    let mut first = forward.next().await.unwrap();
    let second = forward.next().await.unwrap();
    assert_eq!((first.port, second.port), (80, 0x1234));
    client.message(b"\x00ping").await;
    let mut bytes = [0; 4];
    first.data.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
    first.data.write_all(b"pong").await.unwrap();
    assert_eq!(client.next().await, Heard::Message(b"\x00pong".to_vec()));
    second.fail("refused");
    assert_eq!(client.next().await, Heard::Message(b"\x03refused".to_vec()));
    // When all are over, so is the connection.
    drop(first);
    assert!(forward.next().await.is_none());
    let (closed, ()) = tokio::join!(forward.close(), async {
        assert_eq!(client.next().await, Heard::Close);
        drop(client);
    });
    closed.unwrap();
}

#[tokio::test]
async fn channels_of_a_client_that_leaves() {
    let (mut forward, client) = channels(&[80]).await;
    let mut connection = forward.next().await.unwrap();
    drop(client);
    let end = connection.data.read_to_end(&mut Vec::new()).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert!(connection.data.write_all(b"x").await.is_err());
    drop(connection);
    assert!(forward.next().await.is_none());
}
