use expect_test::{Expect, expect};
use mainstay_testkit::pods::pod as pod_of;

use super::*;
use crate::downward::Surroundings;
use crate::references::Referenced;
use crate::status::NodeAddresses;

fn facts() -> NodeFacts {
    NodeFacts {
        name: "n1".into(),
        pods_directory: "/pods".into(),
        log_directory: "/log".into(),
        cgroup_root: "/mainstay".into(),
        machine_memory: 1 << 30,
        allocatable: Amounts::default(),
        seccomp_directory: "/seccomp".into(),
        ..NodeFacts::default()
    }
}

/// The pod of these fields of its specification.
fn pod(spec: &str) -> std::sync::Arc<Pod> {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    pod_of(&format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n{spec}"))
}

fn goal(pod: &std::sync::Arc<Pod>) -> RunGoal {
    RunGoal { pod: pod.clone(), incarnation: None }
}

fn plan() -> ContainerPlan {
    ContainerPlan {
        name: "c".into(),
        restart_count: 2,
        round: 0,
        backoff: None,
        image: "i@1".into(),
    }
}

fn first(pod: &Pod) -> ContainerConfig {
    made(pod, &pod.spec().containers[0]).unwrap()
}

fn made(pod: &Pod, container: &Container) -> Result<ContainerConfig, TranslateError> {
    let around = Surroundings {
        allocatable: Amounts::default(),
        node: &NodeAddresses::default(),
        pod_ips: &[],
        objects: &Referenced::default(),
        tokens: &Default::default(),
    };
    let envs = environment(pod, container, &around, &Given::default()).unwrap();
    super::container(pod, container, &plan(), &facts(), envs, None)
}

#[track_caller]
fn check(value: &impl std::fmt::Debug, expected: &Expect) {
    expected.assert_debug_eq(value);
}

#[test]
fn a_sandbox_is_named_placed_and_labelled() {
    let pod = pod_of(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: ns\n  labels: {app: w}\n\
         spec:\n  terminationGracePeriodSeconds: 7\n  containers:\n  - name: c\n    image: i\n    \
         ports:\n    - {containerPort: 80, hostPort: 8080}\n    - {containerPort: 81}\n    \
         - {containerPort: 53, hostPort: 53, protocol: UDP, hostIP: 10.0.0.1}\n  \
         - {name: a, image: i}\n",
    );
    let config =
        sandbox(&goal(&pod), SourceKind::File, 3, &facts(), DnsConfig::default(), "/cg").unwrap();
    assert_eq!((config.metadata.name.as_str(), config.metadata.attempt), ("web-n1", 3));
    assert_eq!(config.hostname, "web-n1");
    assert_eq!(config.log_directory, format!("/log/ns_web-n1_{}", pod.uid()));
    assert_eq!(config.cgroup_parent, "/cg");
    assert_eq!(config.labels["app"], "w");
    assert_eq!(config.labels[labels::POD_NAMESPACE], "ns");
    assert_eq!(config.annotations[labels::GRACE_PERIOD], "7");
    assert_eq!(config.annotations[labels::NODE_NAME], "n1");
    assert_eq!(config.annotations[labels::CONTAINERS], "c,a");
    assert_eq!(config.annotations[labels::HOST_PORTS], "8080/TCP,53/UDP@10.0.0.1");
    check(
        &config.port_mappings,
        &expect![[r#"
        [
            PortMapping {
                protocol: Tcp,
                container_port: 80,
                host_port: 8080,
                host_ip: None,
            },
            PortMapping {
                protocol: Udp,
                container_port: 53,
                host_port: 53,
                host_ip: Some(
                    10.0.0.1,
                ),
            },
        ]
    "#]],
    );
}

#[test]
fn nobody_says_by_himself_what_he_is_called() {
    let pod = pod_of(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  annotations: \
         {mainstay.dev/dns-names: db.default.svc}\nspec:\n  containers:\n  - {name: c, image: i}\n",
    );
    let names = |pod_domain: Option<&str>| {
        let facts = NodeFacts { pod_domain: pod_domain.map(str::to_owned), ..facts() };
        let dns = DnsConfig::default();
        let config = sandbox(&goal(&pod), SourceKind::File, 0, &facts, dns, "/cg").unwrap();
        config.annotations.get(DNS_NAMES).cloned()
    };
    assert_eq!(names(None), None);
    assert_eq!(names(Some("a")).as_deref(), Some("web.default.svc,web-n1.default.svc"));
}

#[test]
fn on_the_hosts_network_ports_need_no_mapping() {
    let pod = pod("hostNetwork: true\ncontainers:\n- name: c\n  image: i\n  \
                   ports: [{containerPort: 80}]");
    let config =
        sandbox(&goal(&pod), SourceKind::File, 0, &facts(), DnsConfig::default(), "/cg").unwrap();
    assert_eq!(config.security_context.namespaces.network, NamespaceMode::Node);
    assert!(config.port_mappings.is_empty());
}

#[test]
fn a_container_gets_what_its_manifest_says() {
    let pod = pod("containers:\n- name: c\n  image: i\n  command: [run, $(A), $(B)]\n  \
                   args: ['$$(A)']\n  workingDir: /w\n  env:\n  - {name: A, value: '1'}\n  \
                   - {name: C, value: $(A)$(D)}\n  tty: true\n  stdin: true\n");
    let config = first(&pod);
    assert_eq!(config.command, ["run", "1", "$(B)"]);
    assert_eq!(config.args, ["$(A)"]);
    let envs = [("A".to_owned(), "1".to_owned()), ("C".to_owned(), "1$(D)".to_owned())];
    assert_eq!(config.envs, envs);
    assert_eq!(config.working_dir, "/w");
    assert!(config.tty && config.stdin && !config.stdin_once);
    assert_eq!(config.image.0, "i@1");
    assert_eq!((config.log_path.as_str(), config.metadata.attempt), ("c/2.log", 2));
    assert_eq!(config.annotations[labels::RESTART_COUNT], "2");
    assert_eq!(config.labels[labels::CONTAINER_NAME], "c");
}

#[test]
fn volumes_are_mounted_where_they_are_wanted() {
    let pod = pod("volumes:\n- {name: e, emptyDir: {}}\n- {name: h, hostPath: {path: /host}}\n\
                   containers:\n- name: c\n  image: i\n  volumeMounts:\n  \
                   - {name: e, mountPath: cache}\n  - {name: h, mountPath: /h, readOnly: true}\n");
    let text = format!("{:#?}", first(&pod).mounts).replace(pod.uid(), "UID");
    expect![[r#"
        [
            Mount {
                container_path: "/cache",
                host_path: "/pods/UID/volumes/kubernetes.io~empty-dir/e",
                image: None,
                readonly: false,
                recursive_read_only: false,
                propagation: Private,
                sub_path: "",
            },
            Mount {
                container_path: "/h",
                host_path: "/host",
                image: None,
                readonly: true,
                recursive_read_only: false,
                propagation: Private,
                sub_path: "",
            },
            Mount {
                container_path: "/etc/hosts",
                host_path: "/pods/UID/etc-hosts",
                image: None,
                readonly: false,
                recursive_read_only: false,
                propagation: Private,
                sub_path: "",
            },
            Mount {
                container_path: "/dev/termination-log",
                host_path: "/pods/UID/containers/c/2",
                image: None,
                readonly: false,
                recursive_read_only: false,
                propagation: Private,
                sub_path: "",
            },
        ]"#]]
    .assert_eq(&text);
    // A container that brings its own hosts file gets no other.
    let own = self::pod(
        "volumes:\n- {name: h, hostPath: {path: /hosts}}\ncontainers:\n- name: c\n  image: i\n  \
         volumeMounts: [{name: h, mountPath: /etc/hosts}]\n",
    );
    let paths: Vec<String> = first(&own).mounts.into_iter().map(|it| it.host_path).collect();
    assert_eq!(paths[0], "/hosts");
    assert!(!paths.iter().any(|path| path.ends_with("etc-hosts")));
}

#[test]
fn a_termination_message_has_a_file_of_its_own_where_it_is_wanted() {
    let check = |fields: &str, expected: Option<(&str, &str)>| {
        let pod = pod(&format!("containers:\n- {{name: c, image: i{fields}}}"));
        let config = first(&pod);
        let file = format!("/pods/{}/containers/c/2", pod.uid());
        let mount = config.mounts.iter().find(|mount| mount.host_path == file);
        let note = |name: &str| config.annotations.get(name).map(String::as_str);
        let path = note(labels::TERMINATION_MESSAGE_PATH);
        assert_eq!(path.is_some(), mount.is_some());
        let policy = note(labels::TERMINATION_MESSAGE_POLICY);
        assert_eq!(mount.map(|mount| mount.container_path.as_str()).zip(policy), expected);
        assert!(mount.is_none_or(|mount| !mount.readonly));
    };
    check("", Some(("/dev/termination-log", "File")));
    check(
        ", terminationMessagePath: tmp/end, terminationMessagePolicy: FallbackToLogsOnError",
        Some(("/tmp/end", "FallbackToLogsOnError")),
    );
}

#[test]
fn the_containers_word_counts_before_the_pods() {
    let pod = pod("securityContext:\n  runAsUser: 1\n  runAsGroup: 2\n  fsGroup: 3\n  \
                   supplementalGroups: [4]\n  seccompProfile: {type: RuntimeDefault}\n\
                   containers:\n- name: c\n  image: i\n- name: d\n  image: i\n  \
                   securityContext:\n    runAsUser: 5\n    allowPrivilegeEscalation: false\n    \
                   readOnlyRootFilesystem: true\n    capabilities: {add: [NET_ADMIN], drop: [ALL]}\n    \
                   seccompProfile: {type: Localhost, localhostProfile: a/b.json}\n");
    let of = |index: usize| security::of(&pod, &pod.spec().containers[index], &facts()).unwrap();
    check(
        &of(0),
        &expect![[r#"
            LinuxContainerSecurityContext {
                privileged: false,
                add_capabilities: [],
                drop_capabilities: [],
                run_as_user: Some(
                    1,
                ),
                run_as_username: None,
                run_as_group: Some(
                    2,
                ),
                supplemental_groups: [
                    3,
                    4,
                ],
                supplemental_groups_policy: Merge,
                readonly_rootfs: false,
                no_new_privs: false,
                protected_paths: Usual,
                seccomp: RuntimeDefault,
                apparmor: None,
                target: None,
            }
        "#]],
    );
    check(
        &of(1),
        &expect![[r#"
            LinuxContainerSecurityContext {
                privileged: false,
                add_capabilities: [
                    "NET_ADMIN",
                ],
                drop_capabilities: [
                    "ALL",
                ],
                run_as_user: Some(
                    5,
                ),
                run_as_username: None,
                run_as_group: Some(
                    2,
                ),
                supplemental_groups: [
                    3,
                    4,
                ],
                supplemental_groups_policy: Merge,
                readonly_rootfs: true,
                no_new_privs: true,
                protected_paths: Usual,
                seccomp: Localhost(
                    "/seccomp/a/b.json",
                ),
                apparmor: None,
                target: None,
            }
        "#]],
    );
}

#[test]
fn containers_that_say_nothing_get_the_nodes_own_profile() {
    let pod = pod("containers:\n- {name: c, image: i}");
    let profile =
        |facts: &NodeFacts| security::of(&pod, &pod.spec().containers[0], facts).unwrap().seccomp;
    assert_eq!(profile(&facts()), SeccompProfile::Unconfined);
    let strict = NodeFacts { seccomp_default: SeccompProfile::RuntimeDefault, ..facts() };
    assert_eq!(profile(&strict), SeccompProfile::RuntimeDefault);
    let explicit = self::pod(
        "securityContext: {seccompProfile: {type: Unconfined}}\n\
                              containers:\n- {name: c, image: i}",
    );
    let profile = security::of(&explicit, &explicit.spec().containers[0], &strict).unwrap().seccomp;
    assert_eq!(profile, SeccompProfile::Unconfined);
}

#[test]
fn who_must_not_be_root_is_not() {
    let check = |security: &str, image_user: &str, expected: Result<(), RunsAsRoot>| {
        let pod =
            pod(&format!("securityContext: {security}\ncontainers:\n- {{name: c, image: i}}"));
        let verdict = verify_non_root(&pod, &pod.spec().containers[0], image_user);
        assert_eq!(verdict, expected, "{security} {image_user}");
    };
    check("{}", "", Ok(()));
    check("{runAsNonRoot: true}", "", Err(RunsAsRoot::ByImage));
    check("{runAsNonRoot: true}", "0:5", Err(RunsAsRoot::ByImage));
    check("{runAsNonRoot: true}", "5:0", Ok(()));
    check("{runAsNonRoot: true}", "web", Err(RunsAsRoot::ByName("web".into())));
    check("{runAsNonRoot: true, runAsUser: 7}", "web", Ok(()));
    check("{runAsNonRoot: true, runAsUser: 0}", "5", Err(RunsAsRoot::ByNumber));
}

#[test]
fn what_no_manifest_can_say_and_a_stored_pod_does_is_refused() {
    let valid = pod("securityContext:\n  runAsUser: 11\n  runAsGroup: 12\n  fsGroup: 13\n  \
                     supplementalGroups: [14]\n  \
                     seccompProfile: {type: Localhost, localhostProfile: file}\n\
                     containers:\n- name: c\n  image: i\n  \
                     ports: [{containerPort: 80, hostPort: 8080, protocol: UDP, hostIP: 10.0.0.1}]");
    let with = |from: &str, to: &str| {
        let stored = valid.to_stored();
        assert!(stored.contains(from), "{from} in {stored}");
        let pod = std::sync::Arc::new(Pod::from_stored(&stored.replace(from, to)).unwrap());
        let dns = DnsConfig::default();
        let sandbox = sandbox(&goal(&pod), SourceKind::File, 0, &facts(), dns, "/cg").map(|_| ());
        let container = &pod.spec().containers[0];
        let container = made(&pod, container).map(|_| ());
        let text = |result: Result<(), TranslateError>| {
            result.map_or_else(|error| error.to_string(), |()| "fine".to_owned())
        };
        format!("{} | {}", text(sandbox), text(container))
    };
    let text = [
        with("\"Localhost\"", "\"Localhost\""),
        with("\"Localhost\"", "\"Strict\""),
        with("\"localhostProfile\":\"file\",", ""),
        with("\"UDP\"", "\"DCCP\""),
        with("10.0.0.1", "10.0.0"),
        with("8080", "65536"),
        with("\"containerPort\":80", "\"containerPort\":-80"),
        with("\"runAsUser\":11", "\"runAsUser\":-1"),
        with("\"runAsGroup\":12", "\"runAsGroup\":-1"),
        with("\"fsGroup\":13", "\"fsGroup\":4294967296"),
        with("[14]", "[14,-1]"),
    ]
    .join("\n");
    expect![[r#"
        fine | fine
        seccompProfile.type cannot be "Strict"; correct it in the manifest | seccompProfile.type cannot be "Strict"; correct it in the manifest
        seccompProfile.localhostProfile cannot be ""; correct it in the manifest | seccompProfile.localhostProfile cannot be ""; correct it in the manifest
        protocol cannot be "DCCP"; correct it in the manifest | fine
        hostIP cannot be "10.0.0"; correct it in the manifest | fine
        hostPort cannot be "65536"; correct it in the manifest | fine
        containerPort cannot be "-80"; correct it in the manifest | fine
        fine | runAsUser cannot be "-1"; correct it in the manifest
        fine | runAsGroup cannot be "-1"; correct it in the manifest
        fine | fsGroup cannot be "4294967296"; correct it in the manifest
        fine | supplementalGroups cannot be "-1"; correct it in the manifest"#]].assert_eq(&text);
}

#[test]
fn a_name_that_the_kernel_does_not_take_is_not_asked_for_on_the_hosts_network() {
    let long = "a".repeat(60);
    for (host_network, expected) in [(true, Some(String::new())), (false, None)] {
        let pod = pod_of(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{hostNetwork: {host_network}, \
             hostname: {long}, subdomain: s, setHostnameAsFQDN: true, containers: [{{name: c, image: i}}]}}\n"
        ));
        let dns = DnsConfig::default();
        let config = sandbox(&goal(&pod), SourceKind::File, 0, &facts(), dns, "/cg");
        assert_eq!(config.ok().map(|config| config.hostname), expected, "{host_network}");
    }
}

#[test]
fn bounds_of_the_network_are_plain_numbers_for_the_runtime() {
    let asked = |annotations: &str, host_network: bool| {
        let pod = pod_of(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, annotations: {annotations}}}\n\
             spec: {{containers: [{{name: c, image: i}}]}}\n"
        ));
        // What no manifest may say.
        let stored = pod.to_stored().replace("\"1M\"", "\"1\"");
        let stored = match host_network {
            true => stored.replace("\"containers\"", "\"hostNetwork\":true,\"containers\""),
            false => stored,
        };
        let pod = std::sync::Arc::new(Pod::from_stored(&stored).unwrap());
        let dns = DnsConfig::default();
        let config = sandbox(&goal(&pod), SourceKind::Api, 0, &facts(), dns, "/cg");
        config.map(|config| mainstay_cri::Bandwidth::of(&config.annotations))
    };
    let both = "{kubernetes.io/ingress-bandwidth: 1.5G, kubernetes.io/egress-bandwidth: 10k}";
    let bandwidth = asked(both, false).unwrap().unwrap();
    assert_eq!((bandwidth.ingress, bandwidth.egress), (Some(1_500_000_000), Some(10_000)));
    assert_eq!(asked("{}", false).unwrap().unwrap(), mainstay_cri::Bandwidth::default());
    let small = "{kubernetes.io/egress-bandwidth: 1M}";
    assert_eq!(
        asked(small, false).unwrap_err().to_string(),
        "kubernetes.io/egress-bandwidth cannot be \"1\"; correct it in the manifest"
    );
    // Nobody asks there.
    assert!(asked(small, true).is_ok());
}

#[test]
fn a_mount_may_be_of_a_part_of_its_volume() {
    let of = |mount: &str, envs: &[(&str, &str)]| {
        let mount = serde_json::from_str(mount).unwrap();
        let own = |text: &str| text.to_owned();
        let envs: Vec<_> = envs.iter().map(|(name, value)| (own(name), own(value))).collect();
        match sub_path(&mount, &envs) {
            Ok(path) => path.unwrap_or_else(|| "all".into()),
            Err(error) => error.to_string(),
        }
    };
    let envs = &[("A", "a/b"), ("UP", "../x"), ("ROOT", "/etc"), ("EMPTY", "")][..];
    for (mount, expected) in [
        (r#"{"name": "v", "mountPath": "/v"}"#, "all"),
        (r#"{"name": "v", "mountPath": "/v", "subPath": "a/b"}"#, "a/b"),
        (
            r#"{"name": "v", "mountPath": "/v", "subPath": "a/../b"}"#,
            "unable to provision SubPath `a/../b`: must not contain '..'",
        ),
        (r#"{"name": "v", "mountPath": "/v", "subPathExpr": "$(A)/$$(A)"}"#, "a/b/$(A)"),
        (
            r#"{"name": "v", "mountPath": "/v", "subPathExpr": "$(UP)"}"#,
            "unable to provision SubPath `../x`: must not contain '..'",
        ),
        (
            r#"{"name": "v", "mountPath": "/v", "subPathExpr": "$(ROOT)"}"#,
            "error SubPath `/etc` must not be an absolute path",
        ),
        (
            r#"{"name": "v", "mountPath": "/v", "subPathExpr": "$(NONE)$(EMPTY)$(A)"}"#,
            "missing value for EMPTY, NONE",
        ),
    ] {
        assert_eq!(of(mount, envs), expected, "{mount}");
    }
    let pod = pod("volumes:\n- {name: v, emptyDir: {}}\n- {name: m, configMap: {name: m}}\n\
                   containers:\n- name: c\n  image: i\n  volumeMounts:\n  - {name: v, mountPath: /v}\n  \
                   - {name: v, mountPath: /w, subPath: a}\n  - {name: m, mountPath: /m}");
    let mounts = first(&pod).mounts;
    let directory = format!("/pods/{}", pod.uid());
    let volume = format!("{directory}/volumes/kubernetes.io~empty-dir/v");
    let parts = |at: usize| (mounts[at].host_path.as_str(), mounts[at].sub_path.as_str());
    assert_eq!((parts(0), parts(1)), ((&*volume, ""), (&*volume, "a")));
    assert_eq!(mounts[2].host_path, format!("{directory}/volumes/kubernetes.io~configmap/m"));
    assert!(!mounts[1].readonly && mounts[2].readonly);
}

#[test]
fn what_outlives_the_manifest_is_noted_with_sandbox_and_containers() {
    let pod = pod("os: {name: linux}\ninitContainers:\n\
                   - {name: i, image: i, ports: [{containerPort: 1, hostPort: 1}]}\n\
                   - {name: s, image: i, restartPolicy: Always, ports: [{containerPort: 2, hostPort: 2}]}\n\
                   - {name: t, image: i, restartPolicy: Always}\n\
                   containers:\n- name: c\n  image: i\n  ports: [{containerPort: 3, hostPort: 1}]\n  \
                   lifecycle: {stopSignal: SIGUSR1, preStop: {sleep: {seconds: 5}}}");
    let config =
        sandbox(&goal(&pod), SourceKind::File, 0, &facts(), DnsConfig::default(), "/cg").unwrap();
    assert_eq!(config.annotations[labels::SIDECARS], "s,t");
    assert_eq!(config.annotations[labels::CONTAINERS], "c");
    // What only prepares the pod is not reached through the host.
    let ports = config.port_mappings.iter().map(|it| (it.host_port, it.container_port));
    assert_eq!(ports.collect::<Vec<_>>(), [(2, 2), (1, 3)]);
    let config = first(&pod);
    assert_eq!(config.annotations[labels::PRE_STOP_HANDLER], r#"{"sleep":{"seconds":5}}"#);
    assert_eq!(config.stop_signal.as_deref(), Some("SIGUSR1"));
    assert!(!config.annotations.contains_key(labels::ROUND));
    let again = ContainerPlan { round: 2, ..plan() };
    let config =
        container(&pod, &pod.spec().containers[0], &again, &facts(), Vec::new(), None).unwrap();
    assert_eq!(config.annotations[labels::ROUND], "2");
}

#[test]
fn a_container_that_was_added_sees_the_processes_of_its_target() {
    use crate::pod::{SeenContainer, SeenSandbox};
    let added = |target: &str| {
        let added = serde_json::json!([{"name": "d", "image": "i", "targetContainerName": target}]);
        serde_json::from_value(added).unwrap()
    };
    let with = |spec: &str, target: &str| pod(spec).with_ephemeral_containers(added(target));
    let sandbox = |pod: &Pod, id: &str, attempt| SeenSandbox {
        id: mainstay_cri::SandboxId(id.into()),
        uid: pod.uid().into(),
        incarnation: None,
        attempt,
        ready: true,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        ips: vec![],
        grace: std::time::Duration::ZERO,
        exclusive: crate::exclusive::Exclusive::default(),
        sidecars: vec![],
        containers: vec![SeenContainer {
            id: ContainerId(format!("c of {id}")),
            name: "c".into(),
            restart_count: 0,
            round: 0,
            ephemeral: false,
            state: mainstay_cri::ContainerState::Created,
            backoff: None,
            image: String::new(),
            image_ref: String::new(),
            pre_stop: None,
            termination_message: None,
            user: None,
        }],
    };
    let found = |spec: &str, asked: &str| {
        let pod = with(spec, asked);
        let mut other = sandbox(&pod, "other", 9);
        other.uid = "other".into();
        let sandboxes = vec![other, sandbox(&pod, "new", 1), sandbox(&pod, "old", 0)];
        target(&pod, "d", &SeenPod { sandboxes }).map(|it| it.map(|it| it.0))
    };
    let plain = "containers: [{name: c, image: i}, {name: b, image: i}]";
    let shared = format!("{plain}\nshareProcessNamespace: true");
    let host = format!("{plain}\nhostPID: true");
    assert_eq!(found(plain, "c").unwrap().as_deref(), Some("c of new"));
    assert_eq!(found(plain, ""), Ok(None));
    assert_eq!(found(&shared, "c"), Ok(None));
    assert_eq!(found(&host, "c"), Ok(None));
    for spec in [plain, &shared] {
        assert_eq!(found(spec, "b").unwrap_err().to_string(), "unable to find target container b");
    }
    let pod = with(plain, "c");
    let plan = ContainerPlan { name: "d".into(), restart_count: 0, ..plan() };
    let container = &pod.ephemeral_containers()[0];
    let id = Some(ContainerId("x".into()));
    let config = super::container(&pod, container, &plan, &facts(), vec![], id.clone()).unwrap();
    assert_eq!(config.security_context.target, id);
    assert_eq!(config.log_path, "d/0.log");
    assert_eq!(config.annotations[labels::EPHEMERAL], "true");
    assert!(!first(&pod).annotations.contains_key(labels::EPHEMERAL));
}
