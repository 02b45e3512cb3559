//! What a container is made from.

use mainstay_cri::{
    AppArmorProfile, ContainerConfig, ContainerFilter, ContainerId, ContainerMetadata,
    HugepageLimit, ImageSpec, LinuxContainerResources, LinuxContainerSecurityContext, Mount,
    MountPropagation, PodSandboxConfig, ProtectedPaths, READONLY_PATHS, SandboxId,
    SupplementalGroupsPolicy,
};

use super::sandbox::{id_mapping, namespaces, seccomp};
use super::signal::{signal_name, signal_number};
use super::{ConvertError, Result, invalid, number, signed};
use crate::wire;

/// A container of a sandbox. `masked` are the paths that are hidden, unless it is not to have any such.
pub(crate) fn container_config(
    config: &ContainerConfig,
    sandbox: &PodSandboxConfig,
    masked: &[String],
) -> Result<wire::ContainerConfig> {
    let stop_signal = config.stop_signal.as_deref();
    let users = sandbox.security_context.namespaces.users.map(id_mapping);
    Ok(wire::ContainerConfig {
        metadata: Some((&config.metadata).into()),
        image: Some((&config.image).into()),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config
            .envs
            .iter()
            .map(|(key, value)| wire::KeyValue {
                key: key.clone(),
                value: value.clone().into_bytes(),
            })
            .collect(),
        mounts: config.mounts.iter().map(|it| mount(it, users.as_ref())).collect(),
        devices: Vec::new(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        log_path: config.log_path.clone(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(wire::LinuxContainerConfig {
            resources: Some((&config.resources).into()),
            security_context: Some(security_context(config, sandbox, masked)),
        }),
        cdi_devices: Vec::new(),
        stop_signal: signal_number(stop_signal)
            .ok_or_else(|| invalid("stop_signal", &stop_signal.unwrap_or_default()))?,
    })
}

fn security_context(
    config: &ContainerConfig,
    sandbox: &PodSandboxConfig,
    masked: &[String],
) -> wire::LinuxContainerSecurityContext {
    let context = &config.security_context;
    let mut namespaces = namespaces(&sandbox.security_context.namespaces);
    if let Some(target) = &context.target {
        namespaces.pid = wire::NamespaceMode::Target.into();
        namespaces.target_id.clone_from(&target.0);
    }
    let id = |id: u32| wire::Int64Value { value: id.into() };
    let policy = match context.supplemental_groups_policy {
        SupplementalGroupsPolicy::Merge => wire::SupplementalGroupsPolicy::Merge,
        SupplementalGroupsPolicy::Strict => wire::SupplementalGroupsPolicy::Strict,
    };
    let (masked_paths, readonly_paths) = match &context.protected_paths {
        ProtectedPaths::Usual => (masked.to_vec(), READONLY_PATHS.map(str::to_owned).to_vec()),
        ProtectedPaths::None => (Vec::new(), Vec::new()),
        ProtectedPaths::These { masked, readonly } => (masked.clone(), readonly.clone()),
    };
    wire::LinuxContainerSecurityContext {
        capabilities: Some(wire::Capability {
            add_capabilities: context.add_capabilities.clone(),
            drop_capabilities: context.drop_capabilities.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: context.privileged,
        namespace_options: Some(namespaces),
        run_as_user: context.run_as_user.map(id),
        run_as_username: context.run_as_username.clone().unwrap_or_default(),
        run_as_group: context.run_as_group.map(id),
        readonly_rootfs: context.readonly_rootfs,
        supplemental_groups: context.supplemental_groups.iter().map(|it| (*it).into()).collect(),
        supplemental_groups_policy: policy.into(),
        no_new_privs: context.no_new_privs,
        masked_paths,
        readonly_paths,
        seccomp: Some((&context.seccomp).into()),
        apparmor: context.apparmor.as_ref().map(Into::into),
        ..Default::default()
    }
}

impl TryFrom<wire::ContainerConfig> for ContainerConfig {
    type Error = ConvertError;

    fn try_from(config: wire::ContainerConfig) -> Result<Self> {
        if !config.devices.is_empty() {
            return Err(ConvertError::Unsupported("devices"));
        }
        if !config.cdi_devices.is_empty() {
            return Err(ConvertError::Unsupported("CDI_devices"));
        }
        let linux = config.linux.unwrap_or_default();
        let envs = config.envs.into_iter().map(|it| {
            let value = String::from_utf8(it.value);
            Ok((it.key, value.map_err(|_| ConvertError::Unsupported("a value that is no text"))?))
        });
        Ok(Self {
            metadata: config.metadata.ok_or(ConvertError::Missing("metadata"))?.into(),
            image: config.image.ok_or(ConvertError::Missing("image"))?.into(),
            command: config.command,
            args: config.args,
            working_dir: config.working_dir,
            envs: envs.collect::<Result<_>>()?,
            mounts: config.mounts.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            labels: config.labels,
            annotations: config.annotations,
            log_path: config.log_path,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            tty: config.tty,
            stop_signal: signal_name(config.stop_signal)?,
            resources: linux.resources.unwrap_or_default().try_into()?,
            security_context: linux.security_context.unwrap_or_default().try_into()?,
        })
    }
}

impl TryFrom<wire::LinuxContainerSecurityContext> for LinuxContainerSecurityContext {
    type Error = ConvertError;

    fn try_from(context: wire::LinuxContainerSecurityContext) -> Result<Self> {
        let capabilities = context.capabilities.unwrap_or_default();
        if !capabilities.add_ambient_capabilities.is_empty() {
            return Err(ConvertError::Unsupported("add_ambient_capabilities"));
        }
        let id =
            |field, id: Option<wire::Int64Value>| id.map(|id| number(field, id.value)).transpose();
        let policy = context.supplemental_groups_policy;
        let namespaces = context.namespace_options.unwrap_or_default();
        let target = namespaces.pid == i32::from(wire::NamespaceMode::Target);
        Ok(Self {
            privileged: context.privileged,
            add_capabilities: capabilities.add_capabilities,
            drop_capabilities: capabilities.drop_capabilities,
            run_as_user: id("run_as_user", context.run_as_user)?,
            run_as_username: Some(context.run_as_username).filter(|name| !name.is_empty()),
            run_as_group: id("run_as_group", context.run_as_group)?,
            supplemental_groups: context
                .supplemental_groups
                .into_iter()
                .map(|group| number("supplemental_groups", group))
                .collect::<Result<_>>()?,
            supplemental_groups_policy: match wire::SupplementalGroupsPolicy::try_from(policy) {
                Ok(wire::SupplementalGroupsPolicy::Merge) => SupplementalGroupsPolicy::Merge,
                Ok(wire::SupplementalGroupsPolicy::Strict) => SupplementalGroupsPolicy::Strict,
                Err(_) => return Err(invalid("supplemental_groups_policy", &policy)),
            },
            readonly_rootfs: context.readonly_rootfs,
            no_new_privs: context.no_new_privs,
            protected_paths: match (context.masked_paths, context.readonly_paths) {
                (masked, readonly) if masked.is_empty() && readonly.is_empty() => {
                    ProtectedPaths::None
                }
                (masked, readonly) => ProtectedPaths::These { masked, readonly },
            },
            seccomp: seccomp(context.seccomp)?,
            apparmor: context.apparmor.map(TryInto::try_into).transpose()?,
            target: target.then_some(ContainerId(namespaces.target_id)),
        })
    }
}

pub(super) fn mount(mount: &Mount, users: Option<&wire::IDMapping>) -> wire::Mount {
    let propagation = match mount.propagation {
        MountPropagation::Private => wire::MountPropagation::Private,
        MountPropagation::HostToContainer => wire::MountPropagation::HostToContainer,
        MountPropagation::Bidirectional => wire::MountPropagation::Bidirectional,
    };
    let of_image = mount.image.is_some();
    let mapped = users.filter(|_| !of_image);
    wire::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly || of_image,
        selinux_relabel: false,
        propagation: propagation.into(),
        uid_mappings: mapped.cloned().into_iter().collect(),
        gid_mappings: mapped.cloned().into_iter().collect(),
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.as_ref().map(Into::into),
        image_sub_path: if of_image { mount.sub_path.clone() } else { String::new() },
    }
}

/// Whose users it has is a matter of the sandbox.
impl TryFrom<wire::Mount> for Mount {
    type Error = ConvertError;

    fn try_from(mount: wire::Mount) -> Result<Self> {
        let image = mount.image.filter(|image| !image.image.is_empty());
        Ok(Self {
            container_path: mount.container_path,
            host_path: mount.host_path,
            readonly: mount.readonly,
            recursive_read_only: mount.recursive_read_only,
            propagation: match wire::MountPropagation::try_from(mount.propagation) {
                Ok(wire::MountPropagation::Private) => MountPropagation::Private,
                Ok(wire::MountPropagation::HostToContainer) => MountPropagation::HostToContainer,
                Ok(wire::MountPropagation::Bidirectional) => MountPropagation::Bidirectional,
                Err(_) => return Err(invalid("propagation", &mount.propagation)),
            },
            sub_path: if image.is_some() { mount.image_sub_path } else { String::new() },
            image: image.map(Into::into),
        })
    }
}

impl From<&LinuxContainerResources> for wire::LinuxContainerResources {
    fn from(resources: &LinuxContainerResources) -> Self {
        Self {
            cpu_period: signed(resources.cpu_period),
            cpu_quota: resources.cpu_quota,
            cpu_shares: signed(resources.cpu_shares),
            memory_limit_in_bytes: signed(resources.memory_limit),
            memory_swap_limit_in_bytes: signed(resources.memory_swap_limit),
            oom_score_adj: resources.oom_score_adj.into(),
            hugepage_limits: resources.hugepage_limits.iter().map(Into::into).collect(),
            unified: resources.unified.clone(),
            ..Self::default()
        }
    }
}

impl TryFrom<wire::LinuxContainerResources> for LinuxContainerResources {
    type Error = ConvertError;

    fn try_from(resources: wire::LinuxContainerResources) -> Result<Self> {
        if !resources.cpuset_cpus.is_empty() || !resources.cpuset_mems.is_empty() {
            return Err(ConvertError::Unsupported("cpuset"));
        }
        // Less than nothing is no limit.
        let limit = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        Ok(Self {
            cpu_period: number("cpu_period", resources.cpu_period)?,
            cpu_quota: resources.cpu_quota,
            cpu_shares: number("cpu_shares", resources.cpu_shares)?,
            memory_limit: limit(resources.memory_limit_in_bytes),
            memory_swap_limit: limit(resources.memory_swap_limit_in_bytes),
            oom_score_adj: number("oom_score_adj", resources.oom_score_adj)?,
            hugepage_limits: resources.hugepage_limits.into_iter().map(Into::into).collect(),
            unified: resources.unified,
        })
    }
}

impl From<&HugepageLimit> for wire::HugepageLimit {
    fn from(HugepageLimit { page_size, limit }: &HugepageLimit) -> Self {
        Self { page_size: page_size.clone(), limit: *limit }
    }
}

impl From<wire::HugepageLimit> for HugepageLimit {
    fn from(wire::HugepageLimit { page_size, limit }: wire::HugepageLimit) -> Self {
        Self { page_size, limit }
    }
}

impl From<&AppArmorProfile> for wire::SecurityProfile {
    fn from(profile: &AppArmorProfile) -> Self {
        let (profile_type, localhost_ref) = match profile {
            AppArmorProfile::RuntimeDefault => (wire::ProfileType::RuntimeDefault, String::new()),
            AppArmorProfile::Unconfined => (wire::ProfileType::Unconfined, String::new()),
            AppArmorProfile::Localhost(name) => (wire::ProfileType::Localhost, name.clone()),
        };
        Self { profile_type: profile_type.into(), localhost_ref }
    }
}

impl TryFrom<wire::SecurityProfile> for AppArmorProfile {
    type Error = ConvertError;

    fn try_from(profile: wire::SecurityProfile) -> Result<Self> {
        Ok(match wire::ProfileType::try_from(profile.profile_type) {
            Ok(wire::ProfileType::RuntimeDefault) => Self::RuntimeDefault,
            Ok(wire::ProfileType::Unconfined) => Self::Unconfined,
            Ok(wire::ProfileType::Localhost) => Self::Localhost(profile.localhost_ref),
            Err(_) => return Err(invalid("profile_type", &profile.profile_type)),
        })
    }
}

impl From<&ContainerMetadata> for wire::ContainerMetadata {
    fn from(metadata: &ContainerMetadata) -> Self {
        Self { name: metadata.name.clone(), attempt: metadata.attempt }
    }
}

impl From<wire::ContainerMetadata> for ContainerMetadata {
    fn from(wire::ContainerMetadata { name, attempt }: wire::ContainerMetadata) -> Self {
        Self { name, attempt }
    }
}

impl From<&ImageSpec> for wire::ImageSpec {
    fn from(ImageSpec(image): &ImageSpec) -> Self {
        let (image, user_specified_image) = (image.clone(), image.clone());
        Self { image, user_specified_image, ..Self::default() }
    }
}

impl From<wire::ImageSpec> for ImageSpec {
    fn from(image: wire::ImageSpec) -> Self {
        Self(image.image)
    }
}

impl From<&ContainerFilter> for wire::ContainerFilter {
    fn from(filter: &ContainerFilter) -> Self {
        Self {
            pod_sandbox_id: filter.sandbox.as_ref().map(|it| it.0.clone()).unwrap_or_default(),
            label_selector: filter.labels.clone(),
            ..Self::default()
        }
    }
}

/// Id and state are for the server to look at.
impl From<wire::ContainerFilter> for ContainerFilter {
    fn from(filter: wire::ContainerFilter) -> Self {
        let sandbox = filter.pod_sandbox_id;
        Self {
            sandbox: (!sandbox.is_empty()).then_some(SandboxId(sandbox)),
            labels: filter.label_selector,
        }
    }
}
