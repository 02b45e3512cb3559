//! emptyDir volumes: a directory on disk, a memory file system, or one of huge pages.
//!
//! Source: `pkg/volume/emptydir/empty_dir.go`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use mainstay_linux::mount::{self, Attributes};
use mainstay_linux::path::open_directory;
use mainstay_plan::medium::{Medium, MediumError};
use rustix::fs::{AtFlags, Mode, chmodat};

/// Everybody may write. Source: `perm` of the same file.
const MODE: u32 = 0o777;

/// The permission bit by which new files in a directory get its group. Source: inode(7).
const SETGID: u32 = 0o2000;

/// An emptyDir that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmptyDirError {
    #[error("cannot {step} {}", path.display())]
    Step {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Medium(#[from] MediumError),
}

/// Makes a volume at `path`, if it is not there. In memory or huge pages it has `size` bytes; `None` is the kernel's
/// own bound. `group` is the pod's `fsGroup`, which owns it then.
///
/// What is there is the pod's own: its containers may have changed its rights. So that what is
/// half-made is not taken for it, it gets its name last.
pub(super) fn prepare(
    medium: Medium,
    size: Option<u64>,
    path: &Path,
    group: Option<u32>,
) -> Result<(), EmptyDirError> {
    let failed = |step| move |source| EmptyDirError::Step { step, path: path.to_owned(), source };
    let mode = if group.is_some() { MODE | SETGID } else { MODE };
    if medium == Medium::Disk {
        if path.try_exists().map_err(failed("examine"))? {
            return Ok(());
        }
        return make_directory(path, mode, group).map_err(failed("make"));
    }
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed("make"))?;
    if is_mount_point(path).map_err(failed("examine"))? {
        return Ok(());
    }
    let size = size.map(|bytes| ("size".to_owned(), bytes.to_string()));
    if let Medium::HugePages { page_size } = medium {
        let options = [Some(("pagesize".to_owned(), page_size.to_string())), size];
        return mount_in_memory("hugetlbfs", options, path, mode, group)
            .map_err(failed("mount the huge pages at"));
    }
    let in_memory = |more| mount_in_memory("tmpfs", [size.clone(), more], path, mode, group);
    // What is in it, such as secrets, is on no disk. Kernels before 6.4 do not know of that.
    let mounted = match in_memory(Some(("noswap".to_owned(), String::new()))) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => in_memory(None),
        mounted => mounted,
    };
    mounted.map_err(failed("mount the memory at"))
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

/// Mounts a file system of this kind, with further options.
fn mount_in_memory(
    kind: &str,
    further: [Option<(String, String)>; 2],
    path: &Path,
    mode: u32,
    group: Option<u32>,
) -> io::Result<()> {
    let mut options = vec![("source".to_owned(), kind.to_owned())];
    options.push(("mode".to_owned(), format!("{mode:o}")));
    options.extend(further.into_iter().flatten());
    options.extend(group.map(|group| ("gid".to_owned(), group.to_string())));
    let attributes = Attributes { nosuid: true, nodev: true, ..Attributes::default() };
    let mounted = mount::new(kind, &options, attributes)?;
    // One of huge pages does not take the bit for the group as an option.
    chmodat(&mounted, ".", Mode::from_raw_mode(mode), AtFlags::empty())?;
    mount::attach(mounted, open_directory(path)?)
}

/// A directory on another device than the one that it is in.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let Some(parent) = path.parent() else { return Ok(true) };
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

/// Takes out of sight all that is mounted below a directory.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    mount::detach_below(directory)
}

#[cfg(test)]
mod tests {
    use mainstay_linux::namespace::{Namespaces, receive_mounts_only, unshare};
    use mainstay_testkit::tools;

    use super::*;

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
        prepare(Medium::Disk, None, &path, None).unwrap();
        assert_eq!(rights(&path).0, 0o777);
        set_rights(&path, 0o700);
        prepare(Medium::Disk, None, &path, None).unwrap();
        assert_eq!(rights(&path).0, 0o700);
    }

    #[test]
    fn what_is_half_made_is_made_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        fs::create_dir(directory.path().join(".cache")).unwrap();
        set_rights(&directory.path().join(".cache"), 0);
        prepare(Medium::Disk, None, &path, None).unwrap();
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
        let mebibyte = Some(1 << 20);
        prepare(Medium::Memory, mebibyte, &at("sized"), Some(1234)).unwrap();
        assert_eq!((rights(&at("sized")), size(&at("sized"))), ((0o2777, 1234), 1 << 20));
        set_rights(&at("sized"), 0o700);
        prepare(Medium::Memory, mebibyte, &at("sized"), Some(1234)).unwrap();
        assert_eq!(rights(&at("sized")), (0o700, 1234));
        prepare(Medium::Memory, None, &at("none"), None).unwrap();
        assert!(size(&at("none")) > 1 << 20);
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let kept = mounts.lines().filter(|line| line.contains("noswap")).count();
        // As far as this kernel can.
        let known =
            mount::new("tmpfs", &[("noswap".to_owned(), String::new())], Attributes::default());
        assert_eq!(kept, if known.is_ok() { 2 } else { 0 }, "{mounts}");
        for page_size in mainstay_linux::machine::huge_pages().into_keys() {
            let path = at(&format!("huge-{page_size}"));
            let medium = Medium::HugePages { page_size };
            let three = Some(3 * page_size + 1);
            prepare(medium, three, &path, Some(1234)).unwrap();
            prepare(medium, three, &path, Some(1234)).unwrap();
            assert_eq!(rights(&path), (0o2777, 1234));
            assert_eq!(size(&path), 3 * page_size);
            assert_eq!(rustix::fs::statvfs(&path).unwrap().f_bsize, page_size);
        }
        let refused = Medium::HugePages { page_size: 12345 };
        assert!(prepare(refused, None, &at("odd"), None).is_err());
        unmount_below(directory.path()).unwrap();
    }
}
