//! What a container is made from and what is seen of it.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::{ImageSpec, SandboxId};

/// The runtime's name for a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Source: `ContainerConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerConfig {
    /// Which container of the pod it is.
    pub metadata: ContainerMetadata,
    /// The image to run, as [`crate::Images::image_status`] resolved it.
    pub image: ImageSpec,
    /// Replaces the image's entrypoint; empty keeps it.
    pub command: Vec<String>,
    /// Replaces the image's arguments; empty keeps them, unless `command` is given.
    pub args: Vec<String>,
    /// Replaces the image's working directory; empty keeps it.
    pub working_dir: String,
    /// Added to the image's environment, later entries winning.
    pub envs: Vec<(String, String)>,
    /// What is mounted, in order.
    pub mounts: Vec<Mount>,
    /// For finding it again.
    pub labels: BTreeMap<String, String>,
    /// For remembering things with it; the runtime gives them back unchanged.
    pub annotations: BTreeMap<String, String>,
    /// The log file, relative to the sandbox's log directory. Empty for no log.
    pub log_path: String,
    /// Whether standard input stays open for an attaching client.
    pub stdin: bool,
    /// Whether standard input closes after the first attached client left.
    pub stdin_once: bool,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// The signal that asks it to end, such as `SIGTERM`; `None` is the image's. Source: `stop_signal`.
    pub stop_signal: Option<String>,
    /// What it may use of the machine.
    pub resources: LinuxContainerResources,
    /// What it may do.
    pub security_context: LinuxContainerSecurityContext,
}

/// Source: `ContainerMetadata`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerMetadata {
    /// The container's name in the pod.
    pub name: String,
    /// Counts the containers of this name in the sandbox, from 0.
    pub attempt: u32,
}

/// Source: `Mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The path inside; absolute.
    pub container_path: String,
    /// The path on the host; it exists. Empty with `image`.
    pub host_path: String,
    /// The image whose files are mounted in place of a path on the host, as [`crate::Images::image_status`]
    /// resolved it. It can be neither written nor executed, and links in it lead to nothing but it.
    pub image: Option<ImageSpec>,
    /// Whether it can be written through this mount.
    pub readonly: bool,
    /// Whether what is mounted below it on the host cannot be written either; only with `readonly`.
    pub recursive_read_only: bool,
    /// Which mounts made later are seen on which side.
    pub propagation: MountPropagation,
    /// What below `host_path`, or in the image (`image_sub_path`), is mounted; empty for all of it. Whoever
    /// may write there chooses what its names lead to, so it is resolved once, and never out of there.
    pub sub_path: String,
}

/// Source: `MountPropagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MountPropagation {
    /// None (`rprivate`).
    #[default]
    Private,
    /// Those of the host are seen in the container (`rslave`).
    HostToContainer,
    /// Those of the container are seen on the host, too (`rshared`).
    Bidirectional,
}

/// Source: `LinuxContainerResources`. Zero is "not set" wherever the kernel has no zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxContainerResources {
    /// Microseconds; 0 is the kernel's own 100 000.
    pub cpu_period: u64,
    /// Microseconds of CPU time in each period; 0 is no limit.
    pub cpu_quota: i64,
    /// 2 to 262144, of which 1024 stands for one CPU; 0 is not set.
    pub cpu_shares: u64,
    /// Bytes; 0 is no limit.
    pub memory_limit: u64,
    /// Bytes of memory and swap together; 0 is no limit.
    pub memory_swap_limit: u64,
    /// -1000 to 1000: how soon the kernel kills it when memory is short.
    pub oom_score_adj: i32,
    /// Bytes of huge pages, of every size that the machine has; 0 is none at all. Source:
    /// `hugepage_limits`.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Further files of cgroup v2 and what to write there, such as `memory.min`.
    pub unified: BTreeMap<String, String>,
}

/// Source: `HugepageLimit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugepageLimit {
    /// The size of the page as the kernel's files of control groups are named: `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Source: `LinuxContainerSecurityContext`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxContainerSecurityContext {
    /// All capabilities and devices, and nothing masked.
    pub privileged: bool,
    /// Capabilities to add to the default ones, without `CAP_`; `ALL` is all.
    pub add_capabilities: Vec<String>,
    /// Capabilities to take away, without `CAP_`; `ALL` is all.
    pub drop_capabilities: Vec<String>,
    /// Replaces the user of the image.
    pub run_as_user: Option<u32>,
    /// The same by a name that the image's `/etc/passwd` has; only without the number.
    pub run_as_username: Option<String>,
    /// Replaces the group of the user.
    pub run_as_group: Option<u32>,
    /// Further groups.
    pub supplemental_groups: Vec<u32>,
    /// What the image's `/etc/group` has to say about it.
    pub supplemental_groups_policy: SupplementalGroupsPolicy,
    /// Whether the root file system can be written.
    pub readonly_rootfs: bool,
    /// Whether `execve` can never grant more than the caller has.
    pub no_new_privs: bool,
    /// Which paths are hidden, and which read-only.
    pub protected_paths: ProtectedPaths,
    /// Which system calls are let through.
    pub seccomp: SeccompProfile,
    /// The profile of AppArmor; `None` leaves it to the runtime.
    pub apparmor: Option<AppArmorProfile>,
    /// A container of the same sandbox that runs, whose process numbers it has instead of its own: the mode
    /// `TARGET` of `NamespaceOption`, and its `target_id`. Only where the sandbox's are of each container.
    pub target: Option<ContainerId>,
}

/// Source: `SupplementalGroupsPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SupplementalGroupsPolicy {
    /// The groups that it gives the user are added.
    #[default]
    Merge,
    /// Nothing.
    Strict,
}

/// Source: `SecurityProfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SeccompProfile {
    /// All system calls.
    #[default]
    Unconfined,
    /// The runtime's own list.
    RuntimeDefault,
    /// A profile in a file of the host, absolute, in Docker's JSON format.
    Localhost(String),
}

/// Source: `SecurityProfile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppArmorProfile {
    /// None.
    Unconfined,
    /// The runtime's own.
    RuntimeDefault,
    /// One that is in the kernel, by its name.
    Localhost(String),
}

/// Which paths of a container are hidden, or cannot be written. None of a privileged one are. Source:
/// `masked_paths` and `readonly_paths`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProtectedPaths {
    /// [`MASKED_PATHS`] and [`READONLY_PATHS`].
    #[default]
    Usual,
    /// None.
    None,
    /// These, and no others.
    These {
        /// Those that appear empty.
        masked: Vec<String>,
        /// Those that cannot be written.
        readonly: Vec<String>,
    },
}

/// Paths that show or change the whole machine, and so appear empty in a container unless
/// [`ProtectedPaths`] says otherwise; with those of the machine's processors that tell of their heat. Source:
/// `pkg/securitycontext/util.go`, `defaultMaskedPaths`.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that cannot be written, likewise. Source: `defaultReadonlyPaths`, the same place.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Which containers to list; an empty filter matches all. Source: `ContainerFilter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Only containers of this sandbox.
    pub sandbox: Option<SandboxId>,
    /// Only containers that carry all of these labels.
    pub labels: BTreeMap<String, String>,
}

/// Source: `Container`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The runtime's name for it.
    pub id: ContainerId,
    /// The sandbox that it is in.
    pub sandbox: SandboxId,
    /// Which container of the pod it is.
    pub metadata: ContainerMetadata,
    /// What it is doing.
    pub state: ContainerState,
    /// As given at its making.
    pub labels: BTreeMap<String, String>,
}

/// Source: `ContainerState`, with what goes with each state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, and not started.
    Created,
    /// Its process runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Its process ended.
    Exited {
        /// When it was started; `None` if it never ran.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
        /// 0 to 255, or 128 plus the number of the signal that killed it.
        exit_code: i32,
        /// One word: `Completed`, `Error`, `OOMKilled`, [`START_ERROR`], [`STATUS_UNKNOWN`] or
        /// another.
        reason: String,
        /// A sentence for people, or nothing.
        message: String,
    },
}

/// The reason of the end of a container that could not be started.
pub const START_ERROR: &str = "StartError";

/// The reason of an end that nobody saw.
pub const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

impl ContainerState {
    /// Whether the container was made and never started, because whoever was to start it ended
    /// first; it may have been cleared away since then. One whose start failed, or whose end
    /// nobody saw, may have run.
    pub fn never_ran(&self) -> bool {
        match self {
            Self::Created => true,
            Self::Running { .. } => false,
            Self::Exited { started_at, reason, .. } => {
                started_at.is_none() && ![START_ERROR, STATUS_UNKNOWN].contains(&reason.as_str())
            }
        }
    }
}

/// Source: `ContainerStatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// The runtime's name for it.
    pub id: ContainerId,
    /// Which container of the pod it is.
    pub metadata: ContainerMetadata,
    /// What it is doing.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// The image by the name that it was asked for, in full: `docker.io/library/nginx:1`.
    pub image: ImageSpec,
    /// `name@digest` if known, else the image's id.
    pub image_ref: String,
    /// As given at its making.
    pub labels: BTreeMap<String, String>,
    /// As given at its making.
    pub annotations: BTreeMap<String, String>,
    /// The log file; absolute.
    pub log_path: String,
    /// As whom its first process was started; `None` if the runtime does not tell.
    pub user: Option<LinuxContainerUser>,
    /// What it was made with; `None` if the runtime does not tell, as to one who made it and so knows.
    pub details: Option<Box<ContainerDetails>>,
}

/// What a container was made with. Source: the fields of `ContainerStatus` that say so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerDetails {
    /// The image's id.
    pub image_id: String,
    /// What was asked to be mounted.
    pub mounts: Vec<Mount>,
    /// What it may use, as it was set last.
    pub resources: LinuxContainerResources,
    /// The signal that asks it to end, such as `SIGTERM`.
    pub stop_signal: Option<String>,
}

/// Source: `LinuxContainerUser`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxContainerUser {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// All groups, that one among them.
    pub supplemental_groups: Vec<u32>,
}
