//! Leases: who leads, and whether a node is there.
//!
//! Source: `pkg/registry/coordination/lease` and `ValidateLease`.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path};
use serde_json::Value;

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::Object;
use crate::table;

pub(super) static LEASES: Resource = Resource {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    storage: "leases",
    lazy: true,
    strategy: &Leases,
    ..PLAIN
};

struct Leases;

impl Strategy for Leases {
    fn judges_metadata_again(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut Object) {
        drop_gated(object);
    }

    fn prepare_update(&self, new: &mut Object, _old: &Object) {
        drop_gated(new);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let spec = rules::top(object, "spec");
        let path = Path::new("spec");
        if let Some(duration) =
            rules::at(spec, "leaseDurationSeconds").as_i64().filter(|it| *it <= 0)
        {
            errors.invalid(&path.field("leaseDurationSeconds"), duration, "must be greater than 0");
        }
        rules::non_negative(spec, &["leaseTransitions"], &path, &mut errors);
        errors.0
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, column("Holder", "string", "Who holds it; may be empty."), AGE];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.str_at(&["spec", "holderIdentity"]).into(),
            table::age(object, now),
        ]
    }
}

/// Fields of the feature gate `CoordinatedLeaderElection`, which is off.
fn drop_gated(object: &mut Object) {
    let spec = object.field_mut("spec");
    spec.remove("strategy");
    spec.remove("preferredHolder");
}
