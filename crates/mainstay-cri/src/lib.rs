//! The contract between the agent and a container runtime, in the shape of the CRI.
//!
//! The Container Runtime Interface (`k8s.io/cri-api`, `runtime/v1/api.proto`) is the protocol by
//! which a kubelet drives a container runtime. This crate says the same in plain Rust: two traits,
//! [`Runtime`] and [`Images`], structs without `Option` where the protocol gives a value anyway,
//! one stream of [`ContainerEvent`]s and one [`Error`] whose kind decides what the caller does
//! next. Behind the traits stands the embedded engine or somebody else's CRI server, and the
//! agent cannot tell which.
//!
//! Names and meanings are the protocol's; what a field means is documented here only where the
//! protocol leaves it open. Two deliberate differences: [`Runtime::exec`], [`Runtime::attach`]
//! and [`Runtime::port_forward`] return byte streams where the protocol returns a URL, and times are [`jiff::Timestamp`] where it has nanoseconds.

mod attach;
mod bandwidth;
mod container;
mod error;
mod event;
mod exec;
mod images;
mod runtime;
mod sandbox;
mod stats;

pub use attach::{AttachRequest, Attached, Duplex, FELL_BEHIND, PortForward};
pub use bandwidth::Bandwidth;
pub use container::{
    AppArmorProfile, Container, ContainerConfig, ContainerDetails, ContainerFilter, ContainerId,
    ContainerMetadata, ContainerState, ContainerStatus, HugepageLimit, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxContainerUser, MASKED_PATHS, Mount, MountPropagation,
    ProtectedPaths, READONLY_PATHS, START_ERROR, STATUS_UNKNOWN, SeccompProfile,
    SupplementalGroupsPolicy,
};
pub use error::{Error, ErrorKind, Result, chain};
pub use event::{ContainerEvent, ContainerEventKind};
pub use exec::{
    EXEC_SYNC_OUTPUT, Exec, ExecRequest, ExecSync, ExecSyncRequest, ExitCode, Input, Output,
    Resize, TerminalSize,
};
pub use images::{Image, ImageId, ImageSpec, Images, PullRequest, PullSecret};
pub use runtime::{NETWORK_NOT_READY, Others, Runtime, RuntimeCondition, RuntimeStatus, Version};
pub use sandbox::{
    DNS_NAMES, DnsConfig, IdMapping, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOptions,
    PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxMetadata, PodSandboxState,
    PodSandboxStatus, PortMapping, Protocol, SandboxId,
};
pub use stats::{
    ContainerStats, CpuUsage, FilesystemUsage, MemoryUsage, NetworkInterfaceUsage, PodSandboxStats,
};
