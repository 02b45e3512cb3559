//! Decides: what a pod worker does next, what status to show, what to run on.
//!
//! Everything here is a function of its arguments, and time is one of them: no clock, no file, no
//! environment, no randomness, nothing asynchronous. Facts go in, actions come out, and the tests
//! are tables. Whoever carries the actions out has no choices left to make.
//!
//! The place to start reading is [`pod::plan`].

pub mod admission;
pub mod allocatable;
pub mod api_pod;
mod apparmor;
pub mod backoff;
pub mod dns;
pub mod downward;
pub mod ephemeral_storage;
pub mod exclusive;
pub mod host_ports;
pub mod image;
pub mod image_gc;
pub mod labels;
pub mod lifecycle;
pub mod medium;
pub mod memory_qos;
pub mod mirror;
pub mod node_shutdown;
pub mod node_status;
pub mod object_mirror;
pub mod patch;
pub mod pod;
pub mod pod_network;
pub mod pressure;
pub mod probe;
pub mod projection;
pub mod pull_secrets;
pub mod qos;
pub mod rate;
pub mod references;
pub mod resize;
pub mod resources;
pub mod service_links;
pub mod status;
pub mod sysctls;
pub mod termination_message;
pub mod tokens;
pub mod translate;
pub mod users;
