//! DaemonSets.
//!
//! Source: `pkg/registry/apps/daemonset`, `pkg/apis/apps/v1/conversion.go` and `ValidateDaemonSet`.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path, as_json};
use serde_json::Value;

use super::rules;
use super::workload::{self, ROLLING, Selector};
use crate::kind::{self, AGE, Column, NAME, PLAIN, Resource, Strategy, column, wide};
use crate::object::{self, Object};
use crate::table;

pub(super) static DAEMON_SETS: Resource = Resource {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[kind::status("DaemonSet")],
    storage: "daemonsets.apps",
    strategy: &DaemonSets,
    ..PLAIN
};

struct DaemonSets;

/// Where the generation of the template is, which has been a field before.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The numbers that a status always has.
const NUMBERS: [&str; 4] =
    ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];

impl Strategy for DaemonSets {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        true
    }

    /// Source: `SetDefaults_DaemonSet` and, for the annotation,
    /// `Convert_apps_DaemonSet_To_v1_DaemonSet`.
    fn default(&self, object: &mut Object) {
        set_template_generation(object, template_generation(object));
        workload::default_template(object);
        workload::default_number(object, "revisionHistoryLimit", 10);
        let strategy = workload::default_strategy(object, "updateStrategy");
        if strategy.get("type") == Some(&ROLLING.into()) {
            let rolling = object::object_of(strategy, "rollingUpdate");
            rolling.entry("maxUnavailable").or_insert_with(|| 1.into());
        }
        if let Some(Value::Object(rolling)) = strategy.get_mut("rollingUpdate") {
            rolling.entry("maxSurge").or_insert_with(|| 0.into());
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        workload::empty_status(object, &NUMBERS);
        let generation = template_generation(object).max(1);
        set_template_generation(object, generation);
    }

    fn prepare_update(&self, new: &mut Object, old: &Object) {
        // It is counted here and by nobody else.
        let generation = template_generation(old);
        let changed = new.at(&["spec", "template"]) != old.at(&["spec", "template"]);
        set_template_generation(new, if changed { generation + 1 } else { generation });
    }

    fn prepare_status(&self, new: &mut Object, old: &Object) {
        set_template_generation(new, template_generation(old));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let spec = rules::top(object, "spec");
        let path = Path::new("spec");
        workload::selector_and_template(spec, Selector::Lenient, &path, &mut errors);
        rules::non_negative(spec, &["minReadySeconds"], &path, &mut errors);
        let strategy = rules::at(spec, "updateStrategy");
        update_strategy(strategy, &path.field("updateStrategy"), &mut errors);
        rules::non_negative(spec, &["revisionHistoryLimit"], &path, &mut errors);
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        workload::immutable_selector(new, old, &mut errors);
        errors.0.extend(self.validate(new));
        errors.0
    }

    fn validate_status(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let others = [
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        let (status, path) = (rules::top(new, "status"), Path::new("status"));
        for keys in [NUMBERS.as_slice(), &others] {
            rules::non_negative(status, keys, &path, &mut errors);
        }
        workload::collisions(new, old, &mut errors);
        errors.0
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        workload::warnings(object)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Desired", "integer", "Nodes that should have a pod of it."),
            column("Current", "integer", "Nodes that should have one and do."),
            column("Ready", "integer", "Nodes whose pod is ready."),
            column(
                "Up-to-date",
                "integer",
                "Nodes whose pod is made from the template as it is now.",
            ),
            column("Available", "integer", "Nodes whose pod has been ready for long enough."),
            column("Node Selector", "string", "The labels of those nodes."),
            AGE,
            wide("Containers", "string", "Names of the containers of the template."),
            wide("Images", "string", "Images of the containers of the template."),
            wide("Selector", "string", "The labels of its pods."),
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let status = |key| Value::from(object.i64_at(&["status", key]));
        let [names, images] = workload::containers(object);
        vec![
            object.name().into(),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            table::pairs(object.at(&["spec", "template", "spec", "nodeSelector"])).into(),
            table::age(object, now),
            names,
            images,
            workload::selector_text(object),
        ]
    }
}

fn template_generation(object: &Object) -> i64 {
    object.annotation(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(object: &mut Object, generation: i64) {
    let annotations = object::object_of(object.meta_mut(), "annotations");
    annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string().into());
}

/// `ValidateDaemonSetUpdateStrategy`.
fn update_strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    match rules::text(strategy, "type") {
        "OnDelete" => {}
        ROLLING => {
            let rolling = rules::at(strategy, "rollingUpdate");
            rolling_update(rolling, &path.field("rollingUpdate"), errors);
        }
        _ => errors.not_supported(path, workload::shown_strategy(strategy), &[ROLLING, "OnDelete"]),
    }
}

/// `ValidateRollingUpdateDaemonSet`.
fn rolling_update(rolling: &Value, path: &Path<'_>, errors: &mut Errors) {
    let amounts = ["maxUnavailable", "maxSurge"].map(|key| (key, rules::at(rolling, key)));
    for (key, amount) in amounts {
        rules::amount(amount, &path.field(key), errors);
    }
    for (key, amount) in amounts {
        rules::not_more_than_all(amount, &path.field(key), errors);
    }
    let [(_, unavailable), (_, surge)] = amounts;
    match (rules::is_zero(unavailable), rules::is_zero(surge)) {
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.invalid(&path.field("maxSurge"), as_json(surge), detail);
        }
        (true, true) => {
            errors.required(&path.field("maxUnavailable"), "cannot be 0 when maxSurge is 0");
        }
        _ => {}
    }
}
