//! What can be done with objects: one file for each verb, or for those that belong together.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod options;
pub(crate) mod patch;
pub(crate) mod reviews;
pub(crate) mod update;
pub(crate) mod watch;
