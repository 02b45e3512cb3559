//! Speaking to a Kubernetes API: requests that have an end, collections that are
//! followed, events that are told.
//!
//! The agent and the controllers do it alike: both hold an ordinary [`kube::Client`], behind which
//! is a server of this process or of another machine.
//!
//! # Guarantees
//!
//! - Every request has an end: an API that is wedged is one that is away.
//! - Whoever follows a collection hears of each object's newest state, in the order of versions, and
//!   of its end; not of every state between.

mod calls;
mod error;
pub mod events;
mod follow;
mod lines;
mod object;
mod trouble;

pub use calls::{Calls, Deletion};
pub use error::{CallError, CallErrorKind};
pub use follow::{Collection, Sink, follow};
pub use object::{Object, Partial};
pub use trouble::{LONGEST_AWAY, LONGEST_REFUSED, Trouble, wait_after};

/// How long one request may take.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
