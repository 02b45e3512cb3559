//! Probes: whether containers have started, work, and can serve.
//!
//! When to ask and what follows is decided in [`mainstay_plan::probe`]; here it is asked.
//!
//! # Flow
//!
//! Each pod's worker tells what runs of its pod ([`Line`]). One task ([`prober`]), on a thread of its
//! own once there is something to probe, keeps the times of all probes of the node, begins those that are
//! due, and asks them beside each other. What they find goes back to the worker at once when it changes something, and into a file of the pod's
//! directory, from which the next agent goes on ([`kept`]).
//!
//! # Guarantees
//!
//! - A probe that hangs delays no other one, and ends with its time or with its container.
//! - What a container answers is read up to a bound.
//! - A new agent takes a container for what the last one did, until its probes say otherwise.

mod answer;
mod counts;
mod dial;
mod exec;
mod get;
mod grpc;
mod kept;
mod line;
mod prober;
mod tasks;

pub(crate) use counts::{BUCKETS, Counts};
pub(crate) use dial::dial;
pub(crate) use get::{PLAIN_ANSWER, message, reach};
pub(crate) use kept::read as remembered;
pub(crate) use line::Line;
pub(crate) use prober::{Context, Prober, serve};
pub(crate) use tasks::driven;
