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
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

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

/// Rotates for ever, what is too large so often.
pub(crate) async fn rotate_all(runtime: Arc<dyn Runtime>, bounds: LogBounds, often: Duration) {
    let mut interval = tokio::time::interval(often);
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
            let reopen = || async {
                let reopened = runtime.reopen_container_log(&container.id).await;
                reopened.map_err(|error| error.chain())
            };
            match keep(&path, bounds, Timestamp::now(), reopen).await {
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

/// Sees to it that a running container writes to its log, and that this is not too large.
async fn keep<F: Future<Output = Result<(), String>>>(
    path: &Path,
    bounds: LogBounds,
    now: Timestamp,
    reopen: impl Fn() -> F,
) -> Result<(), String> {
    let failed = |error: io::Error| error.to_string();
    if !path.try_exists().map_err(failed)? {
        // A rotation came to an end after its first half: what was renamed still grows.
        reopen().await?;
    }
    let Some(rotated) = rotate(path, bounds, now).map_err(failed)? else { return Ok(()) };
    let Err(error) = reopen().await else { return Ok(()) };
    // Under its name it is read, and rotated the next time.
    match renameat_with(CWD, &rotated, CWD, path, RenameFlags::NOREPLACE) {
        // The runtime has made a new one all the same.
        Ok(()) | Err(Errno::EXIST) => Err(error),
        Err(back) => Err(format!("{error}; and cannot rename {} back: {back}", rotated.display())),
    }
}

/// Renames a log that is too large and removes the oldest of its kind. Returns the new name.
fn rotate(path: &Path, bounds: LogBounds, now: Timestamp) -> io::Result<Option<PathBuf>> {
    if fs::metadata(path)?.len() < bounds.max_size {
        return Ok(None);
    }
    let Some(name) = path.file_name() else { return Ok(None) };
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
    fs::rename(path, &to)?;
    Ok(Some(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_renamed_when_it_is_too_large_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let bounds = LogBounds { max_size: 10, max_files: 3 };
        for second in 0..5 {
            fs::write(&path, format!("line {second}, long enough")).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            assert!(rotate(&path, bounds, now).unwrap().is_some());
            fs::write(&path, "short").unwrap();
            assert!(rotate(&path, bounds, now).unwrap().is_none());
        }
        let names = ["0.log", "0.log.19700101-000003", "0.log.19700101-000004"];
        assert_eq!(names_in(directory.path()), names);
    }

    fn names_in(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_rotation_that_fails_half_way_is_made_up_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let bounds = LogBounds { max_size: 10, max_files: 3 };
        let look = async |works: bool| {
            // As a runtime does.
            let reopen = async || match works {
                true => fs::write(&path, "").map_err(|error| error.to_string()),
                false => Err("no answer".to_owned()),
            };
            let kept = keep(&path, bounds, Timestamp::UNIX_EPOCH, reopen).await;
            (kept, names_in(directory.path()))
        };
        let (renamed, long) = ("0.log.19700101-000000", "line, long enough");
        fs::write(&path, long).unwrap();
        assert_eq!(look(false).await, (Err("no answer".into()), vec!["0.log".into()]));
        assert_eq!(fs::read_to_string(&path).unwrap(), long);
        assert_eq!(look(true).await, (Ok(()), vec!["0.log".into(), renamed.into()]));
        // An agent was killed between the two halves.
        fs::remove_file(&path).unwrap();
        assert_eq!(look(false).await, (Err("no answer".into()), vec![renamed.into()]));
        assert_eq!(look(true).await, (Ok(()), vec!["0.log".into(), renamed.into()]));
    }
}
