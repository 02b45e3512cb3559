//! Programs held in memory, where nothing can change them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Copies the program at `path` into a memory file and seals it against any change.
///
/// A process started from the copy (as `/proc/self/fd/<n>`) can be reached through its
/// `/proc/<pid>/exe` without giving anybody a file to write to (CVE-2019-5736), needs no file
/// system that allows execution, and shares its pages with all others started from the same copy.
/// Source: memfd_create(2).
pub fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    let mut program = File::open(path)?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    // `EXEC` says that execution is wanted where `vm.memfd_noexec` is 1; kernels before 6.3 do
    // not know the flag.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|error| match error {
        rustix::io::Errno::INVAL => memfd_create(name, flags),
        other => Err(other),
    })?;
    let mut copy = File::from(copy);
    io::copy(&mut program, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_copy_runs_and_cannot_be_written() {
        let copy = sealed_copy(Path::new("/bin/true")).unwrap();
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        #[expect(clippy::disallowed_methods, reason = "a test of what can be executed")]
        let status = std::process::Command::new(path).status().unwrap();
        assert!(status.success());
        let refused = File::from(copy).write(b"x").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    }
}
