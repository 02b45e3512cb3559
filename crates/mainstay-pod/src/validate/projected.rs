//! Projected volumes.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, KeyToPath, PodCertificateProjection, ProjectedVolumeSource,
    ServiceAccountTokenProjection, VolumeProjection,
};

use super::volumes::{downward_file, key_to_path, mode};
use super::{Errors, as_json, metadata, names, security, text};
use crate::path::Path;

const KEY_TYPES: [&str; 6] =
    ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// Seconds that a certificate lasts at most: 91 days, or 24 hours from Kubernetes' own signers.
const CERTIFICATE_MAX: i32 = 91 * 24 * 60 * 60;
const KUBERNETES_CERTIFICATE_MAX: i32 = 24 * 60 * 60;

/// The longest signer name: a domain, a slash, a namespace, a dot and a name.
const SIGNER_MAX: usize = 2 * names::SUBDOMAIN_MAX + names::LABEL_MAX + 2;

/// The paths that sources of one volume have taken, and where a clash is reported.
struct Taken<'a> {
    paths: HashSet<String>,
    volume: &'a Path<'a>,
}

pub(super) fn projected(source: &ProjectedVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    mode(source.default_mode, &path.field("defaultMode"), errors);
    let mut taken = Taken { paths: HashSet::new(), volume: path };
    let sources = path.field("sources");
    for (at, source) in source.sources.iter().flatten().enumerate() {
        projection(source, &mut taken, &sources.index(at), errors);
    }
}

fn projection(
    source: &VolumeProjection,
    taken: &mut Taken<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let mut kinds = 0;
    let config_map = source.config_map.as_ref().map(|it| ("configMap", &it.name, &it.items));
    let secret = source.secret.as_ref().map(|it| ("secret", &it.name, &it.items));
    for (field, name, items) in [secret, config_map].into_iter().flatten() {
        kinds += 1;
        let path = path.field(field);
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        }
        let path = path.field("items");
        for (at, item) in items.iter().flatten().enumerate() {
            let KeyToPath { path: file, .. } = item;
            key_to_path(item, &path.index(at), errors);
            if !file.is_empty() {
                taken.take(file, name, errors);
            }
        }
    }
    if let Some(downward) = &source.downward_api {
        kinds += 1;
        let path = path.field("downwardAPI");
        let items = path.field("items");
        for (at, file) in downward.items.iter().flatten().enumerate() {
            errors.placed(&items.index(at), |errors| downward_file(file, &path, errors));
            if !file.path.is_empty() {
                taken.take(&file.path, &file.path, errors);
            }
        }
    }
    if let Some(token) = &source.service_account_token {
        kinds += 1;
        self::token(token, taken.volume, &path.field("serviceAccountToken"), errors);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        kinds += 1;
        trust_bundle(bundle, taken, &path.field("clusterTrustBundle"), errors);
    }
    if let Some(certificate) = &source.pod_certificate {
        kinds += 1;
        pod_certificate(certificate, taken, &path.field("podCertificate"), errors);
    }
    if kinds > 1 {
        errors.forbidden(path, "may not specify more than 1 volume type per source");
    }
}

// === impl Taken ===

impl Taken<'_> {
    fn take(&mut self, file: &str, shown: &str, errors: &mut Errors) {
        if !self.paths.insert(file.to_owned()) {
            errors.invalid(self.volume, shown, "conflicting duplicate paths");
        }
    }
}

fn token(
    token: &ServiceAccountTokenProjection,
    volume: &Path<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let expiration = token.expiration_seconds.unwrap_or(0);
    let path = path.field("expirationSeconds");
    if expiration < 10 * 60 {
        errors.invalid(&path, expiration, "may not specify a duration less than 10 minutes");
    }
    if expiration > 1 << 32 {
        errors.invalid(&path, expiration, "may not specify a duration larger than 2^32 seconds");
    }
    // Kubernetes reports the path at the volume.
    let path = volume.field("path");
    if token.path.is_empty() {
        errors.required(&path, "");
    } else {
        security::local_non_reserved_path(&token.path, &path, errors);
    }
}

fn trust_bundle(
    bundle: &ClusterTrustBundleProjection,
    taken: &mut Taken<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            errors.invalid(path, as_json(bundle), "only one of name and signerName may be used");
        }
        (Some(name), None) => {
            let name_path = path.field("name");
            if name.is_empty() {
                errors.required(&name_path, "must be a valid object name");
            }
            for message in bundle_name(name) {
                let message = format!("not a valid clustertrustbundlename: {message}");
                errors.invalid(&name_path, name.as_str(), &message);
            }
            if let Some(selector) = &bundle.label_selector {
                let message = "labelSelector must be unset if name is specified";
                errors.invalid(&path.field("labelSelector"), as_json(selector), message);
            }
        }
        (None, Some(signer)) => {
            let signer_path = path.field("signerName");
            if signer.is_empty() {
                errors.required(&signer_path, "must be a valid signer name");
            }
            signer_name(signer, &signer_path, errors);
            let selector = bundle.label_selector.as_ref();
            metadata::label_selector(selector, &path.field("labelSelector"), errors);
        }
        (None, None) => errors.required(path, "either name or signerName must be specified"),
    }
    if bundle.path.is_empty() {
        errors.required(&path.field("path"), "");
    }
    security::local_non_reserved_path(&bundle.path, &path.field("path"), errors);
    taken.take(&bundle.path, &bundle.path, errors);
}

/// A bundle of a signer is named `<signer with its slash as a colon>:<name>`.
fn bundle_name(name: &str) -> Vec<String> {
    match name.rsplit_once(':') {
        None => names::dns_subdomain(name),
        Some((_, rest)) => names::dns_subdomain(rest),
    }
}

/// `ValidateSignerName`.
fn signer_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, rest] = parts[..] else {
        let message =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.invalid(path, name, message);
        return;
    };
    if domain.len() > names::SUBDOMAIN_MAX {
        errors.too_long(path, names::SUBDOMAIN_MAX);
    }
    first_bad_label(domain, names::dns_label, path, errors);
    if !domain.contains('.') {
        errors.invalid(
            path,
            domain,
            "should be a domain with at least two segments separated by dots",
        );
    }
    first_bad_label(rest, names::dns_subdomain, path, errors);
    if name.len() > SIGNER_MAX {
        errors.too_long(path, SIGNER_MAX);
    }
}

/// Reports only the first label that breaks the rule: the others would read the same.
fn first_bad_label(
    part: &str,
    rule: fn(&str) -> Vec<String>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let Some(label) = part.split('.').find(|label| !rule(label).is_empty()) else { return };
    for message in rule(label) {
        errors.invalid(path, part, &format!("validating label {label:?}: {message}"));
    }
}

fn pod_certificate(
    certificate: &PodCertificateProjection,
    taken: &mut Taken<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    signer_name(&certificate.signer_name, &path.field("signerName"), errors);
    let annotations = path.field("userAnnotations");
    for (key, _) in certificate.user_annotations.iter().flatten() {
        let key = key.to_lowercase();
        let messages = names::label_key(&key);
        if messages.is_empty() && !key.contains('/') {
            let message = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            errors.invalid(&annotations, key.as_str(), message);
        }
        errors.invalid_all(&annotations, &key, messages);
    }
    let size: usize = certificate
        .user_annotations
        .iter()
        .flatten()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if size > 256 * 1024 {
        errors.too_long(&annotations, 256 * 1024);
    }
    if !KEY_TYPES.contains(&certificate.key_type.as_str()) {
        errors.not_supported(&path.field("keyType"), certificate.key_type.as_str(), &KEY_TYPES);
    }
    if let Some(seconds) = certificate.max_expiration_seconds {
        let path = path.field("maxExpirationSeconds");
        if seconds < 3600 {
            errors.invalid(&path, seconds, "if provided, maxExpirationSeconds must be >= 3600");
        }
        let host = certificate.signer_name.split('/').next().unwrap_or("");
        let kubernetes = host == "kubernetes.io" || host.ends_with(".kubernetes.io");
        let max = if kubernetes { KUBERNETES_CERTIFICATE_MAX } else { CERTIFICATE_MAX };
        if seconds > max {
            let message = format!("if provided, maxExpirationSeconds must be <= {max}");
            errors.invalid(&path, seconds, &message);
        }
    }
    let files = [
        ("credentialBundlePath", &certificate.credential_bundle_path),
        ("keyPath", &certificate.key_path),
        ("certificateChainPath", &certificate.certificate_chain_path),
    ];
    let mut any = false;
    for (field, file) in files {
        let file = text(file.as_ref());
        if file.is_empty() {
            continue;
        }
        any = true;
        security::local_non_reserved_path(file, &path.field(field), errors);
        taken.take(file, file, errors);
    }
    if !any {
        let message =
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.required(path, message);
    }
}
