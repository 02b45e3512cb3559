use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MAGIC, ProtobufError, unknown};
use crate::decode::{self, MAX_VALUES};
use crate::types::{self, Shape, Type};

struct Case {
    api_version: &'static str,
    kind: &'static str,
    of: &'static Type,
    bytes: Vec<u8>,
    expected: Value,
}

fn cases() -> Vec<Case> {
    let lines = include_str!("cases.tsv").lines().filter(|line| !line.starts_with('#'));
    lines.map(case).collect()
}

fn case(line: &'static str) -> Case {
    let columns: Vec<&str> = line.split('\t').collect();
    let [api_version, kind, bytes, expected] = columns.try_into().unwrap();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let of = types::of(group, version, kind).unwrap();
    let expected = serde_json::from_str(expected).unwrap();
    Case { api_version, kind, of, bytes: from_base64(bytes), expected }
}

fn from_base64(text: &str) -> Vec<u8> {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = text
        .chars()
        .filter_map(|c| alphabet.find(c))
        .flat_map(|sextet| (0..6).rev().map(move |at| u8::try_from(sextet >> at & 1).unwrap()));
    let bits: Vec<u8> = bits.collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
}

fn decoded(message: &[u8], of: &'static Type) -> Result<Value, String> {
    let object = unknown(message).and_then(|it| it.object(of)).map_err(|why| why.to_string())?;
    let decoded = decode::from_value(object, of, |text| {
        text.ends_with(|c: char| c.is_ascii_alphanumeric()).then(|| text.to_owned())
    });
    decoded.map(|it| it.object).map_err(|why| why.to_string())
}

/// An object that does not say what it is.
fn plain(of: &str, raw: &[u8]) -> Result<Value, ProtobufError> {
    let message = [MAGIC, &field(2, raw)].concat();
    unknown(&message)?.object(types::named(of).unwrap())
}

/// A field of a message, of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend(bytes);
    field
}

#[test]
fn objects_are_what_go_makes_of_them() {
    for case in cases() {
        let it = unknown(&case.bytes).unwrap();
        assert_eq!((it.api_version.as_str(), it.kind.as_str()), (case.api_version, case.kind));
        let object = decoded(&case.bytes, case.of).unwrap();
        pretty_eq(&object, &case.expected, case.kind);
    }
}

#[track_caller]
fn pretty_eq(object: &Value, expected: &Value, kind: &str) {
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let (object, expected) = (text(object), text(expected));
    let differs = object.lines().zip(expected.lines()).find(|(ours, theirs)| ours != theirs);
    assert_eq!((differs, object.len()), (None, expected.len()), "{kind}");
}

#[test]
fn every_field_is_in_a_case() {
    let mut seen = BTreeSet::new();
    for case in cases() {
        mark(&case.expected, Shape::Object(case.of), &mut seen);
    }
    for of in types::kinds().flat_map(|(group, version, kind)| reachable(group, version, kind)) {
        for field in of.fields() {
            assert!(seen.contains(&(of.name(), field.name())), "{} {}", of.name(), field.name());
        }
    }
}

fn mark(value: &Value, shape: Shape, seen: &mut BTreeSet<(&'static str, &'static str)>) {
    match (shape, value) {
        (Shape::Object(of), Value::Object(object)) => {
            for (key, value) in object {
                let field = of.field(key).unwrap();
                seen.insert((of.name(), field.name()));
                mark(value, field.shape(), seen);
            }
        }
        (Shape::List(item), Value::Array(list)) => {
            list.iter().for_each(|value| mark(value, item.shape(), seen));
        }
        (Shape::Map(item), Value::Object(map)) => {
            map.values().for_each(|value| mark(value, item.shape(), seen));
        }
        _ => {}
    }
}

/// All types in a kind. Fails when one is within itself: then a message could be nested without end.
fn reachable(group: &str, version: &str, kind: &str) -> Vec<&'static Type> {
    fn visit(of: &'static Type, above: &mut Vec<&'static Type>, found: &mut Vec<&'static Type>) {
        assert!(!above.contains(&of), "{of:?} is within itself");
        if found.contains(&of) {
            return;
        }
        above.push(of);
        for field in of.fields() {
            let mut shape = field.shape();
            while let Shape::List(item) | Shape::Map(item) = shape {
                shape = item.shape();
            }
            if let Shape::Object(inner) = shape {
                visit(inner, above, found);
            }
        }
        above.pop();
        found.push(of);
    }
    let mut found = Vec::new();
    visit(types::of(group, version, kind).unwrap(), &mut Vec::new(), &mut found);
    found
}

#[test]
fn what_is_no_object_is_told_in_the_words_of_go() {
    let texts: &[(&[u8], &str)] = &[
        (b"", "empty data"),
        (
            b"{\"kind\":\"Pod\"}",
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        (b"k8s\0", "empty body"),
        (b"k8s\0\x0a", "unexpected EOF"),
        (b"k8s\0\x0a\x05\x0a", "unexpected EOF"),
        (b"k8s\0\x08\x01", "proto: wrong wireType = 0 for field TypeMeta"),
        (b"k8s\0\x02\x00", "proto: Unknown: illegal tag 0 (wire type 2)"),
        (b"k8s\0\x04", "proto: Unknown: wiretype end group for non-group"),
        (b"k8s\0\x3e", "proto: illegal wireType 6"),
        (b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", {
            "proto: negative length found during unmarshaling"
        }),
        (b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "proto: integer overflow"),
    ];
    for (bytes, text) in texts {
        assert_eq!(unknown(bytes).unwrap_err().to_string(), *text, "{bytes:?}");
    }
    let pod = "io.k8s.api.core.v1.Pod";
    let texts: &[(&[u8], &str)] = &[
        (b"\x08\x01", "proto: wrong wireType = 0 for field Metadata"),
        (b"\x12\x02\x10\x01", "proto: wrong wireType = 0 for field Containers"),
        (b"\x12\x03\x42\x02a", "unexpected EOF"),
        (b"\x0a\x06\x42\x04\x08\x80\x80", "unexpected EOF"),
    ];
    for (raw, text) in texts {
        assert_eq!(plain(pod, raw).unwrap_err().to_string(), *text, "{raw:?}");
    }
    let late = b"\x0a\x09\x42\x07\x08\x80\xd8\xad\xf2\x8e\x08";
    let text = "creationTimestamp: year outside of range [0,9999]";
    assert_eq!(plain(pod, late).unwrap_err().to_string(), text);
    let revision = "io.k8s.api.apps.v1.ControllerRevision";
    let text = plain(revision, b"\x12\x03\x0a\x01{").unwrap_err().to_string();
    assert_eq!(text, "data: unexpected end of JSON input");
}

#[test]
fn what_comes_again_is_added_and_what_is_unknown_is_passed_over() {
    let pod = "io.k8s.api.core.v1.Pod";
    // Two pieces of metadata, each with a name and a label.
    let twice =
        b"\x0a\x0a\x0a\x01a\x5a\x05\x0a\x01x\x12\x00\x0a\x0b\x0a\x01b\x5a\x06\x0a\x01y\x12\x01z";
    let metadata = json!({ "name": "b", "labels": { "x": "", "y": "z" } });
    assert_eq!(plain(pod, twice).unwrap(), json!({ "metadata": metadata }));
    // Fields 100 to 103 as integer, group with a string in it, four and eight bytes.
    let strange = b"\xa0\x06\x01\xab\x06\x0a\x01a\xac\x06\xb5\x06aaaa\xb9\x06aaaaaaaa\x0a\x00";
    assert_eq!(plain(pod, strange).unwrap(), json!({ "metadata": {} }));
    // Numbers one by one and in one piece.
    let groups = b"\x20\x01\x22\x03\x02\xff\x01\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    let expected = json!({ "supplementalGroups": [1, 2, 255, -1] });
    assert_eq!(plain("io.k8s.api.core.v1.PodSecurityContext", groups).unwrap(), expected);
    // No text, no map's value, no quantity.
    let odd = b"\x0a\x02\x0a\x00\x0a\x05\x0a\x01c\x12\x00";
    let object = plain("io.k8s.api.core.v1.ResourceRequirements", odd).unwrap();
    assert_eq!(object, json!({ "limits": { "": null, "c": "0" } }));
    let name = plain("io.k8s.api.core.v1.LocalObjectReference", b"\x0a\x04a\xe2\x82b").unwrap();
    assert_eq!(name, json!({ "name": "a\u{fffd}\u{fffd}b" }));
}

#[test]
fn an_object_has_so_many_values_and_no_more() {
    let options = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    let dry_run = |count| plain(options, &field(5, b"").repeat(count)).err();
    assert_eq!(dry_run(MAX_VALUES), None);
    assert_eq!(dry_run(MAX_VALUES + 1), Some(ProtobufError::TooLarge));
    let revision = "io.k8s.api.apps.v1.ControllerRevision";
    let data = |count| {
        let json = format!("[{}0]", "0,".repeat(count - 1));
        plain(revision, &field(2, &field(1, json.as_bytes()))).err()
    };
    // There are the list and the field as well.
    assert_eq!(data(MAX_VALUES - 2), None);
    assert_eq!(data(MAX_VALUES - 1), Some(ProtobufError::TooLarge));
}

proptest! {
    #[test]
    fn garbage_is_an_object_or_an_error(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (group, version, kind) in types::kinds() {
            let of = types::of(group, version, kind).unwrap();
            _ = plain(of.name(), &raw);
        }
    }

    #[test]
    fn what_is_read_has_the_right_types(
        case in 0..cases().len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let case = cases().swap_remove(case);
        let mut bytes = case.bytes;
        for (at, byte) in changes {
            let at = 4 + at.index(bytes.len() - 4);
            bytes[at] = byte;
        }
        if let Err(why) = decoded(&bytes, case.of) {
            prop_assert!(!why.contains("cannot unmarshal"), "{why}");
        }
    }
}
