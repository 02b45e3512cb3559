//! The CRI over gRPC: a runtime that is another program, behind its socket, and a runtime of this program, served
//! to others.
//!
//! [`RemoteRuntime`] and [`RemoteImages`] are a `Runtime` and an `Images` of `mainstay-cri` that ask a CRI
//! server such as containerd or CRI-O. `wire` has the protocol's messages, `convert` their meaning in the words
//! of `mainstay-cri`, in both directions, `client` is what asks, and `server` ([`serve`]) what answers. How they
//! go over a connection is in `mainstay-grpc`.
//!
//! # Why neither `k8s-cri` nor `tonic`
//!
//! See ARCHITECTURE.md, "The CRI's messages are written down here".

mod client;
mod convert;
mod files;
pub mod methods;
mod server;
mod tasks;
mod wire;

pub use client::{
    Credentials, Offer, PullCredentials, REQUEST_TIMEOUT, RemoteConfig, RemoteImages, RemoteRuntime,
};
pub use server::{ServerConfig, serve};
