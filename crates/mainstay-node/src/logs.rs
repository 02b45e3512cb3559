//! Container logs: keeping them within bounds, and reading them.
//!
//! A container's log is a file of the form that the CRI describes, and older parts of it lie
//! beside it: `<restart count>.log` and `<restart count>.log.<time of the rotation>`.

mod links;
mod read;
mod rotate;
mod tail;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use links::{link, sweep};
pub use links::{links_directory, unlink_pod};
pub use read::{LogOptions, LogReader, LogStream};
pub use rotate::LogBounds;
pub(crate) use rotate::rotate_all;
pub(crate) use tail::last_lines;

/// How many runs of a container have left a log in its directory, those before the machine
/// restarted included. Source: `calcRestartCountByLogDir` in
/// `pkg/kubelet/kuberuntime/kuberuntime_container.go`.
pub(crate) fn runs(directory: &Path) -> u32 {
    // None, or none that can be seen: this is the first run.
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let numbers = entries.filter_map(Result::ok).filter_map(|entry| run_of(&entry));
    numbers.max().map_or(0, |newest| newest.saturating_add(1))
}

/// Removes what the runs of a container before this one have logged, which are not known any more. Source:
/// `removeContainerLog` in `pkg/kubelet/kuberuntime/kuberuntime_container.go`.
pub(crate) fn forget(directory: &Path, before: u32) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if run_of(&entry).is_some_and(|run| run < before) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The number of the run that has left a file; `None` if it is no log.
fn run_of(entry: &fs::DirEntry) -> Option<u32> {
    let name = entry.file_name();
    let (number, _) = name.to_str()?.split_once(".log")?;
    number.parse().ok()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_the_newest_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web");
        assert_eq!(runs(&path), 0);
        fs::create_dir(&path).unwrap();
        for (name, expected) in [
            ("other", 0),
            ("x.log", 0),
            ("0.log", 1),
            ("2.log.20261124-120000", 3),
            ("1.log", 3),
            ("10.log", 11),
        ] {
            fs::write(path.join(name), "").unwrap();
            assert_eq!(runs(&path), expected, "{name}");
        }
    }

    #[test]
    fn what_early_runs_logged_goes_with_its_older_parts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web");
        forget(&path, 2).unwrap();
        fs::create_dir(&path).unwrap();
        for name in ["0.log", "1.log.20261124-120000.gz", "1.log", "2.log", "10.log", "0.txt"] {
            fs::write(path.join(name), "").unwrap();
        }
        forget(&path, 2).unwrap();
        let names = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["0.txt", "10.log", "2.log"]);
    }
}
