//! System call filters: from names and conditions to the program that the kernel runs.
//!
//! Source: seccomp(2); `Documentation/userspace-api/seccomp_filter.rst`; for the meaning of a
//! profile, `config-linux.md` of the OCI runtime specification, section "Seccomp".

mod compile;

use std::io;

pub use compile::compile;

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is carried out.
    Allow,
    /// It is carried out and logged.
    Log,
    /// It fails with this number, 0 to 4095.
    Errno(u16),
    /// A tracer decides, and is told this number; without one it fails with `ENOSYS`.
    Trace(u16),
    /// The thread gets `SIGSYS`.
    Trap,
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

impl Action {
    /// The value that the filter returns. Source: `include/uapi/linux/seccomp.h`.
    fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Log => 0x7ffc_0000,
            Self::Errno(number) => 0x0005_0000 | u32::from(number),
            Self::Trace(number) => 0x7ff0_0000 | u32::from(number),
            Self::Trap => 0x0003_0000,
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
        }
    }
}

/// A calling convention with system call numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Architecture {
    /// 64-bit PC.
    X86_64,
    /// 32-bit PC.
    X86,
    /// 32-bit pointers on a 64-bit PC.
    X32,
    /// 64-bit Arm.
    Aarch64,
    /// 32-bit Arm.
    Arm,
}

impl Architecture {
    /// The one that this program was built for; `None` where filters are not known yet.
    pub fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }
}

/// A comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// How an argument is compared with a value; both are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Less.
    Less,
    /// Less or equal.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater or equal.
    GreaterOrEqual,
    /// Equal after both-sided masking: `argument & mask == value & mask`.
    MaskedEqual {
        /// The bits that count.
        mask: u64,
    },
}

/// What happens to the named system calls when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Names; those that an architecture does not have are passed over for it.
    pub names: Vec<String>,
    /// All have to hold; none is always.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub action: Action,
}

/// A whole filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What happens to a system call that no rule is for.
    pub default: Action,
    /// The conventions that are let in; a call by another one ends the process.
    pub architectures: Vec<Architecture>,
    /// The first one that fits counts.
    pub rules: Vec<Rule>,
}

/// A filter that cannot be made into a program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A condition names an argument that system calls do not have.
    #[error("a seccomp condition names argument {0}; system calls have arguments 0 to 5")]
    NoSuchArgument(u8),
    /// The kernel takes at most 4096 instructions.
    #[error("the seccomp filter needs {0} instructions, and the kernel takes at most 4096")]
    TooLong(usize),
}

/// One instruction, in the layout of `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// How many instructions to skip when it does not.
    pub jump_false: u8,
    /// The number that the instruction works with.
    pub operand: u32,
}

/// A program as bytes, eight for each instruction, in this machine's order.
pub fn to_bytes(program: &[Instruction]) -> Vec<u8> {
    program
        .iter()
        .flat_map(|instruction| {
            let mut bytes = [0; 8];
            bytes[..2].copy_from_slice(&instruction.code.to_ne_bytes());
            bytes[2] = instruction.jump_true;
            bytes[3] = instruction.jump_false;
            bytes[4..].copy_from_slice(&instruction.operand.to_ne_bytes());
            bytes
        })
        .collect()
}

/// Puts the calling thread under a filter, for good, as given by [`to_bytes`].
///
/// # Errors
///
/// `PermissionDenied` unless the thread has `CAP_SYS_ADMIN` or cannot gain privileges any more;
/// `InvalidInput` when the kernel does not accept the program.
pub fn install(program: &[u8]) -> io::Result<()> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not a seccomp program");
    if program.is_empty() || !program.len().is_multiple_of(8) {
        return Err(invalid());
    }
    let mut filter: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| invalid())?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: seccomp(2) reads `len` instructions from `filter`; both come from the same vector,
    // which lives until after the call. The kernel checks the instructions themselves.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
