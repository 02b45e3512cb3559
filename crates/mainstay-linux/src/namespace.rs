//! Namespaces of the calling thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

pub use rustix::thread::UnshareFlags as Namespaces;

/// Leaves the namespaces that `which` names for new ones. Source: unshare(2).
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`, `ENOSPC` when the limits in `/proc/sys/user` are reached.
pub fn unshare(which: Namespaces) -> io::Result<()> {
    // Of the flags, only FILES and CLONE_VM-like sharing could break the promises of other safe
    // code (a descriptor closed under its owner), so they are not let through.
    let namespaces = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWCGROUP
        | UnshareFlags::NEWUSER
        | UnshareFlags::NEWTIME;
    // SAFETY: `unshare_unsafe` requires that no safe code relies on what stops being shared; the
    // flags are cut to namespaces, and none of those is part of a Rust type's promises.
    unsafe { rustix::thread::unshare_unsafe(which & namespaces) }?;
    Ok(())
}

/// Makes all mounts of this mount namespace receive what is mounted and unmounted outside, and
/// send nothing there. Source: mount_namespaces(7), "MS_SLAVE".
pub fn receive_mounts_only() -> io::Result<()> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change("/", slave)?)
}

/// The mount namespace of this process.
pub fn own_mounts() -> io::Result<OwnedFd> {
    Ok(open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Does something in another mount namespace, and comes back to the root directory of this one.
///
/// # Errors
///
/// What setns(2) or `work` returned. It takes a process with one thread.
pub fn in_mounts<T>(mounts: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let own = own_mounts()?;
    move_into_link_name_space(mounts, Some(LinkNameSpaceType::Mount))?;
    let result = work();
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount))?;
    result
}

/// The network namespace of a process.
pub fn network_of(pid: i32) -> io::Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/net");
    Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Runs `work` on a thread of its own inside the given network namespace.
///
/// The thread ends with the call, so that no pooled thread is ever left in a foreign namespace.
/// What `work` opens there, such as a netlink socket, stays in that namespace and can be used
/// from anywhere.
///
/// # Errors
///
/// What setns(2) or `work` returned.
pub fn in_network<T: Send>(
    network: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
                work()
            })?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
