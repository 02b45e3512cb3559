//! The shim as a program, driven by its protocol, with real containers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::socket;
use mainstay_shim_protocol::{
    Capabilities, CgroupDirectories, Command, Container, Event, Exec, ExitStatus, Failure, Hello,
    Message, Mount, MountFlags, MountSource, Outcome, Process, Reply, Request, Root,
    SandboxNamespaces, Success, decode, encode, frame_length,
};
use mainstay_testkit::tools;

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
        let directory = tempfile::tempdir().unwrap();
        let listener = socket::listen(&directory.path().join("shim.sock")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test plays the engine")]
        let process = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay-shim"))
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
        let group = Hierarchies::mounted().unwrap();
        let group = group.at(&format!("{}/{id}", self.group));
        group.create().unwrap();
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
            new_cgroup_namespace: false,
            cgroup: CgroupDirectories {
                unified: None,
                legacy: group.directories().map(|path| path.to_str().unwrap().into()).collect(),
            },
            process: process(script),
            log_path: self.path().join(id).join("log").to_str().unwrap().into(),
            stdin: false,
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
    let exec = Exec { id: "a".into(), process: process(script) };
    shim.number += 1;
    let number = shim.number;
    let frame = encode(&Request { number, command: Command::Exec(Box::new(exec)) }).unwrap();
    let sent = socket::send(&shim.stream, &frame, &[null.as_fd(), write.as_fd(), write.as_fd()]);
    assert_eq!(sent.unwrap(), frame.len());
    let Success::Executing { pid } = shim.answer(number).unwrap() else { panic!() };
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

fn rustix_pipe() -> (fs::File, fs::File) {
    let (read, write) = std::io::pipe().unwrap();
    (OwnedFd::from(read).into(), OwnedFd::from(write).into())
}
