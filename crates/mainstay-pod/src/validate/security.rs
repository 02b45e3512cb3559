//! Security contexts, of pods and of containers.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};

use super::{Errors, Json, as_json, names, os};
use crate::path::Path;

const SECCOMP_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// `PATH_MAX` without the final zero.
const APPARMOR_NAME_MAX: usize = 4095;

/// Sysctls of the IPC namespace beside `fs.mqueue.*`.
const IPC_SYSCTLS: [&str; 10] = [
    "kernel.sem",
    "kernel.shm",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
];

const SYSCTL_NAME_MAX: usize = 253;
const SYSCTL_SEGMENT: &str = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";

/// `ValidateSecurityContext`.
pub(super) fn container(
    context: Option<&SecurityContext>,
    host_users: bool,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let Some(context) = context else { return };
    // A kubelet always allows privileged containers, an API server does unless told otherwise.
    for (field, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        if let Some(id) = id
            && let Some(message) = names::id(id)
        {
            errors.invalid(&path.field(field), id, &message);
        }
    }
    if let Some(mount) = &context.proc_mount {
        errors.one_of(&path.field("procMount"), mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            let message = "`hostUsers` must be false to use `Unmasked`";
            errors.invalid(&path.field("procMount"), Json(mount), message);
        }
    }
    seccomp(context.seccomp_profile.as_ref(), &path.field("seccompProfile"), errors);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, as_json(context), message);
        }
        let added = context.capabilities.iter().flat_map(|it| it.add.iter().flatten());
        for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, as_json(context), message);
        }
    }
    os::windows_options(context.windows_options.as_ref(), &path.field("windowsOptions"), errors);
    apparmor(context.app_armor_profile.as_ref(), &path.field("appArmorProfile"), errors);
}

/// `validatePodSpecSecurityContext`.
pub(super) fn pod(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let Some(context) = &spec.security_context else { return };
    let ids = [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ];
    for (field, id) in ids {
        if let Some(id) = id
            && let Some(message) = names::id(id)
        {
            errors.invalid(&path.field(field), id, &message);
        }
    }
    let groups = path.field("supplementalGroups");
    for (at, group) in context.supplemental_groups.iter().flatten().enumerate() {
        if let Some(message) = names::id(*group) {
            errors.invalid(&groups.index(at), *group, &message);
        }
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.field("shareProcessNamespace"), true, message);
    }
    sysctls(spec, context.sysctls.as_deref().unwrap_or(&[]), &path.field("sysctls"), errors);
    policies(context, path, errors);
}

fn policies(context: &PodSecurityContext, path: &Path<'_>, errors: &mut Errors) {
    if let Some(policy) = &context.fs_group_change_policy {
        errors.one_of(&path.field("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    seccomp(context.seccomp_profile.as_ref(), &path.field("seccompProfile"), errors);
    os::windows_options(context.windows_options.as_ref(), &path.field("windowsOptions"), errors);
    apparmor(context.app_armor_profile.as_ref(), &path.field("appArmorProfile"), errors);
    if let Some(policy) = &context.supplemental_groups_policy {
        errors.one_of(&path.field("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = &context.se_linux_change_policy {
        // MountOption needs the feature gate SELinuxMount, which is off.
        errors.one_of(&path.field("seLinuxChangePolicy"), policy, &["Recursive"]);
    }
}

fn seccomp(profile: Option<&SeccompProfile>, path: &Path<'_>, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    match profile.type_.as_str() {
        "" => errors.required(&path.field("type"), "type is required when seccompProfile is set"),
        kind => errors.one_of(&path.field("type"), kind, &SECCOMP_TYPES),
    }
    let path = path.field("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", Some(file)) => local_descending_path(file, &path, errors),
        ("Localhost", None) => errors.required(&path, "must be set when seccomp type is Localhost"),
        (_, Some(_)) => {
            errors.invalid(
                &path,
                as_json(profile),
                "can only be set when seccomp type is Localhost",
            );
        }
        (_, None) => {}
    }
}

fn apparmor(profile: Option<&AppArmorProfile>, path: &Path<'_>, errors: &mut Errors) {
    const MUST_BE_SET: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else { return };
    let local = path.field("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.required(&local, MUST_BE_SET),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&local, name.as_str(), "must not be padded with whitespace");
            } else if name.is_empty() {
                errors.required(&local, MUST_BE_SET);
            }
            if name.len() > APPARMOR_NAME_MAX {
                errors.too_long(&local, APPARMOR_NAME_MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.invalid(&local, Json(name), "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.required(&path.field("type"), "type is required when appArmorProfile is set");
        }
        (kind, _) => errors.one_of(&path.field("type"), kind, &SECCOMP_TYPES),
    }
}

fn sysctls(spec: &PodSpec, sysctls: &[Sysctl], path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (at, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(at);
        let path = path.field("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl_name(name) {
            let message = format!(
                "must have at most {SYSCTL_NAME_MAX} characters and match regex ^({SYSCTL_SEGMENT}[\\./])*{SYSCTL_SEGMENT}$"
            );
            errors.invalid(&path, name, &message);
        } else if seen.contains(name) {
            errors.duplicate(&path, name);
        }
        seen.insert(name);
        match sysctl_namespace(name) {
            Some("net") if spec.host_network == Some(true) => {
                errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
            }
            Some("ipc") if spec.host_ipc == Some(true) => {
                errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
            }
            _ => {}
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= SYSCTL_NAME_MAX
        && name.split(['.', '/']).all(|segment| {
            let bytes = segment.as_bytes();
            bytes.first().copied().is_some_and(alphanumeric)
                && bytes.last().copied().is_some_and(alphanumeric)
                && bytes.iter().all(|b| alphanumeric(*b) || matches!(b, b'-' | b'_'))
        })
}

/// The kernel namespace that a sysctl belongs to (`component-helpers/node/util/sysctl`).
fn sysctl_namespace(name: &str) -> Option<&'static str> {
    // Slashes separate as dots do, unless a dot comes first; then the two change places.
    let normal = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    };
    let prefix = normal.split('*').next().unwrap_or("");
    if prefix.starts_with("net.") {
        Some("net")
    } else if prefix.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&prefix) {
        Some("ipc")
    } else {
        None
    }
}

/// A path below some directory: relative, and never going up.
pub(super) fn local_descending_path(target: &str, path: &Path<'_>, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.invalid(path, target, "must be a relative path");
    }
    no_backsteps(target, path, errors);
}

pub(super) fn no_backsteps(target: &str, path: &Path<'_>, errors: &mut Errors) {
    if has_backsteps(target) {
        errors.invalid(path, target, "must not contain '..'");
    }
}

pub(super) fn has_backsteps(target: &str) -> bool {
    target.split('/').any(|part| part == "..")
}

/// As [`local_descending_path`], and no name that begins with two dots.
pub(super) fn local_non_reserved_path(target: &str, path: &Path<'_>, errors: &mut Errors) {
    local_descending_path(target, path, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.invalid(path, target, "must not start with '..'");
    }
}
