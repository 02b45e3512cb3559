use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, duplex};

use super::frame::Opcode;
use super::reader::{Event, MessageReader};
use crate::link::ReadError;
use crate::testing::client_frame;

/// All events of a connection on which `bytes` came in pieces of `step`.
fn events(bytes: &[u8], step: usize) -> Result<Vec<Event>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut to, from) = duplex(step);
        let messages = MessageReader::new(from, true);
        let writing = async {
            // The reader may have seen enough.
            let _ = to.write_all(bytes).await;
            drop(to);
        };
        let reading = async {
            let mut messages = messages;
            let mut events: Vec<Event> = Vec::new();
            loop {
                match messages.next().await {
                    // Pieces are joined: where they are cut does not matter.
                    Ok(Some(Event::Data(bytes))) => match events.last_mut() {
                        Some(Event::Data(last)) => *last = [&last[..], &bytes].concat().into(),
                        _ => events.push(Event::Data(bytes)),
                    },
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => return Ok(events),
                    Err(ReadError::Violation(detail)) => return Err(detail.to_owned()),
                    Err(ReadError::Io(error)) => return Err(error.kind().to_string()),
                }
            }
        };
        tokio::join!(writing, reading).1
    })
}

fn data(bytes: &'static [u8]) -> Event {
    Event::Data(bytes.into())
}

#[test]
fn fragments_with_a_ping_between_them() {
    let bytes = [
        client_frame(false, Opcode::Text, b"Hel"),
        client_frame(true, Opcode::Ping, b"are you there"),
        client_frame(false, Opcode::Continuation, b""),
        client_frame(true, Opcode::Continuation, b"lo"),
        client_frame(true, Opcode::Pong, b""),
        client_frame(true, Opcode::Binary, b""),
        client_frame(true, Opcode::Close, &[3, 232]),
    ]
    .concat();
    let expected = [
        Event::Start { binary: false },
        data(b"Hel"),
        Event::Ping("are you there".into()),
        data(b"lo"),
        Event::End,
        Event::Pong,
        Event::Start { binary: true },
        Event::End,
        Event::Close,
    ];
    for step in [1, 2, 7, 1024] {
        assert_eq!(events(&bytes, step).unwrap(), expected);
    }
}

#[test]
fn refusals() {
    let cases: [(Vec<u8>, &str); 5] = [
        (b"\x82\x01a".to_vec(), "a WebSocket frame of a client has no mask"),
        (
            client_frame(true, Opcode::Continuation, b"x").to_vec(),
            "WebSocket fragments are out of order",
        ),
        (
            [client_frame(false, Opcode::Binary, b"x"), client_frame(true, Opcode::Text, b"y")]
                .concat(),
            "WebSocket fragments are out of order",
        ),
        (client_frame(true, Opcode::Binary, b"xyz")[..8].to_vec(), "unexpected end of file"),
        (client_frame(false, Opcode::Binary, b"xyz").to_vec(), "unexpected end of file"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(events(&bytes, 3).unwrap_err(), expected);
    }
}

#[test]
fn a_length_is_not_believed() {
    // 2^62 bytes are announced, three come.
    let mut bytes = vec![0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(b"abc");
    assert_eq!(events(&bytes, 4).unwrap_err(), "unexpected end of file");
}

proptest! {
    #[test]
    fn messages_arrive_however_they_are_cut(
        messages in prop::collection::vec((any::<bool>(), any::<Vec<u8>>(), 0_usize..4), 0..6),
        step in 1_usize..64,
    ) {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (binary, message, cuts) in messages {
            let opcode = if binary { Opcode::Binary } else { Opcode::Text };
            let size = message.len() / (cuts + 1) + 1;
            let pieces = message.chunks(size).collect::<Vec<_>>();
            bytes.extend(client_frame(pieces.is_empty(), opcode, b""));
            for (at, piece) in pieces.iter().enumerate() {
                bytes.extend(client_frame(at + 1 == pieces.len(), Opcode::Continuation, piece));
            }
            expected.push(Event::Start { binary });
            if !message.is_empty() {
                expected.push(Event::Data(message.into()));
            }
            expected.push(Event::End);
        }
        prop_assert_eq!(events(&bytes, step).unwrap(), expected);
    }

    #[test]
    fn anything_is_survived(bytes: Vec<u8>, step in 1_usize..64) {
        let _ = events(&bytes, step);
    }
}
