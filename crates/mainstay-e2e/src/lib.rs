//! End-to-end tests on a real agent, and what they share with the clients that measure.

pub mod api;
pub mod replay;
