//! The root file system of a container and what is mounted in it.
//!
//! The image is hostile: any name in it may be a link to anywhere. So every path is opened with
//! `openat2` as if the image were the root directory, and from then on only the descriptor is
//! used; no path is resolved twice. Source: openat2(2), `RESOLVE_IN_ROOT`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use mainstay_linux::mount::{self, Attributes};
use mainstay_linux::namespace::in_mounts;
use mainstay_linux::path::{ensure_directory, open_beneath, open_directory, open_in_root};
use mainstay_linux::users::UserNamespace;
use mainstay_shim_protocol::{
    Container, Device, Mount, MountFlags, MountSource, Propagation, Root,
};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, makedev, mknodat,
    openat, openat2, symlinkat,
};
use rustix::io::Errno;

use super::{InitError, make_directory, step};

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// Mounts the overlay and returns its root directory.
pub(super) fn mount_root(container: &Container) -> Result<OwnedFd, InitError> {
    let root = &container.root;
    let target = Path::new(&container.bundle).join("rootfs");
    make_directory(&target)?;
    let lower: Vec<&str> = root.lower.iter().map(String::as_str).collect();
    among(&root.layers, || {
        mount::overlay(&lower, Path::new(&root.upper), Path::new(&root.work), &target)
    })
    .map_err(step("mount the image's layers"))?;
    open_directory(&target).map_err(step("open the root file system"))
}

/// The same container with layers that belong to the pod's users: an overlay cannot be mapped itself.
/// On the disk they belong to whom they belonged.
pub(super) fn map_layers(
    container: &Container,
    users: &UserNamespace,
) -> Result<Container, InitError> {
    let (root, bundle) = (&container.root, Path::new(&container.bundle));
    let map = |name: &str, source: &Path| {
        let target = bundle.join(name);
        let named = || format!("show {} to the pod's users", source.display());
        make_directory(&target)?;
        let source = open_directory(source).map_err(step(named()))?;
        let copy = mount::copy_one(source).map_err(step(named()))?;
        mount::map_users(&copy, users).map_err(step(named()))?;
        let place = open_directory(&target).map_err(step(named()))?;
        mount::attach(&copy, place).map_err(step(named()))?;
        Ok(target)
    };
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let layers = text(map("layers", Path::new(&root.layers))?);
    // What the overlay writes has to be on one mount.
    let writable = Path::new(&root.upper).parent().unwrap_or(Path::new("/"));
    let place = map("writable", writable)?;
    let inside = |path: &str| {
        let name = Path::new(path).strip_prefix(writable).map_err(io::Error::other);
        name.map(|name| text(place.join(name))).map_err(step(format!("find {path} there")))
    };
    let mut mapped = container.clone();
    for mount in &mut mapped.mounts {
        if let MountSource::Image { layers: of_image, .. } = &mut mount.source {
            of_image.clone_from(&layers);
        }
    }
    mapped.root =
        Root { layers, upper: inside(&root.upper)?, work: inside(&root.work)?, ..root.clone() };
    Ok(mapped)
}

/// Does something in the directory of layers: the kernel takes one page of options, in which only names
/// relative to there have room.
fn among(layers: &str, mount: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    rustix::process::chdir(layers)?;
    mount()?;
    Ok(rustix::process::chdir("/")?)
}

/// Mounts one file system, or one file or directory of the host.
///
/// `host_mounts` is where the host's own processes see theirs.
pub(super) fn mount_one(
    root: &OwnedFd,
    host_mounts: Option<BorrowedFd<'_>>,
    users: Option<&UserNamespace>,
    mount: &Mount,
) -> Result<(), InitError> {
    let named = |verb: &str| format!("{verb} {}", mount.destination);
    let tree = match &mount.source {
        MountSource::Bind { path }
        | MountSource::Part { directory: path, .. }
        | MountSource::Image { path, .. } => {
            let taken = || take(&mount.source);
            let tree = match (mount.flags.propagation, host_mounts) {
                // The mounts of this process only receive; what the host is to receive has to come
                // from where the host's are.
                (Propagation::Both, Some(host)) => in_mounts(host, taken),
                _ => taken(),
            };
            let tree =
                tree.map_err(step(format!("take {path} for the mount at {}", mount.destination)))?;
            match mount.flags.propagation {
                Propagation::Private => mount::make_private(&tree),
                Propagation::FromHost => mount::make_receiver(&tree),
                Propagation::Both => Ok(()),
            }
            .map_err(step(named("keep apart the mount at")))?;
            if let Some(users) = users.filter(|_| mount.flags.mapped) {
                let step = step(format!("show {path} to the pod's own users (hostUsers: false)"));
                mount::map_users(&tree, users).map_err(step)?;
            }
            let restricted = match mount.flags.recursive {
                true => mount::restrict_tree(&tree, attributes(mount.flags)),
                false => mount::restrict(&tree, attributes(mount.flags)),
            };
            restricted.map_err(step(named("restrict the mount at")))?;
            tree
        }
        MountSource::New { kind, options } => mount::new(kind, options, attributes(mount.flags))
            .map_err(step(format!("make a {kind} for the mount at {}", mount.destination)))?,
    };
    let is_directory = is_directory(&tree).map_err(step(named("examine the mount at")))?;
    // What is done later below `/dev`, `/proc` and `/sys` relies on their being there. A link might
    // lead into a volume, where another container can exchange what is found; runc refuses it too.
    let links = match &mount.source {
        MountSource::Bind { .. } | MountSource::Part { .. } | MountSource::Image { .. } => {
            ResolveFlags::NO_MAGICLINKS
        }
        MountSource::New { .. } => ResolveFlags::NO_SYMLINKS,
    };
    let target = mount_point(root, &mount.destination, is_directory, links)?;
    mount::attach(&tree, &target).map_err(step(named("mount at")))
}

/// Takes what is there already.
fn take(source: &MountSource) -> io::Result<OwnedFd> {
    match source {
        MountSource::Bind { path } => mount::copy_tree(CWD, Path::new(path)),
        MountSource::Part { directory, path } => {
            let directory = open_directory(Path::new(directory))?;
            mount::copy_one(open_beneath(&directory, Path::new(path), OFlags::PATH)?)
        }
        MountSource::Image { layers, lower, place, path } => {
            let (lower, place): (Vec<&str>, _) =
                (lower.iter().map(String::as_str).collect(), Path::new(place));
            // Only here, and gone with what leads to the host's files.
            among(layers, || mount::overlay_readonly(&lower, place))?;
            let image = open_directory(place)?;
            mount::copy_one(open_in_root(&image, &Path::new("/").join(path), OFlags::PATH)?)
        }
        MountSource::New { .. } => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn attributes(flags: MountFlags) -> Attributes {
    let MountFlags { readonly, nosuid, nodev, noexec, .. } = flags;
    Attributes { readonly, nosuid, nodev, noexec }
}

fn is_directory(descriptor: impl AsFd) -> io::Result<bool> {
    let status = fstat(descriptor)?;
    Ok(FileType::from_raw_mode(status.st_mode) == FileType::Directory)
}

/// Opens the place of a mount, making what is missing on the way. `links` says which links may lead
/// there.
fn mount_point(
    root: &OwnedFd,
    path: &str,
    directory: bool,
    links: ResolveFlags,
) -> Result<OwnedFd, InitError> {
    let named = |verb: &str| format!("{verb} {path} in the container");
    let open = || {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | links)
    };
    match open() {
        Err(Errno::NOENT) => {}
        Err(Errno::LOOP) if links == ResolveFlags::NO_SYMLINKS => {
            let link = io::Error::other("the image has a link there instead of a directory");
            return Err(step(named("open"))(link));
        }
        other => return other.map_err(|error| step(named("open"))(error.into())),
    }
    let (parent, name) = split(path).ok_or_else(|| {
        step(named("mount at"))(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a path to mount at",
        ))
    })?;
    let parent = make_directories(root, &parent).map_err(step(named("make")))?;
    if directory {
        ensure_directory(&parent, Path::new(&name), DIRECTORY_MODE).map_err(step(named("make")))?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match openat(&parent, Path::new(&name), flags, Mode::from_raw_mode(0o644)) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(error) => return Err(step(named("make"))(error.into())),
        }
    }
    // A dangling link was followed to nowhere above and is still there; it leads nowhere now too.
    open().map_err(|error| step(named("open"))(error.into()))
}

/// The directory part and the last name of a path; `None` for `/` and for one that ends in dots.
fn split(path: &str) -> Option<(PathBuf, OsString)> {
    let mut components = Path::new(path).components();
    match components.next_back()? {
        Component::Normal(name) => Some((components.as_path().to_owned(), name.to_owned())),
        _ => None,
    }
}

/// Opens a directory, making it and those above it, each resolved inside `root`.
fn make_directories(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut walked = PathBuf::from("/");
    let mut directory = open_in_root(root, &walked, flags)?;
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        walked.push(name);
        // From the root each time, as a component may be a link, and its `..` is the root's.
        directory = match open_in_root(root, &walked, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ensure_directory(&directory, Path::new(name), DIRECTORY_MODE)?;
                open_in_root(root, &walked, flags)?
            }
            other => other?,
        };
    }
    Ok(directory)
}

/// The working directory is made if the image does not have it, as other runtimes do.
pub(super) fn ensure_working_directory(root: &OwnedFd, path: &str) -> Result<(), InitError> {
    match open_in_root(root, Path::new(path), OFlags::PATH | OFlags::DIRECTORY) {
        // Whether the process's user may enter it is found out by that user.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = make_directories(root, Path::new(path));
            made.map(drop).map_err(step(format!("make the working directory {path}")))
        }
        Err(error) => Err(step(format!("open the working directory {path}"))(error)),
    }
}

/// Makes device nodes and links.
pub(super) fn make_devices(
    root: &OwnedFd,
    devices: &[Device],
    links: &[(String, String)],
) -> Result<(), InitError> {
    for device in devices {
        let path = device.path.as_str();
        make_device(root, device).map_err(step(format!("make the device {path}")))?;
    }
    for (path, target) in links {
        make_link(root, path, target).map_err(step(format!("make the link {path}")))?;
    }
    Ok(())
}

fn make_device(root: &OwnedFd, device: &Device) -> io::Result<()> {
    let (parent, name) = parent_of(root, &device.path)?;
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let mode = Mode::from_raw_mode(device.mode);
    let number = makedev(device.major, device.minor);
    match mknodat(&parent, &name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    Ok(chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn make_link(root: &OwnedFd, path: &str, target: &str) -> io::Result<()> {
    let (parent, name) = parent_of(root, path)?;
    match symlinkat(target, &parent, &name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn parent_of(root: &OwnedFd, path: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let (parent, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((make_directories(root, &parent)?, PathBuf::from(name)))
}

/// Makes a mount read-only in which other things have been mounted.
pub(super) fn seal(root: &OwnedFd, path: &str) -> Result<(), InitError> {
    let named = || format!("make the mount at {path} read-only");
    let mount = open_in_root(root, Path::new(path), OFlags::PATH).map_err(step(named()))?;
    let readonly = Attributes { readonly: true, ..Attributes::default() };
    mount::restrict(&mount, readonly).map_err(step(named()))
}

/// Makes a path read-only, if it exists.
pub(super) fn make_readonly(root: &OwnedFd, path: &str) -> Result<(), InitError> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    let named = || format!("make {path} read-only");
    let copy = mount::copy_one(&target).map_err(step(named()))?;
    let readonly = Attributes { readonly: true, nosuid: true, nodev: true, noexec: true };
    mount::restrict(&copy, readonly).map_err(step(named()))?;
    mount::attach(&copy, &target).map_err(step(named()))
}

/// Makes paths appear empty, if they exist: directories empty and read-only, files as `/dev/null`.
pub(super) fn mask(root: &OwnedFd, paths: &[String]) -> Result<(), InitError> {
    // The host's own device: the container's `/dev` may hold anything under that name.
    let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| step("open /dev/null")(error.into()))?;
    for path in paths {
        let Some(target) = existing(root, path)? else { continue };
        let named = || format!("mask {path}");
        let cover = if is_directory(&target).map_err(step(named()))? {
            let readonly = Attributes { readonly: true, nosuid: true, nodev: true, noexec: true };
            mount::new("tmpfs", &[], readonly)
        } else {
            mount::copy_one(&null)
        };
        let cover = cover.map_err(step(named()))?;
        mount::attach(&cover, &target).map_err(step(named()))?;
    }
    Ok(())
}

fn existing(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>, InitError> {
    match open_in_root(root, Path::new(path), OFlags::PATH) {
        Ok(target) => Ok(Some(target)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(step(format!("open {path}"))(error)),
    }
}
