//! Decides: what a pod worker does next, what status to show, what to run on.
//!
//! Everything here is a function of its arguments, and time is one of them: no clock, no file, no
//! environment, no randomness, nothing asynchronous. Facts go in, actions come out, and the tests
//! are tables. Whoever carries the actions out has no choices left to make.
//!
//! The place to start reading is [`pod::plan`].

pub mod admission;
pub mod api_pod;
pub mod backoff;
pub mod image;
pub mod labels;
pub mod mirror;
pub mod node_status;
pub mod patch;
pub mod pod;
pub mod pod_network;
pub mod pressure;
pub mod resources;
pub mod status;
pub mod termination_message;
pub mod translate;
