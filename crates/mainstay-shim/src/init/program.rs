//! The last steps: from root in a container to the program with the rights that it was given.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use mainstay_linux::capability::{self, Capabilities};
use mainstay_linux::{apparmor, process, seccomp};
use mainstay_shim_protocol::Process;
use rustix::fs::{Gid, Mode, Uid};
use rustix::process::{set_parent_process_death_signal, umask};
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::{InitError, Never, step};
use crate::handshake::Child;

/// Reads the seccomp filter, if there is one.
pub(super) fn read_filter(process: &Process) -> Result<Option<Vec<u8>>, InitError> {
    let read = |path: &String| fs::read(path).map_err(step(format!("read the filter {path}")));
    process.seccomp.as_ref().map(read).transpose()
}

/// Sets how soon the kernel kills this process when memory is short.
pub(super) fn set_oom_score(process: &Process) -> Result<(), InitError> {
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    fs::write("/proc/self/oom_score_adj", score.to_string())
        .map_err(step(format!("set oom_score_adj to {score}")))
}

/// Chooses the profile of AppArmor that the program will have. Said while the machine's own `/proc` can be
/// seen: what a container has in place of it may be anything (CVE-2019-19921).
pub(super) fn set_profile(process: &Process) -> Result<(), InitError> {
    let Some(profile) = &process.apparmor else { return Ok(()) };
    apparmor::confine_next_program(profile)
        .map_err(step(format!("choose the AppArmor profile {profile}")))
}

/// Leaves the shim's session and keys.
pub(super) fn leave_parent() -> Result<(), InitError> {
    rustix::process::setsid().map_err(|error| step("make a session")(error.into()))?;
    process::leave_session_keyring().map_err(step("make a session keyring"))
}

/// Takes on the user and the limits of `spec` and becomes its program.
pub(super) fn run(
    spec: &Process,
    filter: Option<&[u8]>,
    channel: &Child,
) -> Result<Never, InitError> {
    process::reset_signals().map_err(step("reset the signals"))?;
    // From now on it may outlive the shim: whoever finds it decides.
    set_parent_process_death_signal(None)
        .map_err(|error| step("part from the shim")(error.into()))?;
    // That they are close-on-exec is not enough: the kernel closes them when it has found the
    // program, and the container chooses its name. Through a directory of the host it would find
    // the host's programs, as `/proc/self/fd/7/../..` (CVE-2024-21626).
    process::close_all_but(&[channel.as_fd()]).map_err(step("close the shim's descriptors"))?;
    // What containers have with other runtimes, whoever started this one.
    umask(Mode::from_raw_mode(0o022));
    let program = Program::of(spec)?;

    // Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before that is given up; it
    // then has to let through what follows here, which every usable profile does.
    if let (Some(filter), false) = (filter, spec.no_new_privileges) {
        seccomp::install(filter).map_err(step("install the seccomp filter"))?;
    }
    let early = rustix::process::chdir(spec.cwd.as_str());
    take_identity(spec)?;
    // As root it may be closed to root (an NFS mount), as the user to the user; either will do.
    early
        .or_else(|_| rustix::process::chdir(spec.cwd.as_str()))
        .map_err(|error| step(format!("enter the working directory {}", spec.cwd))(error.into()))?;
    check_working_directory()?;
    if spec.no_new_privileges {
        set_no_new_privs(true).map_err(|error| step("give up privileges")(error.into()))?;
        // As late as possible, so that the filter has to allow next to nothing of ours.
        if let Some(filter) = filter {
            seccomp::install(filter).map_err(step("install the seccomp filter"))?;
        }
    }
    Err(InitError::Execute { source: program.exec(), program: program.name })
}

/// Capabilities, groups and user, in the only order that works: the bounding set while
/// `CAP_SETPCAP` is there, the groups while `CAP_SETGID` is there, and the sets last.
fn take_identity(spec: &Process) -> Result<(), InitError> {
    let Process { uid, gid, capabilities, .. } = spec;
    let of = Capabilities::from_bits;
    capability::limit_bounding_set(of(capabilities.bounding))
        .map_err(step("limit the bounding set"))?;
    // Otherwise a change from root to another user empties all sets.
    set_keep_capabilities(true).map_err(|error| step("keep capabilities")(error.into()))?;
    let groups: Vec<Gid> = spec.additional_gids.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups).map_err(|error| step("set the groups")(error.into()))?;
    let gid = Gid::from_raw(*gid);
    set_thread_res_gid(gid, gid, gid).map_err(|error| step("set the group")(error.into()))?;
    let uid = Uid::from_raw(*uid);
    set_thread_res_uid(uid, uid, uid).map_err(|error| step("set the user")(error.into()))?;
    set_keep_capabilities(false).map_err(|error| step("drop capabilities")(error.into()))?;
    capability::set(
        of(capabilities.permitted),
        of(capabilities.inheritable),
        of(capabilities.ambient),
    )
    .map_err(step("set the capabilities"))
}

/// A working directory such as `/proc/self/fd/7` must not have led out of the container
/// (CVE-2024-21626). The kernel writes `(unreachable)` before such a path.
fn check_working_directory() -> Result<(), InitError> {
    let inside =
        rustix::process::getcwd(Vec::new()).is_ok_and(|path| path.as_bytes().starts_with(b"/"));
    let outside = || io::Error::new(io::ErrorKind::InvalidInput, "it is outside of the container");
    if inside { Ok(()) } else { Err(step("use the working directory")(outside())) }
}

/// What is given to the kernel to execute.
struct Program {
    name: String,
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    fn of(spec: &Process) -> Result<Self, InitError> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
        let name = spec.args.first().cloned().unwrap_or_default();
        let refuse =
            |text: &str| InitError::Execute { program: name.clone(), source: invalid(text) };
        if name.is_empty() {
            return Err(refuse("no program is named"));
        }
        let strings = |list: &[String]| {
            list.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()
        };
        let nul = |_| refuse("an argument or variable contains a NUL byte");
        let arguments = strings(&spec.args).map_err(nul)?;
        let environment = strings(&spec.env).map_err(nul)?;
        let candidates = strings(&candidates(&name, &spec.env)).map_err(nul)?;
        Ok(Self { name, candidates, arguments, environment })
    }

    /// Tries each candidate as execvp(3) does, and returns the error that says most.
    fn exec(&self) -> io::Error {
        let mut most =
            io::Error::new(io::ErrorKind::NotFound, "executable file not found in $PATH");
        for candidate in &self.candidates {
            let error = process::exec(candidate, &self.arguments, &self.environment);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {
                    if self.name.contains('/') {
                        most = error;
                    }
                }
                // It is there, and cannot be executed; a later one may be.
                Some(libc::EACCES) => most = error,
                _ => return error,
            }
        }
        most
    }
}

/// Where the program may be: as named if the name has a slash, else in the container's `PATH`.
fn candidates(name: &str, environment: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let directories = path.unwrap_or_default().split(':');
    directories
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| format!("{}/{name}", directory.trim_end_matches('/')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_where_execvp_would() {
        let environment = ["A=b".to_owned(), "PATH=/bin/:/usr/bin::/".to_owned()];
        assert_eq!(candidates("./x", &environment), ["./x"]);
        assert_eq!(candidates("x", &environment), ["/bin/x", "/usr/bin/x", "./x", "/x"]);
    }
}
