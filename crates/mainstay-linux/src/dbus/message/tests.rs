use proptest::prelude::*;

use super::*;

fn call() -> Vec<u8> {
    let body = Body::default().string("shutdown").int32(-2).string("");
    let call = Call {
        destination: "org.freedesktop.login1",
        path: "/org/freedesktop/login1",
        interface: "org.freedesktop.login1.Manager",
        member: "Inhibit",
        body,
    };
    call.encode(7).unwrap()
}

/// A message with these fields, each from its code on, and a body.
fn message(fields: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for field in fields {
        pad(&mut all, 8);
        all.extend(*field);
    }
    let mut bytes = vec![b'l', 4, 0, 1];
    bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(u32::try_from(all.len()).unwrap().to_le_bytes());
    bytes.extend(all);
    pad(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Message, String> {
    let length = Message::length(bytes.first_chunk().unwrap()).map_err(|it| it.to_string())?;
    assert_eq!(length, bytes.len());
    Message::decode(bytes).map_err(|it| it.to_string())
}

#[test]
fn a_call_is_as_the_specification_has_it() {
    let bytes = call();
    assert_eq!(&bytes[..12], b"l\x01\x00\x01\x19\0\0\0\x07\0\0\0");
    // The path, its type and its length.
    assert_eq!(&bytes[16..24], b"\x01\x01o\0\x17\0\0\0");
    assert!(bytes.ends_with(b"\x08\0\0\0shutdown\0\0\0\0\xfe\xff\xff\xff\0\0\0\0\0"));
    let decoded = decode(&bytes).unwrap();
    assert_eq!((decoded.kind, &*decoded.member), (Kind::Call, "Inhibit"));
    assert_eq!((&*decoded.path, &*decoded.signature), ("/org/freedesktop/login1", "sis"));
    assert_eq!(&*decoded.interface, "org.freedesktop.login1.Manager");
    let mut body = decoded.body();
    assert_eq!((body.string().unwrap(), body.uint32().unwrap()), ("shutdown", u32::MAX - 1));
    assert_eq!((body.string().unwrap(), decoded.text()), ("", "shutdown"));
}

#[test]
fn numbers_of_the_other_order_are_read() {
    let mut bytes = b"B\x04\0\x01\0\0\0\x0c\0\0\0\x05\0\0\0\x08".to_vec();
    bytes.extend(b"\x05\x01u\0\0\0\0\x09");
    bytes.extend(b"\0\0\0\x01\0\0\0\0\0\0\0\x02");
    let decoded = decode(&bytes).unwrap();
    assert_eq!(decoded.reply_to, Some(9));
    let mut body = decoded.body();
    assert!(body.boolean().unwrap());
    assert_eq!(body.uint32().unwrap(), 0);
    assert_eq!(body.boolean().unwrap_err().to_string(), "a boolean is neither true nor false");
}

#[test]
fn what_others_add_is_skipped_and_what_is_none_is_refused() {
    let deep = |count: usize| {
        let types = format!("{}y{}", "(".repeat(count), ")".repeat(count));
        let mut field = vec![20, u8::try_from(types.len()).unwrap()];
        field.extend(types.bytes());
        field.push(0);
        pad(&mut field, 8);
        field.push(1);
        field
    };
    let member = b"\x03\x01s\0\x01\0\0\0m\0".as_slice();
    let refused = "a field of the message has a type of another one";
    for (field, expected) in [
        (member, Ok("m")),
        // An array of structures of a number and a variant.
        (b"\x14\x05a(yv)\0\x05\0\0\0\0\0\0\0\x01\x01y\0\x02", Ok("")),
        (b"\x14\x01v\0\x01v\0\x01v\0\x01y\0\x07", Ok("")),
        (&deep(30), Ok("")),
        (&deep(70), Err("a type is too deep")),
        (b"\x14\x02yy\0\x01\x01", Err("a variant has more than one type")),
        (b"\x14\x00\0", Err("a type is none")),
        (b"\x14\x01(\0\0\0\0\0", Err("a type is none")),
        (b"\x14\x01?\0", Err("a type is none")),
        (b"\x14\x02ay\0\0\0\0\xff\xff\xff\xff", Err("it ends too early")),
        (b"\x03\x01o\0\x01\0\0\0m\0", Err(refused)),
        (b"\x00\x01y\0\x01", Err(refused)),
        (b"\x03\x01s\0\xff\xff\xff\xff", Err("it ends too early")),
        (b"\x03\x01s\0\x02\0\0\0m\0\0", Err("a text does not end where it says")),
        (b"\x03\x01s\0\x01\0\0\0mm", Err("a text does not end where it says")),
        (b"\x03\x01s\0\x01\0\0\0\xff\0", Err("a text is not UTF-8")),
    ] {
        let decoded = decode(&message(&[field], b""));
        let member = decoded.as_ref().map(|it| it.member.as_str()).map_err(String::as_str);
        assert_eq!(member, expected, "{field:?}");
    }
    let padded = b"\x03\x01s\0\x01\0\0\0m\0\0\0\x01\0\0\0\x05\x01u\0\0\0\0\0";
    let decoded = decode(&message(&[padded], b"")).unwrap_err();
    assert_eq!(decoded, "a padding is not zero");
}

#[test]
fn what_is_too_long_is_neither_read_nor_sent() {
    for (fields, body) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX), (1 << 18, 0)] {
        let mut fixed = *b"l\x04\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0";
        fixed[4..8].copy_from_slice(&u32::to_le_bytes(body));
        fixed[12..].copy_from_slice(&u32::to_le_bytes(fields));
        assert_eq!(Message::length(&fixed).unwrap_err().to_string(), "the message is too long");
    }
    assert!(Message::length(b"HTTP/1.1 200 OK\r").is_err());
    let body = Body::default().string(&"x".repeat(LONGEST));
    let call = Call { destination: "", path: "", interface: "", member: "", body };
    assert_eq!(call.encode(1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

proptest! {
    #[test]
    fn nothing_that_is_sent_panics(bytes: Vec<u8>) {
        let mut bytes = bytes;
        bytes.splice(..0, *b"l\x04\0\x01");
        read(&bytes);
    }

    #[test]
    fn nothing_that_is_nearly_right_panics(
        changes in prop::collection::vec((0..200usize, any::<u8>()), 1..6),
        length in 0..200usize,
    ) {
        let mut bytes = call();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        read(&bytes);
        bytes.truncate(length);
        read(&bytes);
    }
}

fn read(bytes: &[u8]) {
    if let Some(fixed) = bytes.first_chunk() {
        let _ = Message::length(fixed);
    }
    let Ok(message) = Message::decode(bytes) else { return };
    let _ = message.text();
    let mut body = message.body();
    let _ = body.skip_one(&message.signature);
    let _ = (body.boolean(), body.uint64(), body.signature(), body.string());
}
