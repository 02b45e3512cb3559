//! SPDY/3.1, as far as Kubernetes' clients use it.
//!
//! Source: SPDY protocol draft 3.1, and `github.com/moby/spdystream`, which is at the other end.
//! Streams are only opened by clients. That implementation has no flow control: it sends no
//! WINDOW_UPDATE and does not wait for any, whatever the draft says; so does this one.

pub(crate) mod client;
pub(crate) mod connection;
pub(crate) mod dictionary;
pub(crate) mod frame;
pub(crate) mod headers;
pub(crate) mod reader;

#[cfg(test)]
mod tests;
