//! References, registry pulls, the content store and layer unpacking.
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
