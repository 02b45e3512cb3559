//! The first process of a process namespace that the containers of a pod share.
//!
//! It takes leave of orphans, as the kernel asks of a first process, and does nothing else. The
//! containers can see it, so it has nothing that could be of use to them: no rights, no descriptors, and
//! an empty root directory, which is what `/proc/1/root` shows. Where other runtimes have a container
//! of its own from an image for this, it is a copy of the shim.
//!
//! Its end is the end of all that is in the namespace, and the shim's end is its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use mainstay_linux::capability::{self, Capabilities};
use mainstay_linux::mount::{self, Attributes};
use mainstay_linux::namespace::Namespaces;
use mainstay_linux::path::open_directory;
use mainstay_linux::process::{self, CloneOptions, Fork, Pidfd};
use mainstay_shim_protocol::CgroupDirectories;
use rustix::fs::{Gid, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{InitError, LegacyGroups, Never, chain, go_with_shim, open_unified, program, step};

/// Nobody's, as in the images that others use for this.
const ID: u32 = 65_535;

/// What it says when it is what it should be; anything else is why it is not.
const READY: &str = "ready";

/// A first process that runs, a child of this one.
pub(crate) struct Reaper {
    pub(crate) pid: i32,
    pub(super) process: Pidfd,
}

/// Makes one, in the namespaces of this process but for its own process namespace. Waits until it
/// can be seen by others.
pub(crate) fn spawn(cgroup: &CgroupDirectories) -> Result<Reaper, InitError> {
    let unified = open_unified(cgroup)?;
    let legacy = LegacyGroups::open(cgroup)?;
    let (told, teller) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| step("make a pipe")(error.into()))?;
    let (mut told, mut teller) = (File::from(told), File::from(teller));
    let options = CloneOptions {
        namespaces: Namespaces::NEWPID | Namespaces::NEWNS,
        cgroup: unified.as_ref().map(AsFd::as_fd),
        sibling: false,
        processes_of: None,
    };
    match process::clone(&options).map_err(step("make the pod's first process"))? {
        Fork::Parent(pid) => {
            let process = Pidfd::open(pid).map_err(step("refer to the pod's first process"))?;
            drop(teller);
            let mut text = String::new();
            told.read_to_string(&mut text).map_err(step("hear the pod's first process"))?;
            match text.as_str() {
                READY => Ok(Reaper { pid, process }),
                "" => Err(step("make the pod's first process")(std::io::Error::other("it ended"))),
                why => Err(step("make the pod's first process")(std::io::Error::other(why))),
            }
        }
        Fork::Child => {
            drop((unified, told));
            let Err(error) = become_reaper(legacy, &mut teller);
            // Whoever was to hear it may have ended.
            let _ = teller.write_all(chain(&error).as_bytes());
            process::exit_immediately(1)
        }
    }
}

fn become_reaper(legacy: LegacyGroups, teller: &mut File) -> Result<Never, InitError> {
    let mut kept = vec![teller.as_fd()];
    kept.extend(legacy.0.iter().map(AsFd::as_fd));
    process::close_all_but(&kept).map_err(step("close the shim's descriptors"))?;
    go_with_shim()?;
    program::leave_parent()?;
    let signals = process::signals().map_err(step("hear of ends"))?;
    legacy.join()?;
    leave_root()?;
    give_up_rights()?;
    // The kernel forgets both when the user changes.
    go_with_shim()?;
    teller.write_all(READY.as_bytes()).map_err(step("report to the shim"))?;
    process::close_all_but(&[signals.as_fd()]).map_err(step("close the last descriptors"))?;
    loop {
        // Asked to end it stays: others are still there.
        signals.wait().map_err(step("wait for ends"))?;
        while process::reap_any().map_err(step("take leave of an orphan"))?.is_some() {}
    }
}

/// Leaves all of the host's files for an empty directory.
fn leave_root() -> Result<(), InitError> {
    let sealed = Attributes { readonly: true, nosuid: true, nodev: true, noexec: true };
    let options = [("mode".to_owned(), "555".to_owned())];
    let empty = mount::new("tmpfs", &options, sealed).map_err(step("make an empty directory"))?;
    // Any directory will do: the mounts of this process are its own.
    let place = open_directory(std::path::Path::new("/proc")).map_err(step("open /proc"))?;
    mount::attach(&empty, &place).map_err(step("mount an empty directory"))?;
    super::pivot(empty)
}

fn give_up_rights() -> Result<(), InitError> {
    let none = Capabilities::default();
    capability::limit_bounding_set(none).map_err(step("limit the bounding set"))?;
    set_thread_groups(&[]).map_err(|error| step("leave all groups")(error.into()))?;
    let (uid, gid) = (Uid::from_raw(ID), Gid::from_raw(ID));
    set_thread_res_gid(gid, gid, gid).map_err(|error| step("set the group")(error.into()))?;
    set_thread_res_uid(uid, uid, uid).map_err(|error| step("set the user")(error.into()))?;
    capability::set(none, none, none).map_err(step("give up capabilities"))?;
    set_no_new_privs(true).map_err(|error| step("give up privileges")(error.into()))
}
