//! emptyDir volumes: a directory on disk, or a memory file system.
//!
//! Source: `pkg/volume/emptydir/empty_dir.go`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use mainstay_linux::mount;
use mainstay_pod::Quantity;

/// Everybody may write. Source: `perm` of the same file.
const MODE: u32 = 0o777;

/// The permission bit by which new files in a directory get its group. Source: inode(7).
const SETGID: u32 = 0o2000;

/// An emptyDir that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub(crate) struct EmptyDirError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Makes the volume at `path`. `group` is the pod's `fsGroup`, which owns it then.
pub(super) fn prepare(
    volume: &EmptyDirVolumeSource,
    path: &Path,
    group: Option<u32>,
) -> Result<(), EmptyDirError> {
    let failed = |step| move |source| EmptyDirError { step, path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed("make"))?;
    if volume.medium.as_deref() == Some("Memory")
        && !is_mount_point(path).map_err(failed("examine"))?
    {
        let size = volume.size_limit.as_ref().and_then(|size| Quantity::parse(&size.0).ok());
        let size = size.and_then(|size| u64::try_from(size.units()).ok());
        mount::tmpfs(path, size, MODE).map_err(failed("mount the memory at"))?;
    }
    // Whatever the umask is.
    let mode = if group.is_some() { MODE | SETGID } else { MODE };
    if let Some(group) = group {
        chown(path, None, Some(group)).map_err(failed("give its group to"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("open"))
}

/// A directory on another device than the one that it is in.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let Some(parent) = path.parent() else { return Ok(true) };
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

/// Takes out of sight all that is mounted below a directory.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let mut mounted = mount::mount_points()?;
    mounted.retain(|point| point.starts_with(directory));
    // Children come after their parents.
    for point in mounted.iter().rev() {
        mount::detach(point)?;
    }
    Ok(())
}
