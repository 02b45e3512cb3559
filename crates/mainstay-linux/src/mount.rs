//! Mounts.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    move_mount, open_tree,
};

/// The flags of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Nothing can be written through it.
    pub readonly: bool,
    /// Set-user-ID programs run as their caller.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Programs cannot be executed.
    pub noexec: bool,
}

impl Attributes {
    fn flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::empty();
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.readonly);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.nosuid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.nodev);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.noexec);
        flags
    }
}

/// Makes an instance of a file system that is attached nowhere yet.
///
/// `options` are (name, value), an empty value being a flag. Source: fsopen(2), kernel 5.2.
pub fn new(
    kind: &str,
    options: &[(String, String)],
    attributes: Attributes,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, name)?;
        } else {
            fsconfig_set_string(&context, name, value)?;
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes.flags())?)
}

/// Copies what is mounted at `path`, with all mounts below it, into a tree that is attached
/// nowhere yet. Source: open_tree(2), kernel 5.2.
pub fn copy_tree(directory: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(directory, path, flags)?)
}

/// Copies the one file or directory behind a descriptor, without what is mounted below it.
pub fn copy_one(descriptor: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(descriptor, "", flags)?)
}

/// Attaches a tree to the file or directory behind `target`.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", target, "", flags)?)
}

/// Sets flags on a mount and takes none away.
///
/// Source: mount_setattr(2), kernel 5.12.
pub fn restrict(mount: impl AsFd, attributes: Attributes) -> io::Result<()> {
    set_attributes(mount, u64::from(attributes.flags().bits()), 0, false)
}

/// The same for a mount and all that is mounted below it.
pub fn restrict_tree(tree: impl AsFd, attributes: Attributes) -> io::Result<()> {
    set_attributes(tree, u64::from(attributes.flags().bits()), 0, true)
}

/// Shows the users and groups of what is mounted as those of a user namespace, from 0 on.
///
/// Source: mount_setattr(2), `MOUNT_ATTR_IDMAP`, kernel 5.12; of a memory file system kernel 6.3.
///
/// # Errors
///
/// `EINVAL` when the file system cannot do that, or the mount has been attached before.
pub fn map_users(mount: impl AsFd, users: impl AsFd) -> io::Result<()> {
    // Open descriptors are not negative.
    let userns_fd = u64::from(users.as_fd().as_raw_fd().unsigned_abs());
    let attr_set = libc::MOUNT_ATTR_IDMAP;
    set_attribute(mount, libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd }, 0)
}

/// Lets a tree receive what is mounted and unmounted where it comes from, and send nothing there.
pub fn make_receiver(tree: impl AsFd) -> io::Result<()> {
    set_attributes(tree, 0, libc::MS_SLAVE, true)
}

/// Cuts a tree off from mounts and unmounts elsewhere.
pub fn make_private(tree: impl AsFd) -> io::Result<()> {
    set_attributes(tree, 0, libc::MS_PRIVATE, true)
}

fn set_attributes(
    mount: impl AsFd,
    attr_set: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation, userns_fd: 0 };
    set_attribute(mount, attributes, if recursive { libc::AT_RECURSIVE } else { 0 })
}

fn set_attribute(
    mount: impl AsFd,
    attributes: libc::mount_attr,
    flags: libc::c_int,
) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | flags;
    // SAFETY: mount_setattr(2) reads an empty string and a `struct mount_attr` of the size that it
    // is told; both live until after the call, and the descriptor is borrowed for as long.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Mounts an overlay of `lower` (top first) and the writable `upper` at `target`.
///
/// `lower` is taken relative to the current directory of the calling process, since the kernel
/// takes at most one page of options. Source: `Documentation/filesystems/overlayfs.rst`.
///
/// # Errors
///
/// `InvalidInput` when a path contains what overlayfs uses as a separator and the options would
/// mean something else, or when they do not fit a page.
pub fn overlay(lower: &[&str], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    let mut options = lower_option(lower.iter().map(|layer| layer.as_bytes()))?;
    options.extend_from_slice(b",upperdir=");
    push_option_path(&mut options, upper.as_os_str().as_bytes())?;
    options.extend_from_slice(b",workdir=");
    push_option_path(&mut options, work.as_os_str().as_bytes())?;
    mount_overlay(options, target, MountFlags::empty())
}

/// Mounts an overlay of `lower` (top first) that cannot be written over the empty directory `target`.
///
/// An overlay without a writable directory has two others at least, so `target` is the last of them.
///
/// # Errors
///
/// As of [`overlay`].
pub fn overlay_readonly(lower: &[&str], target: &Path) -> io::Result<()> {
    let layers = lower.iter().map(|layer| layer.as_bytes());
    let options = lower_option(layers.chain([target.as_os_str().as_bytes()]))?;
    mount_overlay(options, target, MountFlags::RDONLY)
}

fn lower_option<'a>(layers: impl Iterator<Item = &'a [u8]>) -> io::Result<Vec<u8>> {
    let mut options = Vec::with_capacity(1024);
    options.extend_from_slice(b"lowerdir=");
    for (n, layer) in layers.enumerate() {
        if n > 0 {
            options.push(b':');
        }
        push_option_path(&mut options, layer)?;
    }
    Ok(options)
}

fn mount_overlay(options: Vec<u8>, target: &Path, flags: MountFlags) -> io::Result<()> {
    if options.len() >= rustix::param::page_size() {
        return Err(invalid("the image has more layers than one overlay mount can take"));
    }
    let options = CString::new(options).map_err(|_| invalid("a path contains a NUL byte"))?;
    Ok(mount("overlay", target, "overlay", flags, Some(options.as_c_str()))?)
}

fn push_option_path(options: &mut Vec<u8>, path: &[u8]) -> io::Result<()> {
    if path.iter().any(|byte| matches!(byte, b',' | b':' | b'\\')) {
        return Err(invalid("a path of an overlay contains a comma, a colon or a backslash"));
    }
    options.extend_from_slice(path);
    Ok(())
}

/// Mounts a memory file system. `size` in bytes, `None` is the kernel's half of the memory.
///
/// Source: tmpfs(5).
pub fn tmpfs(target: &Path, size: Option<u64>, mode: u32) -> io::Result<()> {
    let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let options = CString::new(format!("mode={mode:o}{size}"))
        .expect("digits and letters contain no NUL byte");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("tmpfs", target, "tmpfs", flags, Some(options.as_c_str()))?)
}

/// Takes a mount out of sight at once; the kernel finishes when its last user has left. Not
/// mounted is success.
pub fn detach(target: &Path) -> io::Result<()> {
    unmount_as(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// Unmounts, and waits until what was written is where it belongs. Not mounted is success.
pub fn unmount(target: &Path) -> io::Result<()> {
    unmount_as(target, UnmountFlags::NOFOLLOW)
}

/// Takes a mount out of sight, and has the kernel give up what is under way on it. Not mounted is success.
/// Source: umount2(2), `MNT_FORCE`.
pub fn abandon(target: &Path) -> io::Result<()> {
    unmount_as(target, UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// Takes out of sight all that is mounted at or below a directory. One that does not exist has nothing.
pub fn detach_below(directory: &Path) -> io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    // Later ones lie over earlier ones, and children come after their parents.
    for point in mount_points()?.iter().rev().filter(|point| point.starts_with(directory)) {
        detach(point)?;
    }
    Ok(())
}

fn unmount_as(target: &Path, flags: UnmountFlags) -> io::Result<()> {
    match rustix::mount::unmount(target, flags) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The mount that a file or directory is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOf {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Whether what is mounted on it is seen elsewhere, and what is mounted there is seen on it.
    pub shared: bool,
    /// Whether what is mounted elsewhere is seen on it.
    pub receives: bool,
}

/// Looks up the mount that a path is on, in this mount namespace. Links are followed.
///
/// Source: statx(2), kernel 5.8; proc_pid_mountinfo(5), the optional fields.
pub fn mount_of(path: &Path) -> io::Result<MountOf> {
    let status = rustix::fs::statx(
        rustix::fs::CWD,
        path,
        rustix::fs::AtFlags::empty(),
        rustix::fs::StatxFlags::MNT_ID,
    )?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, "its mount is not in mountinfo");
    table
        .split(|byte| *byte == b'\n')
        .find_map(|line| mount_in(line, status.stx_mnt_id))
        .ok_or_else(missing)
}

/// What a line of mountinfo says, if it is of the mount with this number.
fn mount_in(line: &[u8], number: u64) -> Option<MountOf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let own: u64 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    if own != number {
        return None;
    }
    let point = PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(fields.nth(3)?)));
    // The options of the mount, then optional fields up to a hyphen.
    let optional: Vec<&[u8]> = fields.skip(1).take_while(|field| *field != b"-").collect();
    let has = |name: &[u8]| optional.iter().any(|field| field.starts_with(name));
    Some(MountOf { point, shared: has(b"shared:"), receives: has(b"master:") })
}

/// All mount points of this mount namespace, parents before children.
///
/// Source: proc_pid_mountinfo(5), field 5, with its octal escapes undone.
pub fn mount_points() -> io::Result<Vec<PathBuf>> {
    mount_points_of("")
}

/// Mount points of file systems whose kind begins so, as `nfs` and `nfs4` do; parents before children.
///
/// Source: proc_pid_mountinfo(5): after the optional fields and a hyphen.
pub fn mount_points_of(kind: &str) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| point_of(line, kind.as_bytes()));
    Ok(points.collect())
}

fn point_of(line: &[u8], kind: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    fields.find(|field| *field == b"-")?;
    let fits = fields.next()?.starts_with(kind);
    fits.then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(point))))
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            std::str::from_utf8(digits).ok().and_then(|text| u8::from_str_radix(text, 8).ok())
        });
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape(br"/a\040b\134c"), br"/a b\c");
        assert_eq!(unescape(br"/odd\04"), br"/odd\04");
    }

    #[test]
    fn a_mount_tells_with_whom_it_shares() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw";
        let expected = MountOf { point: "/mnt 2".into(), shared: true, receives: true };
        assert_eq!(mount_in(line, 36), Some(expected));
        assert_eq!(mount_in(line, 35), None);
        let line = b"36 35 98:0 / / rw - ext3 /dev/shared:1 rw";
        let expected = MountOf { point: "/".into(), shared: false, receives: false };
        assert_eq!(mount_in(line, 36), Some(expected));
        assert_eq!(mount_of(Path::new("/proc/self")).unwrap().point, Path::new("/proc"));
    }

    #[test]
    fn mounts_are_found_by_the_kind_of_file_system() {
        let line = br"36 35 0:42 / /mnt\0402 rw shared:7 - nfs4 server:/nfs rw,vers=4.2";
        assert_eq!(point_of(line, b"nfs"), Some("/mnt 2".into()));
        assert_eq!(point_of(line, b"tmpfs"), None);
        assert_eq!(point_of(b"36 35 0:42 / /nfs rw - ext4 nfs rw", b"nfs"), None);
        assert!(mount_points_of("proc").unwrap().contains(&PathBuf::from("/proc")));
    }

    #[test]
    fn the_root_is_a_mount_point() {
        assert!(mount_points().unwrap().contains(&PathBuf::from("/")));
    }

    #[test]
    fn a_separator_in_a_path_is_refused_before_the_kernel_misreads_it() {
        let refused = overlay(&["a"], Path::new("/up,x"), Path::new("/w"), Path::new("/t"));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
