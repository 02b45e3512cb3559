//! Volumes that live somewhere else: network file systems, disks of clouds, drivers.

use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, AzureFileVolumeSource,
    CSIVolumeSource, CephFSVolumeSource, CinderVolumeSource, FCVolumeSource, FlexVolumeSource,
    FlockerVolumeSource, GCEPersistentDiskVolumeSource, GitRepoVolumeSource, GlusterfsVolumeSource,
    ISCSIVolumeSource, NFSVolumeSource, PersistentVolumeClaimVolumeSource,
    PhotonPersistentDiskVolumeSource, PortworxVolumeSource, QuobyteVolumeSource, RBDVolumeSource,
    ScaleIOVolumeSource, StorageOSVolumeSource, VsphereVirtualDiskVolumeSource,
};

use super::{Errors, as_json, names, security, text};
use crate::path::Path;

const HOST_PORTS: &str = "must be a host:port pair or multiple pairs separated by commas";

fn require(value: &str, field: &str, path: &Path<'_>, errors: &mut Errors) {
    if value.is_empty() {
        errors.required(&path.field(field), "");
    }
}

/// A number of a partition or unit, which fits a byte.
fn byte(value: Option<i32>, low: i32, field: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !(0..=255).contains(value)) {
        let message = names::between(i64::from(low), 255);
        errors.invalid(&path.field(field), value, &message);
    }
}

pub(super) fn git_repo(source: &GitRepoVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    require(&source.repository, "repository", path, errors);
    security::local_descending_path(
        text(source.directory.as_ref()),
        &path.field("directory"),
        errors,
    );
}

pub(super) fn gce_disk(
    source: &GCEPersistentDiskVolumeSource,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    require(&source.pd_name, "pdName", path, errors);
    byte(source.partition, 1, "partition", path, errors);
}

pub(super) fn aws_disk(
    source: &AWSElasticBlockStoreVolumeSource,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    require(&source.volume_id, "volumeID", path, errors);
    byte(source.partition, 1, "partition", path, errors);
}

pub(super) fn nfs(source: &NFSVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    require(&source.server, "server", path, errors);
    require(&source.path, "path", path, errors);
    if !source.path.starts_with('/') {
        errors.invalid(&path.field("path"), source.path.as_str(), "must be an absolute path");
    }
}

pub(super) fn iscsi(source: &ISCSIVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    const SHAPE: &str = "must be valid format";
    const START: &str = "must be valid format starting with iqn, eui, or naa";
    require(&source.target_portal, "targetPortal", path, errors);
    let iqn = path.field("iqn");
    if source.iqn.is_empty() {
        errors.required(&iqn, "");
    } else {
        match is_initiator(&source.iqn) {
            None => errors.invalid(&iqn, source.iqn.as_str(), START),
            Some(false) => errors.invalid(&iqn, source.iqn.as_str(), SHAPE),
            Some(true) => {}
        }
    }
    byte(Some(source.lun), 0, "lun", path, errors);
    let chap = source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true);
    if chap && source.secret_ref.is_none() {
        errors.required(&path.field("secretRef"), "");
    }
    if let Some(name) = &source.initiator_name {
        let path = path.field("initiatorname");
        match is_initiator(name) {
            None => errors.invalid(&path, name.as_str(), START),
            Some(false) => errors.invalid(&path, name.as_str(), SHAPE),
            Some(true) => {}
        }
    }
}

/// Whether a name has the shape that its first letters promise; none if they promise nothing.
fn is_initiator(name: &str) -> Option<bool> {
    let alphanumeric = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    // A dot in the expressions stands for any character.
    let id = |length: usize| {
        let rest = name.get(3..).unwrap_or("");
        let mut rest = rest.chars();
        rest.next().is_some() && rest.as_str().len() == length && alphanumeric(rest.as_str())
    };
    match name.get(..3)? {
        "iqn" => Some(is_iqn(name)),
        "eui" => Some(id(16)),
        "naa" => Some(id(32)),
        _ => None,
    }
}

/// `iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`, found anywhere.
fn is_iqn(name: &str) -> bool {
    name.match_indices("iqn.").any(|(at, _)| {
        let rest = &name[at + 4..];
        let (Some(date), Some(rest)) = (rest.get(..8), rest.get(8..)) else { return false };
        let date_ok = date.bytes().enumerate().all(|(at, b)| match at {
            4 => b == b'-',
            7 => b == b'.',
            _ => b.is_ascii_digit(),
        });
        let end =
            rest.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')));
        let Some(end) = end.filter(|end| *end > 0) else { return false };
        let Some(target) = rest[end..].strip_prefix(':') else { return false };
        let forbidden =
            |c: char| ",;*&$|".contains(c) || matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ');
        date_ok && !target.is_empty() && !target.contains(forbidden)
    })
}

pub(super) fn glusterfs(source: &GlusterfsVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    require(&source.endpoints, "endpoints", path, errors);
    require(&source.path, "path", path, errors);
}

pub(super) fn flocker(source: &FlockerVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let name = text(source.dataset_name.as_ref());
    match (name.is_empty(), text(source.dataset_uuid.as_ref()).is_empty()) {
        (true, true) => errors.required(path, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let message = "datasetName and datasetUUID can not be specified simultaneously";
            errors.invalid(path, "resource", message);
        }
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(&path.field("datasetName"), name, "must not contain '/'");
    }
}

pub(super) fn claim(
    source: &PersistentVolumeClaimVolumeSource,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    require(&source.claim_name, "claimName", path, errors);
}

pub(super) fn rbd(source: &RBDVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    if source.monitors.is_empty() {
        errors.required(&path.field("monitors"), "");
    }
    require(&source.image, "image", path, errors);
}

pub(super) fn cinder(source: &CinderVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    require(&source.volume_id, "volumeID", path, errors);
    if let Some(secret) = &source.secret_ref {
        require(&secret.name, "name", &path.field("secretRef"), errors);
    }
}

pub(super) fn cephfs(source: &CephFSVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    if source.monitors.is_empty() {
        errors.required(&path.field("monitors"), "");
    }
}

pub(super) fn quobyte(source: &QuobyteVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let registry = path.field("registry");
    if source.registry.is_empty() {
        errors.required(&registry, HOST_PORTS);
    } else if text(source.tenant.as_ref()).len() >= 65 {
        let message = "must be a UUID and may not exceed a length of 64 characters";
        errors.required(&path.field("tenant"), message);
    } else {
        for _ in source.registry.split(',').filter(|pair| !is_host_port(pair)) {
            errors.invalid(&registry, source.registry.as_str(), HOST_PORTS);
        }
    }
    require(&source.volume, "volume", path, errors);
}

/// As Go's `net.SplitHostPort` takes it: one colon, or an address in brackets before it.
fn is_host_port(pair: &str) -> bool {
    let Some((host, port)) = pair.rsplit_once(':') else { return false };
    let host_ok = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|inner| !inner.contains(['[', ']'])),
        None => !host.contains([':', '[', ']']),
    };
    host_ok && !port.contains(['[', ']'])
}

pub(super) fn fc(source: &FCVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let names = source.target_wwns.as_deref().unwrap_or(&[]);
    let ids = source.wwids.as_deref().unwrap_or(&[]);
    let names_path = path.field("targetWWNs");
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => {
            errors.required(&names_path, "must specify either targetWWNs or wwids, but not both");
        }
        (false, false) => {
            let message = "targetWWNs and wwids can not be specified simultaneously";
            errors.invalid(&names_path, as_json(&names), message);
        }
        _ => {}
    }
    if !names.is_empty() {
        match source.lun {
            None => {
                errors.required(&path.field("lun"), "lun is required if targetWWNs is specified");
            }
            lun => byte(lun, 0, "lun", path, errors),
        }
    }
}

pub(super) fn flex(source: &FlexVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    require(&source.driver, "driver", path, errors);
    let path = path.field("options");
    for (key, _) in source.options.iter().flatten() {
        let namespace = key.split('/').next().unwrap_or(key);
        let namespace = format!(".{}", namespace.to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let message = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(&path.key(key), key.as_str(), message);
        }
    }
}

pub(super) fn azure_file(source: &AzureFileVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    require(&source.secret_name, "secretName", path, errors);
    require(&source.share_name, "shareName", path, errors);
}

pub(super) fn azure_disk(source: &AzureDiskVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    const MANAGED_URI: &str = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB_URI: &str =
        "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    require(&source.disk_name, "diskName", path, errors);
    require(&source.disk_uri, "diskURI", path, errors);
    if let Some(mode) = &source.caching_mode {
        errors.one_of(&path.field("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = &source.kind else { return };
    errors.one_of(&path.field("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let (start, shape) = match kind.as_str() {
        "Managed" => ("/subscriptions/", MANAGED_URI),
        _ => ("https://", BLOB_URI),
    };
    if !source.disk_uri.starts_with(start) {
        errors.not_supported(&path.field("diskURI"), source.disk_uri.as_str(), &[shape]);
    }
}

pub(super) fn vsphere(
    source: &VsphereVirtualDiskVolumeSource,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    require(&source.volume_path, "volumePath", path, errors);
}

pub(super) fn photon(
    source: &PhotonPersistentDiskVolumeSource,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    require(&source.pd_id, "pdID", path, errors);
}

pub(super) fn portworx(source: &PortworxVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    require(&source.volume_id, "volumeID", path, errors);
}

pub(super) fn scale_io(source: &ScaleIOVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    require(&source.gateway, "gateway", path, errors);
    require(&source.system, "system", path, errors);
    require(text(source.volume_name.as_ref()), "volumeName", path, errors);
}

pub(super) fn storageos(source: &StorageOSVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let name = text(source.volume_name.as_ref());
    if name.is_empty() {
        errors.required(&path.field("volumeName"), "");
    } else {
        errors.invalid_all(&path.field("volumeName"), name, names::dns_label(name));
    }
    let namespace = text(source.volume_namespace.as_ref());
    if !namespace.is_empty() {
        errors.invalid_all(&path.field("volumeNamespace"), namespace, names::dns_label(namespace));
    }
    if let Some(secret) = &source.secret_ref {
        require(&secret.name, "name", &path.field("secretRef"), errors);
    }
}

pub(super) fn csi(source: &CSIVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let driver = path.field("driver");
    if source.driver.is_empty() {
        errors.required(&driver, "");
    } else {
        if source.driver.len() > names::LABEL_MAX {
            errors.too_long(&driver, names::LABEL_MAX);
        }
        let lower = source.driver.to_lowercase();
        errors.invalid_all(&driver, &source.driver, names::dns_subdomain(&lower));
    }
    if let Some(secret) = &source.node_publish_secret_ref {
        if secret.name.is_empty() {
            errors.required(&path.field("nodePublishSecretRef").field("name"), "");
        } else {
            errors.invalid_all(
                &path.field("name"),
                &secret.name,
                names::dns_subdomain(&secret.name),
            );
        }
    }
}
