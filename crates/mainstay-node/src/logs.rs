//! Container logs: keeping them within bounds, and reading them.
//!
//! A container's log is a file of the form that the CRI describes, and older parts of it lie
//! beside it: `<restart count>.log` and `<restart count>.log.<time of the rotation>`.

mod read;
mod rotate;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use read::{LogOptions, LogReader};
pub use rotate::LogBounds;
pub(crate) use rotate::rotate_all;

/// The older parts of a log, the oldest first.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut parts: Vec<PathBuf> = fs::read_dir(directory)?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    // Their names end in times.
    parts.sort();
    Ok(parts)
}
