//! The messages of `runtime/v1/api.proto` of `k8s.io/cri-api`, as far as they are of Linux.
//!
//! Names, numbers and types are the protocol's, which is where the meaning of a field is to be read;
//! nothing here adds to it. Left out are Windows, fields that have been replaced long since, pressure
//! (`psi`). The calls `Stream*` have messages of the same form as those that have all in one answer, which stand
//! for both. What is not known is passed over when it is read, so that newer peers can be talked to.
mod container;
mod container_config;
mod image;
mod metrics;
mod runtime;
mod sandbox;
mod stats;
mod stream;

pub(crate) use container::*;
pub(crate) use container_config::*;
pub(crate) use image::*;
pub(crate) use metrics::*;
pub(crate) use runtime::*;
pub(crate) use sandbox::*;
pub(crate) use stats::*;
pub(crate) use stream::*;
