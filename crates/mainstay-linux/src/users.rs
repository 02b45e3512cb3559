//! User namespaces.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{
    CapabilitiesSecureBits, LinkNameSpaceType, move_into_link_name_space,
    set_capabilities_secure_bits,
};

use crate::namespace::Namespaces;
use crate::process::{self, CloneOptions, Fork, Pidfd};

/// A user namespace, in which users and groups from 0 on are those of the machine from a first one
/// on. Source: user_namespaces(7).
#[derive(Debug)]
pub struct UserNamespace {
    descriptor: OwnedFd,
    first: u32,
}

impl UserNamespace {
    /// Makes one with `length` users and groups from `first` on. This process stays in its own, and
    /// moves into new namespaces of the kinds `owned`, which belong to the new one.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when this process has a second thread; `EPERM` without `CAP_SYS_ADMIN` and
    /// `CAP_SETUID`, `ENOSPC` when the limits in `/proc/sys/user` are reached.
    pub fn make(first: u32, length: u32, owned: Namespaces) -> io::Result<Self> {
        let (told, teller) = pipe_with(PipeFlags::CLOEXEC)?;
        let options = CloneOptions {
            namespaces: Namespaces::NEWUSER | owned,
            cgroup: None,
            sibling: false,
            processes_of: None,
        };
        // Somebody has to be in it until it is held by a descriptor.
        let pid = match process::clone(&options)? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                drop(teller);
                let closed = process::close_all_but(&[told.as_fd()]);
                let heard = rustix::io::read(&told, &mut [0; 1]);
                process::exit_immediately(i32::from(closed.is_err() || heard.is_err()))
            }
        };
        let hold = || {
            let process = Pidfd::open(pid)?;
            for map in ["uid_map", "gid_map"] {
                fs::write(format!("/proc/{pid}/{map}"), format!("0 {first} {length}"))?;
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let descriptor = open(format!("/proc/{pid}/ns/user"), flags, Mode::empty())?;
            process::join(&process, owned)?;
            Ok((descriptor, process))
        };
        let held: io::Result<_> = hold();
        drop(teller);
        let (descriptor, process) = held?;
        process.wait()?;
        process::reap(pid)?;
        Ok(Self { descriptor, first })
    }

    /// The machine's number of a user or group in it.
    pub fn on_machine(&self, number: u32) -> u32 {
        self.first.saturating_add(number)
    }

    /// Makes what this process makes from now on belong to its first user, with all rights that this
    /// process has. Source: setfsuid(2); capabilities(7), `SECBIT_NO_SETUID_FIXUP`.
    pub fn make_files_as_root(&self) -> io::Result<()> {
        set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
        for set in [libc::setfsgid as unsafe extern "C" fn(u32) -> i32, libc::setfsuid] {
            // SAFETY: both take a number and nothing else.
            unsafe { set(self.first) };
            // They return what was before, and change nothing for an impossible number.
            // SAFETY: as above.
            if unsafe { set(u32::MAX) }.cast_unsigned() != self.first {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
        Ok(())
    }

    /// Moves this process into it, where it may do anything.
    ///
    /// # Errors
    ///
    /// What setns(2) returned. It takes a process with one thread.
    pub fn join(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::User))?)
    }
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
