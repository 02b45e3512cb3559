//! Finds the Pods, ConfigMaps and Secrets in a file's documents: single ones, and those in a `List` or
//! `PodList`.

use std::collections::HashMap;

use crate::diagnostic::{Cause, Finding};
use crate::object::ObjectKind;
use crate::tree::{Entry, Node, Span, Value};

/// One thing in a file that is, or should have been, a Pod, or what Pods refer to.
pub(crate) enum Candidate {
    /// `apiVersion: v1`, `kind: Pod`.
    Pod(Node),
    /// `apiVersion: v1`, and this kind. With errors it is not to be used.
    Object { kind: ObjectKind, node: Node, errors: Vec<Finding> },
    /// Something else; the tree is kept for whatever name it may have.
    Other { node: Node, errors: Vec<Finding> },
}

/// Workload kinds that hold a template of a Pod.
const WORKLOADS: [&str; 8] = [
    "Deployment",
    "DaemonSet",
    "StatefulSet",
    "ReplicaSet",
    "ReplicationController",
    "Job",
    "CronJob",
    "PodTemplate",
];

/// The candidates in one document, which is the `number`th of the file. `List`s are opened, also one within another.
pub(crate) fn candidates(root: Node, number: usize) -> Vec<Candidate> {
    let mut found = Vec::new();
    // Items are looked at in the order of the file; the nesting of a tree is bounded, so is this list.
    let mut left = vec![(root, false)];
    while let Some((node, typed)) = left.pop() {
        match judge(&node, number, typed) {
            Judged::Pod => found.push(Candidate::Pod(with_type(node))),
            Judged::Object(kind, errors) => {
                let errors = errors.into_iter().map(|it| it.cause(Cause::Kind)).collect();
                found.push(Candidate::Object { kind, node, errors });
            }
            Judged::List { typed } => {
                left.extend(items(node).into_iter().rev().map(|item| (item, typed)));
            }
            Judged::Refused(errors) => {
                let errors = errors.into_iter().map(|it| it.cause(Cause::Kind)).collect();
                found.push(Candidate::Other { node, errors });
            }
        }
    }
    found
}

enum Judged {
    Pod,
    Object(ObjectKind, Vec<Finding>),
    /// The items of a `PodList` need not say that they are Pods.
    List {
        typed: bool,
    },
    Refused(Vec<Finding>),
}

fn judge(node: &Node, number: usize, typed: bool) -> Judged {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("expected a Pod, found {}", node.describe());
        let span = Span { end: node.span.end.min(node.span.start + 1), ..node.span };
        return Judged::Refused(vec![Finding::error(span, "", message)]);
    }
    let text = |key: &str| match node.get(key) {
        None => Ok(None),
        Some(value) if value.is_null() => Ok(None),
        Some(value) => match value.as_str() {
            Some("") => Ok(None),
            Some(text) => Ok(Some(text)),
            None => Err(Finding::error(
                value.span,
                key,
                format!("expected a string, found {}", value.describe()),
            )),
        },
    };
    let mut errors = Vec::new();
    let mut take = |read: Result<Option<_>, Finding>| match read {
        Ok(text) => (text, true),
        Err(error) => {
            errors.push(error);
            (None, false)
        }
    };
    let ((kind, kind_readable), (version, version_readable)) =
        (take(text("kind")), take(text("apiVersion")));
    let place = |key: &str| node.locate(key);
    let mut object = None;
    match kind {
        Some("List" | "PodList")
            if version.is_none_or(|version| version == "v1") && version_readable =>
        {
            errors.extend(list_errors(node));
            if !errors.is_empty() {
                return Judged::Refused(errors);
            }
            return Judged::List { typed: kind == Some("PodList") };
        }
        Some("Pod") => {}
        Some("ConfigMap") if !typed => object = Some(ObjectKind::ConfigMap),
        Some("Secret") if !typed => object = Some(ObjectKind::Secret),
        None if typed && kind_readable => return Judged::Pod,
        None => {
            if kind_readable {
                errors.push(
                    Finding::error(place("kind"), "kind", "Required value")
                        .hint("a static pod starts with apiVersion: v1 and kind: Pod".to_owned()),
                );
            }
        }
        Some(kind) => {
            let message = format!(
                "document {number} is of kind {kind}; a manifest directory takes Pods, ConfigMaps \
                 and Secrets only"
            );
            let finding = Finding::error(place("kind"), "kind", message).hint(kind_hint(kind));
            return Judged::Refused(vec![finding]);
        }
    }
    match version {
        Some("v1") => {}
        Some(version) => {
            let message = format!("Unsupported value: {version:?}: supported values: \"v1\"");
            errors.push(Finding::error(place("apiVersion"), "apiVersion", message));
        }
        None if version_readable => errors.push(
            Finding::error(place("apiVersion"), "apiVersion", "Required value")
                .hint(format!("a {} has apiVersion: v1", kind.unwrap_or("Pod"))),
        ),
        None => {}
    }
    if let Some(kind) = object {
        return Judged::Object(kind, errors);
    }
    if errors.is_empty() { Judged::Pod } else { Judged::Refused(errors) }
}

/// A list without items would stop every pod of the file, so it has to say that it has none.
fn list_errors(list: &Node) -> Vec<Finding> {
    let mut errors = Vec::new();
    let mut seen = HashMap::new();
    for entry in list.entries() {
        let known = matches!(&*entry.key, "apiVersion" | "kind" | "metadata" | "items");
        if !known {
            errors.push(Finding::error(entry.key_span, &entry.key, "unknown field"));
        } else if let Some(first) = seen.insert(&entry.key, entry.key_span) {
            errors.push(Finding::duplicate(entry.key_span, &entry.key, first));
        }
    }
    match list.get("items").map(|items| &items.value) {
        Some(Value::List(_)) => {}
        Some(_) => {
            errors.push(Finding::error(list.locate("items"), "items", "expected a list of Pods"));
        }
        None => errors.push(Finding::error(list.locate("items"), "items", "Required value")),
    }
    errors
}

/// A Pod that says that it is one: an item of a `PodList` means the same with and without.
fn with_type(mut node: Node) -> Node {
    for (key, value) in [("apiVersion", "v1"), ("kind", "Pod")] {
        if node.get(key).is_none_or(Node::is_null)
            && let Some(entries) = node.entries_mut()
        {
            entries.retain(|entry| &*entry.key != key);
            let node = Node { span: Span::default(), value: Value::String(value.into()) };
            entries.push(Entry { key: key.into(), key_span: Span::default(), node });
        }
    }
    node
}

fn kind_hint(kind: &str) -> String {
    if kind.eq_ignore_ascii_case("Pod") {
        return "did you mean Pod?".to_owned();
    }
    if WORKLOADS.contains(&kind) {
        return format!(
            "static pods are Pods: write a Pod from the template of the {kind}, or apply the {kind} through the Kubernetes API"
        );
    }
    format!("objects of kind {kind} are applied through the Kubernetes API: kubectl apply -f")
}

fn items(mut node: Node) -> Vec<Node> {
    match node.remove("items").map(|entry| entry.node.value) {
        Some(Value::List(items)) => items,
        _ => Vec::new(),
    }
}

/// The namespace and name that a document gives itself, if both can be read. The namespace is `default` if
/// none is given.
pub(crate) fn identity(node: &Node) -> Option<(String, String)> {
    let metadata = node.get("metadata")?;
    let name = metadata.get_str("name").filter(|name| !name.is_empty())?;
    let namespace = match metadata.get("namespace") {
        None => "default",
        Some(value) if value.is_null() => "default",
        Some(value) => value.as_str()?,
    };
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    Some((namespace.to_owned(), name.to_owned()))
}
