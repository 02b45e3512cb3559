use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use serde_json::{Value, json};

use super::*;

fn pod(spec: &Value) -> Pod {
    let mut object = json!({
        "metadata": {"name": "t", "namespace": "default", "uid": "u"},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "t", "image": "x", "imagePullPolicy": "Never"}],
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        let at = if key == "labels" { "metadata" } else { "spec" };
        object[at][key] = value.clone();
    }
    // Also what `from_api` refuses, to judge it here.
    let held: KubernetesPod = serde_json::from_value(object.clone()).unwrap();
    Pod::from_api(held).unwrap()
}

fn node() -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8"}},
        "spec": {"taints": [
            {"key": "a", "value": "5", "effect": "NoExecute"},
            {"key": "b", "effect": "NoSchedule"},
        ]},
        "status": {"allocatable": {
            "cpu": "2", "memory": "1Gi", "pods": "2", "hugepages-2Mi": "8Mi",
        }},
    }))
    .unwrap()
}

fn verdict(spec: Value, others: &[Value]) -> String {
    let mut spec = spec;
    if spec.get("tolerations").is_none() {
        spec["tolerations"] = json!([{"operator": "Exists"}]);
    }
    let others: Vec<Pod> = others.iter().map(pod).collect();
    match admit(&pod(&spec), &node(), &Kernel::default(), others.iter()) {
        Ok(()) => "taken".to_owned(),
        Err(Rejection { reason, message }) => format!("{reason}: {message}"),
    }
}

fn port(ip: &str, port: u16) -> Value {
    let ports = json!([{"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": "TCP"}]);
    json!({"containers": [{"name": "t", "image": "x", "ports": ports}]})
}

fn requests(cpu: &str) -> Value {
    json!({"containers": [{"name": "t", "image": "x", "resources": {"requests": {"cpu": cpu}}}]})
}

fn huge_pages(size: &str, amount: &str) -> Value {
    let name = format!("hugepages-{size}");
    let list = json!({name: amount, "cpu": "1m"});
    let resources = json!({"limits": list, "requests": list});
    json!({"containers": [{"name": "t", "image": "x", "resources": resources}]})
}

fn affinity(key: &str, operator: &str, values: &[&str]) -> Value {
    let expression = json!({"key": key, "operator": operator, "values": values});
    let terms = json!([{"matchExpressions": [expression]}]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    json!({"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": terms}}}})
}

#[test]
fn verdicts_are_a_kubelets() {
    let rows = [
        (json!({}), vec![]),
        (json!({"labels": {"kubernetes.io/os": "windows"}}), vec![]),
        (json!({"os": {"name": "windows"}}), vec![]),
        (json!({}), vec![json!({}), json!({})]),
        (requests("1500m"), vec![requests("600m")]),
        (requests("1400m"), vec![requests("600m")]),
        (huge_pages("2Mi", "4Mi"), vec![huge_pages("2Mi", "6Mi")]),
        (huge_pages("2Mi", "4Mi"), vec![huge_pages("2Mi", "4Mi")]),
        (huge_pages("64Ki", "64Ki"), vec![]),
        (json!({"nodeSelector": {"disk": "hdd"}}), vec![]),
        (json!({"nodeName": "n2"}), vec![]),
        (port("", 80), vec![port("10.0.0.1", 80)]),
        (port("10.0.0.2", 80), vec![port("10.0.0.1", 80)]),
        (json!({"tolerations": []}), vec![]),
    ];
    let verdicts = rows.map(|(spec, others)| verdict(spec, &others)).join("\n");
    expect_test::expect![[r#"
        taken
        PodOSSelectorNodeLabelDoesNotMatch: Failed to admit pod as the `kubernetes.io/os` label doesn't match node label
        PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS
        OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2
        OutOfcpu: Node didn't have enough resource: cpu, requested: 1500, used: 600, capacity: 2000
        taken
        OutOfhugepages-2Mi: Node didn't have enough resource: hugepages-2Mi, requested: 4194304, used: 6291456, capacity: 8388608
        taken
        OutOfhugepages-64Ki: Node didn't have enough resource: hugepages-64Ki, requested: 65536, used: 0, capacity: 0
        NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector
        NodeName: Predicate NodeName failed: node(s) didn't match the requested node name
        NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports
        taken
        TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"#]]
    .assert_eq(&verdicts);
}

#[test]
fn affinity_is_the_selectors() {
    let rows = [
        ("disk", "In", &["ssd", "x"][..], true),
        ("disk", "In", &["hdd"], false),
        ("disk", "NotIn", &["hdd"], true),
        ("none", "NotIn", &["hdd"], true),
        ("disk", "NotIn", &["ssd"], false),
        ("disk", "Exists", &[], true),
        ("none", "Exists", &[], false),
        ("none", "DoesNotExist", &[], true),
        ("cores", "Gt", &["7"], true),
        ("cores", "Gt", &["8"], false),
        ("cores", "Lt", &["9"], true),
        ("disk", "Lt", &["9"], false),
    ];
    for (key, operator, values, taken) in rows {
        let verdict = verdict(affinity(key, operator, values), &[]);
        assert_eq!(verdict == "taken", taken, "{key} {operator} {values:?}");
    }
}

#[test]
fn tolerations_are_kubernetes() {
    let rows = [
        (json!({"operator": "Exists"}), true),
        (json!({"key": "a", "operator": "Exists"}), true),
        (json!({"key": "a", "value": "5"}), true),
        (json!({"key": "a", "operator": "Equal", "value": "6"}), false),
        (json!({"key": "a", "operator": "Lt", "value": "6"}), true),
        (json!({"key": "a", "operator": "Gt", "value": "6"}), false),
        (json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}), false),
        (json!({"key": "b", "operator": "Exists"}), false),
    ];
    for (toleration, taken) in rows {
        let verdict = verdict(json!({"tolerations": [toleration.clone()]}), &[]);
        assert_eq!(verdict == "taken", taken, "{toleration}");
    }
}

#[test]
fn a_static_pod_is_judged_by_what_the_node_says_of_itself() {
    let labels = crate::node_status::labels("n1", "arm64");
    let verdict = |spec: Value| match admit_static(&pod(&spec), &labels, &Kernel::default()) {
        Ok(()) => "taken".to_owned(),
        Err(Rejection { reason, message }) => format!("{reason}: {message}"),
    };
    let elsewhere = "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node \
                     affinity/selector";
    let fields = |name: &str| {
        let field = json!({"key": "metadata.name", "operator": "In", "values": [name]});
        let terms = json!([{"matchFields": [field]}]);
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        json!({"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": terms}}}})
    };
    for (spec, expected) in [
        (json!({}), "taken"),
        (json!({"nodeSelector": {"kubernetes.io/arch": "arm64"}}), "taken"),
        (json!({"nodeSelector": {"kubernetes.io/hostname": "n1"}}), "taken"),
        (json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}}), elsewhere),
        (json!({"nodeSelector": {"disk": "ssd"}}), elsewhere),
        (affinity("kubernetes.io/os", "In", &["linux"]), "taken"),
        (affinity("kubernetes.io/os", "NotIn", &["linux"]), elsewhere),
        // It waits for them.
        (huge_pages("1Gi", "1Gi"), "taken"),
        (fields("n1"), "taken"),
        (fields("n2"), elsewhere),
        (
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}}),
            "taken",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.panic", "value": "1"}]}}),
            "SysctlForbidden: forbidden sysctl: \"kernel.panic\" not allowlisted",
        ),
    ] {
        assert_eq!(verdict(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn labels_are_asked_for_in_vain_where_there_are_some() {
    let options = json!({"level": "s0:c1"});
    let of_pod = json!({"securityContext": {"seLinuxOptions": options}});
    let container = |context: Value| json!({"name": "c", "image": "x", "securityContext": context});
    let of_container = json!({"containers": [
        container(json!({})), container(json!({"seLinuxOptions": options})),
    ]});
    let nothing = json!({"securityContext": {"seLinuxOptions": {}}});
    let verdict = |spec: &Value, selinux| {
        let kernel = Kernel { selinux, ..Kernel::default() };
        admit_static(&pod(spec), &BTreeMap::new(), &kernel).map_err(|it| it.message)
    };
    for spec in [&of_pod, &of_container, &nothing] {
        assert_eq!(verdict(spec, false), Ok(()));
    }
    assert_eq!(verdict(&nothing, true), Ok(()));
    let refused = |spec: &Value| verdict(spec, true).unwrap_err();
    assert!(refused(&of_pod).starts_with("spec.securityContext.seLinuxOptions: "));
    let field = "spec.containers[1].securityContext.seLinuxOptions: ";
    assert!(refused(&of_container).starts_with(field));
    let added = |options: Value| -> EphemeralContainer {
        let context = json!({"seLinuxOptions": options});
        serde_json::from_value(json!({"name": "debug", "securityContext": context})).unwrap()
    };
    let kernel = |selinux| Kernel { selinux, ..Kernel::default() };
    assert_eq!(kernel(false).admit_added(&added(options.clone())), Ok(()));
    assert_eq!(kernel(true).admit_added(&added(json!({}))), Ok(()));
    let refused = kernel(true).admit_added(&added(options)).unwrap_err();
    let field = "spec.ephemeralContainers{debug}.securityContext.seLinuxOptions: ";
    assert!(refused.message.starts_with(field), "{refused:?}");
}

#[test]
fn what_would_make_it_worse_is_not_taken() {
    let condition = |name: &str| Some(format!("The node had condition: [{name}]. "));
    let best_effort = json!({});
    let burstable = requests("1m");
    let critical = json!({"priority": 2_000_000_000});
    let tolerating = |key: &str| json!({"tolerations": [{"key": key, "operator": "Exists"}]});
    let tolerates_memory = tolerating("node.kubernetes.io/memory-pressure");
    let tolerates_disk = tolerating("node.kubernetes.io/disk-pressure");
    let of = |memory, disk, processes| Pressure { memory, disk, processes };
    for (pressure, spec, expected) in [
        (of(false, false, false), &best_effort, None),
        (of(true, false, false), &best_effort, condition("MemoryPressure")),
        (of(true, false, false), &tolerates_memory, None),
        (of(true, false, false), &tolerates_disk, condition("MemoryPressure")),
        (of(true, false, false), &burstable, None),
        (of(false, true, false), &burstable, condition("DiskPressure")),
        (of(false, true, false), &tolerates_disk, condition("DiskPressure")),
        (of(false, false, true), &burstable, condition("PIDPressure")),
        (of(true, true, false), &tolerates_memory, condition("MemoryPressure DiskPressure")),
        (of(true, true, true), &critical, None),
    ] {
        let refused = admit_under(pressure, &pod(spec)).err();
        assert!(refused.iter().all(|it| it.reason == "Evicted"));
        assert_eq!(refused.map(|it| it.message), expected, "{pressure:?} {spec}");
    }
}
