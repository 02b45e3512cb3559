//! What is short on a machine, and which pods are ended for it.
//!
//! # Flow
//!
//! [`Thresholds`] are what the machine's owner has set, [`Levels`] what there is. From one look to the
//! next a [`Course`] remembers what was short when; it says what the Node shows ([`Pressure`]) and for
//! which [`Threshold`]s room has to be made now. What nobody uses goes first, then the pod that
//! [`victim`] names, one at a look. Pods of an API end for good, as a kubelet ends them. Static pods, which a
//! kubelet never ends, have nobody who would put another one in their place: they are started again
//! when what they were ended for is there again, the most important first ([`returning`]).
//!
//! Images and containers lie in the root directory, as what pods write does: `nodefs`, `imagefs` and
//! `containerfs` are the same file system.
//!
//! Source: `pkg/kubelet/eviction` of Kubernetes 1.36.

mod course;
mod message;
mod rank;
mod thresholds;

pub use course::{Course, Judgement};
pub use message::{message, resource_of};
pub use rank::{Candidate, ContainerUsage, PodUsage, returning, victim};
pub use thresholds::{Amount, Threshold, Thresholds};

/// What is looked at, in the order in which room is made: memory is what pods die of at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// `memory.available`
    MemoryAvailable,
    /// `allocatableMemory.available`
    AllocatableMemoryAvailable,
    /// `nodefs.available`
    NodefsAvailable,
    /// `nodefs.inodesFree`
    NodefsInodesFree,
    /// `imagefs.available`
    ImagefsAvailable,
    /// `imagefs.inodesFree`
    ImagefsInodesFree,
    /// `pid.available`
    PidAvailable,
}

/// What a signal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of memory.
    Memory,
    /// Bytes of disk.
    EphemeralStorage,
    /// Files.
    Inodes,
    /// Processes and threads.
    Pids,
}

impl Signal {
    const ALL: [Self; 7] = [
        Self::MemoryAvailable,
        Self::AllocatableMemoryAvailable,
        Self::NodefsAvailable,
        Self::NodefsInodesFree,
        Self::ImagefsAvailable,
        Self::ImagefsInodesFree,
        Self::PidAvailable,
    ];

    /// As configurations name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::AllocatableMemoryAvailable => "allocatableMemory.available",
            Self::NodefsAvailable => "nodefs.available",
            Self::NodefsInodesFree => "nodefs.inodesFree",
            Self::ImagefsAvailable => "imagefs.available",
            Self::ImagefsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// The signal of this name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }

    /// What it is about.
    pub fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Resource::Memory,
            Self::NodefsAvailable | Self::ImagefsAvailable => Resource::EphemeralStorage,
            Self::NodefsInodesFree | Self::ImagefsInodesFree => Resource::Inodes,
            Self::PidAvailable => Resource::Pids,
        }
    }
}

impl Resource {
    const ALL: [Self; 4] = [Self::Memory, Self::EphemeralStorage, Self::Inodes, Self::Pids];

    /// As people are told of it. Source: `signalToResource`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// Whether it is of a disk, which images and ended containers take up too.
    pub fn is_of_disk(self) -> bool {
        matches!(self, Self::EphemeralStorage | Self::Inodes)
    }
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What nobody has.
    pub available: u64,
    /// All.
    pub capacity: u64,
}

/// How much there is; `None` is what cannot be told, which is never short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Bytes of memory.
    pub memory: Option<Level>,
    /// Bytes of the memory that all pods may have together.
    pub allocatable_memory: Option<Level>,
    /// Bytes of the root directory's file system.
    pub disk: Option<Level>,
    /// Files of the root directory's file system.
    pub inodes: Option<Level>,
    /// Processes and threads.
    pub processes: Option<Level>,
}

impl Levels {
    /// What a signal shows.
    pub fn of(&self, signal: Signal) -> Option<Level> {
        match signal {
            Signal::MemoryAvailable => self.memory,
            Signal::AllocatableMemoryAvailable => self.allocatable_memory,
            Signal::NodefsAvailable | Signal::ImagefsAvailable => self.disk,
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => self.inodes,
            Signal::PidAvailable => self.processes,
        }
    }
}

/// What is short, or was a moment ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory is.
    pub memory: bool,
    /// Space for files is, or their number.
    pub disk: bool,
    /// The number of processes is.
    pub processes: bool,
}

impl Pressure {
    /// Whether this is short.
    pub fn is_of(self, resource: Resource) -> bool {
        match resource {
            Resource::Memory => self.memory,
            Resource::EphemeralStorage | Resource::Inodes => self.disk,
            Resource::Pids => self.processes,
        }
    }

    /// The conditions of the Node that say so.
    pub fn conditions(self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("MemoryPressure", self.memory),
            ("DiskPressure", self.disk),
            ("PIDPressure", self.processes),
        ];
        all.into_iter().filter_map(|(name, holds)| holds.then_some(name))
    }
}

#[cfg(test)]
mod tests;
