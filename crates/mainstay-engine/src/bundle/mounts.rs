//! What is mounted in a container.

use std::path::{Path, PathBuf};

use mainstay_cri::{ImageSpec, Mount as Wanted, MountPropagation, NamespaceMode};
use mainstay_linux::cgroup::{Hierarchies, Layout};
use mainstay_shim_protocol::{Mount, MountFlags, MountSource, Propagation};

use super::{Ingredients, text};

/// Files of the sandbox that appear in every container, unless the container mounts its own.
pub(crate) const SANDBOX_FILES: [(&str, &str); 2] =
    [(RESOLV_CONF, "/etc/resolv.conf"), ("hostname", "/etc/hostname")];

/// Whom a sandbox asks for names, in its directory.
pub(crate) const RESOLV_CONF: &str = "resolv.conf";

/// The directory of the sandbox that its containers share as `/dev/shm`.
pub(crate) const SHM: &str = "shm";

const PLAIN: MountFlags = MountFlags {
    readonly: false,
    nosuid: false,
    nodev: false,
    noexec: false,
    recursive: false,
    mapped: false,
    propagation: Propagation::Private,
};
const CLOSED: MountFlags = MountFlags { nosuid: true, nodev: true, noexec: true, ..PLAIN };

/// The mounts, and what belongs to them.
pub(super) struct Mounts {
    pub(super) list: Vec<Mount>,
    pub(super) sealed: Vec<String>,
    pub(super) links: Vec<(String, String)>,
}

/// All mounts in their order: the system's, the pod's, the container's own.
pub(super) fn list(from: &Ingredients<'_>, layout: Layout) -> Mounts {
    let privileged = from.config.security_context.privileged;
    let mut mounts = Mounts { list: Vec::new(), sealed: Vec::new(), links: Vec::new() };
    mounts.add("/proc", "proc", &[], CLOSED);
    let dev = MountFlags { nosuid: true, ..PLAIN };
    mounts.add("/dev", "tmpfs", &[("mode", "755"), ("size", "65536k")], dev);
    // The group of terminals; the kernel takes the machine's number.
    let tty = from.root().saturating_add(5).to_string();
    let pts = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", &tty)];
    mounts.add("/dev/pts", "devpts", &pts, MountFlags { nosuid: true, noexec: true, ..PLAIN });
    mounts.add("/dev/mqueue", "mqueue", &[], CLOSED);
    mounts.add("/sys", "sysfs", &[], MountFlags { readonly: !privileged, ..CLOSED });
    mounts.add_cgroups(from.machine.hierarchies, layout, from.places.cgroup, privileged);

    let mut further = sandbox_mounts(from);
    further.extend(from.config.mounts.iter().map(|wanted| own_mount(from, wanted)));
    // A mount may lie in another one, so those nearer to the root come first.
    further
        .sort_by_key(|mount| mount.destination.split('/').filter(|name| !name.is_empty()).count());
    mounts.list.extend(further);
    mounts
}

/// What all containers of the sandbox have, where a container does not mount its own.
fn sandbox_mounts(from: &Ingredients<'_>) -> Vec<Mount> {
    let shm = match from.namespaces.ipc {
        NamespaceMode::Node => "/dev/shm".to_owned(),
        NamespaceMode::Pod | NamespaceMode::Container => text(&from.places.sandbox.join(SHM)),
    };
    let readonly = from.config.security_context.readonly_rootfs;
    let files = SANDBOX_FILES.map(|(file, path)| {
        (path, text(&from.places.sandbox.join(file)), MountFlags { readonly, ..PLAIN })
    });
    let all = [("/dev/shm", shm, CLOSED)].into_iter().chain(files);
    // In a mount that the machine sees it would be the machine's too.
    let is_left_out = |path: &Path, wanted: &Wanted| {
        let own = Path::new(&wanted.container_path);
        let is_shared = wanted.propagation == MountPropagation::Bidirectional;
        path == own || is_shared && path.starts_with(own)
    };
    all.filter(|(path, ..)| !from.config.mounts.iter().any(|it| is_left_out(Path::new(path), it)))
        // What the pod is given belongs to its own users.
        .map(|(path, source, flags)| {
            bind(path, &source, MountFlags { mapped: from.namespaces.users.is_some(), ..flags })
        })
        .collect()
}

/// What a container mounts itself.
fn own_mount(from: &Ingredients<'_>, mount: &Wanted) -> Mount {
    let propagation = match mount.propagation {
        MountPropagation::Private => Propagation::Private,
        MountPropagation::HostToContainer => Propagation::FromHost,
        MountPropagation::Bidirectional => Propagation::Both,
    };
    let (readonly, recursive) = (mount.readonly, mount.recursive_read_only);
    let mapped = from.namespaces.users.is_some();
    // A device in a volume would be the pod's own users' then.
    let nodev = mapped;
    let flags = MountFlags { readonly, nodev, recursive, propagation, mapped, ..PLAIN };
    let destination = mount.container_path.clone();
    if let Some(ImageSpec(image)) = &mount.image {
        let source = MountSource::Image {
            layers: from.places.root.layers.clone(),
            lower: from.volumes.get(image).cloned().unwrap_or_default(),
            place: text(&image_place(from.places.bundle, &mount.container_path)),
            path: mount.sub_path.clone(),
        };
        Mount { destination, source, flags: MountFlags { readonly: true, ..CLOSED } }
    } else if mount.sub_path.is_empty() {
        bind(&destination, &mount.host_path, flags)
    } else {
        let (directory, path) = (mount.host_path.clone(), mount.sub_path.clone());
        Mount { destination, source: MountSource::Part { directory, path }, flags }
    }
}

fn bind(path: &str, source: &str, flags: MountFlags) -> Mount {
    let source = MountSource::Bind { path: source.to_owned() };
    Mount { destination: path.to_owned(), source, flags }
}

/// Where the image is put together that a container mounts at a path.
pub(crate) fn image_place(bundle: &Path, container_path: &str) -> PathBuf {
    let name = container_path.bytes().fold(String::new(), |mut name, byte| {
        // No two paths have one name, and nothing in it means anything to an overlay.
        if byte.is_ascii_alphanumeric() {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("_{byte:02x}"));
        }
        name
    });
    bundle.join("images").join(name)
}

impl Mounts {
    fn add(&mut self, path: &str, kind: &str, options: &[(&str, &str)], flags: MountFlags) {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.list.push(Mount {
            destination: path.to_owned(),
            source: MountSource::New { kind: kind.to_owned(), options: options.collect() },
            flags,
        });
    }

    /// Lets the container read its own limits, where programs look for them.
    ///
    /// Version 2 has a namespace for it. On version 1 each hierarchy's part is mounted under its
    /// name in a directory of its own, as runc has it.
    fn add_cgroups(
        &mut self,
        hierarchies: &Hierarchies,
        layout: Layout,
        path: &str,
        privileged: bool,
    ) {
        const ROOT: &str = "/sys/fs/cgroup";
        let flags = MountFlags { readonly: !privileged, ..CLOSED };
        if layout == Layout::V2 {
            self.add(ROOT, "cgroup2", &[], flags);
            return;
        }
        self.add(ROOT, "tmpfs", &[("mode", "755")], CLOSED);
        for hierarchy in hierarchies.iter().filter(|hierarchy| !hierarchy.unified) {
            let Some(name) = hierarchy.mount_point.file_name().and_then(|name| name.to_str())
            else {
                continue;
            };
            let source = hierarchy.mount_point.join(path.trim_start_matches('/'));
            self.list.push(bind(&format!("{ROOT}/{name}"), &text(&source), flags));
            // Where several controllers share a hierarchy, each is found under its own name too.
            for controller in &hierarchy.controllers {
                if controller != name && !controller.starts_with("name=") {
                    self.links.push((format!("{ROOT}/{controller}"), name.to_owned()));
                }
            }
        }
        // Links are made before mounts are sealed.
        self.sealed.push(ROOT.to_owned());
    }
}
