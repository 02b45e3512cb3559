//! What a container is, down to the last flag, so that the shim decides nothing.
//!
//! The words are those of the OCI runtime specification (`config.md`, `config-linux.md`). It is
//! not that specification's JSON, which leaves to the runtime how its mount option strings and
//! capability names are to be understood.

use serde::{Deserialize, Serialize};

/// A container to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The engine's name for it.
    pub id: String,
    /// A directory of the container's own in the run directory; absolute. The root file system
    /// is mounted at `rootfs` in it, and `exit.json` appears there when the container ended.
    pub bundle: String,
    /// The root file system.
    pub root: Root,
    /// What is mounted in it, in order.
    pub mounts: Vec<Mount>,
    /// Mount points that become read-only when all is mounted in them.
    pub sealed_mounts: Vec<String>,
    /// Device nodes to make below `/dev`, and the links beside them.
    pub devices: Vec<Device>,
    /// Symbolic links to make, as (path, target).
    pub links: Vec<(String, String)>,
    /// Paths that appear empty.
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written.
    pub readonly_paths: Vec<String>,
    /// Whether the container has process numbers of its own; otherwise it has those that the pod's
    /// containers share, or the machine's if they share none.
    pub new_pid_namespace: bool,
    /// A container that runs, whose process numbers it has instead of its own. A shim that does not know of
    /// this gives it its own; whoever asks has to look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes_of: Option<String>,
    /// Whether the container sees its own cgroup as the root of the hierarchy.
    pub new_cgroup_namespace: bool,
    /// Where it is accounted.
    pub cgroup: CgroupDirectories,
    /// The first process.
    pub process: Process,
    /// The log file, in the CRI's format; absolute.
    pub log_path: String,
    /// Whether standard input stays open; `/dev/null` otherwise.
    pub stdin: bool,
    /// Whether standard input closes after the first attached client left.
    #[serde(default)]
    pub stdin_once: bool,
}

/// A container's cgroup: directories that exist, absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupDirectories {
    /// Of the version 2 hierarchy, if there is one. Processes are started in it.
    pub unified: Option<String>,
    /// Of the version 1 hierarchies. Processes are moved into them.
    pub legacy: Vec<String>,
}

/// An overlay of image layers and one directory that can be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The directory that `lower` is relative to, since the kernel takes at most one page of
    /// mount options.
    pub layers: String,
    /// The layers, top first; at least one.
    pub lower: Vec<String>,
    /// What the container writes; absolute.
    pub upper: String,
    /// The overlay's own; absolute, on the same file system as `upper`.
    pub work: String,
    /// Whether the container may write it.
    pub readonly: bool,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The path inside; absolute. Links in it stay inside the root file system.
    pub destination: String,
    /// What appears there.
    pub source: MountSource,
    /// Its flags.
    pub flags: MountFlags,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host, with all that is mounted below it.
    Bind {
        /// Absolute.
        path: String,
    },
    /// A part of a directory of the host, without what is mounted in it.
    Part {
        /// The directory; absolute.
        directory: String,
        /// What below it. No link leads out of the directory.
        path: String,
    },
    /// The files of an image, or some of them, which nobody can write.
    Image {
        /// The directory that `lower` is relative to.
        layers: String,
        /// The layers, top first; at least one.
        lower: Vec<String>,
        /// An empty directory, of this mount only; absolute.
        place: String,
        /// What of it; empty for all. Links lead to nothing but the image.
        path: String,
    },
    /// A new instance of a file system that lives in memory.
    New {
        /// `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue` or `cgroup2`.
        kind: String,
        /// Its options, as (name, value); an empty value is a flag.
        options: Vec<(String, String)>,
    },
}

/// The flags of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    /// `ro`
    pub readonly: bool,
    /// `nosuid`
    pub nosuid: bool,
    /// `nodev`
    pub nodev: bool,
    /// `noexec`
    pub noexec: bool,
    /// Whether the flags are those of all that is mounted below it, too.
    #[serde(default)]
    pub recursive: bool,
    /// Whether the pod's own users own there what the machine's own; of what is the host's.
    #[serde(default)]
    pub mapped: bool,
    /// Which later mounts are seen on which side; of what is the host's.
    #[serde(default)]
    pub propagation: Propagation,
}

/// Which mounts that are made later are seen on which side of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// Those of each side only there.
    #[default]
    Private,
    /// Those of the host on both.
    FromHost,
    /// All on both.
    Both,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute.
    pub path: String,
    /// Block device; a character device otherwise.
    pub block: bool,
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; at least one. A program without a slash is looked for in the
    /// `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    /// Absolute; made if it is missing.
    pub cwd: String,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// What it may do.
    pub capabilities: Capabilities,
    /// Whether `execve` can never grant more than the caller has.
    pub no_new_privileges: bool,
    /// A file with the seccomp filter as the kernel takes it, an array of `struct sock_filter`;
    /// absolute.
    pub seccomp: Option<String>,
    /// The profile of AppArmor that the program gets, which is in the kernel. A shim that does not know of
    /// this gives it none; whoever asks has to look at [`Hello::apparmor`](crate::Hello::apparmor).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// -1000 to 1000; `None` keeps the shim's.
    pub oom_score_adj: Option<i32>,
    /// Whether it gets a terminal.
    pub terminal: bool,
}

/// Sets of capabilities; bit n is the capability with number n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The most that an `execve` can ever give.
    pub bounding: u64,
    /// What the process has and may use. An unprivileged user keeps none across `execve`.
    pub permitted: u64,
    /// What an `execve` of a program with capabilities of its own passes on.
    pub inheritable: u64,
    /// What an `execve` of an ordinary program passes on.
    pub ambient: u64,
}
