//! ConfigMaps.
//!
//! Source: `pkg/registry/core/configmap` and `ValidateConfigMap`.

use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Path};
use serde_json::Value;

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::Object;
use crate::table;

pub(super) static CONFIG_MAPS: Resource = Resource {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    storage: "configmaps",
    strategy: &ConfigMaps,
    ..PLAIN
};

struct ConfigMaps;

/// Bytes of all values. Source: `MaxSecretSize`.
const MAX_SIZE: usize = 1024 * 1024;

impl Strategy for ConfigMaps {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let (data, binary) = (rules::top(object, "data"), rules::top(object, "binaryData"));
        let path = Path::new("data");
        rules::data_keys(data, &path, &mut errors);
        for key in data.as_object().into_iter().flatten().map(|(key, _)| key) {
            if binary.get(key).is_some() {
                errors.invalid(
                    &path.key(key),
                    key.as_str(),
                    "duplicate of key present in binaryData",
                );
            }
        }
        rules::data_keys(binary, &Path::new("binaryData"), &mut errors);
        if rules::data_size(data, false) + rules::data_size(binary, true) > MAX_SIZE {
            errors.too_long(&Path::new(""), MAX_SIZE);
        }
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        rules::immutable_data(new, old, &["data", "binaryData"], &mut errors);
        errors.0.extend(self.validate(new));
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Data", "string", "The number of keys."), AGE];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let keys = |name| rules::top(object, name).as_object().map_or(0, serde_json::Map::len);
        vec![
            object.name().into(),
            (keys("data") + keys("binaryData")).into(),
            table::age(object, now),
        ]
    }
}
