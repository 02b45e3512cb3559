//! The node's HTTPS API, as a kubelet has it on port 10250: logs, commands and streams of
//! containers, ports of pods, usage, metrics, health.
//!
//! Source: `pkg/kubelet/server/server.go`.
//!
//! | path | what |
//! | --- | --- |
//! | `/healthz`, `/healthz/<check>` | whether the agent, its runtime and its manifests are well |
//! | `/pods`, `/runningpods/` | what should run, and what the runtime has |
//! | `/containerLogs/<namespace>/<pod>/<container>` | a log, followed if asked for |
//! | `/exec`, `/attach`, `/run`, `/portForward` | streams of a container, ports of a pod |
//! | `/stats/summary`, `/metrics`, `/metrics/{resource,cadvisor,probes}` | usage and counts |
//! | `/configz` | the configuration as file and flags have it; what they leave out is as usual |
//!
//! # Flow
//!
//! [`serve`] accepts connections, each with a task. A request is authenticated and authorised by
//! [`NodeAuth`], found in the table of [`route`], and answered; a connection that becomes something
//! else than HTTP goes to a task of [`streaming`].
//!
//! # Guarantees
//!
//! - Memory is bounded: connections, headers, what is read ahead for a client.
//! - Nothing here is on the way from a manifest to a container.

mod auth;
mod health;
mod logs;
mod metrics;
mod pods;
mod route;
mod runningpods;
mod server;
mod stats;
mod streaming;

pub use auth::{NodeAuth, Unauthenticated, User};
pub use server::{NodeApi, NodeApiSettings, serve, serve_health, serve_read_only};

pub(crate) use health::BoardHealth;
pub(crate) use pods::BoardPods;
pub(crate) use server::Context;

#[cfg(test)]
mod tests;
