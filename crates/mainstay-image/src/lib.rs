//! Images: what they are called, where they come from, and how they lie on disk.
//!
//! ```text
//!                archive (files)  ─┐                          ┌─ layers/<name>/fs ── overlayfs
//!  reference ──                    ├── unpack ── store ───────┤
//!                registry (pulls) ─┘      │                   └─ merged (without a mount)
//!                                    tar, layer, compression
//! ```
//!
//! - [`reference::Reference`] reads names as Docker and Kubernetes do.
//! - [`store::Store`] keeps unpacked layers and records, is used by several processes at once, and
//!   shows nothing that is not whole. Start with its module's documentation.
//! - [`store::Store::import`] takes images from files; [`registry::Puller`] from registries.
//! - [`unpack`] turns one layer into a lower directory for overlayfs, in one pass; [`layer`] decides
//!   what its entries mean, and refuses those that try to leave it.
//! - [`merged::MergedRoot`] reads a file of an image without mounting it.
//!
//! All work on files is blocking: call it where that may be. Only pulls are asynchronous; they do
//! their work on files on tokio's blocking threads, and keep no memory when they are done.
//!
//! Nothing here knows of containers or pods.

pub mod archive;
pub mod compression;
pub mod config;
pub mod digest;
pub mod durable;
#[doc(hidden)]
pub mod fuzz;
pub mod layer;
pub mod manifest;
pub mod merged;
pub mod platform;
pub mod progress;
pub mod reference;
pub mod registry;
pub mod space;
pub mod store;
mod tar;
#[cfg(test)]
mod testing;
pub mod unpack;

pub use tar::TarError;
