//! What of the shim's program is decided without doing anything, so that it can be tested and fuzzed by
//! itself: the answers to the sandboxes' questions for names.

pub mod dns;
