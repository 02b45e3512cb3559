//! What discovery tells, against what a real server tells of the same kinds (`recorded/discovery.json`).

use std::collections::BTreeMap;

use crate::common::{Server, server};
use http::Request;
use http_body_util::Full;
use mainstay_apiserver::User;
use serde_json::{Value, json};

/// What is other here, and why.
const DIFFERS: [(&str, &str); 2] = [
    ("bindings", "pods are bound by their subresource; nobody has posted to this one since 1.7"),
    ("metrics.k8s.io", "served here, and by a server of its own elsewhere"),
];

async fn get(server: &Server, path: &str, accept: &str) -> Value {
    let request =
        Request::builder().uri(path).header("accept", accept).body(Full::default()).unwrap();
    let response = server.send(User::master("admin"), request).await;
    assert_eq!(response.code, 200, "{path}: {:?}", response.body);
    response.body
}

/// The items of a list by their names, each without what only a real server has.
fn by_name(list: &Value, name: &str) -> BTreeMap<String, Value> {
    let items = list.as_array().into_iter().flatten().map(|item| {
        let mut item = item.clone();
        let fields = item.as_object_mut().unwrap();
        fields.remove("storageVersionHash");
        (fields[name].as_str().unwrap().to_owned(), item)
    });
    items.collect()
}

/// What is there and not here, or other here.
fn compare(
    place: &str,
    theirs: &BTreeMap<String, Value>,
    ours: &BTreeMap<String, Value>,
    problems: &mut Vec<String>,
) {
    for (name, wanted) in theirs {
        let found = ours.get(name).unwrap_or(&Value::Null);
        if wanted != found && !DIFFERS.iter().any(|(it, _)| it == name) {
            problems.push(format!("{place} {name}\n  want {wanted}\n  have {found}"));
        }
    }
    for name in ours.keys().filter(|name| !theirs.contains_key(*name)) {
        if !DIFFERS.iter().any(|(it, _)| it == name) {
            problems.push(format!("{place} {name} is not there in a real server"));
        }
    }
}

#[tokio::test]
async fn discovery_tells_what_a_real_server_tells() {
    let path = format!("{}/tests/it/recorded/discovery.json", env!("CARGO_MANIFEST_DIR"));
    let facts: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let server = server().await;
    let mut problems = Vec::new();
    for (path, wanted) in facts.as_object().unwrap() {
        if let Some(path) = path.strip_prefix("aggregated ") {
            let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let found = get(&server, path, accept).await;
            for (wanted, found) in groups(wanted).iter().map(|(name, it)| (it, (name, &found))) {
                let (name, all) = found;
                let ours = groups(all).remove(name).unwrap_or_default();
                compare(
                    &format!("aggregated {path} {name:?}"),
                    &by_name(&wanted["versions"][0]["resources"], "resource"),
                    &by_name(&ours["versions"][0]["resources"], "resource"),
                    &mut problems,
                );
            }
            continue;
        }
        if !path.starts_with('/') {
            continue;
        }
        let found = get(&server, path, "application/json").await;
        match wanted["kind"].as_str().unwrap() {
            "APIResourceList" => compare(
                path,
                &by_name(&wanted["resources"], "name"),
                &by_name(&found["resources"], "name"),
                &mut problems,
            ),
            "APIGroupList" => compare(
                path,
                &by_name(&wanted["groups"], "name"),
                &by_name(&found["groups"], "name"),
                &mut problems,
            ),
            "APIGroup" => compare(
                path,
                &BTreeMap::from([("group".to_owned(), wanted.clone())]),
                &BTreeMap::from([("group".to_owned(), found)]),
                &mut problems,
            ),
            _ => compare(
                path,
                &BTreeMap::from([("versions".to_owned(), wanted["versions"].clone())]),
                &BTreeMap::from([("versions".to_owned(), found["versions"].clone())]),
                &mut problems,
            ),
        }
    }
    assert!(problems.is_empty(), "{} differences:\n{}", problems.len(), problems.join("\n"));
}

/// The groups of an aggregated discovery by their names.
fn groups(list: &Value) -> BTreeMap<String, Value> {
    let items = list["items"].as_array().into_iter().flatten();
    let named = items.map(|it| {
        let name = it["metadata"]["name"].as_str().unwrap_or_default();
        (name.to_owned(), json!({ "versions": it["versions"] }))
    });
    named.collect()
}
