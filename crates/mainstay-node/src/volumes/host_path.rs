//! hostPath volumes: what has to be there, and what is made if it is not.
//!
//! Source: `pkg/volume/hostpath/host_path.go`.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// A path of the host that is not what the volume asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostPathError {
    /// There is nothing.
    #[error("hostPath {path} does not exist, and type {kind:?} wants {what}; make it on the host")]
    Missing { path: String, kind: String, what: &'static str },
    /// There is something else.
    #[error("hostPath {path} is not {what}, which type {kind:?} wants")]
    Other { path: String, kind: String, what: &'static str },
    /// It cannot be looked at, or made.
    #[error("cannot {step} hostPath {path}")]
    Io {
        step: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Checks that the path is what the volume's type says, and makes it for the types that say so.
pub(super) fn prepare(volume: &HostPathVolumeSource) -> Result<(), HostPathError> {
    let path = Path::new(&volume.path);
    let failed = |step| move |source| HostPathError::Io { step, path: volume.path.clone(), source };
    let kind = volume.type_.as_deref().unwrap_or_default();
    let found = match fs::metadata(path) {
        Ok(status) => Some(status.file_type()),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            None
        }
        Err(error) => return Err(failed("look at")(error)),
    };
    let (what, right): (&str, fn(&fs::FileType) -> bool) = match kind {
        "Directory" | "DirectoryOrCreate" => ("a directory", fs::FileType::is_dir),
        "File" | "FileOrCreate" => ("a file", fs::FileType::is_file),
        "Socket" => ("a socket", |found| found.is_socket()),
        "CharDevice" => ("a character device", |found| found.is_char_device()),
        "BlockDevice" => ("a block device", |found| found.is_block_device()),
        // No type: anything that is there, and the runtime makes a directory of what is not.
        _ => {
            return match found {
                Some(_) => Ok(()),
                None => make_directory(path).map_err(failed("make")),
            };
        }
    };
    match (found, kind) {
        (Some(found), _) if right(&found) => Ok(()),
        (Some(_), _) => {
            Err(HostPathError::Other { path: volume.path.clone(), kind: kind.to_owned(), what })
        }
        (None, "DirectoryOrCreate") => make_directory(path).map_err(failed("make")),
        (None, "FileOrCreate") => {
            let make = || {
                File::options().write(true).create_new(true).open(path)?;
                fs::set_permissions(path, Permissions::from_mode(0o644))
            };
            make().map_err(failed("make"))
        }
        (None, _) => {
            Err(HostPathError::Missing { path: volume.path.clone(), kind: kind.to_owned(), what })
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, path: &Path) -> String {
        let volume = HostPathVolumeSource {
            path: path.to_string_lossy().into_owned(),
            type_: (!kind.is_empty()).then(|| kind.to_owned()),
        };
        match prepare(&volume) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string().replace(&volume.path, "PATH"),
        }
    }

    #[test]
    fn every_type_meets_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (kind, name, expected) in [
            ("", "new-directory", "ok"),
            ("", "file", "ok"),
            (
                "Directory",
                "file",
                "hostPath PATH is not a directory, which type \"Directory\" wants",
            ),
            ("DirectoryOrCreate", "a/b/c", "ok"),
            ("Directory", "a/b/c", "ok"),
            ("FileOrCreate", "new-file", "ok"),
            ("File", "new-file", "ok"),
            ("File", "a", "hostPath PATH is not a file, which type \"File\" wants"),
            ("Socket", "socket", "ok"),
            (
                "Socket",
                "nothing",
                "hostPath PATH does not exist, and type \"Socket\" wants a socket; make it on the host",
            ),
            ("FileOrCreate", "no/such/parent", "cannot make hostPath PATH"),
        ] {
            assert_eq!(check(kind, &at(name)), expected, "{kind} {name}");
        }
        assert_eq!(check("CharDevice", Path::new("/dev/null")), "ok");
        assert!(check("BlockDevice", Path::new("/dev/null")).contains("is not a block device"));
    }
}
