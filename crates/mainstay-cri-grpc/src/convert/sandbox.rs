//! What a sandbox is made from.

use mainstay_cri::{
    DnsConfig, IdMapping, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOptions,
    PodSandboxConfig, PodSandboxFilter, PodSandboxMetadata, PortMapping, Protocol, SeccompProfile,
};

use super::{ConvertError, Result, invalid, number};
use crate::wire;

impl From<&PodSandboxConfig> for wire::PodSandboxConfig {
    fn from(config: &PodSandboxConfig) -> Self {
        let context = &config.security_context;
        Self {
            metadata: Some((&config.metadata).into()),
            hostname: config.hostname.clone(),
            log_directory: config.log_directory.clone(),
            dns_config: Some((&config.dns).into()),
            port_mappings: config.port_mappings.iter().map(Into::into).collect(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            linux: Some(wire::LinuxPodSandboxConfig {
                cgroup_parent: config.cgroup_parent.clone(),
                security_context: Some(wire::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces(&context.namespaces)),
                    privileged: context.privileged,
                    seccomp: Some((&context.seccomp).into()),
                    ..Default::default()
                }),
                sysctls: config.sysctls.clone(),
                overhead: None,
                resources: None,
            }),
        }
    }
}

impl TryFrom<wire::PodSandboxConfig> for PodSandboxConfig {
    type Error = ConvertError;

    fn try_from(config: wire::PodSandboxConfig) -> Result<Self> {
        let linux = config.linux.unwrap_or_default();
        let context = linux.security_context.unwrap_or_default();
        Ok(Self {
            metadata: config.metadata.ok_or(ConvertError::Missing("metadata"))?.into(),
            hostname: config.hostname,
            log_directory: config.log_directory,
            dns: config.dns_config.unwrap_or_default().into(),
            port_mappings: config
                .port_mappings
                .into_iter()
                .filter(|mapping| mapping.host_port > 0)
                .map(TryInto::try_into)
                .collect::<Result<_>>()?,
            labels: config.labels,
            annotations: config.annotations,
            cgroup_parent: linux.cgroup_parent,
            security_context: LinuxSandboxSecurityContext {
                namespaces: context.namespace_options.unwrap_or_default().try_into()?,
                privileged: context.privileged,
                seccomp: seccomp(context.seccomp)?,
            },
            sysctls: linux.sysctls,
        })
    }
}

impl From<&PodSandboxMetadata> for wire::PodSandboxMetadata {
    fn from(PodSandboxMetadata { name, uid, namespace, attempt }: &PodSandboxMetadata) -> Self {
        Self {
            name: name.clone(),
            uid: uid.clone(),
            namespace: namespace.clone(),
            attempt: *attempt,
        }
    }
}

impl From<wire::PodSandboxMetadata> for PodSandboxMetadata {
    fn from(metadata: wire::PodSandboxMetadata) -> Self {
        let wire::PodSandboxMetadata { name, uid, namespace, attempt } = metadata;
        Self { name, uid, namespace, attempt }
    }
}

impl From<&DnsConfig> for wire::DNSConfig {
    fn from(DnsConfig { servers, searches, options }: &DnsConfig) -> Self {
        Self { servers: servers.clone(), searches: searches.clone(), options: options.clone() }
    }
}

impl From<wire::DNSConfig> for DnsConfig {
    fn from(wire::DNSConfig { servers, searches, options }: wire::DNSConfig) -> Self {
        Self { servers, searches, options }
    }
}

impl From<&PortMapping> for wire::PortMapping {
    fn from(mapping: &PortMapping) -> Self {
        let protocol = match mapping.protocol {
            Protocol::Tcp => wire::Protocol::Tcp,
            Protocol::Udp => wire::Protocol::Udp,
            Protocol::Sctp => wire::Protocol::Sctp,
        };
        Self {
            protocol: protocol.into(),
            container_port: mapping.container_port.into(),
            host_port: mapping.host_port.into(),
            host_ip: mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::PortMapping> for PortMapping {
    type Error = ConvertError;

    fn try_from(mapping: wire::PortMapping) -> Result<Self> {
        let host_ip = match mapping.host_ip.as_str() {
            "" => None,
            ip => Some(ip.parse().map_err(|_| invalid("host_ip", &ip))?),
        };
        Ok(Self {
            protocol: match wire::Protocol::try_from(mapping.protocol) {
                Ok(wire::Protocol::Tcp) => Protocol::Tcp,
                Ok(wire::Protocol::Udp) => Protocol::Udp,
                Ok(wire::Protocol::Sctp) => Protocol::Sctp,
                Err(_) => return Err(invalid("protocol", &mapping.protocol)),
            },
            container_port: number("container_port", mapping.container_port.into())?,
            host_port: number("host_port", mapping.host_port.into())?,
            host_ip,
        })
    }
}

/// Without the namespaces of one container.
pub(super) fn namespaces(options: &NamespaceOptions) -> wire::NamespaceOption {
    let mode = |mode: NamespaceMode| {
        i32::from(match mode {
            NamespaceMode::Pod => wire::NamespaceMode::Pod,
            NamespaceMode::Container => wire::NamespaceMode::Container,
            NamespaceMode::Node => wire::NamespaceMode::Node,
        })
    };
    wire::NamespaceOption {
        network: mode(options.network),
        pid: mode(options.pid),
        ipc: mode(options.ipc),
        target_id: String::new(),
        userns_options: options.users.map(|users| wire::UserNamespace {
            mode: wire::NamespaceMode::Pod.into(),
            uids: vec![id_mapping(users)],
            gids: vec![id_mapping(users)],
        }),
    }
}

pub(super) fn id_mapping(users: IdMapping) -> wire::IDMapping {
    wire::IDMapping { host_id: users.host_id, container_id: 0, length: users.length }
}

/// Of a sandbox; of a container, whose target is its own matter.
impl TryFrom<wire::NamespaceOption> for NamespaceOptions {
    type Error = ConvertError;

    fn try_from(options: wire::NamespaceOption) -> Result<Self> {
        let mode = |field, mode: i32| match wire::NamespaceMode::try_from(mode) {
            Ok(wire::NamespaceMode::Pod) => Ok(NamespaceMode::Pod),
            // Among themselves they are of each container; which one is a target's matter.
            Ok(wire::NamespaceMode::Container | wire::NamespaceMode::Target) => {
                Ok(NamespaceMode::Container)
            }
            Ok(wire::NamespaceMode::Node) => Ok(NamespaceMode::Node),
            Err(_) => Err(invalid(field, &mode)),
        };
        let shared = |field, value| match mode(field, value)? {
            NamespaceMode::Container => Err(invalid(field, &"CONTAINER")),
            mode @ (NamespaceMode::Pod | NamespaceMode::Node) => Ok(mode),
        };
        Ok(Self {
            network: shared("network", options.network)?,
            pid: mode("pid", options.pid)?,
            ipc: shared("ipc", options.ipc)?,
            users: options.userns_options.as_ref().map_or(Ok(None), users)?,
        })
    }
}

/// One range for users and groups alike, from 0 on.
fn users(options: &wire::UserNamespace) -> Result<Option<IdMapping>> {
    match wire::NamespaceMode::try_from(options.mode) {
        Ok(wire::NamespaceMode::Node) => return Ok(None),
        Ok(wire::NamespaceMode::Pod) => {}
        Ok(wire::NamespaceMode::Container | wire::NamespaceMode::Target) | Err(_) => {
            return Err(invalid("userns_options.mode", &options.mode));
        }
    }
    match (options.uids.as_slice(), options.gids.as_slice()) {
        ([uids], [gids]) if uids == gids && uids.container_id == 0 && uids.length > 0 => {
            Ok(Some(IdMapping { host_id: uids.host_id, length: uids.length }))
        }
        ([_], [_]) => {
            Err(ConvertError::Unsupported("userns_options that differ for uids and gids"))
        }
        _ => Err(ConvertError::Unsupported("userns_options without just one mapping each")),
    }
}

impl From<&SeccompProfile> for wire::SecurityProfile {
    fn from(profile: &SeccompProfile) -> Self {
        let (kind, file) = match profile {
            SeccompProfile::Unconfined => (wire::ProfileType::Unconfined, ""),
            SeccompProfile::RuntimeDefault => (wire::ProfileType::RuntimeDefault, ""),
            SeccompProfile::Localhost(file) => (wire::ProfileType::Localhost, file.as_str()),
        };
        Self { profile_type: kind.into(), localhost_ref: file.to_owned() }
    }
}

/// None is none. Source: `generateSeccompSecurityProfile` of containerd.
pub(super) fn seccomp(profile: Option<wire::SecurityProfile>) -> Result<SeccompProfile> {
    let Some(profile) = profile else { return Ok(SeccompProfile::Unconfined) };
    Ok(match wire::ProfileType::try_from(profile.profile_type) {
        Ok(wire::ProfileType::RuntimeDefault) => SeccompProfile::RuntimeDefault,
        Ok(wire::ProfileType::Unconfined) => SeccompProfile::Unconfined,
        Ok(wire::ProfileType::Localhost) => SeccompProfile::Localhost(profile.localhost_ref),
        Err(_) => return Err(invalid("profile_type", &profile.profile_type)),
    })
}

impl From<&PodSandboxFilter> for wire::PodSandboxFilter {
    fn from(filter: &PodSandboxFilter) -> Self {
        Self { label_selector: filter.labels.clone(), ..Self::default() }
    }
}

/// Id and state are for the server to look at.
impl From<wire::PodSandboxFilter> for PodSandboxFilter {
    fn from(filter: wire::PodSandboxFilter) -> Self {
        Self { labels: filter.label_selector }
    }
}

impl From<&PodSandboxFilter> for wire::PodSandboxStatsFilter {
    fn from(filter: &PodSandboxFilter) -> Self {
        Self { id: String::new(), label_selector: filter.labels.clone() }
    }
}
