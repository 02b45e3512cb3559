use super::*;

fn read(text: &str) -> anyhow::Result<Config> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, text)?;
    Config::read(&path)
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
         containerLogMaxFiles: 3\ncgroupDriver: systemd\npodCIDR: 10.1.2.0/24\n\
         clusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\nrotateCertificates: true\n\
         registerNode: true\n"
    );
    let config = read(&text).unwrap();
    assert!(config.static_pod_path.unwrap().ends_with("pods"));
    assert_eq!(config.file_check_frequency, Duration::from_secs(90));
    assert_eq!(config.log_bounds, LogBounds { max_size: 5 << 20, max_files: 3 });
    assert_eq!(config.cgroup_driver, Some(CgroupDriver::Systemd));
    assert_eq!(config.without_effect, ["registerNode", "rotateCertificates"]);
    let dns = ClusterDns { servers: vec![[10, 96, 0, 10].into()], domain: "cluster.local".into() };
    assert_eq!(config.cluster_dns, dns);
}

#[test]
fn paths_count_from_the_file_and_are_absolute() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, format!("{HEAD}podLogsDir: logs\n")).unwrap();
    let working = std::env::current_dir().unwrap();
    let up: PathBuf = working.components().skip(1).map(|_| "..").collect();
    let config = Config::read(&up.join(path.strip_prefix("/").unwrap())).unwrap();
    let logs = config.pod_logs_dir.unwrap();
    assert!(logs.is_absolute() && logs.ends_with("logs"), "{}", logs.display());
}

#[test]
fn what_is_wrong_is_named() {
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
