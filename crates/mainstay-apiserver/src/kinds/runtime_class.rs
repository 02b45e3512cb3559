//! RuntimeClasses.
//!
//! Source: `pkg/registry/node/runtimeclass` and `ValidateRuntimeClass`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mainstay_pod::validate::{self, Errors, FieldError, Path, Shown, names};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::Object;
use crate::table;

pub(crate) static RUNTIME_CLASSES: Resource = Resource {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    namespaced: false,
    storage: "runtimeclasses",
    strategy: &RuntimeClasses,
    ..PLAIN
};

struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        handler(object, &mut errors);
        overhead(rules::top(object, "overhead"), &mut errors);
        scheduling(rules::top(object, "scheduling"), &mut errors);
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let changed = new.str_at(&["handler"]);
        handler(new, &mut errors);
        if changed != old.str_at(&["handler"]) {
            errors.invalid(&Path::new("handler"), changed, "field is immutable");
        }
        overhead(rules::top(new, "overhead"), &mut errors);
        scheduling(rules::top(new, "scheduling"), &mut errors);
        errors.0
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, column("Handler", "string", "What the runtime calls it."), AGE];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.str_at(&["handler"]).into(), table::age(object, now)]
    }
}

fn handler(object: &Object, errors: &mut Errors) {
    let path = Path::new("handler");
    match object.str_at(&["handler"]) {
        "" => errors.required(&path, ""),
        handler => errors.invalid_all(&path, handler, names::dns_label(handler)),
    }
}

fn overhead(overhead: &Value, errors: &mut Errors) {
    let fixed = rules::at(overhead, "podFixed");
    if let Ok(fixed) = BTreeMap::<String, Quantity>::deserialize(fixed) {
        validate::overhead(&fixed, &Path::new("overhead"), errors);
    }
}

fn scheduling(scheduling: &Value, errors: &mut Errors) {
    let path = Path::new("scheduling");
    rules::labels(rules::at(scheduling, "nodeSelector"), &path.field("nodeSelector"), errors);
    let path = path.field("tolerations");
    let given = rules::at(scheduling, "tolerations");
    let tolerations = Vec::<Toleration>::deserialize(given).unwrap_or_default();
    validate::tolerations(&tolerations, &path, errors);
    let key = |it: &Toleration| Toleration { toleration_seconds: None, ..it.clone() };
    for (index, toleration) in tolerations.iter().enumerate() {
        if tolerations.iter().take(index).any(|other| key(other) == key(toleration)) {
            errors.duplicate(&path.index(index), as_go(toleration));
        }
    }
}

/// A toleration as Kubernetes shows it, which is by the names of its own fields.
fn as_go(it: &Toleration) -> Shown {
    let text = |text: &Option<String>| json!(text.as_deref().unwrap_or_default());
    Shown(format!(
        "{{\"Key\":{},\"Operator\":{},\"Value\":{},\"Effect\":{},\"TolerationSeconds\":{}}}",
        text(&it.key),
        text(&it.operator),
        text(&it.value),
        text(&it.effect),
        json!(it.toleration_seconds)
    ))
}
