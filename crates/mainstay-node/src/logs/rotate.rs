//! Keeping container logs within bounds.
//!
//! Source: `pkg/kubelet/logs/container_log_manager.go`. A log that is too large is renamed and the
//! runtime goes on in a new file, so that no line is lost; the oldest ones are removed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay_cri::{ContainerFilter, ContainerState, Runtime};

/// How often logs are looked at. Source: `containerLogMonitorInterval`, 10 s.
const INTERVAL: Duration = Duration::from_secs(10);

/// Bounds for the log of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Bytes; a larger log is rotated. `containerLogMaxSize`.
    pub max_size: u64,
    /// How many files there may be, the current one too; at least 2. `containerLogMaxFiles`.
    pub max_files: usize,
}

impl Default for LogBounds {
    /// The kubelet's own: 10 MiB and 5 files.
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5 }
    }
}

/// Rotates for ever.
pub(crate) async fn rotate_all(runtime: Arc<dyn Runtime>, bounds: LogBounds) {
    let mut interval = tokio::time::interval(INTERVAL);
    // What could not be rotated, so that it is said once.
    let mut failing: BTreeMap<String, String> = BTreeMap::new();
    loop {
        interval.tick().await;
        let Ok(containers) = runtime.list_containers(&ContainerFilter::default()).await else {
            continue;
        };
        for container in containers {
            if !matches!(container.state, ContainerState::Running { .. }) {
                continue;
            }
            let Ok(status) = runtime.container_status(&container.id).await else { continue };
            let path = PathBuf::from(&status.log_path);
            let rotated = match rotate(&path, bounds, Timestamp::now()) {
                Ok(false) => continue,
                Ok(true) => {
                    let reopened = runtime.reopen_container_log(&container.id).await;
                    reopened.map_err(|error| error.chain())
                }
                Err(error) => Err(error.to_string()),
            };
            match rotated {
                Ok(()) => drop(failing.remove(&status.log_path)),
                Err(error) => {
                    let before = failing.insert(status.log_path.clone(), error.clone());
                    if before.as_ref() != Some(&error) {
                        tracing::warn!(log = status.log_path, error, "cannot rotate a log");
                    }
                }
            }
        }
    }
}

/// Renames a log that is too large and removes the oldest of its kind. Returns whether it did.
fn rotate(path: &Path, bounds: LogBounds, now: Timestamp) -> io::Result<bool> {
    let size = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?.len(),
    };
    if size < bounds.max_size {
        return Ok(false);
    }
    let Some(name) = path.file_name() else { return Ok(false) };
    let prefix = format!("{}.", name.to_string_lossy());
    let old = super::rotated(path)?;
    // There will be two more.
    let excess = (old.len() + 2).saturating_sub(bounds.max_files.max(2));
    for path in old.iter().take(excess) {
        fs::remove_file(path)?;
    }
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    let to = path.with_file_name(format!("{prefix}{stamp}"));
    // Two rotations in a second would write over the first one's file.
    let to = if to.exists() {
        to.with_extension(format!("{stamp}-{}", now.subsec_nanosecond()))
    } else {
        to
    };
    fs::rename(path, to)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_renamed_when_it_is_too_large_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let bounds = LogBounds { max_size: 10, max_files: 3 };
        assert!(!rotate(&path, bounds, Timestamp::UNIX_EPOCH).unwrap());
        for second in 0..5 {
            fs::write(&path, format!("line {second}, long enough")).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            assert!(rotate(&path, bounds, now).unwrap());
            assert!(!rotate(&path, bounds, now).unwrap());
        }
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log.19700101-000003", "0.log.19700101-000004"]);
    }
}
