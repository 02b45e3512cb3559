//! PodDisruptionBudgets: how many pods an eviction has to leave.
//!
//! Source: `pkg/registry/policy/poddisruptionbudget` and `ValidatePodDisruptionBudget`.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path, Shown};
use serde_json::{Value, json};

use super::rules;
use crate::kind::{self, AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::Object;
use crate::table;

pub(crate) static POD_DISRUPTION_BUDGETS: Resource = Resource {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[kind::status("PodDisruptionBudget")],
    storage: "poddisruptionbudgets",
    strategy: &PodDisruptionBudgets,
    ..PLAIN
};

struct PodDisruptionBudgets;

/// The numbers of a status.
const NUMBERS: [&str; 4] =
    ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];

impl Strategy for PodDisruptionBudgets {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Object) {
        let status = NUMBERS.map(|name| (name.to_owned(), Value::from(0)));
        object.0.insert("status".into(), Value::Object(status.into_iter().collect()));
    }

    fn name_errors(&self, name: &str) -> Vec<String> {
        // Kubernetes forgets to look at it more closely.
        rules::path_segment(name)
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        spec(rules::top(object, "spec"), &mut errors);
        errors.0
    }

    fn validate_status(&self, new: &Object, _old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let path = Path::new("status");
        let conditions = new.list_at(&["status", "conditions"]);
        rules::conditions(conditions, &path.field("conditions"), &mut errors);
        rules::non_negative(rules::top(new, "status"), &NUMBERS, &path, &mut errors);
        errors.0
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Min Available", "string", "How many pods an eviction has to leave."),
            column("Max Unavailable", "string", "How many pods may be missing after an eviction."),
            column("Allowed Disruptions", "integer", "How many pods can be evicted now."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = rules::top(object, "spec");
        let amount =
            |key| rules::amount_text(rules::at(spec, key)).unwrap_or_else(|| "N/A".to_owned());
        vec![
            object.name().into(),
            amount("minAvailable").into(),
            amount("maxUnavailable").into(),
            object.i64_at(&["status", "disruptionsAllowed"]).into(),
            table::age(object, now),
        ]
    }
}

/// `ValidatePodDisruptionBudgetSpec`.
fn spec(spec: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let amounts = ["minAvailable", "maxUnavailable"].map(|key| (key, rules::at(spec, key)));
    if amounts.iter().all(|(_, amount)| !amount.is_null()) {
        errors.invalid(&path, as_go(spec), "minAvailable and maxUnavailable cannot be both set");
    }
    for (key, amount) in amounts.into_iter().filter(|(_, amount)| !amount.is_null()) {
        rules::amount(amount, &path.field(key), errors);
        rules::not_more_than_all(amount, &path.field(key), errors);
    }
    rules::selector(rules::at(spec, "selector"), &path.field("selector"), errors);
    if let Some(policy) = rules::at(spec, "unhealthyPodEvictionPolicy").as_str() {
        let known = ["AlwaysAllow", "IfHealthyBudget"];
        errors.one_of(&path.field("unhealthyPodEvictionPolicy"), policy, &known);
    }
}

/// The spec as Kubernetes shows it, which is by the names of its own fields.
fn as_go(spec: &Value) -> Shown {
    let part = |key| rules::at(spec, key);
    let fields = [
        ("MinAvailable", "minAvailable"),
        ("Selector", "selector"),
        ("MaxUnavailable", "maxUnavailable"),
        ("UnhealthyPodEvictionPolicy", "unhealthyPodEvictionPolicy"),
    ];
    let fields: Vec<String> = fields
        .iter()
        .map(|(go, key)| match *key {
            "selector" => format!("{}:{}", json!(go), rules::shown_selector(part(key)).0),
            key => format!("{}:{}", json!(go), part(key)),
        })
        .collect();
    Shown(format!("{{{}}}", fields.join(",")))
}
