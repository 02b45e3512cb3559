//! What a pod's and a container's security contexts come to together.
//!
//! Source: `pkg/securitycontext/util.go`, `DetermineEffectiveSecurityContext`: the container's
//! word counts where there is one, else the pod's.

use k8s_openapi::api::core::v1::{
    Container, PodSecurityContext, SeccompProfile as Profile, SecurityContext,
};
use mainstay_cri::{
    AppArmorProfile, LinuxContainerSecurityContext, ProtectedPaths, SeccompProfile,
    SupplementalGroupsPolicy,
};
use mainstay_pod::Pod;

use super::{NodeFacts, TranslateError};
use crate::apparmor::{UNCONFINED, profile_of};

pub(super) fn is_privileged(container: &Container) -> bool {
    context(container).and_then(|it| it.privileged).unwrap_or(false)
}

pub(super) fn is_rootfs_readonly(container: &Container) -> bool {
    context(container).and_then(|it| it.read_only_root_filesystem).unwrap_or(false)
}

fn context(container: &Container) -> Option<&SecurityContext> {
    container.security_context.as_ref()
}

pub(super) fn of(
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
) -> Result<LinuxContainerSecurityContext, TranslateError> {
    let own = context(container);
    let shared = pod.spec().security_context.as_ref();
    let capabilities = own.and_then(|it| it.capabilities.as_ref());
    let fs_group = number("fsGroup", shared.and_then(|it| it.fs_group))?;
    let groups = shared.and_then(|it| it.supplemental_groups.as_ref()).into_iter().flatten();
    let groups = groups.map(|group| number("supplementalGroups", Some(*group)));
    let groups: Vec<Option<u32>> =
        std::iter::once(Ok(fs_group)).chain(groups).collect::<Result<_, _>>()?;
    let group =
        own.and_then(|it| it.run_as_group).or_else(|| shared.and_then(|it| it.run_as_group));
    let own_profile = own.and_then(|it| it.seccomp_profile.as_ref());
    let profile = own_profile.or_else(|| shared.and_then(|it| it.seccomp_profile.as_ref()));
    Ok(LinuxContainerSecurityContext {
        privileged: is_privileged(container),
        add_capabilities: capabilities.and_then(|it| it.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities.and_then(|it| it.drop.clone()).unwrap_or_default(),
        run_as_user: number("runAsUser", run_as_user(pod, container))?,
        run_as_username: None,
        run_as_group: number("runAsGroup", group)?,
        supplemental_groups: groups.into_iter().flatten().collect(),
        supplemental_groups_policy: groups_policy(shared)?,
        readonly_rootfs: is_rootfs_readonly(container),
        no_new_privs: own.and_then(|it| it.allow_privilege_escalation) == Some(false),
        protected_paths: match own.and_then(|it| it.proc_mount.as_deref()) {
            Some("Unmasked") => ProtectedPaths::None,
            _ => ProtectedPaths::Usual,
        },
        seccomp: seccomp(profile, facts)?,
        apparmor: apparmor(pod, container)?,
        target: None,
    })
}

fn groups_policy(
    shared: Option<&PodSecurityContext>,
) -> Result<SupplementalGroupsPolicy, TranslateError> {
    match shared.and_then(|it| it.supplemental_groups_policy.as_deref()) {
        None | Some("Merge") => Ok(SupplementalGroupsPolicy::Merge),
        Some("Strict") => Ok(SupplementalGroupsPolicy::Strict),
        Some(other) => Err(TranslateError::invalid("supplementalGroupsPolicy", other)),
    }
}

fn number(field: &'static str, id: Option<i64>) -> Result<Option<u32>, TranslateError> {
    let number = |id| u32::try_from(id).map_err(|_| TranslateError::invalid(field, id));
    id.map(number).transpose()
}

pub(crate) fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let shared = pod.spec().security_context.as_ref();
    context(container)
        .and_then(|it| it.run_as_user)
        .or_else(|| shared.and_then(|it| it.run_as_user))
}

pub(super) fn pod_seccomp(pod: &Pod, facts: &NodeFacts) -> Result<SeccompProfile, TranslateError> {
    let profile = pod.spec().security_context.as_ref().and_then(|it| it.seccomp_profile.as_ref());
    seccomp(profile, facts)
}

fn seccomp(profile: Option<&Profile>, facts: &NodeFacts) -> Result<SeccompProfile, TranslateError> {
    let Some(profile) = profile else { return Ok(facts.seccomp_default.clone()) };
    Ok(match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => SeccompProfile::RuntimeDefault,
        ("Unconfined", _) => SeccompProfile::Unconfined,
        ("Localhost", Some(file)) => {
            let path = facts.seccomp_directory.join(file);
            SeccompProfile::Localhost(path.to_string_lossy().into_owned())
        }
        ("Localhost", None) => {
            return Err(TranslateError::invalid("seccompProfile.localhostProfile", ""));
        }
        (other, _) => return Err(TranslateError::invalid("seccompProfile.type", other)),
    })
}

/// Source: `getAppArmorProfile` in `pkg/kubelet/kuberuntime/helpers.go`.
fn apparmor(pod: &Pod, container: &Container) -> Result<Option<AppArmorProfile>, TranslateError> {
    let Some(profile) = profile_of(pod, container) else { return Ok(None) };
    Ok(Some(match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => AppArmorProfile::RuntimeDefault,
        (UNCONFINED, _) => AppArmorProfile::Unconfined,
        ("Localhost", Some(name)) => AppArmorProfile::Localhost(name.clone()),
        ("Localhost", None) => {
            return Err(TranslateError::invalid("appArmorProfile.localhostProfile", ""));
        }
        (other, _) => return Err(TranslateError::invalid("appArmorProfile.type", other)),
    }))
}

/// A container that must not run as root and would.
#[derive(Debug, PartialEq, Eq)]
pub enum RunsAsRoot {
    /// The pod itself says 0.
    ByNumber,
    /// The image says 0 or nothing.
    ByImage,
    /// The image names a user, and only a number can be checked.
    ByName(String),
}

impl std::fmt::Display for RunsAsRoot {
    /// In the kubelet's words.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ByNumber => f.write_str(
                "container's runAsUser breaks non-root policy: runAsNonRoot is set and \
                             runAsUser is 0",
            ),
            Self::ByImage => {
                f.write_str("container has runAsNonRoot and image will run as root; set runAsUser")
            }
            Self::ByName(name) => write!(
                f,
                "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify \
                 user is non-root; set runAsUser"
            ),
        }
    }
}

/// Checks `runAsNonRoot` against the user that the image names.
///
/// Source: `pkg/kubelet/kuberuntime/security_context_others.go`, `verifyRunAsNonRoot`.
pub fn verify_non_root(
    pod: &Pod,
    container: &Container,
    image_user: &str,
) -> Result<(), RunsAsRoot> {
    let shared = pod.spec().security_context.as_ref();
    let wanted = context(container)
        .and_then(|it| it.run_as_non_root)
        .or_else(|| shared.and_then(|it| it.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    match run_as_user(pod, container) {
        Some(0) => return Err(RunsAsRoot::ByNumber),
        Some(_) => return Ok(()),
        None => {}
    }
    let name = image_user.split(':').next().unwrap_or_default();
    match name.parse::<u32>() {
        Ok(0) => Err(RunsAsRoot::ByImage),
        Ok(_) => Ok(()),
        Err(_) if name.is_empty() => Err(RunsAsRoot::ByImage),
        Err(_) => Err(RunsAsRoot::ByName(name.to_owned())),
    }
}
