//! What a sandbox is made from and what is seen of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::{ContainerStatus, SeccompProfile};

/// The annotation of a sandbox that says what it is called among the others of its machine: names below the
/// domain of all, such as `web.default.svc`, with a comma between, the one that its addresses are called
/// first. CRI knows no field for it; a runtime that does not know it gives nobody names.
pub const DNS_NAMES: &str = "mainstay.dev/dns-names";

/// The runtime's name for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(pub String);

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Source: `PodSandboxConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandboxConfig {
    /// Whose sandbox it is.
    pub metadata: PodSandboxMetadata,
    /// The host name inside; ignored when the pod uses the host's network.
    pub hostname: String,
    /// Where the containers' log files go; absolute. Empty for no logs.
    pub log_directory: String,
    /// What goes into `/etc/resolv.conf`.
    pub dns: DnsConfig,
    /// Ports of the host that lead into the sandbox.
    pub port_mappings: Vec<PortMapping>,
    /// For finding it again.
    pub labels: BTreeMap<String, String>,
    /// For remembering things with it; the runtime gives them back unchanged.
    pub annotations: BTreeMap<String, String>,
    /// The cgroup below which the containers' cgroups are made: a path from the root of the
    /// hierarchy with the `cgroupfs` driver, the name of a slice with the `systemd` driver. Empty leaves
    /// it to the runtime.
    pub cgroup_parent: String,
    /// Namespaces and identities.
    pub security_context: LinuxSandboxSecurityContext,
    /// Namespaced kernel settings.
    pub sysctls: BTreeMap<String, String>,
}

/// Source: `PodSandboxMetadata`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Counts the sandboxes of one pod, from 0.
    pub attempt: u32,
}

/// Source: `DNSConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// Source: `PortMapping`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// The transport.
    pub protocol: Protocol,
    /// The port inside, 1 to 65535.
    pub container_port: u16,
    /// The port of the host, 1 to 65535.
    pub host_port: u16,
    /// The host's address that it is bound to; `None` is all of them, and an unspecified one all of its
    /// kind.
    pub host_ip: Option<IpAddr>,
}

/// Transport protocols of a [`PortMapping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Transmission control protocol.
    Tcp,
    /// User datagram protocol.
    Udp,
    /// Stream control transmission protocol.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Source: `LinuxSandboxSecurityContext`, as far as a runtime without a pause container needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxSandboxSecurityContext {
    /// Which namespaces are the pod's own.
    pub namespaces: NamespaceOptions,
    /// Whether one of the containers is privileged.
    pub privileged: bool,
    /// The system calls that a process of the sandbox itself may use.
    pub seccomp: SeccompProfile,
}

/// Source: `NamespaceOption`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NamespaceOptions {
    /// [`NamespaceMode::Pod`] or [`NamespaceMode::Node`].
    pub network: NamespaceMode,
    /// Any of the three.
    pub pid: NamespaceMode,
    /// [`NamespaceMode::Pod`] or [`NamespaceMode::Node`].
    pub ipc: NamespaceMode,
    /// The pod's own users and groups; `None` if they are the machine's.
    pub users: Option<IdMapping>,
}

/// Users and groups of a pod, those from 0 on, and whose numbers they have on the machine. Source:
/// `IDMapping`, of which a pod has one for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdMapping {
    /// The first one on the machine.
    pub host_id: u32,
    /// How many.
    pub length: u32,
}

/// Who shares a namespace. Source: `NamespaceMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NamespaceMode {
    /// The containers of the pod.
    #[default]
    Pod,
    /// Nobody: each container has its own.
    Container,
    /// Everybody on the machine.
    Node,
}

/// Which sandboxes to list; an empty filter matches all. Source: `PodSandboxFilter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSandboxFilter {
    /// Only sandboxes that carry all of these labels.
    pub labels: BTreeMap<String, String>,
}

/// Source: `PodSandbox`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandbox {
    /// The runtime's name for it.
    pub id: SandboxId,
    /// Whose sandbox it is.
    pub metadata: PodSandboxMetadata,
    /// Whether containers can run in it.
    pub state: PodSandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// As given at its making.
    pub labels: BTreeMap<String, String>,
    /// As given at its making.
    pub annotations: BTreeMap<String, String>,
}

/// Source: `PodSandboxState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodSandboxState {
    /// Containers can run in it.
    Ready,
    /// It was stopped, or what held it died.
    NotReady,
}

/// Source: `PodSandboxStatusResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandboxStatus {
    /// The sandbox itself.
    pub sandbox: PodSandbox,
    /// Its namespaces.
    pub namespaces: NamespaceOptions,
    /// Its addresses, the primary one first; empty on the host's network.
    pub ips: Vec<IpAddr>,
    /// All its containers, ended ones too.
    pub containers: Vec<ContainerStatus>,
}
