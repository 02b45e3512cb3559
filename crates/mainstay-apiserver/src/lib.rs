//! The Kubernetes-compatible HTTP surface over the store: discovery, objects, patches, watches, tables,
//! admission, who may do what.
//!
//! # The way of a request
//!
//! | step | where |
//! | --- | --- |
//! | a connection, TLS, a client certificate | [`serve`] |
//! | what it asks for | `request` |
//! | who asks, and whether he may | `access`, over `authn` and `authz` |
//! | paths that are about no object | `nonresource`, `discovery`, `openapi` |
//! | which kind | `kinds`: one file for each |
//! | what is to be done | `verbs`: one file for each, and `subresource` |
//! | the body, held against the schema | `decode`, over `mainstay-schema` |
//! | how an object gets into the store | `pipeline`: `admission`, the kind's [`kind::Strategy`], `managed` |
//! | the store | `storage` |
//! | what goes by itself | `housekeeping` |
//! | logs, exec, attach, port-forward, the proxy of pods | `connect`: passed on to the node, or the pod |
//! | where the API itself is reached | `endpoint` |
//!
//! # Guarantees
//!
//! - A write is answered when the store has it, and what it was judged by is what was there then.
//! - No request makes another wait, and none holds more than [`body`]'s bounds of memory.
//! - Refusals are `Status` objects with Kubernetes' reasons.
//! - Nothing here knows containers, manifests on disk or controllers.

mod access;
mod admission;
mod allocate;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod call;
mod connect;
mod current;
mod decode;
mod discovery;
mod endpoint;
mod housekeeping;
mod kind;
mod kinds;
mod label_selector;
mod managed;
mod metrics_api;
mod nonresource;
mod object;
mod openapi;
mod pipeline;
mod random;
mod request;
mod rules;
mod selector;
pub mod serve;
mod server;
mod status;
mod storage;
mod subresource;
mod table;
mod verbs;

pub use access::Access;
pub use authn::{MASTERS, User};
pub use body::{Body, BoxError, boxed};
pub use connect::Nodes;
pub use endpoint::reachable;
pub use server::{ApiServer, Config, Peer};
pub use status::ApiError;
