//! Where pods come from.

pub(crate) mod manifest_dir;
pub(crate) mod merge;
