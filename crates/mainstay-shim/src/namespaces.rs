//! The namespaces that the containers of a pod share; the shim lives in them and so keeps them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use mainstay_linux::mount;
use mainstay_linux::namespace::{Namespaces, own_mounts, receive_mounts_only, unshare};
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
    /// The first of the processes that all containers share.
    pub(crate) reaper: Option<Reaper>,
}

/// Enters new namespaces and sets what is to be set in them. Returns the mounts that are left for it.
pub(crate) fn enter(which: &SandboxNamespaces) -> Result<OwnedFd, NamespaceError> {
    let host_mounts = own_mounts().map_err(step("remember the host's mounts"))?;
    // Mounts of its own always: what is mounted for a container goes with the container, and
    // what the host mounts and unmounts later arrives here, so that nothing is held busy.
    let mut namespaces = Namespaces::NEWNS;
    namespaces.set(Namespaces::NEWNET, which.network);
    namespaces.set(Namespaces::NEWIPC, which.ipc);
    namespaces.set(Namespaces::NEWUTS, which.hostname.is_some());
    unshare(namespaces).map_err(step("make the pod's namespaces"))?;
    receive_mounts_only().map_err(step("keep the pod's mounts apart from the host's"))?;
    if let Some(name) = &which.hostname {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|error| step(format!("set the host name {name}"))(error.into()))?;
    }
    if let Some(shm) = &which.shm {
        let target = Path::new(&shm.directory);
        mount::tmpfs(target, Some(shm.size), 0o1777)
            .map_err(step(format!("mount the shared memory at {}", shm.directory)))?;
    }
    for (name, value) in &which.sysctls {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&file, value).map_err(step(format!("set {name} to {value}")))?;
    }
    Ok(host_mounts)
}
