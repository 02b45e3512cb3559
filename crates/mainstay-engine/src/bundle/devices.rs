//! Device nodes and links in a container's `/dev`, and which devices it may use.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use mainstay_linux::cgroup::DeviceRule;
use mainstay_shim_protocol::Device;

/// Source: `config-linux.md` of the OCI runtime specification, "Default Devices".
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Source: the same place, "Dev symbolic links".
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// A device node of the host, for privileged containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostDevice(Device);

/// The nodes to make; the default ones are of the machine's user and group `root`, which is the pod's first
/// one. Those of the host stay whose they are.
pub(super) fn nodes(root: u32, host: Option<&[HostDevice]>) -> Vec<Device> {
    let default = DEFAULT.iter().map(|(path, major, minor)| Device {
        path: (*path).to_owned(),
        block: false,
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: root,
        gid: root,
    });
    let further = host.unwrap_or_default().iter().map(|HostDevice(device)| device.clone());
    default.chain(further).collect()
}

/// The links to make, with those of the mounts.
pub(super) fn links(further: Vec<(String, String)>) -> Vec<(String, String)> {
    let own = LINKS.iter().map(|(path, target)| ((*path).to_owned(), (*target).to_owned()));
    own.chain(further).collect()
}

/// Which devices its processes may open: the default ones and terminals. Any node may be made,
/// as that alone opens nothing.
///
/// Source: `defaultAllowedDevices` of runc, `libcontainer/specconv/spec_linux.go`.
pub(crate) fn rules() -> Vec<DeviceRule> {
    let open = |major, minor| DeviceRule { block: false, major: Some(major), minor, open: true };
    let make = |block| DeviceRule { block, major: None, minor: None, open: false };
    let default = DEFAULT.iter().map(|(_, major, minor)| open(*major, Some(*minor)));
    // /dev/console, /dev/ptmx and the terminals of /dev/pts.
    let terminals = [open(5, Some(1)), open(5, Some(2)), open(136, None)];
    [make(false), make(true)].into_iter().chain(default).chain(terminals).collect()
}

/// The host's device nodes, as runc gives them to privileged containers: all below `/dev` but
/// what a container has of its own.
///
/// Source: `libcontainer/devices/device_unix.go`, `GetDevices`.
pub(crate) fn host_devices() -> Vec<HostDevice> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found);
    found
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<HostDevice>) {
    const OWN: [&str; 8] =
        ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "hugepages"];
    // Nodes come and go as devices do; what vanishes while we look is not there.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            let own = entry.file_name().to_str().is_some_and(|name| OWN.contains(&name));
            if !own && depth < 8 {
                collect(&path, depth + 1, found);
            }
        } else if (kind.is_char_device() || kind.is_block_device())
            && let (Ok(status), Some(path)) = (entry.metadata(), path.to_str())
            && !DEFAULT.iter().any(|(own, ..)| *own == path)
            && path != "/dev/console"
            && path != "/dev/ptmx"
        {
            found.push(HostDevice(Device {
                path: path.to_owned(),
                block: kind.is_block_device(),
                major: rustix::fs::major(status.rdev()),
                minor: rustix::fs::minor(status.rdev()),
                mode: status.mode() & 0o7777,
                uid: status.uid(),
                gid: status.gid(),
            }));
        }
    }
}
