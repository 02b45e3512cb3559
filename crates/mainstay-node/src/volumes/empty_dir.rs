//! emptyDir volumes: a directory on disk, or a memory file system.
//!
//! Source: `pkg/volume/emptydir/empty_dir.go`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use mainstay_linux::mount::{self, Attributes};
use mainstay_linux::path::open_directory;
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

/// Makes the volume at `path`, if it is not there. `group` is the pod's `fsGroup`, which owns it
/// then.
///
/// What is there is the pod's own: its containers may have changed its rights. So that what is
/// half-made is not taken for it, it gets its name last.
pub(super) fn prepare(
    volume: &EmptyDirVolumeSource,
    path: &Path,
    group: Option<u32>,
) -> Result<(), EmptyDirError> {
    let failed = |step| move |source| EmptyDirError { step, path: path.to_owned(), source };
    let mode = if group.is_some() { MODE | SETGID } else { MODE };
    if volume.medium.as_deref() == Some("Memory") {
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed("make"))?;
        if is_mount_point(path).map_err(failed("examine"))? {
            return Ok(());
        }
        let size = volume.size_limit.as_ref().and_then(|size| Quantity::parse(&size.0).ok());
        let size = size.and_then(|size| u64::try_from(size.units()).ok());
        return mount_memory(path, size, mode, group).map_err(failed("mount the memory at"));
    }
    if path.try_exists().map_err(failed("examine"))? {
        return Ok(());
    }
    make_directory(path, mode, group).map_err(failed("make"))
}

fn make_directory(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    // No volume is called so: their names are DNS labels.
    let unfinished = path.with_file_name(format!(".{}", name.to_string_lossy()));
    DirBuilder::new().recursive(true).mode(0o755).create(&unfinished)?;
    if group.is_some() {
        chown(&unfinished, None, group)?;
    }
    // Whatever the umask is.
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(mode))?;
    fs::rename(unfinished, path)
}

/// `size` in bytes; as in the kubelet (`generateTmpfsMountOptions`), 0 is none, which is the
/// kernel's half of the memory.
fn mount_memory(path: &Path, size: Option<u64>, mode: u32, group: Option<u32>) -> io::Result<()> {
    let mut options = vec![("source".to_owned(), "tmpfs".to_owned())];
    options.push(("mode".to_owned(), format!("{mode:o}")));
    options.extend(size.filter(|size| *size > 0).map(|size| ("size".to_owned(), size.to_string())));
    options.extend(group.map(|group| ("gid".to_owned(), group.to_string())));
    let attributes = Attributes { nosuid: true, nodev: true, ..Attributes::default() };
    mount::attach(mount::new("tmpfs", &options, attributes)?, open_directory(path)?)
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

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use mainstay_linux::namespace::{Namespaces, receive_mounts_only, unshare};
    use mainstay_testkit::tools;

    use super::*;

    fn volume(medium: Option<&str>, size: Option<&str>) -> EmptyDirVolumeSource {
        let size_limit = size.map(|size| Quantity(size.to_owned()));
        EmptyDirVolumeSource { medium: medium.map(str::to_owned), size_limit }
    }

    fn rights(path: &Path) -> (u32, u32) {
        let status = fs::metadata(path).unwrap();
        (status.mode() & 0o7777, status.gid())
    }

    fn set_rights(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_a_container_made_of_its_volume_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pod/cache");
        prepare(&volume(None, None), &path, None).unwrap();
        assert_eq!(rights(&path).0, 0o777);
        set_rights(&path, 0o700);
        prepare(&volume(None, None), &path, None).unwrap();
        assert_eq!(rights(&path).0, 0o700);
    }

    #[test]
    fn what_is_half_made_is_made_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        fs::create_dir(directory.path().join(".cache")).unwrap();
        set_rights(&directory.path().join(".cache"), 0);
        prepare(&volume(None, None), &path, None).unwrap();
        assert_eq!(rights(&path).0, 0o777);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn memory_is_mounted_once_with_its_size_and_the_pods_group() {
        if !tools::is_root() {
            return;
        }
        // What is mounted is gone with this thread.
        unshare(Namespaces::NEWNS).and_then(|()| receive_mounts_only()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let size = |path: &Path| {
            let status = rustix::fs::statvfs(path).unwrap();
            status.f_blocks * status.f_frsize
        };
        let sized = volume(Some("Memory"), Some("1Mi"));
        prepare(&sized, &at("sized"), Some(1234)).unwrap();
        assert_eq!((rights(&at("sized")), size(&at("sized"))), ((0o2777, 1234), 1 << 20));
        set_rights(&at("sized"), 0o700);
        prepare(&sized, &at("sized"), Some(1234)).unwrap();
        assert_eq!(rights(&at("sized")), (0o700, 1234));
        // As if none had been written.
        prepare(&volume(Some("Memory"), Some("0")), &at("zero"), None).unwrap();
        prepare(&volume(Some("Memory"), None), &at("none"), None).unwrap();
        assert!(size(&at("none")) > 0);
        assert_eq!(size(&at("zero")), size(&at("none")));
        unmount_below(directory.path()).unwrap();
    }
}
