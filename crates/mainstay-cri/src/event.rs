//! What a runtime reports by itself.

use jiff::Timestamp;

use crate::{ContainerId, SandboxId};

/// Something happened to a container or to a whole sandbox.
///
/// An event is a hint: it may come late, twice or not at all, and the status that a following
/// call returns is the truth. Source: `ContainerEventResponse` in `runtime/v1/api.proto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The sandbox that the container belongs to.
    pub sandbox: SandboxId,
    /// The container, or `None` when the sandbox itself changed.
    pub container: Option<ContainerId>,
    /// What happened.
    pub kind: ContainerEventKind,
    /// When it happened.
    pub at: Timestamp,
}

impl ContainerEvent {
    /// That events were lost, which is of no one sandbox.
    pub fn lagged(at: Timestamp) -> Self {
        Self {
            sandbox: SandboxId(String::new()),
            container: None,
            kind: ContainerEventKind::Lagged,
            at,
        }
    }
}

/// The kinds of [`ContainerEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEventKind {
    /// The container exists.
    Created,
    /// The container's process runs.
    Started,
    /// The container's process ended, or the sandbox is no longer ready.
    Stopped,
    /// The container or sandbox is gone.
    Deleted,
    /// The runtime lost count (a full queue, a restart); everything has to be listed anew.
    Lagged,
}
