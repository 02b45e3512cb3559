//! Paths and what can be done at them, as OpenAPI v2 describes it.

use serde_json::{Map, Value, json};

use super::schemas::{Definition, Dialect, gvk, reference};
use super::{Resource, Subresource};
use crate::types::{self, Type};

const JSON: [&str; 2] = ["application/json", "application/yaml"];

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A query parameter: name, type, description.
type Query = (&'static str, &'static str, &'static str);

const PRETTY: Query = ("pretty", "string", "Whether the answer is indented.");

const LIST: &[Query] = &[
    ("allowWatchBookmarks", "boolean", "Whether a watch is sent events of type BOOKMARK."),
    ("continue", "string", "The token that a list in chunks gave with its last chunk."),
    ("fieldSelector", "string", "Only objects whose fields are like this."),
    ("labelSelector", "string", "Only objects whose labels are like this."),
    ("limit", "integer", "How many objects a chunk of the list has at most."),
    (
        "resourceVersion",
        "string",
        "The version of which the list is, or after which the watch begins.",
    ),
    ("resourceVersionMatch", "string", "How resourceVersion is meant for lists."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with the objects that are there."),
    ("timeoutSeconds", "integer", "How long a watch or list may take."),
    ("watch", "boolean", "Whether changes are wanted instead of a list."),
];

const WRITE: &[Query] = &[
    ("dryRun", "string", "All: nothing is stored."),
    ("fieldManager", "string", "The name of who writes, for managed fields."),
    (
        "fieldValidation",
        "string",
        "What is done about unknown and duplicate fields: Ignore, Warn (default) or Strict.",
    ),
];

const FORCE: Query = ("force", "boolean", "Whether an apply takes fields over that others hold.");

const DELETE: &[Query] = &[
    ("dryRun", "string", "All: nothing is deleted."),
    ("gracePeriodSeconds", "integer", "How long the object may take to end."),
    (
        "orphanDependents",
        "boolean",
        "Whether dependent objects stay; propagationPolicy replaces it.",
    ),
    (
        "propagationPolicy",
        "string",
        "What becomes of dependent objects: Orphan, Background, Foreground.",
    ),
];

/// What is done with a path, named for `x-kubernetes-action` and operation ids.
#[derive(Clone, Copy)]
struct Verb {
    method: &'static str,
    action: &'static str,
    id: &'static str,
    words: &'static str,
}

/// The path of a group and version below the server's root: `api/v1`, `apis/apps/v1`.
pub(super) fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// All paths with their items.
pub(super) fn all<'a>(resources: &'a [Resource<'a>]) -> impl Iterator<Item = (String, Value)> + 'a {
    resources.iter().flat_map(of_resource)
}

fn of_resource(it: &Resource<'_>) -> Vec<(String, Value)> {
    let root = root(it.group, it.version);
    let scope = if it.namespaced { "namespaces/{namespace}/" } else { "" };
    let collection = format!("/{root}/{scope}{}", it.plural);
    let mut paths = Vec::new();
    if it.namespaced && it.verbs.contains(&"list") {
        let verb = Verb {
            method: "get",
            action: "list",
            id: "list",
            words: "list or watch objects of kind",
        };
        let mut operation = operation(it, verb, None);
        let id = format!("list{}{}ForAllNamespaces", camel(it.group, it.version), it.kind);
        operation["operationId"] = id.into();
        let item = json!({"get": operation, "parameters": [query(PRETTY)]});
        paths.push((format!("/{root}/{}", it.plural), item));
    }
    let many: Vec<Verb> = it.verbs.iter().filter_map(|verb| collection_verb(verb)).collect();
    if !many.is_empty() {
        paths.push((collection.clone(), item(it, &many, None, false)));
    }
    let one: Vec<Verb> = it.verbs.iter().filter_map(|verb| object_verb(verb)).collect();
    if !one.is_empty() {
        paths.push((format!("{collection}/{{name}}"), item(it, &one, None, true)));
    }
    for sub in it.subresources {
        let verbs: Vec<Verb> = sub.verbs.iter().filter_map(|verb| subresource_verb(verb)).collect();
        if !verbs.is_empty() {
            let path = format!("{collection}/{{name}}/{}", sub.name);
            paths.push((path, item(it, &verbs, Some(sub), true)));
        }
    }
    paths
}

fn collection_verb(verb: &str) -> Option<Verb> {
    Some(match verb {
        "list" => Verb {
            method: "get",
            action: "list",
            id: "list",
            words: "list or watch objects of kind",
        },
        "create" => Verb { method: "post", action: "post", id: "create", words: "create a" },
        "deletecollection" => Verb {
            method: "delete",
            action: "deletecollection",
            id: "deleteCollection",
            words: "delete collection of",
        },
        _ => return None,
    })
}

fn object_verb(verb: &str) -> Option<Verb> {
    Some(match verb {
        "get" => Verb { method: "get", action: "get", id: "read", words: "read the specified" },
        "update" => {
            Verb { method: "put", action: "put", id: "replace", words: "replace the specified" }
        }
        "patch" => Verb {
            method: "patch",
            action: "patch",
            id: "patch",
            words: "partially update the specified",
        },
        "delete" => Verb { method: "delete", action: "delete", id: "delete", words: "delete a" },
        _ => return None,
    })
}

fn subresource_verb(verb: &str) -> Option<Verb> {
    match verb {
        "create" => collection_verb(verb),
        _ => object_verb(verb),
    }
}

/// What is at a path.
fn item(it: &Resource<'_>, verbs: &[Verb], sub: Option<&Subresource<'_>>, named: bool) -> Value {
    let mut item = Map::new();
    for verb in verbs {
        item.insert(verb.method.to_owned(), operation(it, *verb, sub));
    }
    let mut parameters = Vec::new();
    if named {
        parameters.push(in_path("name", &format!("name of the {}", it.kind)));
    }
    if it.namespaced {
        parameters.push(in_path("namespace", "the namespace of the object"));
    }
    parameters.push(query(PRETTY));
    item.insert("parameters".to_owned(), parameters.into());
    Value::Object(item)
}

fn operation(it: &Resource<'_>, verb: Verb, sub: Option<&Subresource<'_>>) -> Value {
    let (group, version, kind) =
        sub.map_or((it.group, it.version, it.kind), |sub| (sub.group, sub.version, sub.kind));
    let own = answer(types::of(group, version, kind), verb);
    let mut parameters: Vec<Value> = Vec::new();
    let queries: &[Query] = match verb.action {
        "list" | "deletecollection" => LIST,
        "post" | "put" | "patch" => WRITE,
        "delete" => DELETE,
        _ => &[],
    };
    parameters.extend(queries.iter().copied().map(query));
    if verb.action == "patch" {
        parameters.push(query(FORCE));
    }
    if verb.action == "deletecollection" {
        parameters.extend(DELETE.iter().copied().map(query));
    }
    match verb.method {
        "post" | "put" => parameters.push(body(&own, true)),
        "patch" => parameters.push(body(&reference(&Definition::Patch.name(), Dialect::V2), true)),
        "delete" => parameters.push(body(&meta("DeleteOptions"), false)),
        _ => {}
    }
    let mut responses = json!({"401": {"description": "Unauthorized"}});
    let codes: &[(&str, &str)] = match verb.action {
        "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        "put" | "patch" => &[("200", "OK"), ("201", "Created")],
        "delete" => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    };
    for (code, words) in codes {
        responses[*code] = json!({"description": words, "schema": own});
    }
    let consumes = if verb.method == "patch" { json!(PATCHES) } else { json!(["*/*"]) };
    let below = sub.map(|sub| format!("{} of the specified ", sub.name)).unwrap_or_default();
    let words =
        if below.is_empty() { verb.words } else { verb.words.trim_end_matches(" the specified") };
    json!({
        "consumes": consumes,
        "description": format!("{words} {below}{}", it.kind),
        "operationId": id(it, verb, sub),
        "parameters": parameters,
        "produces": JSON,
        "responses": responses,
        "schemes": ["https"],
        "tags": [tag(it.group, it.version)],
        "x-kubernetes-action": verb.action,
        "x-kubernetes-group-version-kind": gvk(group, version, kind),
    })
}

/// The schema of what comes back, which is also what is sent: text if there is no such type, as of logs.
fn answer(of: Option<&'static Type>, verb: Verb) -> Value {
    let definition = match (verb.action, of) {
        ("delete" | "deletecollection", _) => return meta("Status"),
        (_, None) => return json!({"type": "string"}),
        ("list", Some(of)) => Definition::List(of),
        (_, Some(of)) => Definition::Type(of),
    };
    reference(&definition.name(), Dialect::V2)
}

fn meta(name: &str) -> Value {
    reference(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"), Dialect::V2)
}

/// `patchCoreV1NamespacedPodStatus`.
fn id(it: &Resource<'_>, verb: Verb, sub: Option<&Subresource<'_>>) -> String {
    let (before, collection) = match verb.id.strip_suffix("Collection") {
        Some(verb) => (verb, "Collection"),
        None => (verb.id, ""),
    };
    let scope = if it.namespaced { "Namespaced" } else { "" };
    let below = sub.map(|sub| capital(sub.name)).unwrap_or_default();
    let group = camel(it.group, it.version);
    format!("{before}{group}{collection}{scope}{}{below}", it.kind)
}

/// `CoreV1`, `RbacAuthorizationV1`.
fn camel(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    group.split('.').chain([version]).map(capital).collect()
}

/// `core_v1`, `rbacAuthorization_v1`.
fn tag(group: &str, version: &str) -> String {
    let camel = camel(group, "");
    let mut chars = camel.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    let name: String = first.into_iter().chain(chars).collect();
    format!("{name}_{version}")
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn query((name, kind, description): Query) -> Value {
    json!({"description": description, "in": "query", "name": name, "type": kind, "uniqueItems": true})
}

fn in_path(name: &str, description: &str) -> Value {
    json!({
        "description": description, "in": "path", "name": name, "required": true, "type": "string",
        "uniqueItems": true,
    })
}

fn body(schema: &Value, required: bool) -> Value {
    let mut body = json!({"in": "body", "name": "body", "schema": schema});
    if required {
        body["required"] = true.into();
    }
    body
}

/// The item of a path as OpenAPI v3 describes it.
pub(super) fn to_v3(item: Value) -> Value {
    let Value::Object(item) = item else { return item };
    let converted = item.into_iter().map(|(key, value)| {
        let value =
            if key == "parameters" { parameters_to_v3(value).0 } else { operation_to_v3(value) };
        (key, value)
    });
    Value::Object(converted.collect())
}

fn operation_to_v3(operation: Value) -> Value {
    let Value::Object(mut operation) = operation else { return operation };
    for gone in ["produces", "schemes"] {
        operation.remove(gone);
    }
    let consumes = operation.remove("consumes").unwrap_or_default();
    if let Some(parameters) = operation.remove("parameters") {
        let (parameters, body) = parameters_to_v3(parameters);
        operation.insert("parameters".to_owned(), parameters);
        if let Some(body) = body {
            let content: Map<String, Value> = consumes
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|media| (media.to_owned(), json!({"schema": schema_to_v3(&body["schema"])})))
                .collect();
            let mut request = json!({ "content": content });
            if body.get("required").is_some() {
                request["required"] = true.into();
            }
            operation.insert("requestBody".to_owned(), request);
        }
    }
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        for response in responses.values_mut().filter_map(Value::as_object_mut) {
            if let Some(schema) = response.remove("schema") {
                let schema = json!({"schema": schema_to_v3(&schema)});
                let content: Map<String, Value> =
                    JSON.iter().map(|media| ((*media).to_owned(), schema.clone())).collect();
                response.insert("content".to_owned(), content.into());
            }
        }
    }
    Value::Object(operation)
}

/// The parameters, and apart from them the body.
fn parameters_to_v3(parameters: Value) -> (Value, Option<Value>) {
    let Value::Array(parameters) = parameters else { return (parameters, None) };
    let (mut list, mut body) = (Vec::new(), None);
    for mut parameter in parameters {
        if parameter["in"] == "body" {
            body = Some(parameter);
            continue;
        }
        if let Some(map) = parameter.as_object_mut() {
            let kind = map.remove("type").unwrap_or_default();
            map.remove("uniqueItems");
            map.insert("schema".to_owned(), json!({"type": kind, "uniqueItems": true}));
        }
        list.push(parameter);
    }
    (list.into(), body)
}

fn schema_to_v3(schema: &Value) -> Value {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.rsplit('/').next());
    name.map_or_else(|| schema.clone(), |name| reference(name, Dialect::V3))
}
