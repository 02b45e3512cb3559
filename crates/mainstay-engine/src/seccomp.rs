//! The system calls that a container may make.
//!
//! A profile is our own list ([`default`]) or a file in Docker's JSON format ([`profile`]); both
//! become the program that the kernel runs. A profile that cannot be applied fails the container:
//! running it without would be worse than not running it.

mod default;
mod profile;

use std::fs;
use std::io;

use mainstay_cri::{Error, ErrorKind, Result, SeccompProfile};
use mainstay_linux::capability::Capabilities;
use mainstay_linux::seccomp::{Architecture, CompileError, Filter, compile, to_bytes};

pub(crate) use profile::ProfileError;

/// What decides which parts of a profile count.
#[derive(Clone, Copy, Debug)]
struct Circumstances {
    /// What the container may hold at most.
    capabilities: Capabilities,
    /// This machine's.
    architecture: Architecture,
    /// This machine's kernel: major and minor version.
    kernel: (u32, u32),
}

/// A filter that cannot be made.
#[derive(Debug, thiserror::Error)]
enum FilterError {
    #[error("seccomp profiles are not supported on this processor architecture")]
    Architecture,
    #[error(
        "cannot read it; localhostProfile files lie below the seccomp directory of the root-dir"
    )]
    Read(#[source] io::Error),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// The filter of a container as bytes, for a profile that is not `Unconfined`.
pub(crate) fn filter(profile: &SeccompProfile, capabilities: Capabilities) -> Result<Vec<u8>> {
    let name = match profile {
        SeccompProfile::Localhost(path) => path.as_str(),
        SeccompProfile::RuntimeDefault | SeccompProfile::Unconfined => "RuntimeDefault",
    };
    make(profile, capabilities).map_err(|error| {
        let message = format!("cannot apply the seccomp profile {name}");
        Error::with_source(ErrorKind::InvalidArgument, message, error)
    })
}

fn make(
    profile: &SeccompProfile,
    capabilities: Capabilities,
) -> std::result::Result<Vec<u8>, FilterError> {
    let architecture = Architecture::native().ok_or(FilterError::Architecture)?;
    let circumstances = Circumstances { capabilities, architecture, kernel: kernel() };
    let filter: Filter = match profile {
        SeccompProfile::RuntimeDefault | SeccompProfile::Unconfined => {
            default::filter(&circumstances)
        }
        SeccompProfile::Localhost(path) => {
            let json = fs::read(path).map_err(FilterError::Read)?;
            profile::filter(&json, &circumstances)?
        }
    };
    Ok(to_bytes(&compile(&filter)?))
}

/// The version of the kernel that runs, as `uname -r` begins.
fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The conventions that programs of a machine may use, the older ones of its family too.
fn family(architecture: Architecture) -> Vec<Architecture> {
    match architecture {
        Architecture::X86_64 => vec![Architecture::X86_64, Architecture::X86, Architecture::X32],
        Architecture::Aarch64 => vec![Architecture::Aarch64, Architecture::Arm],
        other => vec![other],
    }
}
