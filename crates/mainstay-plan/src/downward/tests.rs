use mainstay_testkit::pods::pod;
use serde_json::json;

use super::*;

const MANIFEST: &str = r#"
    apiVersion: v1
    kind: Pod
    metadata:
      name: p
      namespace: ns
      labels: {b: two, a: "1"}
      annotations: {note: "say \"hi\"\n"}
    spec:
      containers:
      - name: c
        image: x
        resources: {requests: {cpu: 1500m, memory: 1Mi}, limits: {memory: 10M}}
      - {name: d, image: x}
    "#;

fn with<T>(check: impl FnOnce(&Pod, &Surroundings<'_>) -> T) -> T {
    let node = NodeAddresses { ips: vec![[10, 0, 0, 1].into(), "fd00::1".parse().unwrap()] };
    let allocatable = Amounts {
        cpu_milli: Some(4000),
        memory_bytes: Some(8 << 30),
        ephemeral_storage_bytes: Some(1 << 30),
    };
    let (pod_ips, objects) = ([[172, 16, 0, 2].into()], Referenced::default());
    let around = Surroundings {
        allocatable,
        node: &node,
        pod_ips: &pod_ips,
        objects: &objects,
        tokens: &Tokens::new(),
    };
    check(&pod(MANIFEST), &around)
}

#[test]
fn a_pod_is_told_of_itself() {
    with(|pod, around| {
        for (path, value) in [
            ("metadata.name", "p-n1"),
            ("metadata.namespace", "ns"),
            ("metadata.uid", pod.uid()),
            ("metadata.labels", "a=\"1\"\nb=\"two\""),
            ("metadata.labels['b']", "two"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['note']", "say \"hi\"\n"),
            ("metadata.annotations['kubernetes.io/config.source']", "file"),
            ("spec.nodeName", "n1"),
            ("spec.serviceAccountName", ""),
            ("status.hostIP", "10.0.0.1"),
            ("status.hostIPs", "10.0.0.1,fd00::1"),
            ("status.podIP", "172.16.0.2"),
            ("status.podIPs", "172.16.0.2"),
        ] {
            assert_eq!(variable(pod, path, around).as_deref(), Ok(value), "{path}");
        }
        let annotations = field(pod, "metadata.annotations").unwrap();
        let note = r#"note="say \"hi\"\n""#;
        assert!(annotations.lines().any(|line| line == note), "{annotations}");
        for path in ["spec.restartPolicy", "status.phase", "spec.x['a']"] {
            variable(pod, path, around).unwrap_err();
        }
        // Files are told of what does not change only.
        field(pod, "status.podIP").unwrap_err();
    });
}

#[test]
fn resources_are_told_in_units_and_rounded_up() {
    with(|pod, around| {
        let container = &pod.spec().containers[0];
        for (name, resource, divisor, value) in [
            ("", "requests.cpu", "0", "2"),
            ("", "requests.cpu", "1m", "1500"),
            ("", "limits.cpu", "1", "4"),
            ("", "requests.memory", "1k", "1049"),
            ("", "limits.memory", "1Mi", "10"),
            ("d", "limits.memory", "1Gi", "8"),
            ("d", "requests.memory", "1", "0"),
            ("d", "limits.ephemeral-storage", "1Mi", "1024"),
            ("d", "limits.hugepages-2Mi", "1", "0"),
        ] {
            let selector = json!({"containerName": name, "resource": resource, "divisor": divisor});
            let selector: ResourceFieldSelector = serde_json::from_value(selector).unwrap();
            let found = resource_for_variable(pod, container, &selector, around);
            assert_eq!(found.as_deref(), Ok(value), "{name} {resource} {divisor}");
        }
        let selector = json!({"containerName": "e", "resource": "limits.cpu"});
        let selector: ResourceFieldSelector = serde_json::from_value(selector).unwrap();
        let error = resource_for_file(pod, &selector, around).unwrap_err();
        assert_eq!(error.to_string(), "container e not found");
    });
}
