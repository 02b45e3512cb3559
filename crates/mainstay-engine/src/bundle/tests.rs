use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use expect_test::{Expect, expect};
use mainstay_cri::{
    ContainerMetadata, ImageSpec, LinuxContainerResources, LinuxContainerSecurityContext, Mount,
    MountPropagation,
};
use mainstay_image::platform::Platform;
use mainstay_linux::cgroup::Hierarchy;
use mainstay_shim_protocol::MountSource;

use super::*;

fn hierarchy(mount_point: &str, controllers: &[&str], unified: bool) -> Hierarchy {
    Hierarchy {
        mount_point: PathBuf::from(mount_point),
        controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        unified,
    }
}

fn version_2() -> Hierarchies {
    Hierarchies::of(vec![hierarchy("/sys/fs/cgroup", &["cpu", "memory"], true)])
}

fn hybrid() -> Hierarchies {
    Hierarchies::of(vec![
        hierarchy("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"], false),
        hierarchy("/sys/fs/cgroup/systemd", &["name=systemd"], false),
        hierarchy("/sys/fs/cgroup/unified", &[], true),
    ])
}

fn config() -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata { name: "c".into(), attempt: 0 },
        image: ImageSpec("i".into()),
        command: vec![],
        args: vec![],
        working_dir: String::new(),
        envs: vec![],
        mounts: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_path: "c/0.log".into(),
        stdin: false,
        stdin_once: false,
        tty: false,
        stop_signal: None,
        resources: LinuxContainerResources::default(),
        security_context: LinuxContainerSecurityContext::default(),
    }
}

fn image() -> ImageConfig {
    ImageConfig {
        platform: Platform::host(),
        created: None,
        env: vec!["PATH=/image/bin".into(), "A=image".into()],
        entrypoint: vec!["/entry".into(), "point".into()],
        cmd: vec!["cmd".into()],
        user: String::new(),
        working_dir: "image/dir".into(),
        stop_signal: String::new(),
        exposed_ports: vec![],
        volumes: vec![],
        labels: BTreeMap::new(),
        diff_ids: vec![],
    }
}

/// Makes a container on a machine, after `change` has had its way with what was asked for.
fn make(
    hierarchies: &Hierarchies,
    change: impl FnOnce(&mut ContainerConfig, &mut ImageConfig),
) -> Result<Container, BundleError> {
    let (mut config, mut image) = (config(), image());
    change(&mut config, &mut image);
    let namespaces = NamespaceOptions {
        network: NamespaceMode::Pod,
        pid: NamespaceMode::Container,
        ipc: NamespaceMode::Pod,
        users: None,
    };
    let user = User { uid: 7, gid: 8, additional_gids: vec![8, 9], home: "/home/u".into() };
    container(&Ingredients {
        id: "id",
        config: &config,
        namespaces,
        image: &image,
        volumes: &[("local/files:1".to_owned(), vec!["b".to_owned(), "c".to_owned()])].into(),
        user: &user,
        hostname: "host",
        places: Places {
            bundle: Path::new("/run/bundle"),
            sandbox: Path::new("/run/sandbox"),
            root: Root {
                layers: "/layers".into(),
                lower: vec!["a".into()],
                upper: "/upper".into(),
                work: "/work".into(),
                readonly: false,
            },
            log_path: "/log/c/0.log",
            cgroup: "/mainstay/pod/id",
        },
        machine: Machine {
            hierarchies,
            capabilities: Capabilities::all().without(Capabilities::named("SYS_RESOURCE").unwrap()),
            oom_score_adj: -5,
            devices: &[],
            throttles: &["/sys/devices/system/cpu/cpu0/thermal_throttle".to_owned()],
        },
        seccomp: None,
        apparmor: None,
    })
}

fn made(change: impl FnOnce(&mut ContainerConfig, &mut ImageConfig)) -> Container {
    make(&version_2(), change).unwrap()
}

#[test]
fn command_and_arguments_replace_what_the_image_says() {
    let check = |command: &[&str], args: &[&str], expected: &[&str]| {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let container = made(|config, _| {
            config.command = strings(command);
            config.args = strings(args);
        });
        assert_eq!(container.process.args, expected);
    };
    // The table of "Define a Command and Arguments for a Container".
    check(&[], &[], &["/entry", "point", "cmd"]);
    check(&["/own"], &[], &["/own"]);
    check(&[], &["arg"], &["/entry", "point", "arg"]);
    check(&["/own"], &["arg"], &["/own", "arg"]);
    let nothing = make(&version_2(), |_, image| {
        image.entrypoint.clear();
        image.cmd.clear();
    });
    assert!(matches!(nothing, Err(BundleError::NoCommand)));
}

#[test]
fn variables_come_from_us_the_image_and_the_container_in_this_order() {
    let container = made(|config, _| {
        config.envs = vec![("B".into(), "own".into()), ("A".into(), "own=1".into())];
    });
    let expected = ["PATH=/image/bin", "HOSTNAME=host", "A=own=1", "B=own", "HOME=/home/u"];
    assert_eq!(container.process.env, expected);
    let terminal = made(|config, image| {
        config.tty = true;
        image.env = vec!["HOME=/h".into(), "TERMINAL=x".into()];
    });
    let expected = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=host",
        "TERM=xterm",
        "HOME=/h",
        "TERMINAL=x",
    ];
    assert_eq!(terminal.process.env, expected);
    assert!(terminal.process.terminal);
}

#[test]
fn a_process_is_who_and_where_it_was_asked_to_be() {
    let container = made(|config, _| {
        config.security_context.supplemental_groups = vec![9, 10, 10];
        config.resources.oom_score_adj = -100;
    });
    let process = container.process;
    assert_eq!((process.uid, process.gid), (7, 8));
    assert_eq!(process.additional_gids, [8, 9, 10]);
    assert_eq!(process.cwd, "/image/dir");
    let strict = made(|config, _| {
        config.security_context.supplemental_groups = vec![10];
        config.security_context.supplemental_groups_policy = SupplementalGroupsPolicy::Strict;
    });
    assert_eq!(strict.process.additional_gids, [8, 10]);
    // Lower than the agent's own is not to be had without CAP_SYS_RESOURCE.
    assert_eq!(process.oom_score_adj, Some(-5));
    let container = made(|config, _| {
        config.working_dir = "/own".into();
        config.resources.oom_score_adj = 1000;
    });
    assert_eq!(container.process.cwd, "/own");
    assert_eq!(container.process.oom_score_adj, Some(1000));
}

#[test]
fn a_privileged_container_sees_the_machine() {
    let ordinary = made(|_, _| ());
    assert_eq!(ordinary.masked_paths.len(), MASKED_PATHS.len() + 1);
    assert_eq!(ordinary.readonly_paths.len(), READONLY_PATHS.len());
    assert!(ordinary.new_cgroup_namespace);
    let privileged = made(|config, _| config.security_context.privileged = true);
    assert!(privileged.masked_paths.is_empty() && privileged.readonly_paths.is_empty());
    assert!(!privileged.new_cgroup_namespace);
    let count = |bits: u64| bits.count_ones();
    assert_eq!(count(ordinary.process.capabilities.bounding), 14);
    assert_eq!(count(privileged.process.capabilities.bounding), 40);
    let writable = |container: &Container| {
        let mount = container.mounts.iter().find(|mount| mount.destination == "/sys").unwrap();
        !mount.flags.readonly
    };
    assert!(writable(&privileged) && !writable(&ordinary));
}

/// The mounts, one in a line.
#[track_caller]
fn check_mounts(
    hierarchies: &Hierarchies,
    change: impl FnOnce(&mut ContainerConfig, &mut ImageConfig),
    expected: &Expect,
) {
    let container = make(hierarchies, change).unwrap();
    let mut text = String::new();
    for mount in &container.mounts {
        let source = match &mount.source {
            MountSource::New { kind, options } => {
                let options = options.iter().map(|(name, value)| format!(" {name}={value}"));
                kind.to_owned() + &options.collect::<String>()
            }
            MountSource::Bind { path } => path.clone(),
            MountSource::Part { directory, path } => format!("{path} of {directory}"),
            MountSource::Image { layers, lower, place, path } => {
                format!("{path:?} of {} in {layers} at {place}", lower.join(":"))
            }
        };
        let flags = mount.flags;
        let flags = [
            (flags.readonly, " ro"),
            (flags.nosuid, " nosuid"),
            (flags.nodev, " nodev"),
            (flags.noexec, " noexec"),
        ];
        let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        writeln!(text, "{} <- {source}{flags}", mount.destination).unwrap();
    }
    for path in &container.sealed_mounts {
        writeln!(text, "{path} is sealed").unwrap();
    }
    for (path, target) in container.links.iter().filter(|(path, _)| !path.starts_with("/dev/")) {
        writeln!(text, "{path} -> {target}").unwrap();
    }
    writeln!(text, "{:?}", container.cgroup).unwrap();
    expected.assert_eq(&text);
}

fn mount(container_path: &str, host_path: &str, readonly: bool) -> Mount {
    Mount {
        container_path: container_path.into(),
        host_path: host_path.into(),
        image: None,
        readonly,
        recursive_read_only: false,
        propagation: MountPropagation::Private,
        sub_path: String::new(),
    }
}

#[test]
fn a_volume_does_not_hide_what_the_pod_has_unless_the_machine_would_get_it() {
    let destinations = |propagation| {
        let container = made(|config, _| {
            let volume = |path| Mount { propagation, ..mount(path, "/host", false) };
            config.mounts = vec![volume("/dev"), volume("/etc/"), volume("/dev/shm/own")];
        });
        let of_system = 5 + 1;
        container.mounts.into_iter().skip(of_system).map(|it| it.destination).collect::<Vec<_>>()
    };
    let all = ["/dev", "/etc/", "/dev/shm", "/etc/resolv.conf", "/etc/hostname", "/dev/shm/own"];
    assert_eq!(destinations(MountPropagation::Private), all);
    assert_eq!(destinations(MountPropagation::HostToContainer), all);
    assert_eq!(destinations(MountPropagation::Bidirectional), ["/dev", "/etc/", "/dev/shm/own"]);
}

#[test]
fn mounts_of_version_2_with_the_outer_first() {
    let files = Mount {
        image: Some(ImageSpec("local/files:1".into())),
        sub_path: "d".into(),
        ..mount("/files-1", "", false)
    };
    check_mounts(
        &version_2(),
        |config, _| {
            config.mounts = vec![
                mount("/data/inner", "/host/inner", true),
                mount("/data", "/host/data", false),
                mount("/etc/hostname", "/host/hostname", false),
                mount("/dev/shm", "/host/shm", false),
                files,
            ];
            config.security_context.readonly_rootfs = true;
        },
        &expect![[r#"
            /proc <- proc nosuid nodev noexec
            /dev <- tmpfs mode=755 size=65536k nosuid
            /dev/pts <- devpts newinstance= ptmxmode=0666 mode=0620 gid=5 nosuid noexec
            /dev/mqueue <- mqueue nosuid nodev noexec
            /sys <- sysfs ro nosuid nodev noexec
            /sys/fs/cgroup <- cgroup2 ro nosuid nodev noexec
            /data <- /host/data
            /files-1 <- "d" of b:c in /layers at /run/bundle/images/_2ffiles_2d1 ro nosuid nodev noexec
            /etc/resolv.conf <- /run/sandbox/resolv.conf ro
            /data/inner <- /host/inner ro
            /etc/hostname <- /host/hostname
            /dev/shm <- /host/shm
            CgroupDirectories { unified: Some("/sys/fs/cgroup/mainstay/pod/id"), legacy: [] }
        "#]],
    );
}

#[test]
fn mounts_of_the_hybrid_layout() {
    check_mounts(
        &hybrid(),
        |_, _| (),
        &expect![[r#"
        /proc <- proc nosuid nodev noexec
        /dev <- tmpfs mode=755 size=65536k nosuid
        /dev/pts <- devpts newinstance= ptmxmode=0666 mode=0620 gid=5 nosuid noexec
        /dev/mqueue <- mqueue nosuid nodev noexec
        /sys <- sysfs ro nosuid nodev noexec
        /sys/fs/cgroup <- tmpfs mode=755 nosuid nodev noexec
        /sys/fs/cgroup/cpu,cpuacct <- /sys/fs/cgroup/cpu,cpuacct/mainstay/pod/id ro nosuid nodev noexec
        /sys/fs/cgroup/systemd <- /sys/fs/cgroup/systemd/mainstay/pod/id ro nosuid nodev noexec
        /dev/shm <- /run/sandbox/shm nosuid nodev noexec
        /etc/resolv.conf <- /run/sandbox/resolv.conf
        /etc/hostname <- /run/sandbox/hostname
        /sys/fs/cgroup is sealed
        /sys/fs/cgroup/cpu -> cpu,cpuacct
        /sys/fs/cgroup/cpuacct -> cpu,cpuacct
        CgroupDirectories { unified: Some("/sys/fs/cgroup/unified/mainstay/pod/id"), legacy: ["/sys/fs/cgroup/cpu,cpuacct/mainstay/pod/id", "/sys/fs/cgroup/systemd/mainstay/pod/id"] }
    "#]],
    );
}
