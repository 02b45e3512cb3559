//! Processes: forks, descriptors for them, their ends.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, pidfd_send_signal,
};

use crate::namespace::Namespaces;

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The process that called; the number is the child's.
    Parent(i32),
    /// The new process.
    Child,
}

/// Copies this process.
///
/// # Errors
///
/// `InvalidInput` when the process has a second thread: the child would have that thread's locks
/// and not the thread. Otherwise what fork(2) returned.
pub fn fork() -> io::Result<Fork> {
    check_single_thread()?;
    // SAFETY: fork(2) allows a child of a process with several threads only async-signal-safe
    // calls; this process has one thread, as was just seen, and only that thread could start
    // another, so the child is as able as the parent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent(child)),
    }
}

fn check_single_thread() -> io::Result<()> {
    // One directory entry for each thread, so three links with the two that every one has.
    match std::fs::metadata("/proc/self/task")?.nlink() {
        3 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "only a process with one thread can be copied",
        )),
    }
}

/// What a [`clone`] differs in from a [`fork`].
#[derive(Debug)]
pub struct CloneOptions<'a> {
    /// Namespaces that the child gets new.
    pub namespaces: Namespaces,
    /// The version 2 control group that the child starts in; kernel 5.7. Unlike a move, this
    /// waits for nothing.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether the child becomes the child of the caller's parent.
    pub sibling: bool,
    /// A process whose process namespace the child is to be in; `None` is the caller's.
    pub processes_of: Option<&'a Pidfd>,
}

/// Copies this process into other namespaces or another control group. Source: clone(2).
///
/// # Errors
///
/// As [`fork`], and what the namespaces and the control group need.
pub fn clone(options: &CloneOptions<'_>) -> io::Result<Fork> {
    check_single_thread()?;
    let Some(process) = options.processes_of else { return clone_unchecked(options) };
    // Only where children go changes by this, so that this process can turn back.
    let own = Pidfd::open(rustix::process::getpid().as_raw_nonzero().get())?;
    join(process, Namespaces::NEWPID)?;
    let cloned = clone_unchecked(options);
    if !matches!(cloned, Ok(Fork::Child)) {
        join(&own, Namespaces::NEWPID)?;
    }
    cloned
}

/// Joins namespaces of another process and copies this one, so that the copy is in them with all
/// that it is; the process namespace of the caller itself cannot change.
///
/// Source: setns(2) with a pidfd, kernel 5.8.
pub fn clone_within(
    process: &Pidfd,
    namespaces: Namespaces,
    options: &CloneOptions<'_>,
) -> io::Result<Fork> {
    // Before the mounts change: in another process namespace `/proc/self` may not exist.
    check_single_thread()?;
    join(process, namespaces)?;
    clone_unchecked(options)
}

/// Joins the cgroup namespace of another process.
///
/// Not before a copy is made in a control group of it: where the hierarchy is mounted with `nsdelegate`, as
/// systemd does, nobody is moved there by a process that is outside of it. Source: setns(2), kernel 5.8;
/// `Documentation/admin-guide/cgroup-v2.rst`, "Delegation Containment".
pub fn join_cgroup_namespace(process: &Pidfd) -> io::Result<()> {
    // This one belongs to a thread, and nothing of Rust's is bound to it.
    join(process, Namespaces::NEWCGROUP)
}

/// The process has one thread, or the namespaces belong to threads.
pub(crate) fn join(process: &Pidfd, namespaces: Namespaces) -> io::Result<()> {
    let bits = namespaces.bits().cast_signed();
    // SAFETY: setns(2) has no memory arguments, and takes no flags but namespaces; the process
    // has one thread, as the callers have checked, so nothing else relies on the ones that it leaves.
    let result = unsafe { libc::setns(process.as_fd().as_raw_fd(), bits) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What clone3(2) is told of it.
pub(crate) fn clone_arguments(options: &CloneOptions<'_>) -> libc::clone_args {
    let (group_flag, group) = match options.cgroup {
        // The descriptor is not negative, being open.
        Some(descriptor) => (CLONE_INTO_CGROUP, u64::from(descriptor.as_raw_fd().unsigned_abs())),
        None => (0, 0),
    };
    let sibling = if options.sibling { libc::CLONE_PARENT.unsigned_abs().into() } else { 0 };
    libc::clone_args {
        flags: u64::from(options.namespaces.bits()) | group_flag | sibling,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        // A sibling's end is told in the way that the caller's own end is.
        exit_signal: if options.sibling { 0 } else { libc::SIGCHLD.unsigned_abs().into() },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group,
    }
}

/// The process has one thread.
fn clone_unchecked(options: &CloneOptions<'_>) -> io::Result<Fork> {
    let arguments = clone_arguments(options);
    // SAFETY: without CLONE_VM and with no stack, clone3(2) is fork(2): the child has a copy of
    // all memory. The C library is not told, so in the child its cached thread number is stale;
    // only functions that address the thread by that number (raise, abort, error-checking
    // mutexes) notice. With one thread, as the callers have checked, no lock is held by anybody else.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    };
    match result {
        0 => Ok(Fork::Child),
        child if child > 0 => process_number(child).map(Fork::Parent),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(crate) fn process_number(returned: libc::c_long) -> io::Result<i32> {
    returned
        .try_into()
        .map_err(|_| io::Error::other("the kernel returned an impossible process number"))
}

/// Source: `include/uapi/linux/sched.h`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Becomes another program, which keeps nothing of this one but its number, its descriptors that
/// are not close-on-exec, and its rights. Returns only the error. Source: execve(2).
pub fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| {
        let ends = std::iter::once(std::ptr::null());
        list.iter().map(|text| text.as_ptr()).chain(ends).collect::<Vec<_>>()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: execve(2) reads a string and two arrays of strings that end with a null pointer;
    // the strings are borrowed and the arrays owned until after the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Marks all descriptors from `first` on to be closed by [`exec`]. Source: close_range(2).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes all descriptors from 3 on but those in `kept`. Source: close_range(2).
///
/// For a copy of a process, made by [`fork`] or [`clone`], which has descriptors of much that is
/// none of its business. Whatever owns one of them in the copied memory has a number that means
/// nothing any more or means something else, so the copy must not return to what its original was
/// doing: it becomes another program or ends.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    // Open descriptors are not negative.
    let number = |descriptor: &BorrowedFd<'_>| descriptor.as_raw_fd().unsigned_abs();
    let mut kept: Vec<u32> = kept.iter().map(number).collect();
    kept.sort_unstable();
    let mut first = 3;
    for descriptor in kept {
        if first < descriptor {
            close_range(first, descriptor - 1, 0)?;
        }
        first = first.max(descriptor + 1);
    }
    close_range(first, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range(2) has no memory arguments, and nothing here maps memory through a
    // descriptor that it closes. That no owner uses a closed one is what both callers promise:
    // one closes nothing before `exec`, the other says so in its contract.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives this process a session keyring of its own, so that it does not have its parent's keys.
///
/// A kernel without keys, or one that forbids them here, is success: there is nothing to keep
/// apart. Source: keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`.
pub fn leave_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing else is read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}

/// Ends this process at once: no destructors, no exit handlers, nothing flushed twice after a
/// [`fork`].
pub fn exit_immediately(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The child.
    pub pid: i32,
    /// 0 to 255, or 128 plus the number of the signal that killed it, as shells count.
    pub exit_code: i32,
}

/// Takes leave of one child that has ended; `None` if none has. Source: waitpid(2).
pub fn reap_any() -> io::Result<Option<Ended>> {
    ended(rustix::process::wait(WaitOptions::NOHANG))
}

/// Takes leave of the given child if it has ended.
pub fn reap(pid: i32) -> io::Result<Option<Ended>> {
    ended(rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::NOHANG))
}

fn ended(waited: rustix::io::Result<Option<(Pid, WaitStatus)>>) -> io::Result<Option<Ended>> {
    match waited {
        Ok(Some((pid, status))) => {
            let signalled = || status.terminating_signal().map(|signal| 128 + signal);
            // Stops and continuations were not asked for, so one of the two is there.
            let exit_code = status.exit_status().or_else(signalled).unwrap_or(255);
            Ok(Some(Ended { pid: pid.as_raw_nonzero().get(), exit_code }))
        }
        Ok(None) | Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Refers to a process that runs now. Source: pidfd_open(2), kernel 5.3.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => Ok(Self(descriptor)),
            Err(rustix::io::Errno::SRCH) => Err(io::ErrorKind::NotFound.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process has ended.
    pub fn wait(&self) -> io::Result<()> {
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            match poll(&mut ended, None) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the process has ended, or until this moment. Says whether it has.
    pub fn wait_until(&self, deadline: Instant) -> io::Result<bool> {
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let rest = Timespec::try_from(rest).map_err(io::Error::other)?;
            match poll(&mut ended, Some(&rest)) {
                Ok(count) => return Ok(count > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a signal; a process that has ended is success.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = signal_of(signal)?;
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Pidfd {
    /// Becomes readable when the process has ended.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where a process comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The process that it is a child of now.
    pub parent: i32,
    /// When it was started, in clock ticks after the boot.
    pub started: u64,
}

/// Looks up where a process comes from. Source: proc_pid_stat(5).
///
/// # Errors
///
/// `NotFound` when there is no such process.
pub fn origin(pid: i32) -> io::Result<Origin> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "it is not understood");
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, rest) = text.rsplit_once(')').ok_or_else(unreadable)?;
    let mut fields = rest.split_whitespace();
    let parent = fields.nth(1).and_then(|field| field.parse().ok());
    // The 22nd of all, so the 18th after the fourth.
    let started = fields.nth(17).and_then(|field| field.parse().ok());
    let (Some(parent), Some(started)) = (parent, started) else { return Err(unreadable()) };
    Ok(Origin { parent, started })
}

/// Sends a signal to a child of this process that has not been taken leave of, whose number can
/// therefore not have been given away.
pub fn signal_child(pid: i32, signal: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    match kill_process(pid, signal_of(signal)?) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn signal_of(number: i32) -> io::Result<Signal> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "no such signal");
    if !(1..=64).contains(&number) {
        return Err(invalid());
    }
    // SAFETY: `from_raw_unchecked` requires a number that the kernel knows and that the C library
    // does not use itself; numbers are within 1 to 64 and only sent, never handled, so the
    // library's own use of 32 and 33 is not disturbed in this process.
    Ok(unsafe { Signal::from_raw_unchecked(number) })
}

/// Signals that come as data instead of by surprise.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// What came since the last look. One may stand for many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// A child ended (`SIGCHLD`).
    pub child: bool,
    /// This process was asked to end (`SIGTERM`).
    pub terminate: bool,
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Signals {
    /// What came since the last look, without waiting.
    pub fn take(&self) -> Heard {
        // `struct signalfd_siginfo` is 128 bytes and starts with the number. Source: signalfd(2).
        const RECORD: usize = 128;
        let mut buffer = [0; 8 * RECORD];
        let mut heard = Heard::default();
        while let Ok(read @ 1..) = rustix::io::read(&self.0, &mut buffer[..]) {
            for record in buffer[..read].chunks_exact(RECORD) {
                let number = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
                heard.child |= number == libc::SIGCHLD;
                heard.terminate |= number == libc::SIGTERM;
            }
        }
        heard
    }

    /// Waits until something comes.
    pub fn wait(&self) -> io::Result<Heard> {
        let mut readable = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            match poll(&mut readable, None) {
                Ok(_) => return Ok(self.take()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Hears `SIGCHLD` and `SIGTERM` as data. Blocks their usual delivery for this thread and those
/// it starts.
///
/// Source: signalfd(2).
pub fn signals() -> io::Result<Signals> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is initialised, and SIGCHLD is a valid signal.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD) };
    // SAFETY: as above, for SIGTERM.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM) };
    // SAFETY: the set is initialised; a null third argument means that the old mask is not wanted.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let raw = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us and to nobody else.
    Ok(Signals(unsafe { OwnedFd::from_raw_fd(raw) }))
}

/// Gives every signal its default effect and blocks none, as a new program expects it.
///
/// The Rust runtime ignores `SIGPIPE` and [`signals`] blocks others; both would outlive [`exec`]. Source: signal(7), "Execution of signal handlers".
pub fn reset_signals() -> io::Result<()> {
    // `struct sigaction` of the kernel, all of it zero: the default effect, no flags, no mask.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: rt_sigaction(2) reads a structure of at most four words, which lives until
        // after the call; the default effect runs no code of this process. The C library's own
        // call would keep two signals to itself, which then stay ignored if a parent ignored
        // them. KILL and STOP cannot be set and need not be.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is initialised; a null third argument means that the old mask is not wanted.
    let result =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_is_not_copied() {
        // The test harness runs this on a second thread.
        assert_eq!(fork().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_child_is_signalled_and_taken_leave_of() {
        #[expect(clippy::disallowed_methods, reason = "a test needs a process")]
        #[expect(clippy::zombie_processes, reason = "it is taken leave of by its number below")]
        let child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let handle = Pidfd::open(pid).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(origin(pid).unwrap().parent, own);
        assert!(origin(pid).unwrap().started >= origin(own).unwrap().started);
        assert_eq!(reap(pid).unwrap(), None);
        assert!(!handle.wait_until(Instant::now()).unwrap());
        handle.signal(libc::SIGTERM).unwrap();
        handle.wait().unwrap();
        assert!(handle.wait_until(Instant::now()).unwrap());
        assert_eq!(reap(pid).unwrap(), Some(Ended { pid, exit_code: 128 + libc::SIGTERM }));
        handle.signal(libc::SIGTERM).unwrap();
    }

    #[test]
    fn a_signal_that_does_not_exist_is_refused() {
        let here = Pidfd::open(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(here.signal(65).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
