//! Where pods come from.

pub(crate) mod api;
pub(crate) mod manifest_dir;
pub(crate) mod merge;
