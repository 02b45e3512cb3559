//! Every kind against what a real server said about the same objects.
//!
//! The cases are in `recorded/*.jsonl`. The first line of a file tells the resource, an object (`base`) and
//! what the server adds to it (`defaulted`), and what its maker owns then (`owned`). Each other line is a case: `set` is a merge patch that makes
//! the object that is sent of the base. Without `old` it is created; with it, an object is created that
//! `old` makes of the base, and what is sent replaces it (`put`: the subresource) or is posted below it
//! (`post`); where the head has `updates`, `set` is a patch of what is stored and not of the base. All but the creation of old objects are dry runs. What is expected is a code and
//!
//! - of a success, the base's defaulted form with `set` over it and `more` over that, or `answer` whole;
//! - of a refusal, `status`: its causes, and its message if the causes do not tell it.
//!
//! `table` is like `set` for objects whose row in a table has `cells`. A case with `differs` says why the
//! real server's answer is not ours; that it still differs is checked.
//!
//! What is told several times by the real server, which judges metadata up to three times, counts once,
//! and the order of what is wrong does not matter.

use crate::common::{Response, Server, server};
use http::Request;
use http_body_util::Full;
use mainstay_apiserver::User;
use serde_json::{Map, Value, json};

/// The cases of one resource.
struct Cases {
    head: Value,
    lines: Vec<Value>,
}

impl Cases {
    fn read(file: &str) -> Self {
        let path = format!("{}/tests/it/recorded/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        Self { head: lines.next().unwrap(), lines: lines.collect() }
    }

    fn text(&self, key: &str) -> &str {
        self.head[key].as_str().unwrap_or_default()
    }

    fn path(&self, name: &str, subresource: &str) -> String {
        let mut path = self.text("path").to_owned();
        if self.head["namespaced"] == true {
            path.push_str("/namespaces/kinds");
        }
        for part in [self.text("resource"), name, subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        path
    }

    /// An object of this kind that a merge patch makes of the base.
    fn object(&self, patch: &Value) -> Value {
        let mut object = self.head["base"].clone();
        merge(&mut object, patch);
        object["kind"] = self.head["kind"].clone();
        object["apiVersion"] = self.head["apiVersion"].clone();
        object
    }

    /// What is expected to be answered for it.
    fn expected(&self, line: &Value) -> Value {
        if let Some(answer) = line.get("answer") {
            return answer.clone();
        }
        let mut object = self.head["base"].clone();
        for patch in [&self.head["defaulted"], &line["set"], &line["more"]] {
            if !patch.is_null() {
                merge(&mut object, patch);
            }
        }
        without_type(object)
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let fields = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn without_type(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    object
}

/// What no two servers have in common is not compared.
fn without_identity(mut object: Value) -> Value {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in ["uid", "creationTimestamp", "resourceVersion", "managedFields"] {
            meta.remove(key);
        }
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
        && spec.contains_key("signerName")
    {
        for key in ["username", "groups", "uid", "extra"] {
            spec.remove(key);
        }
    }
    object
}

/// Whether a value is what is expected. Texts such as `<time>` stand for any, `*****` for what the server
/// has made up, and a text that ends in `\n…` for any that begins so.
fn same(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => same_fields(expected, found),
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected.iter().zip(found).all(|(expected, found)| same(expected, found))
        }
        (Value::String(expected), Value::String(found)) => same_text(expected, found),
        (Value::String(expected), Value::Number(_)) => expected == "<allocated>",
        _ => expected == found,
    }
}

fn same_fields(expected: &Map<String, Value>, found: &Map<String, Value>) -> bool {
    // Go does not tell some kinds of nothing from each other, and nobody who reads the answer does.
    let present = |fields: &Map<String, Value>| fields.values().filter(|it| !it.is_null()).count();
    present(expected) == present(found)
        && expected
            .iter()
            .filter(|(_, value)| !value.is_null())
            .all(|(key, value)| found.get(key).is_some_and(|found| same(value, found)))
}

fn same_text(expected: &str, found: &str) -> bool {
    let mut parts = vec![expected.to_owned()];
    for hole in ["<allocated>", "<time>", "<token>", "<age>", "<uid>", "*****", "\n…"] {
        parts = parts
            .iter()
            .flat_map(|part| part.split(hole).map(str::to_owned).collect::<Vec<_>>())
            .collect();
    }
    let (first, rest) = parts.split_first().unwrap();
    let Some(mut left) = found.strip_prefix(first.as_str()) else { return false };
    let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
    for part in middle {
        let Some(at) = left.find(part.as_str()) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last.as_str())
}

/// What a refusal says is wrong: each thing once, in some order.
fn causes(status: &Value) -> Vec<String> {
    let all = status["details"]["causes"].as_array().into_iter().flatten().map(|cause| {
        let text = |key: &str| cause[key].as_str().unwrap_or_default();
        let head: Vec<&str> =
            [text("reason"), text("field")].into_iter().filter(|it| !it.is_empty()).collect();
        format!("{}: {}", head.join(" "), text("message"))
    });
    let mut causes: Vec<String> = all.collect();
    causes.sort();
    causes.dedup();
    causes
}

/// What is not as expected about a refusal.
fn refused(expected: &Value, found: &Value) -> Option<String> {
    let reason = |status: &Value| status["reason"].as_str().unwrap_or_default().to_owned();
    if reason(expected) != reason(found) {
        return Some(format!("reason {:?}: {}", found["reason"], found["message"]));
    }
    let mut wanted: Vec<String> = expected["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| it.as_str().unwrap().to_owned())
        .collect();
    wanted.sort();
    wanted.dedup();
    let told = causes(found);
    if wanted.len() != told.len()
        || !wanted.iter().zip(&told).all(|(one, other)| same_text(one, other))
    {
        return Some(format!("causes\n    want {wanted:#?}\n    have {told:#?}"));
    }
    let message = found["message"].as_str().unwrap_or_default();
    match expected["message"].as_str() {
        Some(wanted) if !same_text(wanted, message) => {
            Some(format!("message\n    want {wanted}\n    have {message}"))
        }
        _ => None,
    }
}

/// What is not as expected about an answer.
fn difference(cases: &Cases, line: &Value, response: &Response) -> Option<String> {
    if line["code"] != response.code {
        return Some(format!("code {}: {}", response.code, response.body));
    }
    if response.code >= 300 {
        return refused(&line["status"], &response.body);
    }
    let expected = cases.expected(line);
    let whole = line.get("answer").is_some();
    let found = without_taint(without_identity(response.body.clone()));
    let found = if whole { found } else { without_type(found) };
    if !same(&expected, &found) {
        let parts = differing(&expected, &found, "");
        return Some(format!("answer: {}", parts.join("\n    ")));
    }
    let none = json!([]);
    let wanted = line.get("warnings").or(cases.head.get("warnings")).unwrap_or(&none);
    let told: Value = response
        .warnings
        .iter()
        .map(|it| {
            let quoted = it.strip_prefix("299 - \"").and_then(|it| it.strip_suffix('"'));
            quoted.unwrap_or(it).replace("\\\"", "\"")
        })
        .collect();
    (*wanted != told).then(|| format!("warnings\n    want {wanted}\n    have {told}"))
}

/// As it was without the taint of new nodes: the server that was recorded ran without the admission
/// plug-in `TaintNodesByCondition`, as those of upstream's tests do.
fn without_taint(mut object: Value) -> Value {
    let taint = json!({ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" });
    if let Some(taints) = object.pointer_mut("/spec/taints").and_then(Value::as_array_mut) {
        taints.retain(|it| *it != taint);
        if taints.is_empty() {
            object["spec"].as_object_mut().unwrap().remove("taints");
        }
    }
    object
}

/// Where two values differ.
fn differing(expected: &Value, found: &Value, path: &str) -> Vec<String> {
    let (Value::Object(one), Value::Object(other)) = (expected, found) else {
        return vec![format!("{path}\n      want {expected}\n      have {found}")];
    };
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
    keys.filter(|key| !same(&expected[key.as_str()], &found[key.as_str()]))
        .flat_map(|key| {
            differing(&expected[key.as_str()], &found[key.as_str()], &format!("{path}.{key}"))
        })
        .collect()
}

const DRY: &str = "?dryRun=All&fieldValidation=Strict";

/// One case, and what came of it.
async fn ask(server: &Server, cases: &Cases, line: &Value) -> Response {
    let Some(old) = line.get("old") else {
        let path = cases.path("", "") + DRY;
        return server.ask("POST", &path, Some(&cases.object(&line["set"]))).await;
    };
    let (name, current) = put_there(server, cases, old, line).await;
    let mut sent = match (line.get("body"), cases.head.get("updates")) {
        (Some(body), _) => body.clone(),
        (None, None) => cases.object(&line["set"]),
        (None, Some(_)) => {
            let mut stored = current.clone();
            merge(&mut stored, &line["set"]);
            stored
        }
    };
    if line.get("body").is_none() {
        if let Some(meta) = sent["metadata"].as_object_mut() {
            let version = current["metadata"]["resourceVersion"].clone();
            let version = if line["unconditional"] == true { "".into() } else { version };
            meta.insert("resourceVersion".into(), version);
        }
        if let Some(meta) = line.get("meta") {
            merge(&mut sent, meta);
        }
    }
    let (method, part) = match (line["put"].as_str(), line["post"].as_str()) {
        (Some(part), _) => ("PUT", part),
        (None, part) => ("POST", part.unwrap()),
    };
    let at = line["at"].as_str().unwrap_or(&name);
    let response = server.ask(method, &(cases.path(at, part) + DRY), Some(&sent)).await;
    remove(server, cases, &name).await;
    response
}

/// Makes an object with a status, and gives its name and what the server has of it.
async fn put_there(server: &Server, cases: &Cases, patch: &Value, line: &Value) -> (String, Value) {
    let mut object = cases.object(patch);
    let status = patch.get("status").and_then(|_| object.as_object_mut()?.remove("status"));
    let made = server.ask("POST", &cases.path("", ""), Some(&object)).await;
    assert_eq!(made.code, 201, "{}: {:?}", line["name"], made.body);
    let name = made.body["metadata"]["name"].as_str().unwrap().to_owned();
    let mut steps: Vec<(String, Value)> = Vec::new();
    match (status, line.get("via"), line.get("status").and_then(Value::as_array)) {
        (Some(status), via, _) => {
            let default = json!(["status"]);
            for part in via.unwrap_or(&default).as_array().unwrap() {
                steps.push((part.as_str().unwrap().to_owned(), status.clone()));
            }
        }
        (None, _, Some(list)) => {
            steps.extend(list.iter().map(|it| (it[0].as_str().unwrap().to_owned(), it[1].clone())));
        }
        _ => {}
    }
    let mut current = made.body;
    for (part, status) in steps {
        current["status"] = status;
        let put = server.ask("PUT", &cases.path(&name, &part), Some(&current)).await;
        assert_eq!(put.code, 200, "{}: {:?}", line["name"], put.body);
        current = put.body;
    }
    if line.get("deleted").is_some() {
        let gone = server.ask("DELETE", &cases.path(&name, ""), None).await;
        assert!(gone.code < 300, "{}: {:?}", line["name"], gone.body);
        current = server.ask("GET", &cases.path(&name, ""), None).await.body;
    }
    (name, current)
}

/// Takes an object away whatever holds it.
async fn remove(server: &Server, cases: &Cases, name: &str) {
    let path = cases.path(name, "");
    let now = json!({ "gracePeriodSeconds": 0 });
    for _ in 0..4 {
        server.ask("DELETE", &path, Some(&now)).await;
        let got = server.ask("GET", &path, None).await;
        if got.code == 404 {
            return;
        }
        let mut object = got.body;
        if object["kind"] == "Namespace" {
            object["spec"] = json!({ "finalizers": [] });
            server.ask("PUT", &cases.path(name, "finalize"), Some(&object)).await;
        } else {
            let none = json!({ "metadata": { "finalizers": null } });
            let media = "application/merge-patch+json";
            server.ask_as(User::master("admin"), "PATCH", &path, media, Some(&none)).await;
        }
    }
    panic!("{path} does not go away");
}

/// A row of a table, and its columns.
async fn row(server: &Server, cases: &Cases, line: &Value) -> (Value, Value) {
    let (name, _) = put_there(server, cases, &line["table"], line).await;
    let request = Request::builder()
        .uri(cases.path(&name, ""))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Full::default())
        .unwrap();
    let table = server.send(User::master("admin"), request).await.body;
    remove(server, cases, &name).await;
    let columns = table["columnDefinitions"].as_array().into_iter().flatten();
    let columns =
        columns.map(|it| json!([it["name"], it["type"], it["format"], it["priority"]])).collect();
    (columns, table["rows"][0].clone())
}

/// What is not as expected about a row.
async fn row_difference(server: &Server, cases: &Cases, line: &Value) -> Option<String> {
    let (columns, row) = row(server, cases, line).await;
    if cases.head["columns"] != columns {
        return Some(format!("columns\n    want {}\n    have {columns}", cases.head["columns"]));
    }
    if !same(&line["cells"], &row["cells"]) {
        return Some(format!("cells\n    want {}\n    have {}", line["cells"], row["cells"]));
    }
    let conditions = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (wanted, told) = (conditions(&line["rowConditions"]), conditions(&row["conditions"]));
    (wanted != told).then(|| format!("conditions\n    want {wanted:?}\n    have {told:?}"))
}

/// Who makes the base owns what the real server said.
async fn check_owner(server: &Server, cases: &Cases) {
    let owned = &cases.head["owned"];
    let path = cases.path("", "") + DRY;
    let made = server.ask("POST", &path, Some(&cases.object(&json!({})))).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
    assert_eq!(owned, &made.body["metadata"]["managedFields"][0]["fieldsV1"]);
}

/// All cases of a file.
async fn check(file: &str) {
    let cases = Cases::read(file);
    let server = server().await;
    let namespace = json!({ "metadata": { "name": "kinds" } });
    server.ask("POST", "/api/v1/namespaces", Some(&namespace)).await;
    let account = json!({ "metadata": { "name": "default" } });
    let accounts = "/api/v1/namespaces/kinds/serviceaccounts";
    server.ask("POST", accounts, Some(&account)).await;
    check_owner(&server, &cases).await;
    let mut problems = Vec::new();
    for line in &cases.lines {
        let found = if line.get("table").is_some() {
            row_difference(&server, &cases, line).await
        } else {
            difference(&cases, line, &ask(&server, &cases, line).await)
        };
        let name = line["name"].as_str().unwrap();
        match (found, line.get("differs")) {
            (Some(found), None) => problems.push(format!("{name}: {found}")),
            (None, Some(why)) => problems.push(format!("{name}: is as there, though {why}")),
            _ => {}
        }
    }
    let count = problems.len();
    assert!(count == 0, "{count} of {}:\n{}", cases.lines.len(), problems.join("\n"));
}

macro_rules! kinds {
    ($($name:ident: $file:literal,)*) => {
        $(#[tokio::test]
        async fn $name() {
            check($file).await;
        })*
    };
}

kinds! {
    certificate_signing_requests: "certificatesigningrequest.jsonl",
    cluster_role_bindings: "clusterrolebinding.jsonl",
    cluster_roles: "clusterrole.jsonl",
    config_maps: "configmap.jsonl",
    controller_revisions: "controllerrevision.jsonl",
    daemon_sets: "daemonset.jsonl",
    deployments: "deployment.jsonl",
    endpoint_slices: "endpointslice.jsonl",
    endpoints: "endpoints.jsonl",
    events: "event.jsonl",
    events_of_their_own_group: "event.events.jsonl",
    leases: "lease.jsonl",
    namespaces: "namespace.jsonl",
    nodes: "node.jsonl",
    pod_disruption_budgets: "poddisruptionbudget.jsonl",
    pods: "pod.jsonl",
    priority_classes: "priorityclass.jsonl",
    replica_sets: "replicaset.jsonl",
    role_bindings: "rolebinding.jsonl",
    roles: "role.jsonl",
    runtime_classes: "runtimeclass.jsonl",
    secrets: "secret.jsonl",
    service_accounts: "serviceaccount.jsonl",
    services: "service.jsonl",
}
