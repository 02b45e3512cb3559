//! `docs/pod-fields.md`: what becomes of every field of a Pod's spec. `cargo xtask codegen` writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::expect_file;

use super::{fields, holds_objects, row};
use crate::schema::{self, Shape};
use crate::unsupported::{DECISIONS, Decision, When};
use crate::{json, unsupported};

/// Why a field that is accepted asks for nothing here, by its row.
const REASONS: &[(&str, &str)] = &[
    (
        "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution",
        "a matter of the scheduler; a static pod is where its manifest is",
    ),
    ("spec.affinity.podAffinity", "a matter of the scheduler, as above"),
    ("spec.affinity.podAntiAffinity", "a matter of the scheduler, as above"),
    (
        "spec.automountServiceAccountToken",
        "a static pod has no service account; others get their token by admission",
    ),
    ("spec.containers[].securityContext.seLinuxOptions", SELINUX),
    ("spec.nodeName", "a static pod is where its manifest is; of others it is the API's"),
    ("spec.preemptionPolicy", "a matter of the scheduler"),
    ("spec.schedulerName", "a matter of the scheduler"),
    ("spec.securityContext.seLinuxChangePolicy", SELINUX),
    ("spec.securityContext.seLinuxOptions", SELINUX),
    (
        "spec.tolerations",
        "a static pod tolerates everything; of others the node and the scheduler judge them",
    ),
    ("spec.topologySpreadConstraints", "a matter of the scheduler"),
];

const SELINUX: &str =
    "a kernel without SELinux has no labels; on one that has it the pod is rejected";

/// A line of the page.
struct Line {
    path: String,
    decision: Decision,
    row: &'static str,
    /// The fields below the path that the line stands for.
    below: Vec<String>,
}

/// The fields without others in them, with the row of each.
fn leaves() -> Vec<(String, Shape, &'static (&'static str, Decision))> {
    let mut leaves = Vec::new();
    fields(schema::pod(), "", &mut |path, shape| {
        if path.starts_with("spec.") && !holds_objects(shape) {
            let row = row(&path).expect("every field is decided");
            leaves.push((path, shape, row));
        }
    });
    leaves
}

#[test]
fn the_page_says_what_becomes_of_every_field() {
    expect_file!["../../../../../docs/pod-fields.md"].assert_eq(&page());
}

#[test]
fn whatever_is_accepted_without_effect_has_a_reason() {
    let ignored: Vec<&str> = DECISIONS
        .iter()
        .filter(|(row, it)| row.starts_with("spec.") && matches!(it, Decision::NoEffect))
        .map(|(row, _)| *row)
        .collect();
    assert_eq!(ignored, REASONS.iter().map(|(row, _)| *row).collect::<Vec<_>>());
}

/// Each field alone in a pod, with some value: it is refused as the page says, or it is not.
#[test]
fn fields_are_refused_as_the_page_says() {
    for (path, shape, (row, decision)) in leaves() {
        let value = match decision {
            Decision::Refused(When::Not(values)) if values.contains(&"true") => "false".to_owned(),
            _ => sample(shape),
        };
        let text = nested(&path, &value);
        let root = json::read(&text).remove(0).root.expect("it parses");
        let refused = matches!(decision, Decision::Refused(_));
        assert_eq!(!unsupported::check(&root).is_empty(), refused, "{path} by {row}: {text}");
    }
}

/// A value that asks for something.
fn sample(shape: Shape) -> String {
    match shape {
        Shape::Bool => "true".to_owned(),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => "7".to_owned(),
        Shape::List(item) => format!("[{}]", sample(item.shape())),
        Shape::Map(item) => format!("{{\"some\": {}}}", sample(item.shape())),
        _ => "\"some\"".to_owned(),
    }
}

/// The field in those that it is in, as JSON.
fn nested(path: &str, value: &str) -> String {
    let Some((name, rest)) = path.split_once('.') else {
        let (name, lists) = (path.trim_end_matches("[]"), path.matches("[]").count());
        return format!("{{\"{name}\": {}{value}{}}}", "[".repeat(lists), "]".repeat(lists));
    };
    let inner = nested(rest, value);
    match name.strip_suffix("[]") {
        Some(name) => format!("{{\"{name}\": [{inner}]}}"),
        None => format!("{{\"{name}\": {inner}}}"),
    }
}

fn page() -> String {
    let leaves = leaves();
    let count = |is: fn(&Decision) -> bool| leaves.iter().filter(|(_, _, row)| is(&row.1)).count();
    let refused = |when: &When| matches!(when, When::Present | When::Set);
    let supported = count(|it| matches!(it, Decision::Supported));
    let parts = leaves
        .iter()
        .filter(|(_, _, row)| matches!(&row.1, Decision::Refused(when) if !refused(when)))
        .count();
    let ignored = count(|it| matches!(it, Decision::NoEffect));
    let mut text = format!(
        "# The fields of a Pod's spec\n\n\
         <!-- Written by `cargo xtask codegen` from the schema of Kubernetes 1.36 and from the table in\n\
         crates/mainstay-pod/src/unsupported.rs. Do not edit. -->\n\n\
         What mainstay does about each of the {} fields that a Pod's spec has in Kubernetes 1.36: {supported} are\n\
         supported, {parts} for some of their values, {} are refused by name, and {ignored} are accepted without\n\
         effect, where a kubelet ignores them too. None is ignored in silence. `mainstay check FILE` says it about\n\
         a manifest.\n\n\
         `[]` is any item of a list. Where all fields of an object are treated alike they share a line. What an\n\
         API server refuses is refused whatever stands here.\n\n\
         What is said here is of manifests; pods of an API may also have `runtimeClassName`, `serviceAccount` and\n\
         `serviceAccountName`.\n\n\
         | field | what becomes of it |\n| --- | --- |\n",
        leaves.len(),
        leaves.len() - supported - parts - ignored,
    );
    for line in lines(&leaves) {
        let below = match line.below.as_slice() {
            [] => String::new(),
            some => format!(" with {}", some.join(", ")),
        };
        writeln!(text, "| `{}`{below} | {} |", line.path, words(line.row, line.decision)).unwrap();
    }
    text
}

fn lines(leaves: &[(String, Shape, &'static (&'static str, Decision))]) -> Vec<Line> {
    let mut by_path: BTreeMap<&str, Line> = BTreeMap::new();
    for (path, _, (row, decision)) in leaves {
        // A row of its own, or that of an object, whose fields it names.
        let shared = matches!(decision, Decision::Refused(_) | Decision::NoEffect);
        let at = if shared { row } else { path.as_str() };
        let line = by_path.entry(at).or_insert_with(|| Line {
            path: at.to_owned(),
            decision: *decision,
            row,
            below: Vec::new(),
        });
        if let Some(rest) = path.strip_prefix(at).filter(|rest| !rest.is_empty()) {
            let rest = rest.trim_start_matches("[]").trim_start_matches('.');
            line.below.push(format!("`{rest}`"));
        }
    }
    by_path.into_values().collect()
}

fn words(row: &str, decision: Decision) -> String {
    let list = |values: &[&str]| {
        let named = |value: &&&str| !value.is_empty();
        let quoted = |value: &&str| format!("`{value}`");
        values.iter().filter(named).map(quoted).collect::<Vec<_>>().join(", ")
    };
    match decision {
        Decision::Supported => "supported".to_owned(),
        Decision::NoEffect => {
            let reason = REASONS.iter().find(|(known, _)| *known == row);
            format!("accepted without effect: {}", reason.map_or("", |(_, reason)| reason))
        }
        Decision::Refused(When::Present | When::Set) => "refused".to_owned(),
        Decision::Refused(When::Not(values)) => format!("{}; others are refused", list(values)),
        Decision::Refused(When::Keys(keys)) => format!("{}; others are refused", list(keys)),
    }
}
