//! What the engine and a shim say to each other, with a version.
//!
//! A shim outlives the agent that started it, so it may have to talk to a newer or an older one.
//! The rules that make this work:
//!
//! - The shim listens on a Unix stream socket and greets every connection with a [`Hello`], which
//!   carries [`PROTOCOL`]. The engine drives shims from [`OLDEST_PROTOCOL`] on, and leaves others
//!   alone, running. For that, four things are the same in every version: the frame, the fields of
//!   the [`Hello`], the file `exit.json` with its [`ExitStatus`], and that a shim that is killed
//!   leaves its containers to whoever finds them.
//! - A frame is a length (four bytes, little endian, at most [`MAX_FRAME`]) and that many bytes of
//!   JSON. Unknown fields are ignored, so a field may be added without a new version if it has a
//!   default, as `sysctls` of [`SandboxNamespaces`] does: an older peer does not send it. A new
//!   version is needed for whatever else changes, a new variant of [`Command`], [`Event`] or any
//!   other choice too: whoever does not know it closes the connection.
//! - Every [`Request`] gets one [`Reply`] with its number, in any order. [`Event`]s come without
//!   being asked for, on connections that sent [`Command::Subscribe`].
//! - Descriptors travel as `SCM_RIGHTS` with the first byte of the frame that names them.

mod container;
mod frame;
mod message;
mod resolver;

pub use container::{
    Capabilities, CgroupDirectories, Container, Device, Mount, MountFlags, MountSource, Process,
    Propagation, Root,
};
pub use frame::{FrameError, MAX_FRAME, decode, encode, frame_length};
pub use message::{
    Attach, Command, ContainerPhase, ContainerReport, Detachment, Event, Exec, ExitStatus, Failure,
    Hello, Message, Outcome, Reply, Request, START_FAILED, SandboxNamespaces, Shm, Success,
    UserRange, nanoseconds,
};
pub use resolver::{
    RESOLVER_PROTOCOL, ResolverCommand, ResolverHello, ResolverReply, Zone, ZoneHost,
};

/// The version of the protocol that this crate describes.
pub const PROTOCOL: u32 = 1;

/// The oldest version that the engine still drives.
pub const OLDEST_PROTOCOL: u32 = 1;
