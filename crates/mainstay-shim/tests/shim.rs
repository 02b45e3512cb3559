//! The shim as a program, driven by its protocol, with real containers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::process::Pidfd;
use mainstay_linux::socket;
use mainstay_shim_protocol::{
    Attach, Capabilities, CgroupDirectories, Command, Container, ContainerPhase, Detachment, Event,
    Exec, ExitStatus, Failure, Hello, Message, Mount, MountFlags, MountSource, Outcome, Process,
    Reply, Request, Root, SandboxNamespaces, Success, decode, encode, frame_length,
};
use mainstay_testkit::tools;

/// How long to wait for what may never come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A shim with its directory, ended when the test ends, however it ends.
struct Shim {
    process: Child,
    stream: UnixStream,
    directory: tempfile::TempDir,
    group: String,
    events: Vec<Event>,
    number: u64,
}

impl Shim {
    fn start() -> Self {
        Self::start_by("exec \"$0\"")
    }

    /// Starts the shim as a shell script does, of which it is the name.
    fn start_by(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = socket::listen(&directory.path().join("shim.sock")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test plays the engine")]
        let process = std::process::Command::new("/bin/sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_mainstay-shim")])
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        let stream = socket::connect(&directory.path().join("shim.sock")).unwrap();
        let group = format!("/mainstay-shim-test-{}", process.id());
        let mut shim = Self { process, stream, directory, group, events: Vec::new(), number: 0 };
        let hello: Hello = decode(&shim.read_frame()).unwrap();
        assert_eq!(hello.pid, i32::try_from(shim.process.id()).unwrap());
        shim.call(Command::Subscribe).unwrap();
        let namespaces = SandboxNamespaces {
            network: true,
            ipc: true,
            hostname: Some("pod".into()),
            ..Default::default()
        };
        shim.call(Command::EnterNamespaces(namespaces)).unwrap();
        shim
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn read_frame(&mut self) -> Vec<u8> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).unwrap();
        let mut json = vec![0; frame_length(header).unwrap()];
        self.stream.read_exact(&mut json).unwrap();
        json
    }

    fn send(&mut self, command: Command) -> u64 {
        self.number += 1;
        let frame = encode(&Request { number: self.number, command }).unwrap();
        self.stream.write_all(&frame).unwrap();
        self.number
    }

    fn call(&mut self, command: Command) -> Result<Success, Failure> {
        let number = self.send(command);
        self.answer(number)
    }

    /// Asks for something with descriptors.
    fn call_with(
        &mut self,
        command: Command,
        descriptors: &[BorrowedFd<'_>],
    ) -> (u64, Result<Success, Failure>) {
        self.number += 1;
        let number = self.number;
        let frame = encode(&Request { number, command }).unwrap();
        assert_eq!(socket::send(&self.stream, &frame, descriptors).unwrap(), frame.len());
        (number, self.answer(number))
    }

    /// Asks for one more process in a container.
    fn exec(
        &mut self,
        id: &str,
        process: Process,
        streams: [BorrowedFd<'_>; 3],
    ) -> (u64, Result<Success, Failure>) {
        self.call_with(Command::Exec(Box::new(Exec { id: id.into(), process })), &streams)
    }

    /// Makes a container and lets it run.
    fn begin(&mut self, container: &Container) {
        let id = container.id.clone();
        self.call(Command::CreateContainer(Box::new(container.clone()))).unwrap();
        self.call(Command::StartContainer { id }).unwrap();
    }

    /// Joins a container's standard input and output. Returns the client's ends.
    fn attach(&mut self, id: &str) -> (u64, fs::File, fs::File) {
        let ((input, to), (from, output)) = (rustix_pipe(), rustix_pipe());
        let streams = [input.as_fd(), output.as_fd()];
        let (number, answer) = self.call_with(Command::Attach(both(id)), &streams);
        assert_eq!(answer, Ok(Success::Attached));
        (number, to, from)
    }

    /// Why an attachment ended; what else happened until then is kept.
    fn detachment_of(&mut self, wanted: u64) -> Detachment {
        let mut others = Vec::new();
        loop {
            match self.next_event() {
                Event::Detached { number, why } if number == wanted => {
                    self.events.splice(..0, others);
                    return why;
                }
                other => others.push(other),
            }
        }
    }

    fn answer(&mut self, wanted: u64) -> Result<Success, Failure> {
        loop {
            match decode(&self.read_frame()).unwrap() {
                Message::Reply(Reply { number, outcome }) if number == wanted => {
                    return match outcome {
                        Outcome::Ok(success) => Ok(success),
                        Outcome::Err(failure) => Err(failure),
                    };
                }
                Message::Reply(other) => panic!("an answer to nothing: {other:?}"),
                Message::Event(event) => self.events.push(event),
            }
        }
    }

    fn next_event(&mut self) -> Event {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        match decode(&self.read_frame()).unwrap() {
            Message::Event(event) => event,
            Message::Reply(reply) => panic!("an answer to nothing: {reply:?}"),
        }
    }

    fn exit_of(&mut self, wanted: &str) -> ExitStatus {
        loop {
            if let Event::Exited { id, status } = self.next_event()
                && id == wanted
            {
                return status;
            }
        }
    }

    /// A container that runs a shell script in an image that holds nothing but busybox.
    fn container(&self, id: &str, script: &str) -> Container {
        let directory = |name: &str| {
            let path = self.path().join(id).join(name);
            fs::create_dir_all(&path).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let layers = self.path().join("layers");
        if !layers.exists() {
            fs::create_dir_all(layers.join("busybox/bin")).unwrap();
            fs::copy(tools::program("busybox"), layers.join("busybox/bin/busybox")).unwrap();
            fs::create_dir(layers.join("empty")).unwrap();
        }
        let hierarchies = Hierarchies::mounted().unwrap();
        let group = format!("{}/{id}", self.group);
        hierarchies.at(&group).create().unwrap();
        let mut cgroup = CgroupDirectories::default();
        for hierarchy in hierarchies.iter() {
            let path = hierarchy.mount_point.join(group.trim_start_matches('/'));
            let path = path.to_str().unwrap().to_owned();
            if hierarchy.unified {
                cgroup.unified = Some(path);
            } else {
                cgroup.legacy.push(path);
            }
        }
        let mount = |destination: &str, kind: &str, options: &[(&str, &str)]| Mount {
            destination: destination.into(),
            source: MountSource::New {
                kind: kind.into(),
                options: options.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
            },
            flags: MountFlags { nosuid: true, ..MountFlags::default() },
        };
        Container {
            id: id.into(),
            bundle: directory("bundle"),
            root: Root {
                layers: layers.to_str().unwrap().into(),
                lower: vec!["busybox".into(), "empty".into()],
                upper: directory("upper"),
                work: directory("work"),
                readonly: false,
            },
            mounts: vec![
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &[("mode", "755"), ("size", "65536k")]),
                mount(
                    "/dev/pts",
                    "devpts",
                    &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
                ),
            ],
            sealed_mounts: vec![],
            devices: vec![mainstay_shim_protocol::Device {
                path: "/dev/null".into(),
                block: false,
                major: 1,
                minor: 3,
                mode: 0o666,
                uid: 0,
                gid: 0,
            }],
            links: vec![("/dev/ptmx".into(), "pts/ptmx".into())],
            masked_paths: vec!["/proc/version".into(), "/proc/fs".into(), "/proc/nothing".into()],
            readonly_paths: vec!["/proc/sys".into()],
            new_pid_namespace: true,
            processes_of: None,
            new_cgroup_namespace: false,
            cgroup,
            process: process(script),
            log_path: self.path().join(id).join("log").to_str().unwrap().into(),
            stdin: false,
            stdin_once: false,
        }
    }

    /// Runs a container to its end and returns what it logged, without times.
    fn run(&mut self, container: &Container) -> (i32, Vec<String>) {
        let id = container.id.clone();
        self.call(Command::CreateContainer(Box::new(container.clone()))).unwrap();
        self.call(Command::StartContainer { id: id.clone() }).unwrap();
        let status = self.exit_of(&id);
        assert!(status.started_at.unwrap() <= status.finished_at);
        let kept: ExitStatus = serde_json::from_slice(
            &fs::read(Path::new(&container.bundle).join("exit.json")).unwrap(),
        )
        .unwrap();
        assert_eq!(kept, status);
        self.call(Command::RemoveContainer { id }).unwrap();
        (status.exit_code, log_of(container))
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let hierarchies = Hierarchies::mounted().unwrap();
        let group = hierarchies.at(&self.group);
        while group.kill().is_ok_and(|count| count > 0) {}
        let _ = self.process.kill();
        let _ = self.process.wait();
        while group.remove().is_err_and(|error| error.source.raw_os_error() == Some(16)) {}
    }
}

/// A container's standard input and output.
fn both(id: &str) -> Attach {
    Attach { id: id.into(), stdin: true, stdout: true, stderr: false, terminal: false }
}

fn process(script: &str) -> Process {
    // CHOWN, DAC_OVERRIDE, SETGID, SETUID, SYS_CHROOT
    let some = 1 | 1 << 1 | 1 << 6 | 1 << 7 | 1 << 18;
    Process {
        args: vec!["busybox".into(), "sh".into(), "-c".into(), script.into()],
        env: vec!["PATH=/bin".into(), "HELLO=world".into()],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        additional_gids: vec![],
        capabilities: Capabilities { bounding: some, permitted: some, inheritable: 0, ambient: 0 },
        no_new_privileges: false,
        seccomp: None,
        apparmor: None,
        oom_score_adj: None,
        terminal: false,
    }
}

fn log_of(container: &Container) -> Vec<String> {
    let text = fs::read_to_string(&container.log_path).unwrap();
    let lines = text.split_terminator('\n');
    lines.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn a_container_runs_in_its_own_world_and_its_end_is_told() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let mut container = shim.container(
        "a",
        "b() { busybox \"$@\"; }; echo $HELLO $$; b hostname; b pwd; b id -G; \
         b grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp|SigBlk|SigIgn):' /proc/self/status; \
         b ls /proc/fs; b wc -c < /proc/version; b sysctl -w kernel.panic=1 2>&1; \
         b ls /proc/self/fd; echo err >&2; exit 7",
    );
    container.process.cwd = "/made/here".into();
    container.process.uid = 0;
    container.process.additional_gids = vec![44, 55];
    container.process.no_new_privileges = true;
    let (exit_code, log) = shim.run(&container);
    assert_eq!(exit_code, 7);
    let (errors, log): (Vec<_>, Vec<_>) = log.iter().partition(|line| line.starts_with("stderr"));
    assert_eq!(errors, ["stderr F err"]);
    let expected = [
        "stdout F world 1",
        "stdout F pod",
        "stdout F /made/here",
        "stdout F 0 44 55",
        "stdout F SigBlk:\t0000000000000000",
        "stdout F SigIgn:\t0000000000000000",
        "stdout F CapEff:\t00000000000400c3",
        "stdout F CapBnd:\t00000000000400c3",
        "stdout F NoNewPrivs:\t1",
        "stdout F Seccomp:\t0",
        "stdout F 0",
        "stdout F sysctl: error setting key 'kernel.panic': Read-only file system",
        // Its own three, and the directory that is being listed: nothing of the shim's.
        "stdout F 0",
        "stdout F 1",
        "stdout F 2",
        "stdout F 3",
    ];
    assert_eq!(log, expected);
}

#[test]
fn a_program_that_cannot_be_executed_fails_the_start_and_says_why() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    for (args, wanted) in [("nothing", "not found in $PATH"), ("/proc", "Permission denied")] {
        let mut container = shim.container(&args.replace('/', ""), "");
        container.process.args = vec![args.into()];
        let id = container.id.clone();
        shim.call(Command::CreateContainer(Box::new(container))).unwrap();
        let failure = shim.call(Command::StartContainer { id: id.clone() }).unwrap_err();
        let Failure::CannotExecute(text) = failure else { panic!("{failure:?}") };
        assert!(text.contains(args) && text.contains(wanted), "{text}");
        let status = shim.exit_of(&id);
        assert_eq!((status.exit_code, status.started_at), (128, None));
    }
}

#[test]
fn a_mount_that_fails_is_named() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let mut container = shim.container("a", "");
    container.mounts.push(Mount {
        destination: "/data".into(),
        source: MountSource::Bind { path: "/does/not/exist".into() },
        flags: MountFlags::default(),
    });
    let failure = shim.call(Command::CreateContainer(Box::new(container))).unwrap_err();
    let Failure::Failed(text) = failure else { panic!("{failure:?}") };
    assert_eq!(
        text,
        "cannot take /does/not/exist for the mount at /data: No such file or directory (os error 2)"
    );
}

#[test]
fn links_in_an_image_do_not_lead_a_mount_out_of_it() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let outside = shim.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let source = shim.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "mounted").unwrap();
    let mut container =
        shim.container("a", "busybox cat /via/file /up/file /made/below/file; busybox ls /made");
    let image = PathBuf::from(&container.root.layers).join("busybox");
    std::os::unix::fs::symlink(&outside, image.join("via")).unwrap();
    std::os::unix::fs::symlink("../../../../../../inside", image.join("up")).unwrap();
    for destination in ["/via", "/up", "/made/below"] {
        container.mounts.push(Mount {
            destination: destination.into(),
            source: MountSource::Bind { path: source.to_str().unwrap().into() },
            flags: MountFlags { readonly: true, ..MountFlags::default() },
        });
    }
    // A dangling link leads nowhere inside, and making what it names is not our business.
    let failure = shim.call(Command::CreateContainer(Box::new(container.clone()))).unwrap_err();
    let Failure::Failed(text) = failure else { panic!("{failure:?}") };
    assert!(text.starts_with("cannot open /via in the container"), "{text}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

    // With the place there, inside, the link is followed to it.
    fs::create_dir_all(image.join(outside.strip_prefix("/").unwrap())).unwrap();
    fs::create_dir_all(image.join("inside")).unwrap();
    let id = container.id.clone();
    shim.exit_of(&id);
    shim.call(Command::RemoveContainer { id }).unwrap();
    let (exit_code, log) = shim.run(&container);
    assert_eq!((exit_code, &log[0][..]), (0, "stdout F mountedmountedmountedbelow"));
}

#[test]
fn a_part_of_a_directory_leads_nowhere_out_of_it() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let volume = shim.path().join("volume");
    fs::create_dir_all(volume.join("real/part")).unwrap();
    fs::write(volume.join("real/part/file"), "inside").unwrap();
    fs::write(shim.path().join("secret"), "outside").unwrap();
    for (link, target) in [("within", "real/part"), ("up", "../secret"), ("root", "/etc")] {
        std::os::unix::fs::symlink(target, volume.join(link)).unwrap();
    }
    let mut container = shim.container("a", "busybox cat /part/file");
    let mut with = |path: &str| {
        let directory = volume.to_str().unwrap().to_owned();
        container.mounts.retain(|mount| mount.destination != "/part");
        container.mounts.push(Mount {
            destination: "/part".into(),
            source: MountSource::Part { directory, path: path.into() },
            flags: MountFlags::default(),
        });
        container.clone()
    };
    for path in ["up", "root", "root/passwd", "../secret", "real/../../secret"] {
        let container = with(path);
        let id = container.id.clone();
        let failure = shim.call(Command::CreateContainer(Box::new(container))).unwrap_err();
        let Failure::Failed(text) = failure else { panic!("{failure:?}") };
        assert!(text.contains("for the mount at /part: Invalid cross-device link"), "{text}");
        shim.exit_of(&id);
        shim.call(Command::RemoveContainer { id }).unwrap();
    }
    let (exit_code, log) = shim.run(&with("within"));
    assert_eq!((exit_code, &log[0][..]), (0, "stdout F inside"));
}

/// CVE-2024-21626: a directory of the host that is open when the program is looked up, or the
/// working directory, is a way to the host for whoever chooses their names.
#[test]
fn no_name_leads_to_the_host_through_a_descriptor_of_the_shim() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let layer = shim.path().join("layers/busybox/bin");
    let through = |number| format!("/proc/self/fd/{number}{}{}", "/..".repeat(16), layer.display());
    let path: Vec<String> = (0..64).map(through).collect();
    let path = vec![format!("PATH={}", path.join(":"))];

    let mut container = shim.container("a", "exit 0");
    container.process.env = path.clone();
    let created = shim.call(Command::CreateContainer(Box::new(container))).unwrap();
    let Success::Created { pid } = created else { panic!("{created:?}") };
    let mut open: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .map(|target| target.to_str().unwrap().split(':').next().unwrap().to_owned())
        .collect();
    open.sort();
    // Its three streams, and what it hears the shim by.
    assert_eq!(open, ["/dev/null", "pipe", "pipe", "socket"]);
    let started = shim.call(Command::StartContainer { id: "a".into() });
    assert!(matches!(started, Err(Failure::CannotExecute(_))), "{started:?}");

    let mut container = shim.container("b", "exit 0");
    for number in 0..64 {
        container.process.cwd = format!("/proc/self/fd/{number}");
        let created = shim.call(Command::CreateContainer(Box::new(container.clone())));
        assert!(matches!(created, Err(Failure::Failed(_))), "{number}: {created:?}");
        shim.exit_of("b");
        shim.call(Command::RemoveContainer { id: "b".into() }).unwrap();
    }

    let container = shim.container("c", "busybox sleep 600");
    shim.call(Command::CreateContainer(Box::new(container))).unwrap();
    shim.call(Command::StartContainer { id: "c".into() }).unwrap();
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let streams = [null.as_fd(); 3];
    let (_, answer) = shim.exec("c", Process { env: path, ..process("exit 0") }, streams);
    assert!(matches!(answer, Err(Failure::CannotExecute(_))), "{answer:?}");
    for number in 0..64 {
        let cwd = format!("/proc/self/fd/{number}");
        let (_, answer) = shim.exec("c", Process { cwd, ..process("exit 0") }, streams);
        assert!(matches!(answer, Err(Failure::Failed(_))), "{number}: {answer:?}");
    }
}

#[test]
fn a_link_does_not_take_the_place_of_what_the_system_mounts() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    for name in ["dev", "proc"] {
        let container = shim.container(name, "exit 0");
        let link = PathBuf::from(&container.root.layers).join("busybox").join(name);
        std::os::unix::fs::symlink("bin", &link).unwrap();
        let created = shim.call(Command::CreateContainer(Box::new(container)));
        let text = format!(
            "cannot open /{name} in the container: the image has a link there instead of a directory"
        );
        assert_eq!(created, Err(Failure::Failed(text)));
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn modes_and_umask_are_the_same_whoever_started_the_shim() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start_by("umask 077; exec \"$0\"");
    let script = "umask; busybox stat -c %a /dev/null /dev/pts /made /made/here; busybox sleep 600";
    let mut container = shim.container("a", script);
    container.process.cwd = "/made/here".into();
    shim.call(Command::CreateContainer(Box::new(container.clone()))).unwrap();
    shim.call(Command::StartContainer { id: "a".into() }).unwrap();
    let (read, write) = rustix_pipe();
    let null = fs::File::open("/dev/null").unwrap();
    let streams = [null.as_fd(), write.as_fd(), write.as_fd()];
    let (_, answer) = shim.exec("a", process("umask"), streams);
    answer.unwrap();
    drop(write);
    assert_eq!(std::io::read_to_string(read).unwrap(), "0022\n");
    let expected = ["0022", "666", "755", "755", "755"].map(|text| format!("stdout F {text}"));
    while log_of(&container).len() < expected.len() {
        std::thread::yield_now();
    }
    assert_eq!(log_of(&container), expected);
}

#[test]
fn a_control_group_that_is_missing_is_named() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let mut container = shim.container("a", "exit 0");
    container.cgroup.legacy = vec!["/not/there".into()];
    let created = shim.call(Command::CreateContainer(Box::new(container)));
    let text = "cannot open /not/there/tasks: No such file or directory (os error 2)";
    assert_eq!(created, Err(Failure::Failed(text.into())));
}

#[test]
fn a_shim_that_cannot_write_anything_down_keeps_its_pod() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start_by("exec \"$0\" 2>/dev/full");
    for id in ["a", "b"] {
        let container = shim.container(id, "busybox sleep 600");
        let bundle = PathBuf::from(&container.bundle);
        shim.call(Command::CreateContainer(Box::new(container))).unwrap();
        shim.call(Command::StartContainer { id: id.into() }).unwrap();
        fs::rename(&bundle, bundle.with_file_name("elsewhere")).unwrap();
    }
    shim.call(Command::SignalContainer { id: "a".into(), signal: 9 }).unwrap();
    assert_eq!(shim.exit_of("a").exit_code, 137);
    shim.call(Command::SignalContainer { id: "b".into(), signal: 9 }).unwrap();
    assert_eq!(shim.exit_of("b").exit_code, 137);
}

#[test]
fn a_shim_that_is_killed_is_missed_while_a_container_waits_for_its_start() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let container = shim.container("a", "busybox sleep 600");
    let created = shim.call(Command::CreateContainer(Box::new(container))).unwrap();
    let Success::Created { pid } = created else { panic!("{created:?}") };
    let waiting = Pidfd::open(pid).unwrap();
    shim.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    shim.process.kill().unwrap();
    assert_eq!(shim.stream.read(&mut [0]).unwrap(), 0);
    assert!(waiting.wait_until(Instant::now() + PATIENCE).unwrap());
    let again = socket::connect(&shim.path().join("shim.sock"));
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_filter_is_in_force_with_and_without_new_privileges() {
    if !tools::is_root() {
        return;
    }
    use mainstay_linux::seccomp::{Action, Architecture, Filter, Rule, compile, to_bytes};
    let mut shim = Shim::start();
    let filter = Filter {
        default: Action::Allow,
        architectures: vec![Architecture::native().unwrap()],
        rules: vec![Rule {
            names: vec!["mkdir".into(), "mkdirat".into()],
            conditions: vec![],
            action: Action::Errno(95),
        }],
    };
    let file = shim.path().join("filter");
    fs::write(&file, to_bytes(&compile(&filter).unwrap())).unwrap();
    for (id, no_new_privileges) in [("a", true), ("b", false)] {
        let script = "busybox grep Seccomp: /proc/1/status; busybox mkdir /x 2>&1";
        let mut container = shim.container(id, script);
        container.process.no_new_privileges = no_new_privileges;
        container.process.seccomp = Some(file.to_str().unwrap().into());
        let (_, log) = shim.run(&container);
        assert_eq!(
            log,
            [
                "stdout F Seccomp:\t2",
                "stdout F mkdir: can't create directory '/x': Operation not supported"
            ]
        );
    }
}

#[test]
fn a_terminal_is_one_and_its_output_is_logged() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let mut container = shim.container("a", "busybox tty; echo x > /dev/console");
    container.process.terminal = true;
    container.process.uid = 1000;
    let (exit_code, log) = shim.run(&container);
    assert_eq!(exit_code, 0, "{log:?}");
    assert_eq!(log, ["stdout F /dev/pts/0\r", "stdout F x\r"]);
}

#[test]
fn one_more_process_is_where_the_container_is_under_the_same_filter() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let container = shim.container("a", "busybox sleep 600");
    shim.call(Command::CreateContainer(Box::new(container.clone()))).unwrap();
    let early = Exec { id: "a".into(), process: process("true") };
    shim.call(Command::StartContainer { id: "a".into() }).unwrap();

    let (read, write) = rustix_pipe();
    let null = fs::File::open("/dev/null").unwrap();
    let script = "busybox hostname; busybox ps -o pid,args; echo $$ > /tmp.pid; read x; exit 3";
    let streams = [null.as_fd(), write.as_fd(), write.as_fd()];
    let (number, answer) = shim.exec("a", process(script), streams);
    let Success::Executing { pid } = answer.unwrap() else { panic!() };
    drop(write);
    let text = std::io::read_to_string(read).unwrap();
    assert!(text.starts_with("pod\n") && text.contains("busybox sleep 600"), "{text}");
    let group = Hierarchies::mounted().unwrap();
    assert_eq!(shim.next_event(), Event::ExecExited { number, exit_code: 3 });
    assert!(!group.at(&shim.group).processes().unwrap().contains(&pid));

    // Without its descriptors it is refused and nothing is started.
    assert!(matches!(shim.call(Command::Exec(Box::new(early))), Err(Failure::Failed(_))));
    shim.call(Command::SignalContainer { id: "a".into(), signal: 9 }).unwrap();
    assert_eq!(shim.exit_of("a").exit_code, 137);
    assert_eq!(shim.call(Command::Shutdown), Ok(Success::Done));
    assert!(shim.process.wait().unwrap().success());
}

#[test]
fn a_container_sees_the_processes_of_another_one_and_ends_with_it() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let target = shim.container("a", "busybox sleep 600; :");
    shim.begin(&target);
    let processes =
        r#"for it in /proc/[0-9]*; do busybox tr '\0' ' ' < $it/cmdline; busybox echo; done"#;
    let seeing = |shim: &Shim, id: &str, script: &str| Container {
        processes_of: Some("a".into()),
        ..shim.container(id, script)
    };
    let one = seeing(&shim, "b", processes);
    let (code, lines) = shim.run(&one);
    let sees = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(code == 0 && sees("busybox sleep 600") && sees("cmdline"), "{lines:?}");
    // It is not the first of them, and what it leaves behind ends with it all the same.
    let two = seeing(&shim, "c", "busybox sleep 601 & busybox test $$ -ne 1");
    assert_eq!(shim.run(&two).0, 0);
    let three = seeing(&shim, "d", processes);
    let (_, lines) = shim.run(&three);
    assert!(!lines.iter().any(|line| line.contains("sleep 601")), "{lines:?}");
    // One more process in it is where it is.
    let four = seeing(&shim, "e", "busybox sleep 602; :");
    shim.begin(&four);
    let (read, write) = rustix_pipe();
    let null = fs::File::open("/dev/null").unwrap();
    let script = process("busybox readlink /proc/self/ns/pid");
    let (_, answer) = shim.exec("e", script, [null.as_fd(), write.as_fd(), write.as_fd()]);
    answer.unwrap();
    drop(write);
    let text = std::io::read_to_string(read).unwrap();
    let Ok(Success::Report(list)) = shim.call(Command::Report) else { panic!() };
    let target = list.into_iter().find(|it| it.id == "a").unwrap();
    let ContainerPhase::Running { pid, .. } = target.phase else { panic!("{target:?}") };
    let own = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(text.trim(), own.to_str().unwrap());
    // The first process of all ends, and all with it.
    shim.call(Command::SignalContainer { id: "a".into(), signal: 9 }).unwrap();
    assert_eq!(shim.exit_of("e").exit_code, 137);
    assert_eq!(shim.exit_of("a").exit_code, 137);
    let late = seeing(&shim, "f", ":");
    let failure = shim.call(Command::CreateContainer(Box::new(late))).unwrap_err();
    let expected = "the container a, whose processes it is to see, does not run";
    assert_eq!(failure, Failure::WrongState(expected.into()));
}

#[test]
fn a_shim_that_is_asked_to_end_first_sees_its_containers_end() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let script = "trap 'echo goodbye; exit 4' TERM; echo ready; busybox sleep 600 & wait";
    let container = shim.container("a", script);
    shim.call(Command::CreateContainer(Box::new(container.clone()))).unwrap();
    shim.call(Command::StartContainer { id: "a".into() }).unwrap();
    let pid = rustix::process::Pid::from_child(&shim.process);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // It still answers, and what the container says last is written down.
    assert!(matches!(shim.call(Command::Report), Ok(Success::Report(_))));
    while log_of(&container) != ["stdout F ready"] {
        std::thread::yield_now();
    }
    shim.call(Command::SignalContainer { id: "a".into(), signal: 15 }).unwrap();
    assert_eq!(shim.exit_of("a").exit_code, 4);
    assert!(shim.process.wait().unwrap().success());
    assert_eq!(log_of(&container), ["stdout F ready", "stdout F goodbye"]);
}

#[test]
fn clients_share_a_container_and_leave_without_its_noticing() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let script = "while read x; do echo out-$x; echo err-$x >&2; done; echo over";
    let container = Container { stdin: true, ..shim.container("a", script) };
    shim.begin(&container);
    let (first, mut to, mut from) = shim.attach("a");
    to.write_all(b"1\n").unwrap();
    assert_eq!(read_line(&mut from), "out-1");
    while log_of(&container).len() < 2 {
        std::thread::yield_now();
    }

    // A second one hears what comes from now on, standard error for itself.
    let ((mut from_2, output), (mut error_2, error)) = (rustix_pipe(), rustix_pipe());
    let attach = Attach { stdin: false, stderr: true, ..both("a") };
    let streams = [output.as_fd(), error.as_fd()];
    let (second, answer) = shim.call_with(Command::Attach(attach), &streams);
    assert_eq!(answer, Ok(Success::Attached));
    drop((output, error));
    to.write_all(b"2\n").unwrap();
    assert_eq!(read_line(&mut from), "out-2");
    assert_eq!(read_line(&mut from_2), "out-2");
    assert_eq!(read_line(&mut error_2), "err-2");

    // The first one leaves; its outputs end, the other's go on.
    drop(to);
    assert_eq!(shim.detachment_of(first), Detachment::InputEnded);
    assert_eq!(std::io::read_to_string(from).unwrap(), "");
    let (third, mut to, from) = shim.attach("a");
    drop(from);
    to.write_all(b"3\n").unwrap();
    assert_eq!(read_line(&mut from_2), "out-3");
    assert_eq!(read_line(&mut error_2), "err-3");
    shim.call(Command::SignalContainer { id: "a".into(), signal: 9 }).unwrap();
    for number in [second, third] {
        assert_eq!(shim.detachment_of(number), Detachment::Ended);
    }
    assert_eq!(std::io::read_to_string(from_2).unwrap(), "");
    let lines = log_of(&container);
    let (errors, lines): (Vec<_>, Vec<_>) = lines.iter().partition(|it| it.starts_with("stderr"));
    assert_eq!(lines, ["stdout F out-1", "stdout F out-2", "stdout F out-3"]);
    assert_eq!(errors, ["stderr F err-1", "stderr F err-2", "stderr F err-3"]);
}

#[test]
fn an_input_that_is_given_once_ends_with_its_client_and_all_of_it_arrives() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    // It reads when it is asked to, so that most of what is sent has to wait.
    let script = "trap 'go=1' USR1; echo ready; until test \"$go\"; do busybox usleep 1000; done; \
                  busybox wc -c";
    let container = Container { stdin: true, stdin_once: true, ..shim.container("a", script) };
    shim.begin(&container);
    while log_of(&container).is_empty() {
        std::thread::yield_now();
    }
    let (number, mut to, from) = shim.attach("a");
    let writer = std::thread::spawn(move || to.write_all(&[b'x'; 1_000_000]).unwrap());
    let streams = [from.as_fd()];
    // While it waits, the shim answers others.
    let none = Attach { stdin: false, stdout: true, ..both("b") };
    assert_eq!(shim.call_with(Command::Attach(none), &streams).1, Err(Failure::NoSuchContainer));
    let usr1 = rustix::process::Signal::USR1.as_raw();
    shim.call(Command::SignalContainer { id: "a".into(), signal: usr1 }).unwrap();
    writer.join().unwrap();
    assert_eq!(std::io::read_to_string(from).unwrap(), "1000000\n");
    assert_eq!(shim.detachment_of(number), Detachment::Ended);
    assert_eq!(shim.exit_of("a").exit_code, 0);
    let ended = shim.call_with(Command::Attach(Attach { stdin: false, ..both("a") }), &[]).1;
    let text = "the container is ended, not running";
    assert_eq!(ended, Err(Failure::WrongState(text.into())));
}

#[test]
fn whoever_does_not_read_gets_no_more_and_nobody_waits_for_it() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let script = "read x; busybox yes | busybox head -c 300000; echo; echo last";
    let container = Container { stdin: true, ..shim.container("a", script) };
    shim.begin(&container);
    let (slow, mut to, from) = shim.attach("a");
    to.write_all(b"go\n").unwrap();
    assert_eq!(shim.detachment_of(slow), Detachment::FellBehind);
    assert_eq!(shim.exit_of("a").exit_code, 0);
    assert_eq!(log_of(&container).last().unwrap(), "stdout F last");
    // What it had been given is its own.
    assert!(std::io::read_to_string(from).unwrap().starts_with("y\ny\n"));
}

#[test]
fn a_connection_that_ends_takes_its_clients_along_but_not_what_they_said() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    let container =
        Container { stdin: true, stdin_once: true, ..shim.container("a", "busybox cat") };
    shim.begin(&container);
    let mut other = socket::connect(&shim.path().join("shim.sock")).unwrap();
    let ((input, mut to), (from, output)) = (rustix_pipe(), rustix_pipe());
    to.write_all(b"said\n").unwrap();
    let command = Command::Attach(both("a"));
    let frame = encode(&Request { number: 1, command }).unwrap();
    socket::send(&other, &frame, &[input.as_fd(), output.as_fd()]).unwrap();
    // The greeting and the answer.
    for _ in 0..2 {
        let mut header = [0; 4];
        other.read_exact(&mut header).unwrap();
        other.read_exact(&mut vec![0; frame_length(header).unwrap()]).unwrap();
    }
    drop((other, input, output, from, to));
    assert_eq!(shim.exit_of("a").exit_code, 0);
    assert_eq!(log_of(&container), ["stdout F said"]);
}

#[test]
fn a_terminal_is_joined_and_sized() {
    if !tools::is_root() {
        return;
    }
    let mut shim = Shim::start();
    // A signal ends a read of the shell, not the loop.
    let script =
        "trap 'busybox stty size' WINCH; echo ready; while :; do read x && echo got-$x; done";
    let mut container = Container { stdin: true, ..shim.container("a", script) };
    container.process.terminal = true;
    container.stdin_once = true;
    shim.begin(&container);
    let (here, there) = UnixStream::pair().unwrap();
    let ((input, mut to), (mut from, output)) = (rustix_pipe(), rustix_pipe());
    let attach = Attach { terminal: true, ..both("a") };
    let streams = [input.as_fd(), output.as_fd(), there.as_fd()];
    let (number, answer) = shim.call_with(Command::Attach(attach), &streams);
    assert_eq!(answer, Ok(Success::Attached));
    drop((input, output));
    let (mut byte, mut descriptors) = ([0], Vec::new());
    socket::receive(&here, &mut byte, &mut descriptors).unwrap();
    let terminal = descriptors.pop().unwrap();
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    while log_of(&container).is_empty() {
        std::thread::yield_now();
    }
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    to.write_all(b"x\n").unwrap();
    let mut heard = String::new();
    while !(heard.contains("33 77") && heard.contains("got-x")) {
        heard += &read_line(&mut from);
    }
    // A terminal stays open.
    drop(to);
    assert_eq!(shim.detachment_of(number), Detachment::InputEnded);
    let (_, mut to, mut from) = shim.attach("a");
    to.write_all(b"y\n").unwrap();
    while !read_line(&mut from).contains("got-y") {}
    let without = shim.container("b", "busybox sleep 600");
    shim.begin(&without);
    let streams = [from.as_fd(), to.as_fd(), there.as_fd()];
    let attach = Attach { terminal: true, ..both("b") };
    let refused = Failure::WrongState("the container has no terminal".into());
    assert_eq!(shim.call_with(Command::Attach(attach), &streams).1, Err(refused));
}

fn read_line(from: &mut fs::File) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        from.read_exact(&mut byte).unwrap();
        match byte[0] {
            b'\n' => return String::from_utf8(line).unwrap(),
            other => line.push(other),
        }
    }
}

fn rustix_pipe() -> (fs::File, fs::File) {
    let (read, write) = std::io::pipe().unwrap();
    (OwnedFd::from(read).into(), OwnedFd::from(write).into())
}
