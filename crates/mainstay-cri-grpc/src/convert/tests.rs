use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use mainstay_cri::{
    AppArmorProfile, Container, ContainerConfig, ContainerDetails, ContainerEvent,
    ContainerEventKind, ContainerId, ContainerMetadata, ContainerState, ContainerStatus, CpuUsage,
    Error, ErrorKind, HugepageLimit, IdMapping, Image, ImageId, ImageSpec, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxContainerUser, MemoryUsage, Mount, MountPropagation,
    NamespaceMode, NetworkInterfaceUsage, PodSandbox, PodSandboxConfig, PodSandboxState,
    PodSandboxStats, PodSandboxStatus, PortMapping, ProtectedPaths, Protocol, READONLY_PATHS,
    STATUS_UNKNOWN, SandboxId, SeccompProfile, SupplementalGroupsPolicy,
};
use mainstay_grpc::{Code, Status};
use mainstay_testkit::contract::Sample;
use prost::Message;

use super::signal::signal_number;
use super::*;
use crate::wire;

/// As a message comes out at the other end.
fn sent<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    [(format!("key-{text}"), text.to_owned())].into()
}

fn at(nanosecond: i128) -> Timestamp {
    Timestamp::from_nanosecond(1_700_000_000_000_000_000 + nanosecond).unwrap()
}

fn sandbox() -> PodSandboxConfig {
    let mut config = Sample::new("pod", Path::new("/var/log/pods/x")).sandbox;
    config.hostname = "pod".into();
    config.labels = pairs("label");
    config.annotations = pairs("annotation");
    config.cgroup_parent = "/mainstay/pod".into();
    config.sysctls = pairs("sysctl");
    config.dns.servers = vec!["10.0.0.1".into()];
    config.dns.searches = vec!["svc".into()];
    config.dns.options = vec!["ndots:5".into()];
    let port =
        |protocol, host_ip| PortMapping { protocol, container_port: 80, host_port: 65535, host_ip };
    let ip = Some("fd00::1".parse().unwrap());
    config.port_mappings =
        vec![port(Protocol::Tcp, None), port(Protocol::Udp, ip), port(Protocol::Sctp, None)];
    let context = &mut config.security_context;
    context.privileged = true;
    context.seccomp = SeccompProfile::Localhost("/profile.json".into());
    context.namespaces.network = NamespaceMode::Pod;
    context.namespaces.users = Some(IdMapping { host_id: 1 << 16, length: 1 << 16 });
    config
}

/// Paths of a client's own.
fn these() -> ProtectedPaths {
    ProtectedPaths::These { masked: vec!["/bin".into()], readonly: vec!["/proc/sys".into()] }
}

fn container() -> ContainerConfig {
    let mount = Mount {
        container_path: "/data".into(),
        host_path: "/srv/data".into(),
        image: None,
        readonly: true,
        recursive_read_only: true,
        propagation: MountPropagation::HostToContainer,
        sub_path: String::new(),
    };
    let image = Mount {
        container_path: "/model".into(),
        host_path: String::new(),
        image: Some(ImageSpec("model:1".into())),
        recursive_read_only: false,
        propagation: MountPropagation::Private,
        sub_path: "a/b".into(),
        ..mount.clone()
    };
    ContainerConfig {
        command: vec!["sh".into()],
        args: vec!["-c".into(), "true".into()],
        working_dir: "/tmp".into(),
        envs: vec![("A".into(), "1".into())],
        mounts: vec![mount, image],
        labels: pairs("label"),
        annotations: pairs("annotation"),
        stdin: true,
        stdin_once: true,
        tty: true,
        stop_signal: Some("SIGUSR1".into()),
        resources: LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: -1,
            cpu_shares: 2,
            memory_limit: 1 << 40,
            memory_swap_limit: 1 << 41,
            oom_score_adj: -997,
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }],
            unified: pairs("memory.min"),
        },
        security_context: LinuxContainerSecurityContext {
            privileged: true,
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["ALL".into()],
            run_as_user: Some(u32::MAX),
            run_as_username: Some("web".into()),
            run_as_group: Some(0),
            supplemental_groups: vec![1, 2],
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict,
            readonly_rootfs: true,
            no_new_privs: true,
            protected_paths: these(),
            seccomp: SeccompProfile::RuntimeDefault,
            apparmor: Some(AppArmorProfile::Localhost("mine".into())),
            target: Some(ContainerId("other".into())),
        },
        ..Sample::new("pod", Path::new("/")).container("main")
    }
}

#[test]
fn what_a_sandbox_is_made_from_arrives() {
    let plain = Sample::new("pod", Path::new("/var/log/pods/x")).sandbox;
    for config in [plain, sandbox()] {
        let message = sent(&wire::PodSandboxConfig::from(&config));
        assert_eq!(PodSandboxConfig::try_from(message), Ok(config));
    }
}

#[test]
fn what_a_container_is_made_from_arrives() {
    let masked = vec!["/proc/kcore".to_owned()];
    let plain = Sample::new("pod", Path::new("/")).container("main");
    let mut bare = container();
    bare.security_context.protected_paths = ProtectedPaths::None;
    for mut config in [plain, container(), bare] {
        let message = sent(&container_config(&config, &sandbox(), &masked).unwrap());
        let protected = &mut config.security_context.protected_paths;
        if *protected == ProtectedPaths::Usual {
            // Which those are depends on the machine, and is the client's word.
            let readonly = READONLY_PATHS.map(str::to_owned).to_vec();
            *protected = ProtectedPaths::These { masked: masked.clone(), readonly };
        }
        assert_eq!(ContainerConfig::try_from(message), Ok(config));
    }
    // Whose users the pod has, its volumes have.
    let message = container_config(&container(), &sandbox(), &masked).unwrap();
    let mapped: Vec<usize> = message.mounts.iter().map(|it| it.uid_mappings.len()).collect();
    assert_eq!(mapped, [1, 0]);
}

#[test]
fn what_the_contract_has_no_word_for_is_refused() {
    let message = || container_config(&container(), &sandbox(), &[]).unwrap();
    let refused = |change: fn(&mut wire::ContainerConfig)| {
        let mut message = message();
        change(&mut message);
        ContainerConfig::try_from(message).unwrap_err().to_string()
    };
    let device = |it: &mut wire::ContainerConfig| it.devices.push(wire::Device::default());
    assert_eq!(refused(device), "devices is not supported");
    assert_eq!(refused(|it| it.metadata = None), "metadata is missing");
    assert_eq!(refused(|it| it.stop_signal = 99), "stop_signal cannot be \"99\"");
    assert_eq!(refused(|it| it.mounts[0].propagation = 7), "propagation cannot be \"7\"");
    let negative = |it: &mut wire::ContainerConfig| {
        let linux = it.linux.as_mut().unwrap();
        let id = Some(wire::Int64Value { value: -1 });
        linux.security_context.as_mut().unwrap().run_as_user = id;
    };
    assert_eq!(refused(negative), "run_as_user cannot be \"-1\"");
    let mut differing = wire::PodSandboxConfig::from(&sandbox());
    let linux = differing.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    let users = linux.namespace_options.as_mut().unwrap().userns_options.as_mut().unwrap();
    users.gids[0].host_id += 1;
    let error = PodSandboxConfig::try_from(differing).unwrap_err();
    assert_eq!(Status::from(error).code, Code::Unimplemented);
}

#[test]
fn all_signals_have_their_numbers() {
    for number in 0..=65 {
        let name = signal::signal_name(number).unwrap();
        assert_eq!(signal_number(name.as_deref()), Some(number), "{name:?}");
    }
    let known = [("SIGTERM", 23), ("SIGRTMIN", 35), ("SIGRTMIN+15", 50), ("SIGRTMAX-14", 51)];
    for (name, number) in known {
        assert_eq!(signal_number(Some(name)), Some(number));
    }
    for name in ["", "TERM", "SIGRTMIN+16", "SIGRTMAX-15", "SIGRTMIN+-1", "SIGRTMAX+1"] {
        assert_eq!(signal_number(Some(name)), None, "{name}");
    }
}

fn status(state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        id: ContainerId("c".into()),
        metadata: ContainerMetadata { name: "main".into(), attempt: 3 },
        state,
        created_at: at(1),
        image: ImageSpec("docker.io/library/nginx:1".into()),
        image_ref: "sha256:1".into(),
        labels: pairs("label"),
        annotations: pairs("annotation"),
        log_path: "/log".into(),
        user: Some(LinuxContainerUser { uid: 1, gid: 2, supplemental_groups: vec![2, 3] }),
        details: None,
    }
}

#[test]
fn what_a_container_was_made_with_is_told() {
    let config = container();
    let details = ContainerDetails {
        image_id: "sha256:1".into(),
        mounts: config.mounts.clone(),
        resources: config.resources.clone(),
        stop_signal: Some("SIGUSR1".into()),
    };
    let status =
        ContainerStatus { details: Some(Box::new(details)), ..status(ContainerState::Created) };
    let message = sent(&wire::ContainerStatus::from(&status));
    let mounts: Result<Vec<Mount>> = message.mounts.into_iter().map(TryInto::try_into).collect();
    assert_eq!(mounts, Ok(config.mounts));
    let resources = message.resources.unwrap().linux.unwrap();
    assert_eq!(LinuxContainerResources::try_from(resources), Ok(config.resources));
    assert_eq!((&*message.image_id, message.stop_signal), ("sha256:1", 29));
}

#[test]
fn what_is_seen_of_containers_and_sandboxes_arrives() {
    let exited = |started_at| ContainerState::Exited {
        started_at,
        finished_at: at(3),
        exit_code: 137,
        reason: "OOMKilled".into(),
        message: "it was large".into(),
    };
    let running = ContainerState::Running { started_at: at(2) };
    for state in [ContainerState::Created, running, exited(Some(at(2))), exited(None)] {
        let never_ran = state.never_ran();
        let status = status(state);
        let back = ContainerStatus::try_from(sent(&wire::ContainerStatus::from(&status))).unwrap();
        assert_eq!((back.state.never_ran(), back), (never_ran, status));
    }
    for state in [PodSandboxState::Ready, PodSandboxState::NotReady] {
        let sandbox = PodSandbox {
            id: SandboxId("s".into()),
            metadata: sandbox().metadata,
            state,
            created_at: at(0),
            labels: pairs("label"),
            annotations: pairs("annotation"),
        };
        let back = PodSandbox::try_from(sent(&wire::PodSandbox::from(&sandbox)));
        assert_eq!(back.as_ref(), Ok(&sandbox));
        let ips = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let containers = vec![status(ContainerState::Created)];
        for ips in [ips, Vec::new()] {
            let (sandbox, containers) = (sandbox.clone(), containers.clone());
            let namespaces = self::sandbox().security_context.namespaces;
            let whole = PodSandboxStatus { sandbox, namespaces, ips, containers };
            let response = wire::PodSandboxStatusResponse {
                status: Some((&whole).into()),
                containers_statuses: whole.containers.iter().map(Into::into).collect(),
                ..Default::default()
            };
            assert_eq!(PodSandboxStatus::try_from(sent(&response)), Ok(whole));
        }
    }
}

#[test]
fn of_an_end_that_nobody_saw_no_more_is_told_than_is_known() {
    let unknown = wire::ContainerStatus {
        metadata: Some(wire::ContainerMetadata::default()),
        state: wire::ContainerState::Unknown.into(),
        created_at: 7,
        ..Default::default()
    };
    let state = ContainerStatus::try_from(unknown).unwrap().state;
    let ContainerState::Exited { started_at: None, finished_at, exit_code: 255, reason, .. } =
        &state
    else {
        unreachable!("{state:?}");
    };
    assert_eq!((timestamp(7), STATUS_UNKNOWN), (*finished_at, reason.as_str()));
    // It may have run.
    assert!(!state.never_ran());
    let listed = wire::Container {
        metadata: Some(wire::ContainerMetadata::default()),
        state: wire::ContainerState::Exited.into(),
        ..Default::default()
    };
    assert!(!Container::try_from(listed).unwrap().state.never_ran());
    let odd = wire::Container {
        metadata: Some(wire::ContainerMetadata::default()),
        state: 9,
        ..Default::default()
    };
    assert!(Container::try_from(odd).is_err());
}

#[test]
fn events_are_of_sandboxes_or_of_their_containers() {
    let event = |container, kind| ContainerEvent {
        sandbox: SandboxId("s".into()),
        container,
        kind,
        at: at(5),
    };
    let container = || Some(ContainerId("c".into()));
    for event in [
        event(container(), ContainerEventKind::Created),
        event(container(), ContainerEventKind::Started),
        event(None, ContainerEventKind::Stopped),
        event(None, ContainerEventKind::Deleted),
    ] {
        let message = wire::ContainerEventResponse::try_from(&event);
        assert_eq!(ContainerEvent::try_from(sent(&message.unwrap())), Ok(event));
    }
    let lagged = event(None, ContainerEventKind::Lagged);
    assert!(wire::ContainerEventResponse::try_from(&lagged).is_err());
}

#[test]
fn what_is_used_arrives() {
    let memory = MemoryUsage {
        timestamp: at(1),
        working_set_bytes: 1,
        available_bytes: Some(2),
        usage_bytes: 3,
        rss_bytes: 4,
        page_faults: 5,
        major_page_faults: 6,
    };
    let interface = |name: &str| NetworkInterfaceUsage {
        name: name.into(),
        rx_bytes: 1,
        rx_errors: 2,
        tx_bytes: 3,
        tx_errors: 4,
    };
    let stats = PodSandboxStats {
        id: SandboxId("s".into()),
        metadata: sandbox().metadata,
        cpu: Some(CpuUsage { timestamp: at(1), usage_core_nano_seconds: 9 }),
        memory: Some(memory),
        network: vec![interface("eth0"), interface("eth1")],
        process_count: Some(7),
        containers: Vec::new(),
    };
    let back = PodSandboxStats::try_from(sent(&wire::PodSandboxStats::from(&stats)));
    assert_eq!(back, Ok(stats.clone()));
    let nothing = PodSandboxStats { cpu: None, memory: None, process_count: None, ..stats };
    let back = PodSandboxStats::try_from(sent(&wire::PodSandboxStats::from(&nothing)));
    assert_eq!(back, Ok(nothing));
}

#[test]
fn images_and_their_users_arrive() {
    for (user, back) in [("", ""), ("0", "0"), ("nobody", "nobody"), ("7:8", "7"), ("a:b", "a")] {
        let image = Image {
            id: ImageId("sha256:1".into()),
            repo_tags: vec!["docker.io/library/a:1".into()],
            repo_digests: vec!["docker.io/library/a@sha256:2".into()],
            size: 3,
            pinned: true,
            user: user.into(),
        };
        let got = Image::from(sent(&wire::Image::from(&image)));
        assert_eq!(got, Image { user: back.into(), ..image });
    }
}

#[test]
fn errors_keep_their_kind() {
    for kind in [
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::InvalidArgument,
        ErrorKind::FailedPrecondition,
        ErrorKind::ResourceExhausted,
        ErrorKind::PermissionDenied,
        ErrorKind::Unavailable,
        ErrorKind::RegistryUnavailable,
        ErrorKind::DeadlineExceeded,
        ErrorKind::Unimplemented,
        ErrorKind::Internal,
    ] {
        let error = Error::new(kind, "it went wrong");
        let back = error_of(status_of(&error));
        assert_eq!(back.kind, kind);
        assert!(back.message.ends_with("it went wrong"), "{}", back.message);
    }
    assert_eq!(error_of(Status::new(Code::Aborted, "x")).kind, ErrorKind::Internal);
}

#[test]
fn a_password_is_not_shown() {
    let auth = wire::AuthConfig { password: "geheim".into(), ..Default::default() };
    let request = wire::PullImageRequest { auth: Some(auth), ..Default::default() };
    assert!(!format!("{request:?}").contains("geheim"));
}
