//! What is in files that may be replaced while it is in use.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Reads files when they are others than before. Those that cannot be used say what they said before.
pub(super) struct Reread<T> {
    files: Vec<PathBuf>,
    read: fn(&[PathBuf]) -> anyhow::Result<T>,
    last: Mutex<Last<T>>,
}

struct Last<T> {
    /// How the files were when they were looked at.
    stamps: Option<Vec<Stamp>>,
    value: Option<T>,
    /// What was wrong with them, if anything was.
    told: String,
}

/// The file itself, its length, and when anything about it was changed: whoever may read it now counts, too.
type Stamp = (u64, u64, i64, i64);

impl<T: Clone> Reread<T> {
    pub(super) fn new(files: Vec<PathBuf>, read: fn(&[PathBuf]) -> anyhow::Result<T>) -> Self {
        let last = Last { stamps: None, value: None, told: String::new() };
        let new = Self { files, read, last: Mutex::new(last) };
        // What is wrong is told at the start, and not when somebody comes.
        new.now();
        new
    }

    /// What they say now, or said before; `None` as long as they could not be used.
    pub(super) fn now(&self) -> Option<T> {
        let stamps = self.stamps();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.value.is_some() && (stamps.is_none() || stamps == last.stamps) {
            return last.value.clone();
        }
        match (self.read)(&self.files) {
            Ok(value) => {
                if last.value.is_some() || !last.told.is_empty() {
                    tracing::info!(files = ?self.files, "files of the node's API are read anew");
                }
                *last = Last { stamps, value: Some(value), told: String::new() };
            }
            Err(error) => {
                last.stamps = stamps;
                let error = format!("{error:#}");
                if last.told != error {
                    let until = match last.value {
                        Some(_) => "what was there before counts",
                        None => "the node's API does without it",
                    };
                    tracing::warn!("{error}; {until} until it can be used");
                    last.told = error;
                }
            }
        }
        last.value.clone()
    }

    fn stamps(&self) -> Option<Vec<Stamp>> {
        let stamp = |path: &PathBuf| {
            let it = fs::metadata(path).ok()?;
            Some((it.ino(), it.len(), it.ctime(), it.ctime_nsec()))
        };
        self.files.iter().map(stamp).collect()
    }
}

impl<T> fmt::Debug for Reread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reread").field("files", &self.files).finish_non_exhaustive()
    }
}
