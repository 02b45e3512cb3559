use serde_json::json;

use super::*;
use crate::kinds;

fn pod() -> Object {
    Object::from_json(json!({
        "metadata": {"name": "p", "namespace": "n", "labels": {"app": "web", "tier": "3"}},
        "spec": {"nodeName": "a"},
    }))
}

#[test]
fn labels() {
    let pods = kinds::find("", "v1", "pods").unwrap();
    let cases = [
        ("", true),
        ("app", true),
        ("!app", false),
        ("!other", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier=3", true),
        ("app!=web", false),
        ("other!=x", true),
        ("app in (web, db)", true),
        ("app in (db)", false),
        ("app notin (db)", true),
        ("other notin (db)", true),
        ("tier>2", true),
        ("tier<3", false),
        ("app=", false),
        ("app in ()", false),
    ];
    for (text, expected) in cases {
        let selector = Selector::parse(pods, text, "").unwrap();
        assert_eq!(selector.matches(pods, &pod()), expected, "{text}");
    }
    for text in ["app in web", "app in (web", "=", "app=web=x", "app,", "a b", "-x", "app=-", "a>b"]
    {
        let error = Selector::parse(pods, text, "").expect_err(text);
        assert_eq!(error.code, http::StatusCode::BAD_REQUEST, "{text}");
    }
}

#[test]
fn a_name_is_taken_once() {
    let pods = kinds::find("", "v1", "pods").unwrap();
    let parse = |fields: &str| Selector::parse(pods, "", fields).unwrap();
    let mut selector = parse("metadata.name=p,metadata.name=q,metadata.name!=r");
    assert_eq!(selector.take_name().unwrap(), "p");
    // No object has two names.
    assert_eq!(selector, parse("metadata.name=q,metadata.name!=r"));
    assert!(!selector.matches(pods, &pod()));
    let mut selector = parse("metadata.name=p");
    assert_eq!(selector.take_name().unwrap(), "p");
    assert!(selector.is_empty() && selector.take_name().is_none());
}

#[test]
fn fields() {
    let pods = kinds::find("", "v1", "pods").unwrap();
    let cases = [
        ("metadata.name=p", true),
        ("metadata.name!=p", false),
        ("spec.nodeName=a,metadata.namespace==n", true),
        ("spec.nodeName=", false),
        ("metadata.name=a\\,b", false),
    ];
    for (text, expected) in cases {
        let selector = Selector::parse(pods, "", text).unwrap();
        assert_eq!(selector.matches(pods, &pod()), expected, "{text}");
    }
    let error = Selector::parse(pods, "", "spec.foo=1").unwrap_err();
    assert_eq!(error.message, "field label not supported: spec.foo");
    assert!(Selector::parse(pods, "", "metadata.name").is_err());
    assert!(Selector::parse(pods, "", "metadata.name=a=b").is_err());
}

/// What kube-apiserver 1.36.2 said about label selectors, and about field selectors of two resources.
#[test]
fn texts_that_are_none_are_told_so_in_kubernetes_words() {
    for line in include_str!("recorded.jsonl").lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = line["text"].as_str().unwrap();
        let (group, plural) = match line["of"].as_str().unwrap() {
            "deployments" => ("apps", "deployments"),
            _ => ("", "pods"),
        };
        let resource = kinds::find(group, "v1", plural).unwrap();
        let (labels, fields) = if line["of"] == "label" { (text, "") } else { ("", text) };
        let refused = Selector::parse(resource, labels, fields).err().map(|error| error.message);
        assert_eq!(refused.as_deref(), line["refused"].as_str(), "{text}");
    }
}
