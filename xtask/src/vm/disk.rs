//! The disks of the machine.
//!
//! The root disk is a Debian that is made once, from packages, and kept below `target/vm` until
//! what it is made of changes here; removing that directory brings newer packages. Every run works
//! on a layer of its own above it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::debian::{self, Packaged, Scratch};
use crate::image::digest;
use crate::process;

/// The release whose kernel is the oldest that mainstay promises to run on.
const RELEASE: &str = "bookworm";
/// What a small server has. The kernel's package wants something that makes an initial RAM disk;
/// this one takes no time, and the machine boots without.
const PACKAGES: &[&str] = &[
    "apparmor",
    "dbus",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "nfs-kernel-server",
    "nftables",
    "procps",
    "socat",
    "systemd-sysv",
    "tiny-initramfs",
    "udev",
];
/// What nobody reads there.
const UNREAD: [&str; 3] = ["doc", "locale", "man"];

const PROGRAMS: &[Packaged<'_>] = &[
    ("mkfs.ext4", "e2fsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("qemu-img", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// Files that make it this machine: where, with which rights, and what.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/fstab", 0o644, include_str!("root/fstab")),
    ("etc/hostname", 0o644, "guest\n"),
    // Addresses of pods are chosen by it.
    ("etc/machine-id", 0o444, "3a1e6e0c9d0b4f5e8a7b6c5d4e3f2a1b\n"),
    ("etc/resolv.conf", 0o644, "nameserver 10.0.2.3\n"),
    ("etc/systemd/network/uplink.network", 0o644, include_str!("root/uplink.network")),
    ("etc/systemd/system/channel.service", 0o644, include_str!("root/channel.service")),
    ("usr/local/sbin/channel", 0o755, include_str!("root/channel")),
];
/// Services of it that are not started by themselves.
const SERVICES: [&str; 2] = ["channel", "systemd-networkd"];

/// What a machine is made of.
#[derive(Clone, Debug)]
pub(super) struct Disks {
    /// The kernel, which qemu loads itself.
    pub(super) kernel: PathBuf,
    /// The root disk, as it was when the run began and with what was written since.
    pub(super) root: PathBuf,
    /// A tar archive of what is brought along.
    pub(super) payload: PathBuf,
    /// What pods saw and did.
    pub(super) observed: PathBuf,
}

/// Makes the disks for one run, in `directory`, from `payload`, which is a directory tree.
pub(super) fn make(directory: &Path, payload: &Path) -> anyhow::Result<Disks> {
    debian::install(PROGRAMS)?;
    let debian = directory.join("debian");
    bring(&debian)?;
    let disks = Disks {
        kernel: debian.join("kernel"),
        root: directory.join("root.qcow2"),
        payload: directory.join("payload.tar"),
        observed: directory.join("observed.img"),
    };

    let base = fs::canonicalize(debian.join("root.img"))?;
    let mut layer = process::command("qemu-img");
    layer.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
    process::run(layer.arg(base).arg(&disks.root))?;

    let context = || format!("cannot write {}", disks.payload.display());
    let mut archive = tar::Builder::new(File::create(&disks.payload).with_context(context)?);
    archive.append_dir_all("", payload).and_then(|()| archive.finish()).with_context(context)?;

    file_system(&disks.observed, "observed", "16M", None)?;
    Ok(disks)
}

/// Makes the Debian, if it is not there.
fn bring(directory: &Path) -> anyhow::Result<()> {
    let made_of = fingerprint();
    let label = directory.join("made-of");
    if fs::read_to_string(&label).is_ok_and(|text| text == made_of) {
        return Ok(());
    }
    println!("bringing {}", directory.display());
    debian::remove(directory)?;
    let scratch = Scratch::new(&directory.with_extension("made"))?;
    let root = scratch.path().join("root");
    // However xtask ends, nothing of this stays: it is in a process namespace that ends with it.
    let mut command = process::command("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child"]);
    command.args(["--mount-proc", "mmdebstrap"]);
    command.args(["--quiet", "--variant=essential", "--dpkgopt=force-unsafe-io"]);
    command.args(UNREAD.map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")));
    command.arg(format!("--include={}", PACKAGES.join(",")));
    process::run(command.arg(RELEASE).arg(&root))?;

    for (path, mode, content) in FILES {
        let path = root.join(path);
        let write = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, content)?;
            fs::set_permissions(&path, Permissions::from_mode(*mode))
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    fs::create_dir(root.join("observed"))?;
    let mut enable = process::command("chroot");
    process::run(enable.arg(&root).args(["systemctl", "--quiet", "enable"]).args(SERVICES))?;

    let whole = scratch.path().join("whole");
    fs::create_dir(&whole)?;
    fs::copy(root.join("vmlinuz"), whole.join("kernel")).context("there is no kernel")?;
    file_system(&whole.join("root.img"), "root", "4G", Some(&root))?;
    fs::write(whole.join("made-of"), made_of)?;
    fs::rename(&whole, directory).with_context(|| format!("cannot rename {}", whole.display()))
}

/// Changes with whatever decides how the Debian comes out.
fn fingerprint() -> String {
    let all = format!("{RELEASE}{PACKAGES:?}{UNREAD:?}{FILES:?}{SERVICES:?}");
    digest(all.as_bytes())
}

/// Makes an image of an ext4 file system, of what is in a directory if there is one.
fn file_system(
    image: &Path,
    label: &str,
    size: &str,
    content: Option<&Path>,
) -> anyhow::Result<()> {
    let mut command = process::command("mkfs.ext4");
    command.args(["-q", "-F", "-L", label]);
    if let Some(content) = content {
        command.arg("-d").arg(content);
    }
    process::run(command.arg(image).arg(size))
}
