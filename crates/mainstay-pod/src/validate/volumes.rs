//! Volumes: `ValidateVolumes`, and the kinds that need nothing from elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, HostPathVolumeSource,
    KeyToPath, SecretVolumeSource, Volume,
};

use super::{Errors, claims, container, env, names, projected, security, text, volumes_remote};
use crate::path::Path;
use crate::quantity::Quantity;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

const DOWNWARD_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Checks every volume and returns those without errors, which are the ones that a container can mount.
pub(super) fn volumes<'a>(
    volumes: &'a [Volume],
    pod_name: &str,
    path: &Path<'_>,
    errors: &mut Errors,
) -> BTreeMap<&'a str, &'a Volume> {
    let created_claims: BTreeSet<String> = volumes
        .iter()
        .filter(|it| it.ephemeral.is_some() && !pod_name.is_empty())
        .map(|it| format!("{pod_name}-{}", it.name))
        .collect();
    let mut valid: BTreeMap<&str, &Volume> = BTreeMap::new();
    for (at, volume) in volumes.iter().enumerate() {
        let path = path.index(at);
        let before = errors.0.len();
        source(volume, pod_name, &path, errors);
        let name = path.field("name");
        if volume.name.is_empty() {
            errors.required(&name, "");
        } else {
            errors.invalid_all(&name, &volume.name, names::dns_label(&volume.name));
        }
        if valid.contains_key(volume.name.as_str()) {
            errors.duplicate(&name, volume.name.as_str());
        }
        if errors.0.len() == before {
            valid.insert(&volume.name, volume);
        }
        if let Some(claim) = &volume.persistent_volume_claim
            && created_claims.contains(&claim.claim_name)
        {
            let path = path.field("persistentVolumeClaim");
            let message = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&path.field("claimName"), claim.claim_name.as_str(), message);
        }
    }
    valid
}

/// A kind of volume that is set: the name that an error about a second kind uses, and the check.
type Kind<'a> = (&'static str, Box<dyn Fn(&mut Errors) + 'a>);

/// `validateVolumeSource`: exactly one kind is set; the first is checked, every other is one too many.
fn source(volume: &Volume, pod_name: &str, path: &Path<'_>, errors: &mut Errors) {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    // The check's path has the field's own name unless Kubernetes spells it otherwise.
    macro_rules! kind {
        ($field:ident, $name:literal, $check:expr) => {
            kind!($field, $name, $name, $check)
        };
        ($field:ident, $name:literal, $path:literal, $check:expr) => {
            if let Some(source) = &volume.$field {
                kinds.push((
                    $name,
                    Box::new(move |errors| ($check)(source, &path.field($path), errors)),
                ));
            }
        };
    }
    kind!(empty_dir, "emptyDir", |source: &k8s_openapi::api::core::v1::EmptyDirVolumeSource,
                                  path: &Path<'_>,
                                  errors: &mut Errors| {
        let limit = source.size_limit.as_ref().and_then(|it| Quantity::parse(&it.0).ok());
        if limit.is_some_and(Quantity::is_negative) {
            let message = "SizeLimit field must be a valid resource quantity";
            errors.forbidden(&path.field("sizeLimit"), message);
        }
    });
    kind!(host_path, "hostPath", host_path);
    kind!(git_repo, "gitRepo", volumes_remote::git_repo);
    kind!(gce_persistent_disk, "gcePersistentDisk", "persistentDisk", volumes_remote::gce_disk);
    kind!(aws_elastic_block_store, "awsElasticBlockStore", volumes_remote::aws_disk);
    kind!(secret, "secret", secret);
    kind!(nfs, "nfs", volumes_remote::nfs);
    kind!(iscsi, "iscsi", volumes_remote::iscsi);
    kind!(glusterfs, "glusterfs", volumes_remote::glusterfs);
    kind!(flocker, "flocker", volumes_remote::flocker);
    kind!(persistent_volume_claim, "persistentVolumeClaim", volumes_remote::claim);
    kind!(rbd, "rbd", volumes_remote::rbd);
    kind!(cinder, "cinder", volumes_remote::cinder);
    kind!(cephfs, "cephFS", "cephfs", volumes_remote::cephfs);
    kind!(quobyte, "quobyte", volumes_remote::quobyte);
    kind!(downward_api, "downwarAPI", "downwardAPI", downward_api);
    kind!(fc, "fc", volumes_remote::fc);
    kind!(flex_volume, "flexVolume", volumes_remote::flex);
    kind!(config_map, "configMap", config_map);
    kind!(azure_file, "azureFile", volumes_remote::azure_file);
    kind!(vsphere_volume, "vsphereVolume", volumes_remote::vsphere);
    kind!(photon_persistent_disk, "photonPersistentDisk", volumes_remote::photon);
    kind!(portworx_volume, "portworxVolume", volumes_remote::portworx);
    kind!(azure_disk, "azureDisk", volumes_remote::azure_disk);
    kind!(storageos, "storageos", volumes_remote::storageos);
    kind!(projected, "projected", projected::projected);
    kind!(scale_io, "scaleIO", volumes_remote::scale_io);
    kind!(csi, "csi", volumes_remote::csi);
    kind!(ephemeral, "ephemeral", claims::ephemeral);
    kind!(image, "image", |source: &k8s_openapi::api::core::v1::ImageVolumeSource,
                           path: &Path<'_>,
                           errors: &mut Errors| {
        if text(source.reference.as_ref()).is_empty() {
            errors.required(&path.field("reference"), "");
        }
        container::pull_policy(
            text(source.pull_policy.as_ref()),
            &path.field("pullPolicy"),
            errors,
        );
    });

    let mut kinds = kinds.into_iter();
    let Some((first, check)) = kinds.next() else {
        errors.required(path, "must specify a volume type");
        return;
    };
    check(errors);
    iscsi_name(volume, path, errors);
    if first == "ephemeral" {
        claims::claim_name(&volume.name, pod_name, path, errors);
    }
    for (other, _) in kinds {
        errors.forbidden(&path.field(other), "may not specify more than 1 volume type");
    }
}

fn iscsi_name(volume: &Volume, path: &Path<'_>, errors: &mut Errors) {
    let Some(iscsi) = volume.iscsi.as_ref().filter(|it| it.initiator_name.is_some()) else {
        return;
    };
    if volume.name.len() + 1 + iscsi.target_portal.len() > 64 {
        let message = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.invalid(&path.field("name"), volume.name.as_str(), message);
    }
}

fn host_path(source: &HostPathVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    if source.path.is_empty() {
        errors.required(&path.field("path"), "");
        return;
    }
    security::no_backsteps(&source.path, &path.field("path"), errors);
    if let Some(kind) = &source.type_ {
        errors.one_of(&path.field("type"), kind, &HOST_PATH_TYPES);
    }
}

fn secret(source: &SecretVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    if text(source.secret_name.as_ref()).is_empty() {
        errors.required(&path.field("secretName"), "");
    }
    mode(source.default_mode, &path.field("defaultMode"), errors);
    items(source.items.as_deref(), path, errors);
}

fn config_map(source: &ConfigMapVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    if source.name.is_empty() {
        errors.required(&path.field("name"), "");
    }
    mode(source.default_mode, &path.field("defaultMode"), errors);
    items(source.items.as_deref(), path, errors);
}

fn items(items: Option<&[KeyToPath]>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.field("items");
    for (at, item) in items.unwrap_or(&[]).iter().enumerate() {
        key_to_path(item, &path.index(at), errors);
    }
}

pub(super) fn key_to_path(item: &KeyToPath, path: &Path<'_>, errors: &mut Errors) {
    if item.key.is_empty() {
        errors.required(&path.field("key"), "");
    }
    if item.path.is_empty() {
        errors.required(&path.field("path"), "");
    }
    security::local_non_reserved_path(&item.path, &path.field("path"), errors);
    mode(item.mode, &path.field("mode"), errors);
}

/// Permission bits of a file.
pub(super) fn mode(mode: Option<i32>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, mode, FILE_MODE);
    }
}

fn downward_api(source: &DownwardAPIVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    mode(source.default_mode, &path.field("defaultMode"), errors);
    let items = path.field("items");
    for (at, file) in source.items.iter().flatten().enumerate() {
        errors.placed(&items.index(at), |errors| downward_file(file, path, errors));
    }
}

pub(super) fn downward_file(file: &DownwardAPIVolumeFile, path: &Path<'_>, errors: &mut Errors) {
    if file.path.is_empty() {
        errors.required(&path.field("path"), "");
    }
    security::local_non_reserved_path(&file.path, &path.field("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            env::object_field(field, &DOWNWARD_FIELDS, &path.field("fieldRef"), errors);
            if resource.is_some() {
                let message = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", message);
            }
        }
        (None, Some(resource)) => {
            env::resource_field(resource, true, &path.field("resourceFieldRef"), errors);
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(file.mode, &path.field("mode"), errors);
}
