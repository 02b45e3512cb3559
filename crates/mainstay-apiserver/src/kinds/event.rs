//! Events, in the version of the core and in that of `events.k8s.io`, which are stored as the former.
//!
//! Source: `pkg/registry/core/event`, `pkg/apis/events/v1/conversion.go` and
//! `pkg/apis/core/validation/events.go`.

use std::borrow::Cow;

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path, Shown, names};
use serde_json::Value;

use super::rules;
use crate::kind::{Column, NAME, PLAIN, Resource, Strategy, column, wide};
use crate::object::Object;
use crate::table;

pub(crate) static EVENTS: Resource = LIKE;

pub(super) static NEWER_EVENTS: Resource =
    Resource { group: "events.k8s.io", strategy: &Events { core: false }, ..LIKE };

/// What the two versions have in common.
const LIKE: Resource = Resource {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    storage: "events",
    lazy: true,
    strategy: &Events { core: true },
    ..PLAIN
};

struct Events {
    core: bool,
}

/// The fields that differ: what the core calls them, and what `events.k8s.io` does.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

impl Events {
    fn name_of(&self, core: &'static str) -> &'static str {
        let renamed = RENAMED.iter().find(|(name, _)| *name == core);
        match (self.core, renamed) {
            (false, Some((_, other))) => other,
            _ => core,
        }
    }
}

/// The longest action, reason and reporting instance, in bytes.
const MAX_TEXT: usize = 128;

/// The longest message.
const MAX_MESSAGE: usize = 1024;

impl Events {
    /// Source: `legacyValidateEvent`. Paths are those of the core in both versions, but for one.
    fn every(&self, object: &Object, errors: &mut Errors) {
        let involved = object.str_at(&[self.name_of("involvedObject"), "namespace"]);
        let own = object.namespace();
        let mut mismatch = |wrong: bool| {
            if wrong {
                let path = Path::new("involvedObject");
                let detail = "does not match event.namespace";
                errors.invalid(&path.field("namespace"), involved, detail);
            }
        };
        if object.str_at(&["eventTime"]).is_empty() {
            mismatch(match involved {
                "" => own != "default",
                involved => own != involved,
            });
            return;
        }
        mismatch(involved.is_empty() && !matches!(own, "default" | "kube-system"));
        let controller = object.str_at(&[self.name_of("reportingComponent")]);
        let path = Path::new(self.name_of("reportingComponent"));
        if controller.is_empty() {
            errors.required(&path, "");
        }
        errors.invalid_all(&path, controller, names::label_key(controller));
        for key in ["reportingInstance", "action", "reason"] {
            let text = object.str_at(&[key]);
            if text.is_empty() {
                errors.required(&Path::new(key), "");
            }
            at_most(text, MAX_TEXT, key, errors);
        }
        at_most(object.str_at(&[self.name_of("message")]), MAX_MESSAGE, "message", errors);
    }

    /// What only the newer version asks for.
    fn newer(&self, object: &Object, errors: &mut Errors) {
        if object.str_at(&["eventTime"]).is_empty() {
            errors.required(&Path::new("eventTime"), "");
        }
        let kind = object.str_at(&["type"]);
        if !matches!(kind, "Normal" | "Warning") {
            errors.invalid(&Path::new("type"), "", &format!("has invalid value: {kind}"));
        }
        let source = rules::top(object, self.name_of("source"));
        let set = |key: &'static str| !object.str_at(&[self.name_of(key)]).is_empty();
        let fields = [
            ("firstTimestamp", set("firstTimestamp")),
            ("lastTimestamp", set("lastTimestamp")),
            ("count", object.i64_at(&[self.name_of("count")]) != 0),
            (
                "source",
                ["component", "host"].iter().any(|key| !rules::text(source, key).is_empty()),
            ),
        ];
        for (field, _) in fields.into_iter().filter(|(_, set)| *set) {
            errors.invalid(&Path::new(field), "", "needs to be unset");
        }
    }

    /// What the newer version does not let change.
    fn immutable(&self, new: &Object, old: &Object, errors: &mut Errors) {
        let fields = [
            "reason",
            "message",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "count",
            "type",
            "eventTime",
            "action",
            "related",
            "reportingComponent",
            "reportingInstance",
        ];
        let [target, before] = [new, old].map(|it| rules::top(it, self.name_of("involvedObject")));
        if target != before {
            errors.invalid(&Path::new("involvedObject"), reference(target), "field is immutable");
        }
        for core in fields {
            let [new, old] = [new, old].map(|it| rules::top(it, self.name_of(core)));
            let path = if core == "reportingComponent" { "reportingController" } else { core };
            rules::immutable(new, old, &Path::new(path), errors);
        }
    }
}

/// `validateV1EventSeries`.
fn series(object: &Object, errors: &mut Errors) {
    let series = rules::top(object, "series");
    if series.is_null() {
        return;
    }
    if rules::number(series, "count") < 2 {
        errors.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
    if rules::text(series, "lastObservedTime").is_empty() {
        errors.required(&Path::new("series.lastObservedTime"), "");
    }
}

fn at_most(text: &str, max: usize, field: &str, errors: &mut Errors) {
    if text.len() > max {
        errors.invalid(&Path::new(field), "", &format!("can have at most {max} characters"));
    }
}

/// Gives fields other names: the first of each pair becomes the second.
fn rename(object: &mut Object, names: [(&str, &str); RENAMED.len()]) {
    for (from, to) in names {
        if let Some(value) = object.0.remove(from) {
            object.0.insert(to.into(), value);
        }
    }
}

/// A reference to an object as Kubernetes shows it, which is by the names of its own fields.
fn reference(reference: &Value) -> Shown {
    let fields = [
        ("Kind", "kind"),
        ("Namespace", "namespace"),
        ("Name", "name"),
        ("UID", "uid"),
        ("APIVersion", "apiVersion"),
        ("ResourceVersion", "resourceVersion"),
        ("FieldPath", "fieldPath"),
    ];
    let fields =
        fields.map(|(go, key)| format!("\"{go}\":{}", Value::from(rules::text(reference, key))));
    Shown(format!("{{{}}}", fields.join(",")))
}

impl Strategy for Events {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn name_errors(&self, name: &str) -> Vec<String> {
        // Kubernetes looks at the names of the older ones no more closely.
        if self.core { rules::path_segment(name) } else { names::dns_subdomain(name) }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        self.every(object, &mut errors);
        if !self.core {
            series(object, &mut errors);
            self.newer(object, &mut errors);
        }
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        self.every(new, &mut errors);
        if !self.core {
            if rules::top(new, "series") != rules::top(old, "series") {
                series(new, &mut errors);
            }
            self.immutable(new, old, &mut errors);
        }
        errors.0
    }

    fn selectable(&self) -> &'static [&'static str] {
        if self.core {
            &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ]
        } else {
            &[
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingController",
                "type",
            ]
        }
    }

    fn field<'a>(&self, object: &'a Object, field: &str) -> Cow<'a, str> {
        match field.split_once('.') {
            Some((object_field, key)) => object.str_at(&[object_field, key]).into(),
            None if field == "source" => {
                let component = object.str_at(&["source", "component"]);
                if component.is_empty() {
                    object.str_at(&["reportingComponent"]).into()
                } else {
                    component.into()
                }
            }
            None => object.str_at(&[field]).into(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            column(
                "Last Seen",
                "string",
                "The time at which the most recent occurrence of this event was recorded.",
            ),
            column(
                "Type",
                "string",
                "Type of this event (Normal, Warning), new types could be added in the future",
            ),
            column(
                "Reason",
                "string",
                "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
            ),
            column("Object", "string", "The object that this event is about."),
            wide(
                "Subobject",
                "string",
                "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2].",
            ),
            wide(
                "Source",
                "string",
                "The component reporting this event. Should be a short machine understandable string.",
            ),
            column(
                "Message",
                "string",
                "A human-readable description of the status of this operation.",
            ),
            wide(
                "First Seen",
                "string",
                "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
            ),
            wide("Count", "string", "The number of times this event has occurred."),
            Column { priority: 1, ..NAME },
        ];
        COLUMNS
    }

    /// Source: `printEvent`.
    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let text = |name: &'static str| object.str_at(&[self.name_of(name)]);
        let series = object.at(&["series"]);
        let or = |first: &str, second: &str| {
            let time = if first.is_empty() { second } else { first };
            table::since(time, now)
        };
        let event_time = object.str_at(&["eventTime"]);
        let first = or(text("firstTimestamp"), event_time);
        let observed = series.and_then(|it| it.get("lastObservedTime")?.as_str());
        let last = match observed {
            Some(time) => table::since(time, now),
            None if text("lastTimestamp").is_empty() => first.clone(),
            None => table::since(text("lastTimestamp"), now),
        };
        let count = match series.and_then(|it| it.get("count")?.as_i64()) {
            Some(count) => count,
            None => object.i64_at(&[self.name_of("count")]).max(1),
        };
        let involved = |key: &str| object.str_at(&[self.name_of("involvedObject"), key]);
        let target = if involved("name").is_empty() {
            involved("kind").to_lowercase()
        } else {
            format!("{}/{}", involved("kind").to_lowercase(), involved("name"))
        };
        let source = self.name_of("source");
        let component = match object.str_at(&[source, "component"]) {
            "" => object.str_at(&[self.name_of("reportingComponent")]),
            component => component,
        };
        let host = match object.str_at(&[source, "host"]) {
            "" => object.str_at(&["reportingInstance"]),
            host => host,
        };
        let from = match (component, host) {
            (component, "") => component.to_owned(),
            (component, host) => format!("{component}, {host}"),
        };
        vec![
            last.into(),
            text("type").into(),
            text("reason").into(),
            target.into(),
            involved("fieldPath").into(),
            from.into(),
            text("message").trim().into(),
            first.into(),
            count.into(),
            object.name().into(),
        ]
    }

    fn served(&self, object: &mut Object) {
        if !self.core {
            rename(object, RENAMED);
        }
    }

    fn stored(&self, object: &mut Object) {
        if !self.core {
            rename(object, RENAMED.map(|(core, other)| (other, core)));
        }
    }

    fn converts(&self) -> bool {
        !self.core
    }
}
