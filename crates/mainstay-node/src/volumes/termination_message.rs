//! The files that containers leave their termination messages in, one for each run of a container.
//!
//! Source: `makeMounts` and `getTerminationMessage` in
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use mainstay_plan::termination_message::{MOST_LINES, MOST_OF_FILE, MOST_OF_LOG, Places};

use crate::logs;

/// Makes an empty file that every user may write, whatever is there: of an earlier run with this number only
/// its failure is known. `outdated` is one that nobody asks for any more.
pub(super) fn make(path: &Path, outdated: Option<&Path>) -> io::Result<()> {
    for path in outdated.into_iter().chain([path]) {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    let create = || OpenOptions::new().write(true).create_new(true).open(path);
    let file = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // As the pod's own directory is: a container sees the file alone.
            let directory = path.parent().unwrap_or(path);
            DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
            create()?
        }
        other => other?,
    };
    // Whatever this process's umask is.
    file.set_permissions(Permissions::from_mode(0o666))
}

/// Reads what a container left to say, up to the most that counts of it. What cannot be read is told in its
/// place.
pub(crate) fn read(places: &Places) -> String {
    let bytes = match end_of(&places.file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Ok(bytes) => bytes,
        Err(error) => {
            let file = places.file.display();
            return format!("Error on reading termination log {file}: {error}");
        }
    };
    let bytes = match &places.log {
        Some(log) if bytes.is_empty() => match logs::last_lines(log, MOST_LINES, MOST_OF_LOG) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Ok(bytes) => bytes,
            Err(error) => {
                return format!("Error on reading termination message from logs: {error}");
            }
        },
        _ => bytes,
    };
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of a file that a container may have made of any length.
fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    // A container has nothing but the file, so it is a file still; what is not is no message.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let mut file = File::options().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(MOST_OF_FILE)))?;
    let mut bytes = Vec::new();
    file.take(MOST_OF_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_made_anew_for_each_run_and_may_be_written_by_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = |number: u32| directory.path().join("containers/main").join(number.to_string());
        make(&path(0), None).unwrap();
        fs::write(path(0), "of the failed attempt").unwrap();
        make(&path(0), None).unwrap();
        let metadata = fs::metadata(path(0)).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (0, 0o666));
        let above = fs::metadata(path(0).parent().unwrap()).unwrap();
        assert_eq!(above.permissions().mode() & 0o027, 0);
        make(&path(3), Some(&path(0))).unwrap();
        assert!(!path(0).exists() && path(3).exists());
    }

    #[test]
    fn only_the_end_of_a_file_counts_and_nothing_that_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places { file: directory.path().join("0"), log: None };
        assert_eq!(read(&places), "");
        fs::write(&places.file, "").unwrap();
        assert_eq!(read(&places), "");
        fs::write(&places.file, "bye\n").unwrap();
        assert_eq!(read(&places), "bye\n");
        fs::write(&places.file, [b"x".repeat(5000), b"\xffy".to_vec()].concat()).unwrap();
        let text = read(&places);
        assert!(text.ends_with("x\u{fffd}y") && text.chars().count() == 4096, "{text}");
        // Sparse, as large as a disk.
        File::options().write(true).open(&places.file).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&places), "\0".repeat(4096));
        let secret = directory.path().join("secret");
        fs::write(&secret, "not told").unwrap();
        fs::remove_file(&places.file).unwrap();
        symlink(&secret, &places.file).unwrap();
        assert!(read(&places).starts_with("Error on reading termination log"), "{}", read(&places));
        fs::remove_file(&places.file).unwrap();
        fs::create_dir(&places.file).unwrap();
        assert!(read(&places).ends_with("it is no file"));
    }

    #[test]
    fn the_end_of_the_log_counts_where_the_file_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let (file, log) = (directory.path().join("0"), directory.path().join("0.log"));
        fs::write(&file, "").unwrap();
        let places = Places { file: file.clone(), log: Some(log.clone()) };
        assert_eq!(read(&places), "");
        fs::write(&log, "2026-01-02T03:04:05Z stderr F why\n").unwrap();
        assert_eq!(read(&places), "why\n");
        fs::write(&file, "because").unwrap();
        assert_eq!(read(&places), "because");
    }
}
