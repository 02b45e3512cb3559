use serde_json::json;

use super::*;
use crate::kinds;

#[test]
fn what_is_stored_is_rendered_without_being_read() {
    let pods = kinds::find("", "v1", "pods").unwrap();
    let object = Object::from_json(json!({
        "kind": "Pod", "apiVersion": "v1", "a": [1],
        "metadata": {"name": "x", "resourceVersion": "3", "labels": {"a\"": "b"}},
        "spec": {"nodeName": "n"},
    }));
    let stored = object.encode();
    let mut out = Vec::new();
    render(&mut out, pods, &stored, Revision(7));
    let value: Value = serde_json::from_slice(&out).unwrap();
    let mut expected = object.to_value(pods);
    expected["metadata"]["resourceVersion"] = "7".into();
    assert_eq!(value, expected);
    assert_eq!(Object::decode(&stored, Revision(7)).unwrap().to_value(pods), expected);
}

#[test]
fn metadata_may_be_empty() {
    let pods = kinds::find("", "v1", "pods").unwrap();
    let mut out = Vec::new();
    render(&mut out, pods, &Object::from_json(json!({})).encode(), Revision(1));
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(value["metadata"], json!({"resourceVersion": "1"}));
}
