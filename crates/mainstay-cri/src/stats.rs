//! What sandboxes and containers use.
//!
//! What a runtime cannot tell is absent, never zero. Source: `PodSandboxStats` and
//! `ContainerStats` in `runtime/v1/api.proto`.

use jiff::Timestamp;

use crate::{ContainerId, ContainerMetadata, PodSandboxMetadata, SandboxId};

/// What one sandbox and its running containers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandboxStats {
    /// The runtime's name for it.
    pub id: SandboxId,
    /// Whose sandbox it is.
    pub metadata: PodSandboxMetadata,
    /// Processor time of all that runs in it.
    pub cpu: Option<CpuUsage>,
    /// Memory of all that runs in it.
    pub memory: Option<MemoryUsage>,
    /// What went through its interfaces, the default one first; empty on the host's network.
    pub network: Vec<NetworkInterfaceUsage>,
    /// How many processes and threads run in it.
    pub process_count: Option<u64>,
    /// The containers that run.
    pub containers: Vec<ContainerStats>,
}

/// What one container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    /// The runtime's name for it.
    pub id: ContainerId,
    /// Which container of the pod it is.
    pub metadata: ContainerMetadata,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// Processor time.
    pub cpu: Option<CpuUsage>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
}

/// Processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuUsage {
    /// When it was read.
    pub timestamp: Timestamp,
    /// Nanoseconds since the start, of all processors together.
    pub usage_core_nano_seconds: u64,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUsage {
    /// When it was read.
    pub timestamp: Timestamp,
    /// What would be missed: the usage without files that nobody has used lately.
    pub working_set_bytes: u64,
    /// The limit less the working set; `None` without a limit.
    pub available_bytes: Option<u64>,
    /// All that is charged, caches too.
    pub usage_bytes: u64,
    /// What belongs to no file.
    pub rss_bytes: u64,
    /// Page faults since the start.
    pub page_faults: u64,
    /// Of them, those that waited for a disk.
    pub major_page_faults: u64,
}

/// What files take of a disk. Source: `FilesystemUsage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// Bytes.
    pub used_bytes: u64,
    /// Files, directories among them.
    pub inodes_used: u64,
}

/// What went through one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInterfaceUsage {
    /// Its name inside.
    pub name: String,
    /// Bytes that came.
    pub rx_bytes: u64,
    /// Packets that came broken.
    pub rx_errors: u64,
    /// Bytes that went.
    pub tx_bytes: u64,
    /// Packets that could not go.
    pub tx_errors: u64,
}
