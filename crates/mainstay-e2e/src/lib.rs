//! End-to-end tests on a real agent, and what they share with the client that measures.

pub mod api;
