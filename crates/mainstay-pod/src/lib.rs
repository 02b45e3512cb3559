//! Turns manifest bytes into a validated pod with an identity, and answers questions that a pod alone can answer.
//!
//! # Flow
//!
//! [`read()`] goes through these stages; each is a module, each is pure:
//!
//! 1. `yaml` and `json` make trees whose keys and values know their places in the file, with the meaning
//!    that Kubernetes gives to YAML.
//! 2. `documents` finds the Pods, ConfigMaps and Secrets: in several documents, in `List` and `PodList`.
//! 3. `clean` takes out what a cluster had added to a pasted manifest.
//! 4. `schema` holds the tree against a generated table of every field of the Pod API.
//! 5. `defaults` fills in what an API server would.
//! 6. `validate` refuses what an API server would, in its words, and what a static pod may not have.
//! 7. `unsupported` refuses by name what this version does not carry out yet.
//! 8. `identity` gives the pod its name, its UID and its annotations.
//!
//! A pod of an API has been through all that there; [`api`] makes a [`Pod`] of it.
//!
//! # Guarantees
//!
//! - A [`Pod`] is valid, defaulted and has an identity.
//! - Every [`Diagnostic`] about a document has a line, a column and, unless it is about syntax, a field.
//! - No input makes anything here panic, recurse without bound, or take more than bounded time and memory.
//! - The same manifest has the same [`Pod::content_hash`] and [`Pod::uid`] in every version.
//!
//! Nothing here knows tokio, files, the network, a clock, the environment or randomness: time and names of
//! files are arguments.

pub mod api;
pub mod bandwidth;
pub mod containers;
pub mod defaults;
pub mod diagnostic;
pub mod identity;
pub mod node_labels;
pub mod priority;
pub mod quantity;
pub mod resources;
pub mod scheduling;
pub mod validate;

mod clean;
mod credentials;
mod documents;
mod json;
mod object;
mod path;
mod pod;
mod read;
mod schema;
mod source;
mod tree;
mod unsupported;
mod yaml;

pub use containers::Role;
pub use diagnostic::{Cause, Diagnostic, Severity};
pub use identity::{FullName, NodeName, NodeNameError, SourceKind};
pub use object::{DockerFormat, Object, ObjectKind, ObjectName, ObjectValue, Written};
pub use pod::{HostPort, Pod, RebuildError, RestartPolicy};
pub use quantity::Quantity;
pub use read::{Entry, Outcome, ReadOptions, Validation, read, read_value};
pub use resources::{Amounts, PodTotals, QosClass};
pub use tree::MAX_FILE_BYTES;
