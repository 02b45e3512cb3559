//! Starting programs that are held in memory, from a process with many threads.

use std::arch::asm;
use std::ffi::{CStr, c_char, c_int, c_long};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::io::fcntl_dupfd_cloexec;

use crate::namespace::Namespaces;
use crate::process::{self, CloneOptions, exit_immediately, reap, reset_signals};

/// What a program is started with. It has no variables and its directory is `/`; every signal has its default
/// effect, and of this process's descriptors it has those that are not close-on-exec.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program, as [`crate::memfd::sealed_copy`] makes one.
    pub program: BorrowedFd<'a>,
    /// Its name, and its arguments.
    pub arguments: &'a [&'a CStr],
    /// Its standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The version 2 control group that it starts in; `None` is this process's. Unlike a move, this waits for
    /// nothing.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Starts a program as a child of this process, and answers its number.
///
/// Nothing of this process is copied: the child borrows its memory, and the calling thread waits, until the child
/// has become the program, as with `posix_spawn(3)`, which knows nothing of control groups.
///
/// # Errors
///
/// When there can be no process, no process in that group, or the program cannot be executed. Source: clone(2),
/// execveat(2).
pub fn spawn(wanted: &Spawn<'_>) -> io::Result<i32> {
    // The child puts them to 0, 1 and 2, where none of them may be by then.
    let [input, output, error] = wanted.stdio.map(|it| fcntl_dupfd_cloexec(it, 3));
    let arguments = wanted.arguments.iter().map(|text| text.as_ptr());
    let mut order = Order {
        program: wanted.program,
        arguments: arguments.chain([ptr::null()]).collect(),
        stdio: [input?, output?, error?],
        failure: None,
    };
    let options = CloneOptions {
        namespaces: Namespaces::empty(),
        cgroup: wanted.cgroup,
        sibling: false,
        processes_of: None,
    };
    let child = {
        // No handler of this process runs in the child, where what it changes would be this process's.
        let _held = HeldSignals::all()?;
        clone_borrowing(&options, become_program, &raw mut order)?
    };
    let Some(why) = order.failure else { return Ok(child) };
    // It has nothing left to do but to end.
    process::Pidfd::open(child)?.wait()?;
    reap(child)?;
    Err(io::Error::from_raw_os_error(why))
}

/// What the child reads, and where it says why it has not become the program.
struct Order<'a> {
    program: BorrowedFd<'a>,
    /// Ends with a null pointer.
    arguments: Vec<*const c_char>,
    stdio: [OwnedFd; 3],
    /// The number of the error.
    failure: Option<c_int>,
}

/// In the child. Other threads of this process may hold any lock, so that it does only what a handler of a signal
/// may do: nothing is allocated. Source: signal-safety(7).
extern "C" fn become_program(order: *mut Order<'_>) -> ! {
    // SAFETY: it is that of `spawn`, which waits in its call and does not look at it meanwhile.
    let order = unsafe { &mut *order };
    let error = execute(order);
    order.failure = Some(error.raw_os_error().unwrap_or(libc::EIO));
    exit_immediately(127)
}

/// Returns only the error.
fn execute(order: &Order<'_>) -> io::Error {
    let prepare = || {
        for (number, descriptor) in (0..).zip(&order.stdio) {
            // SAFETY: dup2(2) has no memory arguments. The child has its own table of descriptors, and nothing of
            // it reads or writes what 0 to 2 were.
            if unsafe { libc::dup2(descriptor.as_raw_fd(), number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        rustix::process::chdir(c"/")?;
        reset_signals()
    };
    if let Err(error) = prepare() {
        return error;
    }
    let environment = [ptr::null::<c_char>()];
    // SAFETY: execveat(2) reads a string and two arrays of strings that end with a null pointer, as `spawn` has made
    // them; all are there until after the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            order.program.as_raw_fd(),
            c"".as_ptr(),
            order.arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// How much the child may put on its stack, in bytes: some calls without arrays or recursion.
const STACK: usize = 64 << 10;

/// Has a child in the same memory run `entry`, and returns its number when it has executed a program or ended.
fn clone_borrowing<T>(
    options: &CloneOptions<'_>,
    entry: extern "C" fn(*mut T) -> !,
    argument: *mut T,
) -> io::Result<i32> {
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(STACK / size_of::<u128>());
    let mut arguments = process::clone_arguments(options);
    arguments.flags |= u64::from((libc::CLONE_VM | libc::CLONE_VFORK).unsigned_abs());
    arguments.stack = stack.as_mut_ptr().expose_provenance() as u64;
    arguments.stack_size = STACK as u64;
    // SAFETY: the arguments are those of clone3(2). The child has a stack of its own, and because of CLONE_VFORK
    // this thread, whose memory it uses, goes on when the child does so no more.
    let returned = unsafe { clone3(&arguments, entry, argument) };
    drop(stack);
    // As the kernel returns it: a number, or an error's number below 0. Source: syscalls(2).
    if returned < 0 {
        return Err(io::Error::from_raw_os_error(c_int::try_from(-returned).unwrap_or(libc::EIO)));
    }
    process::process_number(returned)
}

/// clone3(2) with a stack, on which the child calls `entry`; the C library has no function for it.
///
/// # Safety
///
/// That of clone3(2); `entry` does not unwind.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3<T>(
    arguments: &libc::clone_args,
    entry: extern "C" fn(*mut T) -> !,
    argument: *mut T,
) -> c_long {
    let mut returned = libc::SYS_clone3;
    // SAFETY: in the caller it is a system call like any other, which changes RCX and R11. The child has all
    // registers but RAX and its stack, whose end is aligned to 16 as the call needs it, and never comes out.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {argument}",
            "call {entry}",
            "ud2",
            "2:",
            entry = in(reg) entry,
            argument = in(reg) argument,
            inlateout("rax") returned,
            in("rdi") arguments,
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    returned
}

/// As for x86-64.
///
/// # Safety
///
/// That of clone3(2); `entry` does not unwind.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3<T>(
    arguments: &libc::clone_args,
    entry: extern "C" fn(*mut T) -> !,
    argument: *mut T,
) -> c_long {
    let returned: c_long;
    // SAFETY: in the caller it is a system call like any other, which changes nothing but X0. The child has all
    // registers but that one and its stack, whose end is aligned to 16, and never comes out.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {argument}",
            "blr {entry}",
            "brk 1",
            "2:",
            entry = in(reg) entry,
            argument = in(reg) argument,
            in("x8") libc::SYS_clone3,
            inlateout("x0") arguments as *const libc::clone_args => returned,
            in("x1") size_of::<libc::clone_args>(),
        );
    }
    returned
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("mainstay-linux has no call of clone3(2) with a stack for this kind of processor");

/// Signals that this thread does not take until this is dropped.
struct HeldSignals(libc::sigset_t);

impl HeldSignals {
    fn all() -> io::Result<Self> {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: sigfillset(3) initialises the set that it is given.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: the first set is initialised, and the second one has room for what was before.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        // SAFETY: the call was a success, and has written what was before.
        Ok(Self(unsafe { before.assume_init() }))
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // SAFETY: the set is initialised; a null third argument means that the mask until now is not wanted. It
        // fails for what is no mask only, and this one was one.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::path::Path;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::memfd::sealed_copy;

    fn run(program: &Path, arguments: &[&CStr], cgroup: Option<&File>) -> io::Result<String> {
        let program = sealed_copy(program)?;
        let null = File::open("/dev/null")?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let child = spawn(&Spawn {
            program: program.as_fd(),
            arguments,
            stdio: [null.as_fd(), write.as_fd(), write.as_fd()],
            cgroup: cgroup.map(AsFd::as_fd),
        })?;
        drop(write);
        let text = io::read_to_string(File::from(read))?;
        process::Pidfd::open(child)?.wait()?;
        assert_eq!(reap(child)?.unwrap().exit_code, 0, "{text}");
        Ok(text)
    }

    #[test]
    fn a_program_starts_with_what_it_is_given_and_nothing_else() {
        let shell = Path::new("/bin/sh");
        // Of the shell itself, which blocks signals while it starts others: by nothing but its own words.
        let script = c"echo $0 $1; pwd; readlink /proc/$$/fd/0; wc -c < /proc/$$/environ; \
                       while read -r line; do case $line in Sig[BI]*) echo \"$line\"; esac; done < /proc/$$/status";
        let told = run(shell, &[c"sh", c"-c", script, c"name", c"one"], None).unwrap();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines[..4], ["name one", "/", "/dev/null", "0"], "{told}");
        let none = |name: &str| lines.contains(&&*format!("{name}:\t0000000000000000"));
        assert!(none("SigBlk") && none("SigIgn"), "{told}");
    }

    #[test]
    fn what_cannot_be_started_is_told_and_leaves_nothing() {
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&text, "no program").unwrap();
        let error = run(text.path(), &[c"x"], None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOEXEC));
        let directory = File::open("/").unwrap();
        let error = run(Path::new("/bin/true"), &[c"true"], Some(&directory)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
