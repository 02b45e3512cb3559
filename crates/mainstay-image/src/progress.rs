//! What an import or pull tells while it runs.

use std::time::Duration;

use crate::digest::Digest;

/// Takes events. It is called from several threads and should return quickly.
pub type Progress<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An image is about to be taken in.
    Image {
        /// Its name, or its id if it has none.
        name: String,
        /// Its layers, lowest first. In events after this one they go by their place in here.
        layers: Vec<LayerInfo>,
    },
    /// A layer has got somewhere.
    Layer {
        /// Its place in the image that was announced last.
        index: usize,
        /// Where.
        phase: Phase,
    },
    /// Something failed that is tried again.
    Retry {
        /// What failed and why, with its causes.
        error: String,
        /// When it is tried again.
        after: Duration,
    },
    /// Something that is worth a line in a log, but no error.
    Note(String),
}

/// A layer that is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its digest as it travels, or uncompressed if that is all that is known.
    pub digest: Digest,
    /// Its length as it travels, in bytes.
    pub size: u64,
}

/// Where a layer has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It was here before.
    Present,
    /// Somebody else is taking it in.
    Waiting,
    /// So many bytes of it have come.
    Downloading(u64),
    /// So many bytes of it, as it travels, have been unpacked.
    Unpacking(u64),
    /// It is here now.
    Done,
}
