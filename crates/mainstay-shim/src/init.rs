//! From a copy of the shim to a container's first process.
//!
//! Each function is a straight line: one step, one reason, one error that names it. The order
//! matters nearly everywhere, and the comments say why. Source: `config-linux.md` of the OCI
//! runtime specification, and mount_namespaces(7), capabilities(7), seccomp(2).

mod mounts;
mod program;
mod reaper;
mod terminal;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::rc::Rc;

use mainstay_linux::mount::{self, Attributes};
use mainstay_linux::namespace::{Namespaces, unshare};
use mainstay_linux::path::open_directory;
use mainstay_linux::process::{self, CloneOptions, Fork, Pidfd};
use mainstay_linux::users::UserNamespace;
use mainstay_shim_protocol::{CgroupDirectories, Container, Mount, Process, Propagation};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{
    DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal, umask,
};

pub(crate) use reaper::{Reaper, spawn as spawn_reaper};

use crate::handshake::{Child, Report};
use crate::namespaces::Pod;

/// Why a container does not come to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// A step of the way.
    #[error("cannot {step}")]
    Step {
        /// What was tried, as a verb and its object.
        step: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The program itself.
    #[error("cannot execute {program:?}")]
    Execute {
        /// As the container names it.
        program: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Gives an I/O error the name of its step.
fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> InitError {
    |source| InitError::Step { step: step.into(), source }
}

/// What a process reads and writes.
pub(crate) enum Stdio {
    /// These, as standard input, output and error.
    Streams([OwnedFd; 3]),
    /// A terminal of its own, whose other side is sent to the shim.
    Terminal,
    /// A terminal of its own, whose other side is sent through this socket.
    TerminalTo(OwnedFd),
}

impl Stdio {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Streams(streams) => streams.iter().map(AsFd::as_fd).collect(),
            Self::Terminal => Vec::new(),
            Self::TerminalTo(socket) => vec![socket.as_fd()],
        }
    }
}

/// Opens the version 2 group that a process is to be cloned into.
fn open_unified(directories: &CgroupDirectories) -> Result<Option<OwnedFd>, InitError> {
    let open = |directory: &str| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(directory, flags, Mode::empty())
            .map_err(|error| step(format!("open {directory}"))(error.into()))
    };
    directories.unified.as_deref().map(open).transpose()
}

/// The version 1 groups of a process, opened while they can still be reached.
struct LegacyGroups(Vec<OwnedFd>);

/// Moves this process, which has one thread, into its version 1 groups.
pub(crate) fn join_legacy_groups(directories: &CgroupDirectories) -> Result<(), InitError> {
    LegacyGroups::open(directories)?.join()
}

impl LegacyGroups {
    fn open(directories: &CgroupDirectories) -> Result<Self, InitError> {
        let legacy = directories.legacy.iter().map(|directory| {
            let file = Path::new(directory).join("tasks");
            open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| step(format!("open {}", file.display()))(error.into()))
        });
        Ok(Self(legacy.collect::<Result<_, _>>()?))
    }

    /// Moves this process into them, which has one thread. A thread that moves itself waits for nothing; whole
    /// processes (`cgroup.procs`) wait for a grace period of the kernel. Source: `cgroup_procs_write_start` in
    /// `kernel/cgroup/cgroup.c`, kernel 5.5.
    fn join(self) -> Result<(), InitError> {
        for file in self.0 {
            rustix::io::write(&file, b"0")
                .map_err(|error| step("move into the control group")(error.into()))?;
        }
        Ok(())
    }
}

/// Makes a container's first process, a child of this one; among those of `target`, if there is one.
///
/// Returns its number; in the child it does not return.
pub(crate) fn spawn(
    container: &Container,
    pod: &Pod,
    target: Option<&Pidfd>,
    stdio: Stdio,
    channel: &Child,
) -> Result<i32, InitError> {
    let unified = open_unified(&container.cgroup)?;
    let legacy = LegacyGroups::open(&container.cgroup)?;
    let mut namespaces = Namespaces::NEWNS;
    let alone = container.new_pid_namespace && target.is_none();
    namespaces.set(Namespaces::NEWPID, alone);
    let reaper = pod.reaper.as_ref().filter(|_| !container.new_pid_namespace);
    let options = CloneOptions {
        namespaces,
        cgroup: unified.as_ref().map(AsFd::as_fd),
        sibling: false,
        processes_of: target.or(reaper.map(|reaper| &reaper.process)),
    };
    match process::clone(&options).map_err(step("make a process for the container"))? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            drop(unified);
            // Only who needs them has them.
            let is_shared = |mount: &Mount| mount.flags.propagation == Propagation::Both;
            let host_mounts = pod.host_mounts.as_ref().map(AsFd::as_fd);
            let host_mounts = host_mounts.filter(|_| container.mounts.iter().any(is_shared));
            let users = pod.users.as_deref();
            let Err(error) =
                become_container(container, host_mounts, users, stdio, legacy, channel);
            fail(channel, &error)
        }
    }
}

/// Makes one more process in the container whose first process `init` is.
///
/// Two copies of the shim do it: the first one goes where the container is, since a process
/// namespace is only entered by children; the second one is the process, and a child of the shim.
pub(crate) fn spawn_in(
    container: &Membership,
    init: &Pidfd,
    process: &Process,
    stdio: Stdio,
    channel: &Child,
) -> Result<(), InitError> {
    match process::fork().map_err(step("make a process"))? {
        Fork::Parent(_) => Ok(()),
        Fork::Child => {
            let Err(error) = enter(container, init, process, stdio, channel);
            fail(channel, &error)
        }
    }
}

/// What has to be known of a container to add a process to it.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    pub(crate) cgroup: CgroupDirectories,
    pub(crate) new_cgroup_namespace: bool,
    pub(crate) users: Option<Rc<UserNamespace>>,
}

enum Never {}

fn become_container(
    container: &Container,
    host_mounts: Option<BorrowedFd<'_>>,
    users: Option<&UserNamespace>,
    stdio: Stdio,
    legacy: LegacyGroups,
    channel: &Child,
) -> Result<Never, InitError> {
    let kept = legacy.0.iter().map(AsFd::as_fd).chain(host_mounts);
    leave_shim(channel, &stdio, kept.chain(users.map(AsFd::as_fd)))?;
    // What is made in the container has the modes that are asked for.
    umask(Mode::empty());
    let process = &container.process;
    // Read while the host's files can be seen.
    let filter = program::read_filter(process)?;
    program::set_oom_score(process)?;
    program::set_profile(process)?;
    program::leave_parent()?;
    if container.new_cgroup_namespace {
        // Before the mounts: a cgroup file system shows what its maker's namespace shows.
        unshare(Namespaces::NEWCGROUP).map_err(step("make a cgroup namespace"))?;
    }

    // Before the layers are mounted too: what an overlay needs it makes as whoever mounted it.
    make_files_of(users)?;
    let mapped = users.map(|users| mounts::map_layers(container, users)).transpose()?;
    let container = mapped.as_ref().unwrap_or(container);
    let root = mounts::mount_root(container)?;
    for mount in &container.mounts {
        mounts::mount_one(&root, host_mounts, users, mount)?;
    }
    mounts::make_devices(&root, &container.devices, &container.links)?;
    for path in &container.sealed_mounts {
        mounts::seal(&root, path)?;
    }
    mounts::ensure_working_directory(&root, &process.cwd)?;
    for path in &container.readonly_paths {
        mounts::make_readonly(&root, path)?;
    }
    mounts::mask(&root, &container.masked_paths)?;
    pivot(root)?;
    let console = terminal::connect(owner(process, users), stdio, channel)?;
    if let Some(console) = console {
        terminal::show_as_console(&console)?;
    }
    // What an image says is a device would be the pod's own users' then.
    let root = Attributes {
        readonly: container.root.readonly,
        nodev: users.is_some(),
        ..Attributes::default()
    };
    if root != Attributes::default() {
        let place = open_directory(Path::new("/")).map_err(step("open the new root"))?;
        mount::restrict(&place, root).map_err(step("restrict the root file system"))?;
    }

    legacy.join()?;
    join(users)?;
    if users.is_some() {
        // A copy of the mounts that belongs to the pod's users: whoever has the right may mount there,
        // and nobody can take away what lies on something else. Source: mount_namespaces(7).
        unshare(Namespaces::NEWNS).map_err(step("give the mounts to the pod's users"))?;
    }
    channel.send(&Report::Ready).map_err(step("report to the shim"))?;
    // The shim ended or gave the container up: there is nobody left to tell.
    channel.wait().map_err(step("wait for the start"))?;
    program::run(process, filter.as_deref(), channel)
}

fn enter(
    container: &Membership,
    init: &Pidfd,
    process: &Process,
    stdio: Stdio,
    channel: &Child,
) -> Result<Never, InitError> {
    let users = container.users.as_deref();
    leave_shim(channel, &stdio, [init.as_fd()].into_iter().chain(users.map(AsFd::as_fd)))?;
    let filter = program::read_filter(process)?;
    program::set_oom_score(process)?;
    program::set_profile(process)?;
    let unified = open_unified(&container.cgroup)?;
    LegacyGroups::open(&container.cgroup)?.join()?;
    let namespaces = Namespaces::NEWNS
        | Namespaces::NEWPID
        | Namespaces::NEWNET
        | Namespaces::NEWIPC
        | Namespaces::NEWUTS;
    let options = CloneOptions {
        namespaces: Namespaces::empty(),
        cgroup: unified.as_ref().map(AsFd::as_fd),
        sibling: true,
        processes_of: None,
    };
    // The process goes on when the shim has been told its number, so that its end cannot come
    // before.
    let (told, teller) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| step("make a pipe")(error.into()))?;
    let clone = process::clone_within(init, namespaces, &options);
    match clone.map_err(step("make a process in the container"))? {
        Fork::Parent(pid) => {
            channel.send(&Report::Pid(pid)).map_err(step("report to the shim"))?;
            rustix::io::write(&teller, b"G")
                .map_err(|error| step("let the process go on")(error.into()))?;
            process::exit_immediately(0)
        }
        Fork::Child => {
            drop((unified, teller));
            let kept = [told.as_fd(), init.as_fd()].into_iter();
            leave_shim(channel, &stdio, kept.chain(users.map(AsFd::as_fd)))?;
            match rustix::io::read(&told, &mut [0; 1]) {
                Ok(1..) => {}
                Ok(0) => {
                    return Err(step("wait for the shim")(io::ErrorKind::UnexpectedEof.into()));
                }
                Err(error) => return Err(step("wait for the shim")(error.into())),
            }
            drop(told);
            if container.new_cgroup_namespace {
                process::join_cgroup_namespace(init)
                    .map_err(step("join the container's cgroup namespace"))?;
            }
            program::leave_parent()?;
            make_files_of(users)?;
            terminal::connect(owner(process, users), stdio, channel)?;
            join(users)?;
            program::run(process, filter.as_deref(), channel)
        }
    }
}

/// Who owns on the machine what is the process's.
fn owner(process: &Process, users: Option<&UserNamespace>) -> u32 {
    users.map_or(process.uid, |users| users.on_machine(process.uid))
}

/// From now on what is made belongs to the pod's users, if it has its own.
fn make_files_of(users: Option<&UserNamespace>) -> Result<(), InitError> {
    let Some(users) = users else { return Ok(()) };
    users.make_files_as_root().map_err(step("make files as the pod's users"))?;
    // The kernel forgets both when the user changes.
    go_with_shim()
}

/// Becomes one of the pod's users, if it has its own.
fn join(users: Option<&UserNamespace>) -> Result<(), InitError> {
    let Some(users) = users else { return Ok(()) };
    users.join().map_err(step("join the pod's users"))?;
    go_with_shim()
}

/// The first act of every copy of the shim: it keeps what it was made for, and goes when the shim
/// goes.
///
/// If the shim's sockets were open here too, nobody would notice its end while this process is on
/// its way: the engine's connections would stay open, and so would the channel, on which this
/// process may be waiting. A shim that ended before the death signal was asked for is noticed by
/// the end of the channel.
fn leave_shim<'a>(
    channel: &'a Child,
    stdio: &'a Stdio,
    more: impl IntoIterator<Item = BorrowedFd<'a>>,
) -> Result<(), InitError> {
    let mut kept = vec![channel.as_fd()];
    kept.extend(stdio.descriptors());
    kept.extend(more);
    process::close_all_but(&kept).map_err(step("close the shim's descriptors"))?;
    go_with_shim()
}

/// This process ends with the shim, and nobody looks into it.
fn go_with_shim() -> Result<(), InitError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| step("bind this process to the shim")(error.into()))?;
    // Its memory is a copy of the shim's: until it has become another program nobody in the container
    // may look into it, as by ptrace(2) (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| step("close this process to others")(error.into()))
}

/// Makes `root` the root directory and lets go of the old one.
fn pivot(root: OwnedFd) -> Result<(), InitError> {
    rustix::process::fchdir(&root)
        .map_err(|error| step("enter the root file system")(error.into()))?;
    // With both names the same, the old root lies on top of the new one and goes with one
    // unmount; no directory for it has to exist in the image. Source: pivot_root(2), "pivot_root
    // with the same arguments".
    rustix::process::pivot_root(".", ".").map_err(|error| step("change the root")(error.into()))?;
    mount::detach(Path::new(".")).map_err(step("let go of the host's root"))?;
    rustix::process::chdir("/").map_err(|error| step("enter the new root")(error.into()))?;
    drop(root);
    Ok(())
}

/// Tells the shim and ends; for a child.
fn fail(channel: &Child, error: &InitError) -> ! {
    let text = chain(error);
    let report = match error {
        InitError::Step { .. } => Report::Failed(text),
        InitError::Execute { .. } => Report::CannotExecute(text),
    };
    // If the shim cannot be told, it has ended, and will not miss this process.
    let told = channel.send(&report);
    process::exit_immediately(if told.is_ok() { 1 } else { 2 })
}

/// The error and its causes as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// Makes a directory and those above it, as the shim needs them.
fn make_directory(path: &Path) -> Result<(), InitError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(step(format!("make {}", path.display())))
}
