//! PriorityClasses.
//!
//! Source: `pkg/registry/scheduling/priorityclass` and `ValidatePriorityClass`.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path};
use serde_json::Value;

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::Object;
use crate::table;

pub(crate) static PRIORITY_CLASSES: Resource = Resource {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    storage: "priorityclasses",
    strategy: &PriorityClasses,
    ..PLAIN
};

struct PriorityClasses;

/// The highest priority that is not the system's. Source: `HighestUserDefinablePriority`.
const MAX_VALUE: i64 = 1_000_000_000;

/// What names of the system's classes begin with.
const SYSTEM: &str = "system-";

/// The system's classes. Source: `SystemPriorityClasses`.
pub(crate) const SYSTEM_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node \
         if necessary.",
    ),
];

impl Strategy for PriorityClasses {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        object.0.entry("preemptionPolicy").or_insert_with(|| "PreemptLowerPriority".into());
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let value = object.i64_at(&["value"]);
        if object.name().starts_with(SYSTEM) {
            let default = *rules::top(object, "globalDefault") == true;
            if let Some(why) = no_system_class(object.name(), value, default) {
                let path = Path::new("metadata");
                let detail = format!(
                    "priority class names with '{SYSTEM}' prefix are reserved for system use only. \
                     error: {why}"
                );
                errors.forbidden(&path.field("name"), &detail);
            }
        } else if value > MAX_VALUE {
            let detail = format!("maximum allowed value of a user defined priority is {MAX_VALUE}");
            errors.forbidden(&Path::new("value"), &detail);
        }
        let path = Path::new("preemptionPolicy");
        match rules::top(object, "preemptionPolicy").as_str() {
            None => {}
            Some("") => errors.required(&path, ""),
            Some(policy) => errors.one_of(&path, policy, &["PreemptLowerPriority", "Never"]),
        }
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        if new.i64_at(&["value"]) != old.i64_at(&["value"]) {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        let [policy, before] = [new, old].map(|it| rules::top(it, "preemptionPolicy"));
        rules::immutable(policy, before, &Path::new("preemptionPolicy"), &mut errors);
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Value", "integer", "The priority of pods of the class."),
            column("Global-Default", "boolean", "Whether it is that of pods that name none."),
            AGE,
            column("PreemptionPolicy", "string", "Whether others have to go for its pods."),
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.i64_at(&["value"]).into(),
            (*rules::top(object, "globalDefault") == true).into(),
            table::age(object, now),
            object.str_at(&["preemptionPolicy"]).into(),
        ]
    }
}

/// Source: `IsKnownSystemPriorityClass`.
fn no_system_class(name: &str, value: i64, default: bool) -> Option<String> {
    let Some((_, known, _)) = SYSTEM_CLASSES.iter().find(|(known, ..)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if value != *known {
        return Some(format!("value of {name} PriorityClass must be {known}"));
    }
    default.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}
