//! The operating system of a pod, and what belongs to Windows or to Linux only.

use k8s_openapi::api::core::v1::{PodSpec, SecurityContext, WindowsSecurityContextOptions};

use super::{Errors, Json, Shown, names, visit_containers};
use crate::path::Path;

const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_ON_LINUX: &str = "windows options cannot be set for a linux pod";
const CREDENTIAL_SPEC_MAX: usize = 64 * 1024;
const USER_DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;

/// `validateOS`, then what the system rules out.
pub(super) fn os(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let Some(os) = &spec.os else { return };
    let os_path = path.field("os");
    match os.name.as_str() {
        "" => errors.required(&os_path.field("name"), ""),
        "linux" => linux(spec, path, errors),
        "windows" => windows(spec, path, errors),
        other => errors.not_supported(&os_path, Json(other), &["linux", "windows"]),
    }
}

fn linux(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    if spec.security_context.as_ref().is_some_and(|it| it.windows_options.is_some()) {
        errors.forbidden(&path.field("securityContext").field("windowsOptions"), NOT_ON_LINUX);
    }
    visit_containers(spec, path, |container, path| {
        if container.security_context.as_ref().is_some_and(|it| it.windows_options.is_some()) {
            errors.forbidden(&path.field("securityContext").field("windowsOptions"), NOT_ON_LINUX);
        }
    });
}

fn windows(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let context = spec.security_context.clone().unwrap_or_default();
    let context_path = path.field("securityContext");
    let set = [
        (&context_path, "appArmorProfile", context.app_armor_profile.is_some()),
        (&context_path, "seLinuxOptions", context.se_linux_options.is_some()),
        (path, "hostUsers", spec.host_users.is_some()),
        (path, "hostPID", spec.host_pid == Some(true)),
        (path, "hostIPC", spec.host_ipc == Some(true)),
        (&context_path, "seccompProfile", context.seccomp_profile.is_some()),
        (&context_path, "fsGroup", context.fs_group.is_some()),
        (&context_path, "fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
        (&context_path, "sysctls", context.sysctls.is_some_and(|it| !it.is_empty())),
        (path, "shareProcessNamespace", spec.share_process_namespace.is_some()),
        (&context_path, "runAsUser", context.run_as_user.is_some()),
        (&context_path, "runAsGroup", context.run_as_group.is_some()),
        (&context_path, "supplementalGroups", context.supplemental_groups.is_some()),
        (&context_path, "supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
        (&context_path, "seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
    ];
    for (path, field, _) in set.into_iter().filter(|(_, _, set)| *set) {
        errors.forbidden(&path.field(field), NOT_ON_WINDOWS);
    }
    visit_containers(spec, path, |container, path| {
        if let Some(context) = &container.security_context {
            windows_container(context, &path.field("securityContext"), errors);
        }
    });
}

fn windows_container(context: &SecurityContext, path: &Path<'_>, errors: &mut Errors) {
    let set = [
        ("appArmorProfile", context.app_armor_profile.is_some()),
        ("seLinuxOptions", context.se_linux_options.is_some()),
        ("seccompProfile", context.seccomp_profile.is_some()),
        ("capabilities", context.capabilities.is_some()),
        ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
        ("privileged", context.privileged.is_some()),
        ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
        ("procMount", context.proc_mount.is_some()),
        ("runAsUser", context.run_as_user.is_some()),
        ("runAsGroup", context.run_as_group.is_some()),
    ];
    for (field, _) in set.into_iter().filter(|(_, set)| *set) {
        errors.forbidden(&path.field(field), NOT_ON_WINDOWS);
    }
}

/// `validateWindowsSecurityContextOptions`.
pub(super) fn windows_options(
    options: Option<&WindowsSecurityContextOptions>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        for message in names::dns_subdomain(name) {
            errors.invalid(&path.field("gmsaCredentialSpecName"), Json(name), &message);
        }
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let path = path.field("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&path, Json(spec), "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > CREDENTIAL_SPEC_MAX {
            errors.invalid(&path, Json(spec), "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = &options.run_as_user_name {
        for message in user_name(name) {
            errors.invalid(&path.field("runAsUserName"), Json(name), &message);
        }
    }
}

/// `DOMAIN\user` or `user`.
fn user_name(name: &str) -> Vec<String> {
    let one = |message: &str| vec![message.to_owned()];
    if name.is_empty() {
        return one("runAsUserName cannot be an empty string");
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return one("runAsUserName cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return one("runAsUserName cannot contain more than one backslash"),
    };
    let mut messages = Vec::new();
    let domain_text = domain.unwrap_or("");
    if domain_text.len() >= USER_DOMAIN_MAX {
        messages.push(format!(
            "runAsUserName's Domain length must be under {USER_DOMAIN_MAX} characters"
        ));
    }
    if domain.is_some() && !is_netbios(domain_text) && !is_dns_domain(domain_text) {
        messages
            .push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
    }
    if user.is_empty() {
        messages.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > USER_MAX {
        messages.push(format!(
            "runAsUserName's User length must not be longer than {USER_MAX} characters"
        ));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        messages.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user
        .contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']'])
    {
        messages.push(
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"
                .to_owned(),
        );
    }
    messages
}

fn is_netbios(domain: &str) -> bool {
    let forbidden = |c: char| matches!(c, '\\' | '/' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(forbidden)
}

fn is_dns_domain(domain: &str) -> bool {
    domain.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// `validateWindowsHostProcessPod`.
pub(super) fn host_process(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let pod =
        spec.security_context.as_ref().and_then(|it| it.windows_options.as_ref()?.host_process);
    let (mut containers, mut host_processes) = (0, 0);
    visit_containers(spec, path, |container, path| {
        containers += 1;
        let own = container
            .security_context
            .as_ref()
            .and_then(|it| it.windows_options.as_ref()?.host_process);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let path = path.field("securityContext");
            let path = path.field("windowsOptions");
            let message =
                format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(&path.field("hostProcess"), own, &message);
        }
        if own.or(pod) == Some(true) {
            host_processes += 1;
        }
    });
    if host_processes == 0 {
        return;
    }
    if host_processes != containers {
        let message = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", message);
    }
    if spec.host_network != Some(true) {
        let message = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.field("hostNetwork"), Shown("false".to_owned()), message);
    }
}
