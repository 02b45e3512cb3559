//! The namespaces that the containers of a pod share; the shim lives in them and so keeps them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use mainstay_linux::mount;
use mainstay_linux::namespace::{Namespaces, own_mounts, receive_mounts_only, unshare};
use mainstay_linux::path::open_directory;
use mainstay_linux::users::UserNamespace;
use mainstay_shim_protocol::SandboxNamespaces;

use crate::init::Reaper;

/// A step of entering the namespaces that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub(crate) struct NamespaceError {
    step: String,
    #[source]
    source: io::Error,
}

fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> NamespaceError {
    |source| NamespaceError { step: step.into(), source }
}

/// What a pod's containers have in common, and what they have from the host.
#[derive(Default)]
pub(crate) struct Pod {
    /// The mounts that this process had before it had its own.
    pub(crate) host_mounts: Option<OwnedFd>,
    /// The users that all containers share, if they are not the machine's.
    pub(crate) users: Option<Rc<UserNamespace>>,
    /// The first of the processes that all containers share.
    pub(crate) reaper: Option<Reaper>,
}

/// Enters new namespaces and sets what is to be set in them. Its own users stay the machine's.
pub(crate) fn enter(which: &SandboxNamespaces) -> Result<Pod, NamespaceError> {
    let host_mounts = own_mounts().map_err(step("remember the host's mounts"))?;
    // Mounts of its own always: what is mounted for a container goes with the container, and
    // what the host mounts and unmounts later arrives here, so that nothing is held busy.
    let mut namespaces = Namespaces::empty();
    namespaces.set(Namespaces::NEWNET, which.network);
    namespaces.set(Namespaces::NEWIPC, which.ipc);
    namespaces.set(Namespaces::NEWUTS, which.hostname.is_some());
    // They are at the disposal of whoever may do anything among the users that they belong to.
    let users = match which.users {
        Some(range) => {
            unshare(Namespaces::NEWNS).map_err(step("make the pod's mounts"))?;
            let users = UserNamespace::make(range.first, range.length, namespaces);
            Some(users.map_err(step("make the pod's users and its other namespaces"))?)
        }
        None => {
            let all = namespaces | Namespaces::NEWNS;
            unshare(all).map_err(step("make the pod's namespaces"))?;
            None
        }
    };
    receive_mounts_only().map_err(step("keep the pod's mounts apart from the host's"))?;
    if let Some(name) = &which.hostname {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|error| step(format!("set the host name {name}"))(error.into()))?;
    }
    if let Some(shm) = &which.shm {
        let target = Path::new(&shm.directory);
        mount::tmpfs(target, Some(shm.size), 0o1777)
            .map_err(step(format!("mount the shared memory at {}", shm.directory)))?;
        if let Some(users) = &users {
            try_mapping(target, users)?;
        }
    }
    for (name, value) in &which.sysctls {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&file, value).map_err(step(format!("set {name} to {value}")))?;
    }
    Ok(Pod { host_mounts: Some(host_mounts), users: users.map(Rc::new), reaper: None })
}

/// Older kernels can give a pod users of its own, but not show it files of memory file systems, where
/// half of what it is given lies.
fn try_mapping(directory: &Path, users: &UserNamespace) -> Result<(), NamespaceError> {
    let mapped = open_directory(directory).and_then(mount::copy_one);
    let mapped = mapped.and_then(|mount| mount::map_users(mount, users));
    mapped.map_err(step(
        "show memory file systems to the pod's own users (hostUsers: false needs Linux 6.3)",
    ))
}
