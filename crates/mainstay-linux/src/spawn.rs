//! Starting programs that are held in memory, from a process with many threads.

use std::ffi::{CStr, c_char, c_int};
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::namespace::Namespaces;
use crate::process::{self, CloneOptions, Fork, exit_immediately, reap, reset_signals};

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
/// # Errors
///
/// When there can be no process, no process in that group, or the program cannot be executed. Source: clone(2),
/// execveat(2).
pub fn spawn(wanted: &Spawn<'_>) -> io::Result<i32> {
    // The child puts them to 0, 1 and 2, where none of them may be by then.
    let [input, output, error] = wanted.stdio.map(|it| fcntl_dupfd_cloexec(it, 3));
    let stdio = [input?, output?, error?];
    let arguments = wanted.arguments.iter().map(|text| text.as_ptr());
    let arguments: Vec<*const c_char> = arguments.chain([ptr::null()]).collect();
    let (told, teller) = pipe_with(PipeFlags::CLOEXEC)?;
    let options = CloneOptions {
        namespaces: Namespaces::empty(),
        cgroup: wanted.cgroup,
        sibling: false,
        processes_of: None,
    };
    // No handler of this process runs in the child, where its other half, as of a pipe, is this process's.
    let held = HeldSignals::all()?;
    let child = match process::clone_unchecked(&options)? {
        Fork::Child => become_program(wanted.program, &arguments, &stdio, &teller),
        Fork::Parent(child) => child,
    };
    drop((held, teller));
    let mut why = [0; size_of::<c_int>()];
    match File::from(told).read_exact(&mut why) {
        // It has become the program, which closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(child),
        result => {
            result?;
            // It has nothing left to do but to end.
            process::Pidfd::open(child)?.wait()?;
            reap(child)?;
            Err(io::Error::from_raw_os_error(c_int::from_ne_bytes(why)))
        }
    }
}

/// In the child. Other threads of its original may have held any lock, so that it does only what a handler of a
/// signal may do: nothing is allocated. Source: signal-safety(7).
fn become_program(
    program: BorrowedFd<'_>,
    arguments: &[*const c_char],
    stdio: &[OwnedFd; 3],
    teller: &OwnedFd,
) -> ! {
    let error = execute(program, arguments, stdio);
    let why = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
    // Whoever would be told has ended if it cannot be.
    let _ = rustix::io::write(teller, &why);
    exit_immediately(127)
}

/// Returns only the error.
fn execute(
    program: BorrowedFd<'_>,
    arguments: &[*const c_char],
    stdio: &[OwnedFd; 3],
) -> io::Error {
    let prepare = || {
        for (number, descriptor) in (0..).zip(stdio) {
            // SAFETY: dup2(2) has no memory arguments, and nothing of this copy reads or writes what 0 to 2 were.
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
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

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
    use std::os::fd::AsFd;
    use std::path::Path;

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
