//! The shapes of Kubernetes objects: their fields, how lists and maps merge, and the patches that
//! follow from it.
//!
//! Everything is a pure function over [`serde_json::Value`]; nothing here knows what is stored or
//! who asks.
//!
//! | question | answer |
//! | --- | --- |
//! | What fields does a kind have? | [`types::of`] |
//! | What does a strategic merge patch make of an object? | [`strategic::merge`] |
//! | What does the strict decoder say about it, and what is left? | [`decode::from_slice`], [`decode::from_value`], [`decode::from_patched`] |
//! | What did a client written in Go send? | [`protobuf::unknown`] |
//! | Who owns which field, and what does server-side apply make of it? | [`managed::update`], [`managed::apply`] |
//! | What do the OpenAPI documents say? | [`openapi`] |
//! | How does Go write a value? | [`go`] |

pub mod decode;
pub mod go;
pub mod managed;
pub mod openapi;
pub mod protobuf;
pub mod strategic;
pub mod types;

pub use types::{Field, ListType, Shape, Type, of};
