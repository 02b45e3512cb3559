//! gRPC over HTTP/2, both ends: calls that send one message and get one, or many.
//!
//! [`Channel`] is a client's way to a server, [`server`] answers on a socket. What the messages mean is for
//! whoever calls or answers; here they are bytes, and a [`Status`] says how a call ended. Nothing is
//! compressed, and whoever sends something compressed is told so.
//!
//! Source: `doc/PROTOCOL-HTTP2.md` and `doc/statuscodes.md` of gRPC.
//!
//! # Tasks
//!
//! One for each connection, which ends with whoever holds the [`Channel`] or awaits [`server::serve`].

mod client;
mod message;
pub mod server;
mod status;

pub use client::{Answers, Channel, Endpoint};
pub use message::{Encoded, MESSAGE_MAX, decode};
pub use status::{Code, Status};

/// An error and its causes, as one line for people.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
