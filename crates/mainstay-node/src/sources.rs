//! Where pods come from.

pub(crate) mod api;
mod credentials;
pub(crate) mod manifest_dir;
pub(crate) mod merge;
pub(crate) mod url;
