//! Secrets.
//!
//! Source: `pkg/registry/core/secret` and `ValidateSecret`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mainstay_pod::validate::{ACCOUNT_OF_SECRET, Errors, FieldError, Path, secret_of_type};
use serde_json::Value;

use super::rules;
use crate::kind::{AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::{self, Object};
use crate::table;

pub(crate) static SECRETS: Resource = Resource {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    storage: "secrets",
    strategy: &Secrets,
    ..PLAIN
};

struct Secrets;

/// Bytes of all values. Source: `MaxSecretSize`.
const MAX_SIZE: usize = 1024 * 1024;

impl Strategy for Secrets {
    fn default(&self, object: &mut Object) {
        // Source: `SetDefaults_Secret`, and the conversion, which writes `stringData` over `data`.
        rules::default_text(&mut object.0, "type", "Opaque");
        let Some(Value::Object(texts)) = object.0.remove("stringData") else { return };
        if texts.is_empty() {
            return;
        }
        let data = object::object_of(&mut object.0, "data");
        for (key, value) in texts {
            let text = value.as_str().unwrap_or_default();
            data.insert(key, STANDARD.encode(text).into());
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let data = rules::top(object, "data");
        let path = Path::new("data");
        rules::data_keys(data, &path, &mut errors);
        if rules::data_size(data, true) > MAX_SIZE {
            errors.too_long(&path, MAX_SIZE);
        }
        of_type(object, &mut errors);
        errors.0
    }

    fn validate_update(&self, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let [kind, before] = [new, old].map(|it| rules::top(it, "type"));
        rules::immutable(kind, before, &Path::new("type"), &mut errors);
        rules::immutable_data(new, old, &["data"], &mut errors);
        errors.0.extend(self.validate(new));
        errors.0
    }

    fn warnings(&self, object: &Object) -> Vec<String> {
        // Source: `GetWarningsForSecret`, which reads the pair as a server would.
        let pair = ["tls.crt", "tls.key"].map(|key| value_of(object, key));
        match pair {
            [Some(certificate), Some(key)] if object.str_at(&["type"]) == "kubernetes.io/tls" => {
                pair_warning(&certificate, &key).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn field<'a>(&self, object: &'a Object, _field: &str) -> Cow<'a, str> {
        object.str_at(&["type"]).into()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Type", "string", "What the values are for."),
            column("Data", "string", "The number of keys."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let keys = rules::top(object, "data").as_object().map_or(0, serde_json::Map::len);
        vec![
            object.name().into(),
            object.str_at(&["type"]).into(),
            keys.into(),
            table::age(object, now),
        ]
    }
}

/// A value, decoded.
fn value_of(object: &Object, key: &str) -> Option<Vec<u8>> {
    STANDARD.decode(object.at(&["data", key])?.as_str()?).ok()
}

/// What the types ask for.
fn of_type(object: &Object, errors: &mut Errors) {
    let there = |key: &str| object.at(&["data", key]).is_some();
    let value = |key: &str| there(key).then(|| value_of(object, key).unwrap_or_default());
    let account = object.annotation(ACCOUNT_OF_SECRET);
    secret_of_type(object.str_at(&["type"]), account, value, errors);
}

/// Why a certificate and a key do not go together, as far as PEM tells.
fn pair_warning(certificate: &[u8], key: &[u8]) -> Option<String> {
    let inputs = [("certificate", certificate), ("key", key)];
    let (empty, _) = inputs.into_iter().find(|(_, pem)| rules::pem_kinds(pem).is_empty())?;
    Some(format!("tls: failed to find any PEM data in {empty} input"))
}
