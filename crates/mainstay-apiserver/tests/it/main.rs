//! The server asked as its clients ask it, in process.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod api;
mod common;
mod discovery;
mod kinds;
mod patches;
mod protobuf;
mod resize;
mod shared;
mod subresources;
