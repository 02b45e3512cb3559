//! The remote-command and port-forward wire formats: WebSocket channels, SPDY/3.1, SPDY in WebSocket.
//!
//! The server's side of Kubernetes' streaming requests, over a connection that HTTP has handed
//! over: [`remote_command`] for `exec` and `attach`, [`port_forward`] for `port-forward`. Each
//! has a pure `negotiate`, which reads a request and makes the answer, and a function that takes
//! the upgraded connection. The client's side, over SPDY only, is [`client`].
//!
//! # What runs
//!
//! A connection has a task that reads and writes frames, and one more per stream to the client;
//! they end with the value that the caller holds ([`remote_command::Finish`],
//! [`port_forward::PortForward`]).
//!
//! # Memory and back pressure
//!
//! All queues are bounded: 64 KiB per direction of a stream, less when a connection has many
//! streams, about 4 MiB per connection. A client that does not read stops the writers of its
//! streams. A stream that is not read stops, once its 64 KiB are full, all that its client sends:
//! neither protocol has flow control that Kubernetes' clients follow.
//!
//! # What is not here
//!
//! No answer is asked for to find out whether a silent client is alive: clients that are stopped,
//! or whose output is blocked, do not answer pings, and must not lose their session for it. The
//! listener's TCP keep-alive finds those whose machine is gone.

pub mod client;
mod link;
mod pipe;
pub mod port_forward;
pub mod remote_command;
mod spdy;
#[cfg(test)]
mod testing;
mod upgrade;
mod websocket;

pub use link::{Gone, Timeouts};
pub use upgrade::{Refusal, is_upgrade};
