//! What a container is, from what was asked for, what its image says and what this machine has.
//!
//! A pure function: the same questions give the same container. The defaults are those of
//! containerd's CRI plugin, which images are used to (`internal/cri/server/container_create.go`,
//! `pkg/oci/spec.go`, `pkg/oci/mounts.go`); where Kubernetes says otherwise, Kubernetes wins.

mod capabilities;
mod devices;
mod environment;
mod mounts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mainstay_cri::{
    ContainerConfig, MASKED_PATHS, NamespaceMode, NamespaceOptions, ProtectedPaths, READONLY_PATHS,
    SupplementalGroupsPolicy,
};
use mainstay_image::config::ImageConfig;
use mainstay_linux::capability::Capabilities;
use mainstay_linux::cgroup::{Hierarchies, Layout};
use mainstay_shim_protocol::{CgroupDirectories, Container, Process, Root};

pub(crate) use capabilities::{UnknownCapability, of as capabilities};
pub(crate) use devices::{HostDevice, host_devices, rules as device_rules};
pub(crate) use mounts::{RESOLV_CONF, SHM, image_place};

use crate::user::User;

/// A container that cannot be made as it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// Neither the pod nor the image names a program.
    #[error("no command: the image has no entrypoint and no cmd, and the container has no command")]
    NoCommand,
    /// A capability that does not exist or cannot be given.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// A user or group that the pod does not have.
    #[error(
        "the pod has users of its own (hostUsers: false), and {0} is not one of its {1}; choose a \
         lower one for runAsUser, runAsGroup, fsGroup and supplementalGroups"
    )]
    NoSuchId(u32, u32),
}

/// All that a container is made from.
pub(crate) struct Ingredients<'a> {
    pub(crate) id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) namespaces: NamespaceOptions,
    pub(crate) image: &'a ImageConfig,
    /// The layers of the images that it mounts, top first, by the name in the mount.
    pub(crate) volumes: &'a BTreeMap<String, Vec<String>>,
    pub(crate) user: &'a User,
    /// The host name that its processes see.
    pub(crate) hostname: &'a str,
    pub(crate) places: Places<'a>,
    pub(crate) machine: Machine<'a>,
    /// The file with its seccomp filter.
    pub(crate) seccomp: Option<String>,
    /// The profile of AppArmor that it has, which is in the kernel.
    pub(crate) apparmor: Option<String>,
}

impl Ingredients<'_> {
    /// The machine's number of its user and group 0.
    fn root(&self) -> u32 {
        self.namespaces.users.map_or(0, |users| users.host_id)
    }
}

/// Where things of it are.
pub(crate) struct Places<'a> {
    /// The container's own directory in the run directory.
    pub(crate) bundle: &'a Path,
    /// The sandbox's own directory in the run directory.
    pub(crate) sandbox: &'a Path,
    pub(crate) root: Root,
    pub(crate) log_path: &'a str,
    /// Its cgroup, from the root of each hierarchy.
    pub(crate) cgroup: &'a str,
}

/// What this machine has and lets us do.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'a> {
    pub(crate) hierarchies: &'a Hierarchies,
    /// What this process can hand on.
    pub(crate) capabilities: Capabilities,
    /// This process's own; without `CAP_SYS_RESOURCE` nobody below it gets a lower one.
    pub(crate) oom_score_adj: i32,
    /// For privileged containers.
    pub(crate) devices: &'a [HostDevice],
    /// What [`mainstay_linux::machine::thermal_throttles`] found.
    pub(crate) throttles: &'a [String],
}

/// Makes the container.
pub(crate) fn container(from: &Ingredients<'_>) -> Result<Container, BundleError> {
    let Ingredients { config, places, machine, .. } = from;
    let privileged = config.security_context.privileged;
    let process = process(from)?;
    let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let (masked_paths, readonly_paths) = match &config.security_context.protected_paths {
        _ if privileged => (Vec::new(), Vec::new()),
        ProtectedPaths::Usual => {
            let masked = [strings(&MASKED_PATHS), machine.throttles.to_vec()].concat();
            (masked, strings(&READONLY_PATHS))
        }
        ProtectedPaths::None => (Vec::new(), Vec::new()),
        ProtectedPaths::These { masked, readonly } => (masked.clone(), readonly.clone()),
    };
    let layout = machine.hierarchies.layout();
    let mounts = mounts::list(from, layout);
    Ok(Container {
        id: from.id.to_owned(),
        bundle: text(places.bundle),
        root: Root { readonly: config.security_context.readonly_rootfs, ..places.root.clone() },
        mounts: mounts.list,
        sealed_mounts: mounts.sealed,
        devices: devices::nodes(from.root(), privileged.then_some(machine.devices)),
        links: devices::links(mounts.links),
        masked_paths,
        readonly_paths,
        new_pid_namespace: from.namespaces.pid == NamespaceMode::Container,
        processes_of: config.security_context.target.as_ref().map(|target| target.0.clone()),
        new_cgroup_namespace: layout == Layout::V2 && !privileged,
        cgroup: cgroup_directories(machine.hierarchies, places.cgroup),
        process,
        log_path: places.log_path.to_owned(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
    })
}

fn process(from: &Ingredients<'_>) -> Result<Process, BundleError> {
    let Ingredients { config, image, user, machine, .. } = from;
    let security = &config.security_context;
    let capabilities = capabilities::of(security, machine.capabilities)?;
    // As `containerd` 1.6.8 and later: the user's own group is among the further ones too, so that
    // a file that only it may not read stays unreadable (CVE-2022-36109).
    let mut groups = vec![user.gid];
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge {
        groups.extend(&user.additional_gids);
    }
    groups.extend(&security.supplemental_groups);
    let mut seen = BTreeSet::new();
    groups.retain(|group| seen.insert(*group));
    if let Some(users) = from.namespaces.users {
        let missing = |id: &&u32| **id >= users.length;
        if let Some(id) = [user.uid].iter().chain(&groups).find(missing) {
            return Err(BundleError::NoSuchId(*id, users.length));
        }
    }
    let cwd = [&config.working_dir, &image.working_dir].into_iter().find(|path| !path.is_empty());
    Ok(Process {
        args: arguments(config, image)?,
        env: environment::of(config, image, user, from.hostname),
        cwd: cwd.map_or_else(|| "/".to_owned(), |path| absolute(path)),
        uid: user.uid,
        gid: user.gid,
        additional_gids: groups,
        capabilities,
        no_new_privileges: security.no_new_privs,
        seccomp: from.seccomp.clone(),
        apparmor: from.apparmor.clone(),
        oom_score_adj: Some(oom_score_adj(config.resources.oom_score_adj, machine)),
        terminal: config.tty,
    })
}

/// The program and its arguments. Source: the table in "Define a Command and Arguments for a
/// Container" of the Kubernetes documentation.
fn arguments(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, BundleError> {
    let entrypoint = if config.command.is_empty() { &image.entrypoint } else { &config.command };
    let arguments = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => &image.cmd,
        (false, true) => &Vec::new(),
        (_, false) => &config.args,
    };
    let all: Vec<String> = entrypoint.iter().chain(arguments).cloned().collect();
    if all.is_empty() { Err(BundleError::NoCommand) } else { Ok(all) }
}

/// Lower is only possible for who has the capability; the pod then runs with what there is.
fn oom_score_adj(wanted: i32, machine: &Machine<'_>) -> i32 {
    let resource = Capabilities::named("SYS_RESOURCE").unwrap_or_default();
    if machine.capabilities.contains(resource) { wanted } else { wanted.max(machine.oom_score_adj) }
}

/// The directories of a control group, for the shim.
pub(crate) fn cgroup_directories(hierarchies: &Hierarchies, path: &str) -> CgroupDirectories {
    let (mut unified, mut legacy) = (None, Vec::new());
    for hierarchy in hierarchies.iter() {
        let directory = text(&hierarchy.mount_point.join(path.trim_start_matches('/')));
        if hierarchy.unified {
            unified = Some(directory);
        } else {
            legacy.push(directory);
        }
    }
    CgroupDirectories { unified, legacy }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
