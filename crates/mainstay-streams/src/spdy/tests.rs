use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, duplex};

use super::frame::{Control, RstStatus, data_frame, reset};
use super::headers::{Headers, Inflater, Storer};
use super::reader::{Event, FrameReader};
use crate::link::ReadError;
use crate::testing::SpdyClient;

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn headers(headers: &[(&str, &str)]) -> Headers {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Headers(headers.iter().map(owned).collect())
}

/// All events of a connection on which `bytes` came in pieces of `step`.
fn events(bytes: &[u8], step: usize) -> Result<Vec<Event>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut to, from) = duplex(step);
        let frames = FrameReader::new(from);
        let writing = async {
            // The reader may have seen enough.
            let _ = to.write_all(bytes).await;
            drop(to);
        };
        let reading = async {
            let mut frames = frames;
            let mut events: Vec<Event> = Vec::new();
            loop {
                match frames.next().await {
                    Ok(Some(Event::Data { stream, bytes, fin })) => match events.last_mut() {
                        Some(Event::Data { stream: last, bytes: found, fin: end @ false })
                            if *last == stream =>
                        {
                            *found = [&found[..], &bytes].concat().into();
                            *end = fin;
                        }
                        _ => events.push(Event::Data { stream, bytes, fin }),
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

fn syn(stream: u32, list: &[(&str, &str)]) -> Event {
    let headers = headers(list);
    Event::Control(Control::SynStream { stream, headers, fin: false, unidirectional: false })
}

/// What github.com/moby/spdystream v0.5 wrote for the streams of a command.
#[test]
fn frames_of_the_go_implementation() {
    let recorded = [
        "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800\
         000000ffff",
        "800300010000001700000003000000000000c22e555c92929907000000ffff",
        "800300010000001900000005000000000000c22ac5565c92925f5a02000000ffff",
        "800300010000001800000007000000000000c22e57945a9c59950a000000ffff",
        "800300020000000e000000016260606000000000ffff",
        "800300060000000400000001",
        "80030003000000080000000500000005",
        "80030007000000080000000700000000",
        "80030009000000080000000100010000",
        "800300040000000c000000010000000400000064",
        "000000030100000668656c6c6f0a",
    ];
    let expected = [
        syn(1, &[("streamtype", "error")]),
        syn(3, &[("streamtype", "stdin")]),
        syn(5, &[("streamtype", "stdout")]),
        syn(7, &[("streamtype", "resize")]),
        Event::Control(Control::SynReply { stream: 1, headers: headers(&[]), fin: false }),
        Event::Control(Control::Ping { id: 1 }),
        Event::Control(Control::RstStream { stream: 5, status: 5 }),
        Event::Control(Control::GoAway { last_good: 7, status: 0 }),
        Event::Control(Control::WindowUpdate { stream: 1, delta: 65536 }),
        Event::Control(Control::Settings),
        Event::Data { stream: 3, bytes: "hello\n".into(), fin: true },
    ];
    let bytes = recorded.map(hex).concat();
    for step in [1, 5, 4096] {
        assert_eq!(events(&bytes, step).unwrap(), expected);
    }
}

/// The same for a forwarded connection.
#[test]
fn headers_that_refer_to_earlier_ones() {
    let bytes = [
        "800300010000003c0000000100000000000078f9e3c6a7c202253a703a2b294a4dcc452a4a1221a572113803\
         5818581830303070164162311394ba990c8d00000000ffff",
        "800300010000001d00000003000000000000826ac6228c6a1e6b2a28e2d00d04000000ffff",
    ];
    let events = events(&bytes.map(hex).concat(), 64);
    let Ok([Event::Control(first), Event::Control(second)]) = events.as_deref() else {
        panic!("{events:?}")
    };
    for (frame, kind) in [(first, "data"), (second, "error")] {
        let Control::SynStream { headers, .. } = frame else { panic!("{frame:?}") };
        assert_eq!(headers.get("streamType"), Some(kind));
        assert_eq!(headers.get("port"), Some("8080"));
        assert_eq!(headers.get("requestID"), Some("12"));
        assert_eq!(headers.get("other"), None);
    }
}

/// The frames that have no headers are the same bytes as those of the Go implementation.
#[test]
fn frames_for_the_go_implementation() {
    let mut storer = Storer::default();
    let mut frame = |control: Control| {
        let frame = control.encode(&mut storer);
        [frame.head, frame.payload].concat()
    };
    assert_eq!(frame(Control::Ping { id: 1 }), hex("800300060000000400000001"));
    assert_eq!(
        frame(Control::GoAway { last_good: 7, status: 0 }),
        hex("80030007000000080000000700000000")
    );
    let rst = reset(5, RstStatus::Cancel);
    assert_eq!([rst.head, rst.payload].concat(), hex("80030003000000080000000500000005"));
    let data = data_frame(3, "hello\n".into(), true);
    assert_eq!([data.head, data.payload].concat(), hex("000000030100000668656c6c6f0a"));
    // A reply: the zlib header with the dictionary's name, a stored block, an empty one.
    let reply = Control::SynReply { stream: 1, headers: headers(&[]), fin: false };
    assert_eq!(
        frame(reply.clone()),
        hex("8003000200000018000000017820e3c6a7c2000400fbff00000000000000ffff")
    );
    assert_eq!(frame(reply), hex("800300020000001200000001000400fbff00000000000000ffff"));
}

#[test]
fn refusals() {
    let bomb = {
        // Compressed a thousandfold.
        let (io, _) = duplex(1);
        let mut client = SpdyClient::new(io);
        client.syn_frame(1, &[("streamtype", &"a".repeat(1 << 20))])
    };
    let lying = {
        let (io, _) = duplex(1);
        let mut frame = SpdyClient::new(io).syn_frame(1, &[("a", "b")]);
        let at = frame.len() - 1;
        frame[at] = 0;
        frame
    };
    let cases: [(Vec<u8>, &str); 10] = [
        (hex("0000000000000000"), "a SPDY data frame is for stream 0"),
        (hex("8002000600000004"), "the version of a SPDY frame is not 3"),
        (hex("8003000100010001"), "a SPDY control frame is too long"),
        (hex("8003000600000003000000"), "a SPDY control frame is too short"),
        (hex("800300010000000a00000001000000000000"), "a SPDY header block is malformed"),
        (hex("800300010000000c000000010000000000007801"), "a SPDY header block is malformed"),
        (bomb.to_vec(), "a SPDY header block is too large"),
        (lying.to_vec(), "a SPDY header block cannot be inflated"),
        (hex("00000001000000ff00"), "unexpected end of file"),
        (hex("80030006000000040000"), "unexpected end of file"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(events(&bytes, 512).unwrap_err(), expected);
    }
    // What is unknown is passed over.
    let unknown = hex("8003000b00000002abcd");
    assert_eq!(events(&unknown, 64).unwrap(), [Event::Control(Control::Unknown)]);
}

#[test]
fn a_header_count_is_not_believed() {
    for block in ["ffffffff", "00000001ffffffff", "0000000100000001", "0000000000"] {
        let mut stored = BytesMut::new();
        Storer::default().store(&headers(&[]), &mut stored);
        // In place of the empty list.
        let block = hex(block);
        let length = u8::try_from(block.len()).unwrap();
        let stored = [&stored[..6], &[0, length, 0, !length, 255], &block[..], &stored[15..]];
        let found = Inflater::new().headers(&stored.concat());
        assert_eq!(found, Err("a SPDY header block is malformed"), "{block:?}");
    }
}

proptest! {
    #[test]
    fn headers_round_trip(
        blocks in prop::collection::vec(
            prop::collection::vec(("[a-z-]{0,20}", ".{0,200}"), 0..20), 1..4,
        ),
    ) {
        let (mut storer, mut inflater) = (Storer::default(), Inflater::new());
        for block in blocks {
            let headers = Headers(block);
            let mut stored = BytesMut::new();
            storer.store(&headers, &mut stored);
            prop_assert_eq!(inflater.headers(&stored), Ok(headers));
        }
    }

    #[test]
    fn compressed_headers_are_found(
        lists in prop::collection::vec(
            prop::collection::vec(("[a-z-]{1,20}", "[ -~]{0,100}"), 0..10), 1..6,
        ),
        step in 1_usize..100,
    ) {
        let (io, _) = duplex(1);
        let mut client = SpdyClient::new(io);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (list, id) in lists.iter().zip((1..).step_by(2)) {
            let list = list.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>();
            bytes.extend(client.syn_frame(id, &list));
            expected.push(syn(id, &list));
        }
        prop_assert_eq!(events(&bytes, step).unwrap(), expected);
    }

    #[test]
    fn anything_is_survived(bytes: Vec<u8>, kind in 0_u8..12, step in 1_usize..64) {
        let _ = events(&bytes, step);
        let length = u8::try_from(bytes.len() % 200).unwrap();
        let head = [0x80, 3, 0, kind, 0, 0, 0, length];
        let _ = events(&[&head[..], &bytes].concat(), step);
    }
}
