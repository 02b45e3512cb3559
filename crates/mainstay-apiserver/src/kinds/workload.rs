//! What the kinds that make pods have in common: a selector and a template.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use mainstay_pod::defaults;
use mainstay_pod::validate::{self, Errors, Json, Path, Shown, as_json};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::rules;
use crate::label_selector;
use crate::object::{self, Object};

/// How strict a kind is about its selector, which differs for no reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Selector {
    /// A DaemonSet may have none, which then picks nothing.
    Lenient,
    /// A Deployment and a ReplicaSet must have one, and it is told again when it cannot be used.
    Strict,
}

/// Fills in the defaults of `spec.template`.
pub(super) fn default_template(object: &mut Object) {
    let spec = object.field_mut("spec");
    let template = object::object_of(spec, "template");
    let Ok(mut typed) = PodTemplateSpec::deserialize(&*template) else { return };
    defaults::template(&mut typed);
    if let Ok(value) = serde_json::to_value(typed) {
        spec.insert("template".into(), value);
    }
}

/// A number of `spec`, if it has been left out.
pub(super) fn default_number(object: &mut Object, key: &str, value: i64) {
    object.field_mut("spec").entry(key).or_insert_with(|| value.into());
}

/// The way of an update that replaces pods one after the other.
pub(super) const ROLLING: &str = "RollingUpdate";

/// What a field of `spec` says about updates, with the kind of update filled in.
pub(super) fn default_strategy<'a>(
    object: &'a mut Object,
    field: &str,
) -> &'a mut Map<String, Value> {
    let strategy = object::object_of(object.field_mut("spec"), field);
    rules::default_text(strategy, "type", ROLLING);
    strategy
}

/// `ValidateDaemonSetSpec` and `ValidatePodTemplateSpecForReplicaSet`, as far as they are the same.
pub(super) fn selector_and_template(
    spec: &Value,
    strictness: Selector,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let selector = rules::at(spec, "selector");
    let selector_path = path.field("selector");
    let kind = match strictness {
        Selector::Lenient => "daemonset",
        Selector::Strict => "deployment",
    };
    if selector.is_null() && strictness == Selector::Strict {
        errors.required(&selector_path, "");
    }
    let usable = rules::selector(selector, &selector_path, errors);
    let template = rules::at(spec, "template");
    let labels = rules::at(rules::at(template, "metadata"), "labels");
    let empty = rules::asks_nothing(selector);
    // A selector that is not there picks nothing; an empty one picks all.
    let picks = !selector.is_null() && label_selector::matches(selector, labels);
    let path = path.field("template");
    let mismatch = |errors: &mut Errors| {
        let detail = "`selector` does not match template `labels`";
        let metadata = path.field("metadata");
        errors.invalid(&metadata.field("labels"), as_json(labels), detail);
    };
    if strictness == Selector::Lenient && usable && !picks {
        mismatch(errors);
    }
    if !selector.is_null() && empty {
        let detail = format!("empty selector is invalid for {kind}");
        errors.invalid(&selector_path, rules::shown_selector(selector), &detail);
    }
    if strictness == Selector::Strict {
        if !usable {
            errors.invalid(
                &selector_path,
                rules::shown_selector(selector),
                "invalid label selector",
            );
            return;
        }
        if !picks {
            mismatch(errors);
        }
    }
    pod_template(template, strictness, &path, errors);
}

fn pod_template(template: &Value, strictness: Selector, path: &Path<'_>, errors: &mut Errors) {
    let typed = PodTemplateSpec::deserialize(template).unwrap_or_default();
    validate::template(&typed, path, errors);
    let spec = rules::at(template, "spec");
    let path = path.field("spec");
    let policy = rules::text(spec, "restartPolicy");
    if policy != "Always" {
        errors.not_supported(&path.field("restartPolicy"), Json(policy), &["Always"]);
    }
    if !rules::at(spec, "activeDeadlineSeconds").is_null() {
        let kind = match strictness {
            Selector::Lenient => "DaemonSet",
            Selector::Strict => "ReplicaSet",
        };
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.field("activeDeadlineSeconds"), &detail);
    }
}

/// What of the template whoever writes it should know.
pub(super) fn warnings(object: &Object) -> Vec<String> {
    let path = Path::new("spec");
    let path = path.field("template");
    match object.at(&["spec", "template", "spec"]) {
        Some(spec) => super::pod::warnings::of_spec(spec, &path.field("spec")),
        None => Vec::new(),
    }
}

/// The selector of a workload stays as it is.
pub(super) fn immutable_selector(new: &Object, old: &Object, errors: &mut Errors) {
    let [new, old] = [new, old].map(|it| rules::at(rules::top(it, "spec"), "selector"));
    if new != old {
        let path = Path::new("spec");
        errors.invalid(&path.field("selector"), rules::shown_selector(new), "field is immutable");
    }
}

/// Numbers of a status that cannot be more than another one.
pub(super) fn not_more(
    status: &Value,
    pairs: &[(&str, &str, &str)],
    path: &Path<'_>,
    errors: &mut Errors,
) {
    for (key, bound, detail) in pairs {
        let number = rules::number(status, key);
        if number > rules::number(status, bound) {
            errors.invalid(&path.field(key), number, detail);
        }
    }
}

/// The count of collisions of names only grows.
pub(super) fn collisions(new: &Object, old: &Object, errors: &mut Errors) {
    let new = new.i64_at(&["status", "collisionCount"]);
    let old = old.at(&["status", "collisionCount"]).and_then(Value::as_i64);
    if old.is_some_and(|old| new < old) {
        let path = Path::new("status");
        errors.invalid(&path.field("collisionCount"), new, "cannot be decremented");
    }
}

/// A status in which some numbers are always there.
pub(super) fn empty_status(object: &mut Object, numbers: &[&str]) {
    let numbers = numbers.iter().map(|name| ((*name).to_owned(), Value::from(0)));
    object.0.insert("status".into(), Value::Object(numbers.collect()));
}

/// A strategy of updates as Kubernetes shows it, which is by the names of its own fields.
pub(super) fn shown_strategy(strategy: &Value) -> Shown {
    let rolling = match rules::at(strategy, "rollingUpdate") {
        Value::Null => "null".to_owned(),
        rolling => format!(
            "{{\"MaxUnavailable\":{},\"MaxSurge\":{}}}",
            rules::at(rolling, "maxUnavailable"),
            rules::at(rolling, "maxSurge")
        ),
    };
    let kind = json!(rules::text(strategy, "type"));
    Shown(format!("{{\"Type\":{kind},\"RollingUpdate\":{rolling}}}"))
}

/// The names and images of the containers of a template. Source: `layoutContainerCells`.
pub(super) fn containers(object: &Object) -> [Value; 2] {
    let containers = object.list_at(&["spec", "template", "spec", "containers"]);
    ["name", "image"].map(|key| {
        let texts: Vec<&str> = containers.iter().map(|it| rules::text(it, key)).collect();
        texts.join(",").into()
    })
}

/// A selector as a table shows it. Source: `metav1.FormatLabelSelector`.
pub(super) fn selector_text(object: &Object) -> Value {
    let text = label_selector::text(rules::at(rules::top(object, "spec"), "selector"));
    if text.is_empty() { "<none>".into() } else { text.into() }
}
