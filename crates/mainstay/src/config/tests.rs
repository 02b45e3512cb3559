use mainstay_engine::network::show_ranges;

use super::*;

fn read(text: &str) -> anyhow::Result<Config> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, text)?;
    Config::read(Some(&path), &KubeletFlags::default())
}

/// The same as far as it is only read.
pub(super) fn raw(fields: &str) -> Raw {
    let value = read_value("f", format!("{HEAD}{fields}\n").as_bytes()).unwrap();
    Raw::parse(value).unwrap()
}

fn error(text: &str) -> String {
    let error = format!("{:#}", read(text).unwrap_err());
    error.split_once("config.yaml").map_or(error.clone(), |(_, rest)| rest.to_owned())
}

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

#[test]
fn what_has_effect_is_taken_and_the_rest_is_named() {
    let text = format!(
        "{HEAD}staticPodPath: pods\nfileCheckFrequency: 1m30s\ncontainerLogMaxSize: 5Mi\n\
         containerLogMaxFiles: 3\ncgroupDriver: systemd\npodCIDR: 10.1.2.0/24,fd00:1::/64\n\
         clusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\nrotateCertificates: true\n\
         cpuManagerPolicy: static\nfeatureGates: {{HPAScaleToZero: true}}\n\
         enforceNodeAllocatable: [pods, kube-reserved]\nkubeReservedCgroup: /kube\n"
    );
    let config = read(&text).unwrap();
    assert!(config.static_pod_path.unwrap().ends_with("pods"));
    assert_eq!(config.file_check_frequency, Duration::from_secs(90));
    assert_eq!(config.log_bounds, LogBounds { max_size: 5 << 20, max_files: 3 });
    assert_eq!(config.cgroup_driver, Some(CgroupDriver::Systemd));
    assert_eq!(show_ranges(&config.pod_cidr), "10.1.2.0/24,fd00:1::/64");
    let expected = [
        "cpuManagerPolicy",
        "kubeReservedCgroup",
        "enforceNodeAllocatable[kube-reserved]",
        "featureGates[HPAScaleToZero]",
    ];
    assert_eq!(config.without_effect, expected);
    let dns = ClusterDns { servers: vec![[10, 96, 0, 10].into()], domain: "cluster.local".into() };
    assert_eq!(config.cluster_dns, dns);
}

#[test]
fn it_is_told_as_it_was_said_without_secrets() {
    let fields = "seccompDefault: true\nstaticPodURLHeader: {Authorization: [secret]}";
    let said = read(&format!("{HEAD}{fields}")).unwrap().said;
    assert_eq!(said["seccompDefault"], true);
    assert_eq!(said["staticPodURLHeader"], serde_json::json!({ "Authorization": "<masked>" }));
}

#[test]
fn paths_count_from_the_file_and_are_absolute() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, format!("{HEAD}podLogsDir: logs\n")).unwrap();
    let working = std::env::current_dir().unwrap();
    let up: PathBuf = working.components().skip(1).map(|_| "..").collect();
    let config =
        Config::read(Some(&up.join(path.strip_prefix("/").unwrap())), &KubeletFlags::default());
    let config = config.unwrap();
    let logs = config.pod_logs_dir.unwrap();
    assert!(logs.is_absolute() && logs.ends_with("logs"), "{}", logs.display());
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(
        error(&format!("{HEAD}podCIDR: 10.1.0.0/24,10.2.0.0/24\n")),
        ": podCIDR: `10.1.0.0/24,10.2.0.0/24` has two ranges of one kind: write one, or one of IPv4 \
         and one of IPv6"
    );
    assert_eq!(
        error(&format!("{HEAD}cgroupDriver: cgroups\n")),
        ": cgroupDriver: \"cgroups\" is neither \"cgroupfs\" nor \"systemd\""
    );
    assert_eq!(
        error(&format!("{HEAD}staticPodPth: x\n")),
        ": unknown field \"staticPodPth\" (did you mean staticPodPath?)"
    );
    assert_eq!(
        error("kind: Pod\n"),
        ": it is not a KubeletConfiguration of kubelet.config.k8s.io/v1beta1"
    );
    assert_eq!(
        error(&format!("{HEAD}containerLogMaxFiles: 1\n")),
        ": containerLogMaxFiles: must be 2 or more"
    );
    assert_eq!(
        error(&format!("{HEAD}staticPodPath: a\nstaticPodPath: b\n")),
        ":4:1: staticPodPath: duplicate field, already set on line 3"
    );
    assert!(
        error(&format!("{HEAD}fileCheckFrequency: soon\n")).contains("\"soon\" is not a duration")
    );
}

#[test]
fn manifests_are_looked_at_neither_all_the_time_nor_never() {
    let frequency = |text: &str| read(&format!("{HEAD}fileCheckFrequency: {text}\n"));
    for (text, expected) in [("0s", 5_000), ("10ms", 10), ("1h", 3_600_000)] {
        let expected = Duration::from_millis(expected);
        assert_eq!(frequency(text).unwrap().file_check_frequency, expected, "{text}");
    }
    for text in ["1ns", "9ms", "1h1ms", "5000000000000h"] {
        let error = format!("{:#}", frequency(text).unwrap_err());
        let end = "fileCheckFrequency: must be from 10ms to 1h, or 0 for the default";
        assert!(error.ends_with(end), "{error}");
    }
}

#[test]
fn durations_are_read_as_go_writes_them() {
    for (text, seconds) in
        [("20s", 20.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("100ms", 0.1), ("0", 0.0)]
    {
        assert_eq!(duration(text).unwrap(), Duration::from_secs_f64(seconds), "{text}");
    }
    for text in ["", "20", "s", "1x", "-1s"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn names_of_servers_and_settings_have_to_be_some() {
    for (field, why) in [
        ("clusterDomain: a..b", "clusterDomain: \"a..b\" is no domain such as cluster.local"),
        ("clusterDNS: [dns]", "clusterDNS: \"dns\" is no IP address: invalid IP address syntax"),
        (
            "allowedUnsafeSysctls: [kernel.panic]",
            "allowedUnsafeSysctls: the sysctls \"kernel.panic\" are not known to be namespaced",
        ),
    ] {
        assert_eq!(error(&format!("{HEAD}{field}\n")), format!(": {why}"));
    }
    let allowed = read(&format!("{HEAD}allowedUnsafeSysctls: [net.core.*]\n")).unwrap();
    let expected = AllowedSysctls::new(&["net.core.*".to_owned()]).unwrap();
    assert_eq!(allowed.allowed_sysctls, expected);
}

#[test]
fn how_long_pods_have_at_a_shutdown_is_said_in_one_of_two_ways() {
    let seconds = |text: &str| read(&format!("{HEAD}{text}\n")).unwrap().shutdown_periods.total();
    for (text, expected) in [
        ("", 0),
        ("shutdownGracePeriod: 0s", 0),
        ("shutdownGracePeriod: 1m30s\nshutdownGracePeriodCriticalPods: 10s", 90),
        (
            "shutdownGracePeriodByPodPriority:\n- {priority: 10, shutdownGracePeriodSeconds: 3}\n\
             - {priority: 0, shutdownGracePeriodSeconds: 4}",
            7,
        ),
    ] {
        assert_eq!(seconds(text), Duration::from_secs(expected), "{text}");
    }
    assert_eq!(
        error(&format!("{HEAD}shutdownGracePeriodCriticalPods: 1s\n")),
        ": shutdownGracePeriodCriticalPods 1s must be <= shutdownGracePeriod 0ns"
    );
    assert_eq!(
        error(&format!("{HEAD}shutdownGracePeriod: soon\n")),
        ": shutdownGracePeriod: \"soon\" is not a duration such as 20s or 1m30s"
    );
    let unknown = "shutdownGracePeriodByPodPriority: [{prio: 1}]";
    assert!(error(&format!("{HEAD}{unknown}\n")).contains("unknown field `prio`"));
}

#[test]
fn what_kubeadm_writes_is_taken() {
    let config = read(include_str!("testdata/kubeadm-1.36.yaml")).unwrap();
    assert_eq!(config.without_effect, [] as [&str; 0]);
    let mut server = NodeServer::default();
    server.auth.client_ca = Some("/etc/kubernetes/pki/ca.crt".into());
    let expected = Config {
        static_pod_path: Some("/etc/kubernetes/manifests".into()),
        cgroup_driver: Some(CgroupDriver::Systemd),
        resolv_conf: "/run/systemd/resolve/resolv.conf".into(),
        cluster_dns: ClusterDns {
            servers: vec![[10, 96, 0, 10].into()],
            domain: "cluster.local".into(),
        },
        server,
        rotates_certificates: true,
        said: config.said.clone(),
        ..Config::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn what_a_node_and_its_pods_can_have_is_read() {
    let config = read(&format!(
        "{HEAD}maxPods: 10\npodsPerCore: 2\npodPidsLimit: 100\nnodeStatusMaxImages: -1\n\
         systemReserved: {{cpu: 500m, memory: 1Gi}}\nkubeReserved: {{pid: '1000'}}\n\
         reservedSystemCPUs: 0-1\nenforceNodeAllocatable: [none]\nproviderID: x://y\n\
         localStorageCapacityIsolation: false\nregisterNode: false\nevictionHard: {{}}\n\
         registerWithTaints: [{{key: a, value: b, effect: NoSchedule}}]\n\
         nodeStatusUpdateFrequency: 5s\nnodeLeaseDurationSeconds: 20\ncpuCFSQuota: false\n\
         cpuCFSQuotaPeriod: 5ms\ncrashLoopBackOff: {{maxContainerRestartPeriod: 30s}}\n\
         containerLogMonitorInterval: 3s\nmemorySwap: {{swapBehavior: LimitedSwap}}\n\
         oomScoreAdj: -500\nfailSwapOn: true\nfailCgroupV1: true\n"
    ))
    .unwrap();
    let node = &config.node;
    assert_eq!((node.allocation.max_pods, node.allocation.pods_per_core), (10, 2));
    assert!(node.allocation.cpus == [0, 1].into() && node.allocation.hard.is_empty());
    assert!(!node.allocation.enforced && !node.allocation.has_storage && !config.registers);
    assert_eq!((node.max_images, &*node.provider_id, node.taints.len()), (None, "x://y", 1));
    let seconds = Duration::from_secs;
    let times = NodeTimes { update: seconds(5), report: seconds(5), lease: seconds(20) };
    assert_eq!(config.node_times, times);
    assert_eq!(config.cpu_quotas, CpuQuotas { enforced: false, period: 5000 });
    assert_eq!((config.longest_wait, config.log_interval), (Some(seconds(30)), seconds(3)));
    assert_eq!((config.pod_pids_limit, config.limited_swap), (Some(100), true));
    let process =
        Process { oom_score_adj: -500, fails_with_swap: true, fails_with_cgroup_v1: true };
    assert_eq!(config.process, process);
    assert_eq!(config.without_effect, [""; 0]);
    // Not above 0 is no limit.
    for text in ["-1", "-5", "0"] {
        let config = read(&format!("{HEAD}podPidsLimit: {text}\n")).unwrap();
        assert_eq!(config.pod_pids_limit, None, "{text}");
    }
}

#[test]
fn what_a_kubelet_refuses_is_refused() {
    for (field, why) in [
        ("containerLogMonitorInterval: 2s", "containerLogMonitorInterval must be a positive time"),
        ("containerLogMaxWorkers: 0", "containerLogMaxWorkers must be greater than or equal to 1"),
        ("cpuCFSQuotaPeriod: 2s", "cpuCFSQuotaPeriod 2s must be between 1ms and 1sec, inclusive"),
        ("crashLoopBackOff: {maxContainerRestartPeriod: 301s}", "crashLoopBackOff.maxContainer"),
        ("crashLoopBackOff: {max: 1s}", "a field has the wrong type: unknown field `max`"),
        ("enforceNodeAllocatable: [pods, pods]", "enforceNodeAllocatable: duplicated enforcements"),
        ("enforceNodeAllocatable: [none, pods]", "enforceNodeAllocatable: may not contain"),
        ("enforceNodeAllocatable: [pod]", "enforceNodeAllocatable: \"pod\" is none of"),
        (
            "enforceNodeAllocatable: [kube-reserved]",
            "enforceNodeAllocatable: \"kube-reserved\" needs kubeReservedCgroup",
        ),
        (
            "reservedSystemCPUs: '0'\nsystemReservedCgroup: /s",
            "can't use reservedSystemCPUs with systemReservedCgroup or kubeReservedCgroup \"/s\"",
        ),
        ("systemReserved: {pods: '1'}", "systemReserved: cannot reserve \"pods\" resource"),
        ("maxPods: -1", "maxPods -1 must not be a negative number"),
        ("nodeStatusMaxImages: -2", "nodeStatusMaxImages: must be -1 or greater"),
        ("nodeLeaseDurationSeconds: -1", "nodeLeaseDurationSeconds must be greater than 0"),
        ("oomScoreAdj: 1001", "oomScoreAdj 1001 must be between -1000 and 1000, inclusive"),
        ("memorySwap: {swapBehavior: All}", "memorySwap.swapBehavior \"All\" must be one of"),
        ("runOnce: true", "runOnce: Runonce mode has been deprecated and should not be set"),
        ("featureGates: {Nothing: true}", "unrecognized feature gate: Nothing"),
        ("registerWithTaints: [{key: a, effect: Bad}]", "registerWithTaints: invalid taint effect"),
        ("staticPodURL: /etc/pods", "staticPodURL: it is no URL such as https://host/"),
        (
            "staticPodURL: http://h/\nstaticPodURLHeader: {X: secret}",
            "staticPodURLHeader: it is no map of names to lists of texts",
        ),
    ] {
        let error = error(&format!("{HEAD}{field}\n"));
        assert!(error.starts_with(&format!(": {why}")), "{field}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn the_flags_alone_are_a_configuration() {
    let flags = KubeletFlags::default();
    assert_eq!(Config::read(None, &flags).unwrap(), Config::default());
}
