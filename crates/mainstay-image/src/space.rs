//! Leaving some of the disk to others.

use std::io;
use std::os::fd::AsFd;

/// After how many written bytes the free space is looked at again, at the latest.
const ALLOWANCE_MAX: u64 = 16 << 20;
/// The same, at the earliest.
const ALLOWANCE_MIN: u64 = 256 << 10;

/// Why nothing more may be written.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// Hardly any space is left.
    #[error("disk is full: {free} bytes are free, and {keep} are to stay free")]
    Full {
        /// What is free, in bytes.
        free: u64,
        /// What is to stay free, in bytes.
        keep: u64,
    },
    /// The file system does not say how much is left.
    #[error("asking for the free space failed")]
    Unknown(#[source] io::Error),
}

/// What is written to one file system, with the free space looked at now and then.
pub(crate) struct Space {
    keep_free: u64,
    /// Bytes that may be written before the next look.
    allowance: u64,
}

impl Space {
    /// `keep_free` bytes are to stay free, or a twentieth of the file system if that is less.
    pub(crate) fn new(keep_free: u64) -> Self {
        Self { keep_free, allowance: 0 }
    }

    /// Asks for leave to write `bytes` to the file system that `fd` is on.
    pub(crate) fn spend(&mut self, bytes: u64, fd: impl AsFd) -> Result<(), SpaceError> {
        if let Some(left) = self.allowance.checked_sub(bytes) {
            self.allowance = left;
            return Ok(());
        }
        let stat = rustix::fs::fstatvfs(fd).map_err(|errno| SpaceError::Unknown(errno.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let (free, keep) = (bytes(stat.f_bavail), self.keep_free.min(bytes(stat.f_blocks) / 20));
        let Some(spare) = free.checked_sub(keep) else {
            return Err(SpaceError::Full { free, keep });
        };
        // Half of it, since others write too.
        self.allowance = (spare / 2).clamp(ALLOWANCE_MIN, ALLOWANCE_MAX);
        Ok(())
    }
}

/// Whether a full disk or an exhausted quota is why something failed.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
