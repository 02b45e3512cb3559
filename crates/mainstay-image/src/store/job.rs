//! What an import or pull needs until its image has a record.

use std::fs::File;
use std::io::Write;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{Store, to_json};
use crate::digest::Digest;
use crate::durable::{FileError, at};

/// Layers and blobs that are kept although no image has them yet, until this is dropped or the
/// process ends.
#[derive(Debug)]
pub(crate) struct Job {
    _file: NamedTempFile,
}

/// What the file of a job says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub(super) layers: Vec<Digest>,
    pub(super) blobs: Vec<Digest>,
}

impl Store {
    /// Keeps `layers` and `blobs`, those that are here already and those still to come.
    pub(crate) fn start_job(
        &self,
        layers: Vec<Digest>,
        blobs: Vec<Digest>,
    ) -> Result<Job, FileError> {
        let jobs = self.dir().join("jobs");
        // Whoever collects holds the lock exclusively, so it sees the file locked and written.
        let _guard = self.shared()?;
        let mut file =
            NamedTempFile::with_prefix_in("job-", &jobs).map_err(at("making a file in", &jobs))?;
        let locked: &File = file.as_file();
        locked.lock().map_err(at("locking", file.path()))?;
        let content = to_json(&JobRecord { layers, blobs });
        file.write_all(&content).map_err(at("writing", file.path()))?;
        Ok(Job { _file: file })
    }
}
