//! CertificateSigningRequests. Who asks is set by admission; who may approve and sign is judged there.
//!
//! Source: `pkg/registry/certificates/certificates` and `pkg/apis/certificates/validation`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mainstay_pod::validate::{Errors, FieldError, Json, Path, as_json, names};
use serde_json::{Value, json};

use super::rules;
use crate::kind::{self, AGE, Column, NAME, PLAIN, Resource, Strategy, column};
use crate::object::{self, Object};
use crate::table;

pub(super) static CERTIFICATE_SIGNING_REQUESTS: Resource = Resource {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    subresources: &[
        kind::part("approval", "CertificateSigningRequest"),
        kind::status("CertificateSigningRequest"),
    ],
    storage: "certificatesigningrequests.certificates.k8s.io",
    strategy: &CertificateSigningRequests,
    ..PLAIN
};

struct CertificateSigningRequests;

/// A certificate that is valid for less is of no use, in seconds.
const MIN_SECONDS: i64 = 600;

/// The signer of older versions, which meant any.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// Conditions that are there or not.
const TRUE_CONDITIONS: [&str; 3] = ["Approved", "Denied", "Failed"];

/// What a certificate can be for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Strategy for CertificateSigningRequests {
    fn resets(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "" => &["spec", "status"],
            "status" => &["spec", "status.conditions"],
            "approval" => &["spec", "status.certificate"],
            _ => &[],
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({}));
    }

    fn prepare_update(&self, new: &mut Object, old: &Object) {
        new.0.insert("spec".into(), rules::top(old, "spec").clone());
    }

    fn prepare_part(&self, part: &str, new: &mut Object, old: &Object, now: Timestamp) {
        if part == "approval" {
            let conditions = new.at(&["status", "conditions"]).cloned();
            new.0.insert("status".into(), rules::top(old, "status").clone());
            let status = new.field_mut("status");
            match conditions {
                Some(conditions) => status.insert("conditions".into(), conditions),
                None => status.remove("conditions"),
            };
        } else {
            for kind in ["Approved", "Denied"] {
                keep_instances(new, old, kind);
            }
        }
        set_times(new, old, now);
    }

    fn name_errors(&self, name: &str) -> Vec<String> {
        rules::path_segment(name)
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        spec(rules::top(object, "spec"), &mut errors);
        errors.0
    }

    fn validate_update(&self, _new: &Object, _old: &Object) -> Vec<FieldError> {
        // Both parts have been put back.
        Vec::new()
    }

    fn validate_part(&self, part: &str, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = Errors::default();
        let status = Path::new("status");
        let path = status.field("conditions");
        conditions(new, old, &path, &mut errors);
        certificate(new, old, &status.field("certificate"), &mut errors);
        for kind in TRUE_CONDITIONS {
            let [before, after] = [old, new].map(|it| of_type(it, kind).count());
            if after < before {
                let detail = format!("updates may not remove a condition of type {kind:?}");
                errors.forbidden(&path, &detail);
            } else if after > before && part != "approval" && kind != "Failed" {
                let detail = format!("updates may not add a condition of type {kind:?}");
                errors.forbidden(&path, &detail);
            }
        }
        errors.0
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn field<'a>(&self, object: &'a Object, _field: &str) -> Cow<'a, str> {
        object.str_at(&["spec", "signerName"]).into()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            AGE,
            column("SignerName", "string", "Who is asked to sign."),
            column("Requestor", "string", "Who asks."),
            column("RequestedDuration", "string", "For how long it shall be valid."),
            column("Condition", "string", "What has become of it."),
        ];
        COLUMNS
    }

    fn row(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let seconds = object.at(&["spec", "expirationSeconds"]).and_then(Value::as_i64);
        vec![
            object.name().into(),
            table::age(object, now),
            table::or_none(object.str_at(&["spec", "signerName"])),
            object.str_at(&["spec", "username"]).into(),
            seconds.map_or_else(|| "<none>".to_owned(), table::human_duration).into(),
            condition(object).into(),
        ]
    }
}

/// Source: `extractCSRStatus`.
fn condition(object: &Object) -> String {
    let has = |kind| of_type(object, kind).next().is_some();
    let mut text = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !object.str_at(&["status", "certificate"]).is_empty() {
        text.push_str(",Issued");
    }
    text
}

fn of_type<'a>(object: &'a Object, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let conditions = object.list_at(&["status", "conditions"]).iter();
    conditions.filter(move |it| rules::text(it, "type") == kind)
}

/// Whoever changes the status does not change an approval. Source: `preserveConditionInstances`.
fn keep_instances(new: &mut Object, old: &Object, kind: &str) {
    let before: Vec<Value> = of_type(old, kind).cloned().collect();
    if of_type(new, kind).count() != before.len() {
        return;
    }
    let conditions = new.field_mut("status").get_mut("conditions").and_then(Value::as_array_mut);
    let ours = conditions.into_iter().flatten().filter(|it| rules::text(it, "type") == kind);
    for (condition, known) in ours.zip(before) {
        *condition = known;
    }
}

/// Source: `populateConditionTimestamps`.
fn set_times(new: &mut Object, old: &Object, now: Timestamp) {
    let now = Value::from(object::time(now));
    let conditions = new.field_mut("status").get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let known = old.list_at(&["status", "conditions"]).iter().find(|it| {
            ["type", "status"].iter().all(|key| rules::text(it, key) == rules::text(condition, key))
        });
        let since = known.map(|it| rules::at(it, "lastTransitionTime")).filter(|it| !it.is_null());
        let since = since.unwrap_or(&now).clone();
        let Some(condition) = condition.as_object_mut() else { continue };
        for (key, time) in [("lastUpdateTime", &now), ("lastTransitionTime", &since)] {
            let value = condition.entry(key).or_insert(Value::Null);
            if value.is_null() {
                *value = time.clone();
            }
        }
    }
}

fn spec(spec: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let request = rules::at(spec, "request");
    if let Some(why) = request_error(request) {
        errors.invalid(&path.field("request"), as_json(request), &why);
    }
    let usages = rules::texts(spec, "usages");
    let usages_path = path.field("usages");
    if usages.is_empty() {
        errors.required(&usages_path, "");
    }
    for (at, usage) in usages.iter().enumerate() {
        errors.one_of(&usages_path.index(at), usage, &USAGES);
    }
    for (at, usage) in usages.iter().enumerate() {
        if usages.iter().take(at).any(|other| other == usage) {
            errors.duplicate(&usages_path.index(at), Json(usage));
        }
    }
    signer(rules::text(spec, "signerName"), &path.field("signerName"), errors);
    if let Some(seconds) =
        rules::at(spec, "expirationSeconds").as_i64().filter(|it| *it < MIN_SECONDS)
    {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&path.field("expirationSeconds"), seconds, detail);
    }
}

/// Why a request cannot be signed. Source: `ParseCSR`, `CheckSignature`.
fn request_error(request: &Value) -> Option<String> {
    const NO_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
    let pem = request.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    if rules::pem_kinds(&pem).first().map(String::as_str) != Some("CERTIFICATE REQUEST") {
        return Some(NO_PEM.to_owned());
    }
    mainstay_pki::request_subject(&pem).err().map(|error| error.to_string())
}

/// `ValidateSignerName`.
fn signer(name: &str, path: &Path<'_>, errors: &mut Errors) {
    const FORM: &str =
        "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    if name == LEGACY_SIGNER {
        errors.invalid(path, name, "the legacy signerName is not allowed via this API version");
        return;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, rest] = parts.as_slice() else {
        errors.invalid(path, name, FORM);
        return;
    };
    for label in domain.split('.') {
        for message in names::dns_label(label) {
            errors.invalid(path, *domain, &format!("validating label {label:?}: {message}"));
        }
    }
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.invalid(path, *domain, detail);
    }
    for label in rest.split('.') {
        for message in names::dns_subdomain(label) {
            errors.invalid(path, *rest, &format!("validating label {label:?}: {message}"));
        }
    }
}

fn conditions(new: &Object, old: &Object, path: &Path<'_>, errors: &mut Errors) {
    let known: Vec<&str> = kinds_of(old);
    let both = |kinds: &[&str]| kinds.contains(&"Approved") && kinds.contains(&"Denied");
    let mut seen: Vec<&str> = Vec::new();
    for (at, condition) in new.list_at(&["status", "conditions"]).iter().enumerate() {
        let path_of = path.index(at);
        let kind = rules::text(condition, "type");
        if kind.is_empty() && !known.contains(&"") {
            errors.required(&path_of.field("type"), "");
        }
        let statuses: &[&str] =
            if TRUE_CONDITIONS.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        match rules::text(condition, "status") {
            "" => errors.required(&path_of.field("status"), ""),
            status => errors.one_of(&path_of.field("status"), status, statuses),
        }
        let repeated = seen.contains(&kind);
        seen.push(kind);
        if matches!(kind, "Approved" | "Denied") && both(&seen) && !both(&known) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(path, Json(kind), detail);
        }
        let repeated_before =
            known.iter().enumerate().any(|(at, kind)| known.iter().take(at).any(|it| it == kind));
        if repeated && !repeated_before {
            errors.duplicate(&path_of.field("type"), Json(kind));
        }
    }
}

fn kinds_of(object: &Object) -> Vec<&str> {
    object.list_at(&["status", "conditions"]).iter().map(|it| rules::text(it, "type")).collect()
}

fn certificate(new: &Object, old: &Object, path: &Path<'_>, errors: &mut Errors) {
    let [after, before] = [new, old].map(|it| it.str_at(&["status", "certificate"]));
    if after == before {
        return;
    }
    if let Some(why) = certificate_error(after) {
        errors.invalid(path, "<certificate data>", &why);
    }
    if !before.is_empty() {
        errors.forbidden(path, "updates may not modify existing certificate content");
    }
}

/// Source: `validateCertificate`.
fn certificate_error(base64: &str) -> Option<String> {
    let pem = STANDARD.decode(base64).unwrap_or_default();
    if pem.is_empty() {
        return None;
    }
    let kinds = rules::pem_kinds(&pem);
    if let Some(kind) = kinds.iter().find(|kind| *kind != "CERTIFICATE") {
        return Some(format!("only CERTIFICATE PEM blocks are allowed, found {kind:?}"));
    }
    kinds.is_empty().then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}
