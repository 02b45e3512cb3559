//! Volume mounts and block devices of a container.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::{Container, Volume, VolumeDevice, VolumeMount};

use super::{Errors, Json, security, text};
use crate::path::Path;

/// Names and paths that mounts, or devices, take up. Of equal names only the last counts, as in the maps
/// that Kubernetes builds.
struct ByName<'a> {
    names: HashSet<&'a str>,
    paths: HashSet<&'a str>,
}

type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

impl<'a> ByName<'a> {
    fn new(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let last: HashMap<&str, &str> = pairs.collect();
        Self { names: last.keys().copied().collect(), paths: last.values().copied().collect() }
    }
}

pub(super) fn mounts(
    container: &Container,
    volumes: &Volumes<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let mounts = container.volume_mounts.as_deref().unwrap_or(&[]);
    let devices = container.volume_devices.as_deref().unwrap_or(&[]);
    let by_device = ByName::new(devices.iter().map(|it| (&*it.name, &*it.device_path)));
    let by_mount = ByName::new(mounts.iter().map(|it| (&*it.name, &*it.mount_path)));
    let privileged =
        container.security_context.as_ref().is_some_and(|it| it.privileged == Some(true));
    let list = path.field("volumeMounts");
    let mut seen = HashSet::new();
    for (at, mount) in mounts.iter().enumerate() {
        let path = list.index(at);
        let name = mount.name.as_str();
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        }
        if !volumes.contains_key(name) {
            errors.not_found(&path.field("name"), name, "");
        }
        let target = mount.mount_path.as_str();
        if target.is_empty() {
            errors.required(&path.field("mountPath"), "");
        }
        if !seen.insert(target) {
            errors.invalid(&path.field("mountPath"), target, "must be unique");
        }
        if by_device.names.contains(name) {
            errors.invalid(&path.field("name"), name, "must not already exist in volumeDevices");
        }
        if by_device.paths.contains(target) {
            let message = "must not already exist as a path in volumeDevices";
            errors.invalid(&path.field("mountPath"), target, message);
        }
        errors.placed(&path, |errors| options(mount, privileged, &path, &list, errors));
    }
    block_devices(devices, &by_mount, volumes, &path.field("volumeDevices"), errors);
}

/// Sub-paths, propagation and recursion; Kubernetes reports them at the list, not at the item.
fn options(
    mount: &VolumeMount,
    privileged: bool,
    path: &Path<'_>,
    list: &Path<'_>,
    errors: &mut Errors,
) {
    let sub_path = text(mount.sub_path.as_ref());
    if !sub_path.is_empty() {
        security::local_descending_path(sub_path, &list.field("subPath"), errors);
    }
    let expression = text(mount.sub_path_expr.as_ref());
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let message = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&path.field("subPathExpr"), expression, message);
        }
        security::local_descending_path(expression, &list.field("subPathExpr"), errors);
    }
    if let Some(propagation) = &mount.mount_propagation {
        let path = list.field("mountPropagation");
        errors.one_of(&path, propagation, &["Bidirectional", "HostToContainer", "None"]);
        if propagation == "Bidirectional" && !privileged {
            let message =
                "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&path, message);
        }
    }
    let path = list.field("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(&path, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_ref().is_some_and(|it| it != "None") {
                let message =
                    "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(&path, message);
            }
        }
        Some(other) => {
            errors.not_supported(&path, Json(other), &["Disabled", "Enabled", "IfPossible"]);
        }
    }
}

fn block_devices(
    devices: &[VolumeDevice],
    mounts: &ByName<'_>,
    volumes: &Volumes<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (at, device) in devices.iter().enumerate() {
        let path = path.index(at);
        let (name, target) = (device.name.as_str(), device.device_path.as_str());
        let (name_path, target_path) = (path.field("name"), path.field("devicePath"));
        if name.is_empty() {
            errors.required(&name_path, "");
        }
        if names.contains(name) {
            errors.invalid(&name_path, name, "must be unique");
        }
        match volumes.get(name) {
            None => errors.not_found(&name_path, name, ""),
            Some(volume)
                if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() =>
            {
                let message = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&name_path, name, message);
            }
            Some(_) => {}
        }
        if target.is_empty() {
            errors.required(&target_path, "");
        }
        if paths.contains(target) {
            errors.invalid(&target_path, target, "must be unique");
        }
        if security::has_backsteps(target) {
            errors.invalid(&target_path, target, "can not contain backsteps ('..')");
        } else {
            paths.insert(target);
        }
        if mounts.names.contains(name) {
            errors.invalid(&name_path, name, "must not already exist in volumeMounts");
        }
        if mounts.paths.contains(target) {
            errors.invalid(
                &target_path,
                target,
                "must not already exist as a path in volumeMounts",
            );
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}
