//! What a pod worker does next.
//!
//! A worker has one goal and sees the truth of the runtime; [`plan()`] says which actions lie
//! between the two at this moment. It is asked again after every action and every change, so it
//! needs no memory of where it was: a plan that was interrupted half-way is made again from what is
//! there.
//!
//! # Flow
//!
//! ```text
//! Stop:  stop containers ─► stop sandbox, which is kept ─► done
//! Gone:  stop containers ─► stop sandbox ─► remove sandbox ─► clean up ─► done
//! Run:   the same for every sandbox that is not the goal's own (the old version's), and
//!        meanwhile: get the images; then: prepare ─► run sandbox ─► start containers ─┐
//!                                              ▲ the next ones, or again, backed off │
//!                                              └─────────────────────────────────────┘
//!        what was added to the pod is started once, as soon as there is a sandbox
//!        all containers done for good ─► stop sidecars ─► record it ─► stop sandbox
//!        deadline passed ─► stop containers ─► stop sandbox ─► record it
//! ```
//!
//! # Guarantees
//!
//! - Two versions of one pod never run at the same time.
//! - No action is asked for while another one with the same [`Key`] is in flight.
//! - A pod that has finished, or that runs as it should, asks for nothing.

mod deadline;
mod health;
mod order;
mod plan;
mod restart;
mod state;
mod tear_down;

pub(crate) use deadline::is_exceeded;
pub use deadline::{DEADLINE_EXCEEDED, DEADLINE_MESSAGE};
pub use health::Health;
pub(crate) use order::{Round, on_turn};
pub use plan::plan;
pub(crate) use restart::{Afterwards, Restarts};
pub use restart::{has_started, spent, was_interrupted};
pub use state::{
    Action, Began, ContainerPlan, Ending, Eviction, EvictionCause, Failure, Finished, Goal,
    ImageMemory, Incarnation, Key, Memory, Plan, PodKey, RunGoal, SeenContainer, SeenPod,
    SeenSandbox, SourceKind, StopReason, Waiting,
};
