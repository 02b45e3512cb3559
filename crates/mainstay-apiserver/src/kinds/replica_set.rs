//! ReplicaSets.
//!
//! Source: `pkg/registry/apps/replicaset` and `ValidateReplicaSet`.

use std::borrow::Cow;

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path};
use serde_json::Value;

use super::rules;
use super::workload::{self, Selector};
use crate::kind::{self, AGE, Column, NAME, PLAIN, Resource, Strategy, column, wide};
use crate::object::Object;
use crate::table;

pub(super) static REPLICA_SETS: Resource = Resource {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[kind::SCALE, kind::status("ReplicaSet")],
    storage: "replicasets.apps",
    strategy: &ReplicaSets,
    ..PLAIN
};

struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Object) {
        workload::default_template(object);
        workload::default_number(object, "replicas", 1);
    }

    fn prepare_create(&self, object: &mut Object) {
        workload::empty_status(object, &["replicas"]);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let spec = rules::top(object, "spec");
        let path = Path::new("spec");
        rules::non_negative(spec, &["replicas", "minReadySeconds"], &path, &mut errors);
        workload::selector_and_template(spec, Selector::Strict, &path, &mut errors);
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors(self.validate(new));
        workload::immutable_selector(new, old, &mut errors);
        errors.0
    }

    fn validate_status(&self, new: &Object, _old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let keys = [
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ];
        let (status, path) = (rules::top(new, "status"), Path::new("status"));
        rules::non_negative(status, &keys, &path, &mut errors);
        const DETAIL: &str = "cannot be greater than status.replicas";
        let pairs = [
            ("fullyLabeledReplicas", "replicas", DETAIL),
            ("readyReplicas", "replicas", DETAIL),
            ("availableReplicas", "replicas", DETAIL),
            ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
        ];
        workload::not_more(status, &pairs, &path, &mut errors);
        errors.0
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn field<'a>(&self, object: &'a Object, _field: &str) -> Cow<'a, str> {
        object.i64_at(&["status", "replicas"]).to_string().into()
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        workload::warnings(object)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Desired", "integer", "How many pods there should be."),
            column("Current", "integer", "How many there are."),
            column("Ready", "integer", "How many of them are ready."),
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
            object.i64_at(&["spec", "replicas"]).into(),
            status("replicas"),
            status("readyReplicas"),
            table::age(object, now),
            names,
            images,
            workload::selector_text(object),
        ]
    }
}
