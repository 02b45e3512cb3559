use clap::Parser;

use super::*;
use crate::config::fields::field;

#[derive(Debug, Parser)]
struct Run {
    #[command(flatten)]
    flags: KubeletFlags,
}

fn read(arguments: &[&str]) -> Result<KubeletFlags, String> {
    let parsed = Run::try_parse_from(["run"].iter().chain(arguments));
    parsed.map(|run| run.flags).map_err(|error| error.to_string())
}

/// What a configuration says with these flags.
fn over(arguments: &[&str], file: Value) -> Value {
    read(arguments).unwrap().over(file)
}

#[test]
fn each_flag_is_one_of_a_field() {
    for (flag, path, _) in FLAGS {
        let name = path.split('.').next().unwrap_or_default();
        assert!(field(name).is_some(), "{flag}: {path}");
    }
}

#[test]
fn a_flag_counts_more_than_the_file() {
    let file = json!({
        "maxPods": 1, "featureGates": {"A": true, "B": true}, "systemReserved": {"cpu": "1"},
        "authentication": {"webhook": {"enabled": false}, "anonymous": {"enabled": true}},
    });
    let arguments = [
        "--max-pods=30",
        "--feature-gates=B=false,C=true",
        "--feature-gates",
        "D=true",
        "--system-reserved=memory=1Gi,pid=100",
        "--authentication-token-webhook",
        "--eviction-hard=memory.available<5%,nodefs.available<1Gi",
        "--fail-swap-on=false",
        "--cluster-dns=10.0.0.1,10.0.0.2",
        "--register-with-taints=a=b:NoSchedule,node-role.kubernetes.io/control-plane=:NoSchedule",
        "--manifest-url-header=a:hello,b:again,c:world",
        "--manifest-url-header=b:beautiful",
    ];
    let expected = json!({
        "maxPods": 30, "featureGates": {"A": true, "B": false, "C": true, "D": true},
        "systemReserved": {"memory": "1Gi", "pid": "100"},
        "authentication": {"webhook": {"enabled": true}, "anonymous": {"enabled": true}},
        "evictionHard": {"memory.available": "5%", "nodefs.available": "1Gi"},
        "failSwapOn": false,
        "clusterDNS": ["10.0.0.1", "10.0.0.2"],
        "registerWithTaints": [
            {"key": "a", "value": "b", "effect": "NoSchedule"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        ],
        "staticPodURLHeader": {"a": ["hello"], "b": ["again", "beautiful"], "c": ["world"]},
    });
    assert_eq!(over(&arguments, file), expected);
}

#[test]
fn the_last_one_counts_of_those_that_say_one_thing() {
    let arguments = ["--max-pods", "3", "--max-pods=4", "--cpu-cfs-quota"];
    assert_eq!(over(&arguments, json!({})), json!({"maxPods": 4, "cpuCFSQuota": true}));
}

#[test]
fn what_has_no_meaning_is_named_and_what_is_somebody_elses_is_refused() {
    let flags = read(&["--pod-infra-container-image=pause:3.10", "-v", "2", "--cloud-provider="]);
    assert_eq!(flags.unwrap().in_vain, ["--pod-infra-container-image", "--v"]);
    for (arguments, expected) in [
        (
            ["--config-dir=/etc/kubernetes/kubelet.conf.d"],
            "--config-dir: mainstay does not have it yet",
        ),
        (["--max-pods=many"], "--max-pods: \"many\" is no number"),
        (["--fail-swap-on=maybe"], "--fail-swap-on: \"maybe\" is neither true nor false"),
        (["--register-with-taints=a"], "--register-with-taints: invalid taint spec: a"),
        (["--manifest-url-header=secret"], "--manifest-url-header: malformed pair"),
        (["--node-labels=kubernetes.io/role=x"], "--node-labels: unknown 'kubernetes.io'"),
        (["--node-labels=a=/"], "--node-labels: \"a=/\": "),
    ] {
        let error = read(&arguments).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn labels_are_those_that_a_node_may_give_itself() {
    let flags = read(&[
        "--node-labels=a=b,topology.kubernetes.io/zone=z",
        "--node-labels=x.node.kubernetes.io/y=",
    ]);
    let labels =
        flags.unwrap().node_labels.into_iter().map(|(key, value)| format!("{key}={value}"));
    let labels: Vec<_> = labels.collect();
    assert_eq!(labels, ["a=b", "topology.kubernetes.io/zone=z", "x.node.kubernetes.io/y="]);
}
