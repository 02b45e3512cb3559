//! Deployments.
//!
//! Source: `pkg/registry/apps/deployment` and `ValidateDeployment`.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path, as_json};
use serde_json::Value;

use super::rules;
use super::workload::{self, ROLLING, Selector};
use crate::kind::{self, AGE, Column, NAME, PLAIN, Resource, Strategy, column, wide};
use crate::object::{self, Object};
use crate::table;

pub(super) static DEPLOYMENTS: Resource = Resource {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[kind::SCALE, kind::status("Deployment")],
    storage: "deployments.apps",
    strategy: &Deployments,
    ..PLAIN
};

struct Deployments;

impl Strategy for Deployments {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn next_generation(&self, new: &Object, old: &Object) -> bool {
        let differs = |path: &[&str]| new.at(path) != old.at(path);
        differs(&["spec"]) || differs(&["metadata", "annotations"])
    }

    /// Source: `SetDefaults_Deployment`.
    fn default(&self, object: &mut Object) {
        workload::default_template(object);
        workload::default_number(object, "replicas", 1);
        workload::default_number(object, "revisionHistoryLimit", 10);
        workload::default_number(object, "progressDeadlineSeconds", 600);
        let strategy = workload::default_strategy(object, "strategy");
        if strategy.get("type") == Some(&ROLLING.into()) {
            let rolling = object::object_of(strategy, "rollingUpdate");
            for key in ["maxUnavailable", "maxSurge"] {
                rolling.entry(key).or_insert_with(|| "25%".into());
            }
        }
    }

    fn resets(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "" => &["status"],
            "status" => &["spec", "metadata.labels"],
            _ => &[],
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        workload::empty_status(object, &[]);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        spec(rules::top(object, "spec"), &mut errors);
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors(self.validate(new));
        workload::immutable_selector(new, old, &mut errors);
        errors.0
    }

    fn validate_status(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let keys = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ];
        let (status, path) = (rules::top(new, "status"), Path::new("status"));
        rules::non_negative(status, &keys, &path, &mut errors);
        const DETAIL: &str = "cannot be greater than status.replicas";
        let pairs = [
            ("updatedReplicas", "replicas", DETAIL),
            ("readyReplicas", "replicas", DETAIL),
            ("availableReplicas", "replicas", DETAIL),
            ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
        ];
        workload::not_more(status, &pairs, &path, &mut errors);
        workload::collisions(new, old, &mut errors);
        errors.0
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        workload::warnings(object)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Ready", "string", "Pods that are ready, of those that should be."),
            column("Up-to-date", "string", "Pods that are made from the template as it is now."),
            column("Available", "string", "Pods that have been ready for long enough."),
            AGE,
            wide("Containers", "string", "Names of the containers of the template."),
            wide("Images", "string", "Images of the containers of the template."),
            wide("Selector", "string", "The labels of its pods."),
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let status = |key| object.i64_at(&["status", key]);
        let [names, images] = workload::containers(object);
        vec![
            object.name().into(),
            format!("{}/{}", status("readyReplicas"), object.i64_at(&["spec", "replicas"])).into(),
            status("updatedReplicas").into(),
            status("availableReplicas").into(),
            table::age(object, now),
            names,
            images,
            workload::selector_text(object),
        ]
    }
}

/// `ValidateDeploymentSpec`.
fn spec(spec: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    rules::non_negative(spec, &["replicas"], &path, errors);
    workload::selector_and_template(spec, Selector::Strict, &path, errors);
    strategy(rules::at(spec, "strategy"), &path.field("strategy"), errors);
    rules::non_negative(spec, &["minReadySeconds", "revisionHistoryLimit"], &path, errors);
    if let Some(deadline) = rules::at(spec, "progressDeadlineSeconds").as_i64() {
        let path = path.field("progressDeadlineSeconds");
        rules::non_negative(spec, &["progressDeadlineSeconds"], &Path::new("spec"), errors);
        if deadline <= rules::number(spec, "minReadySeconds") {
            errors.invalid(&path, deadline, "must be greater than minReadySeconds");
        }
    }
}

fn strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let rolling = rules::at(strategy, "rollingUpdate");
    match rules::text(strategy, "type") {
        "Recreate" if !rolling.is_null() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden(&path.field("rollingUpdate"), detail);
        }
        "Recreate" => {}
        ROLLING => {
            let path = path.field("rollingUpdate");
            let [unavailable, surge] =
                ["maxUnavailable", "maxSurge"].map(|key| rules::at(rolling, key));
            rules::amount(unavailable, &path.field("maxUnavailable"), errors);
            rules::amount(surge, &path.field("maxSurge"), errors);
            if rules::is_zero(unavailable) && rules::is_zero(surge) {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.invalid(&path.field("maxUnavailable"), as_json(unavailable), detail);
            }
            rules::not_more_than_all(unavailable, &path.field("maxUnavailable"), errors);
        }
        _ => errors.not_supported(path, workload::shown_strategy(strategy), &["Recreate", ROLLING]),
    }
}
