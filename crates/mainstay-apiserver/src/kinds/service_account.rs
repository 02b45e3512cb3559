//! ServiceAccounts.
//!
//! Source: `pkg/registry/core/serviceaccount` and `ValidateServiceAccount`.

use serde_json::Value;

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, Subresource};
use crate::object::Object;
use crate::table;

pub(crate) static SERVICE_ACCOUNTS: Resource = Resource {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        kind: "TokenRequest",
        of: Some(("authentication.k8s.io", "v1")),
        verbs: &["create"],
    }],
    storage: "serviceaccounts",
    strategy: &ServiceAccounts,
    ..PLAIN
};

struct ServiceAccounts;

/// Source: `EnforceMountableSecretsAnnotation`.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

impl Strategy for ServiceAccounts {
    fn prepare_create(&self, object: &mut Object) {
        keep_names(object);
    }

    fn prepare_update(&self, new: &mut Object, _old: &Object) {
        keep_names(new);
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        match object.annotation(ENFORCE) {
            Some(_) => vec![format!(
                "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to \
                 isolate access to mounted secrets"
            )],
            None => Vec::new(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, AGE];
        COLUMNS
    }

    fn row(&self, object: &Object, now: jiff::Timestamp) -> Vec<Value> {
        vec![object.name().into(), table::age(object, now)]
    }
}

/// Of the secrets an account can use only the names are kept. Source: `cleanSecretReferences`.
fn keep_names(object: &mut Object) {
    let Some(Value::Array(secrets)) = object.0.get_mut("secrets") else { return };
    for secret in secrets {
        *secret = match rules::text(secret, "name") {
            "" => serde_json::json!({}),
            name => serde_json::json!({ "name": name }),
        };
    }
}
