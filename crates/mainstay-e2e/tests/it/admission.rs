//! Pods that the node does not take, and what it lets them set.

use serde_json::json;

use mainstay_testkit::tools;

use crate::manifest::pod;
use crate::node::{Node, wait_for};
use crate::program::{command, run};

#[test]
fn a_static_pod_runs_on_the_nodes_that_it_selects() {
    let Some(mut node) = Node::start() else { return };
    let host = node.host();
    let selects = |name: &str, value: &str| {
        pod(name)
            .set("spec.nodeSelector", json!({ "kubernetes.io/hostname": value }))
            .with_host_directory(&host)
            .script(&format!("echo start >> /host/{name}"))
    };
    let terms = json!([{
        "matchExpressions": [{ "key": "kubernetes.io/os", "operator": "NotIn", "values": ["linux"] }],
    }]);
    let affinity = pod("affinity").set(
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
        terms,
    );
    node.put("here.yaml", &selects("here", "n1"));
    node.put("there.yaml", &selects("there", "n2"));
    node.put("affinity.yaml", &affinity);
    node.wait_for_running("here");
    node.wait_for_told("here", 1);
    let check = |node: &Node| {
        for name in ["there", "affinity"] {
            let pod = node.wait_for_state(name, "NodeAffinity");
            assert_eq!(pod.status.phase.as_deref(), Some("Failed"));
            let message = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's \
                           node affinity/selector";
            assert_eq!(pod.status.message.as_deref(), Some(message));
            let events = pod.events("NodeAffinity");
            assert_eq!((events.len(), &*events[0].kind, events[0].count), (1, "Warning", 1));
            assert!(pod.events("Pulled").is_empty() && pod.status.container_statuses.is_none());
        }
    };
    check(&node);
    node.kill();
    node.launch();
    check(&node);
    // One that runs ends when it is not for this node any more, and begins when it is.
    node.put("here.yaml", &selects("here", "n2"));
    node.wait_for_state("here", "NodeAffinity");
    node.put("there.yaml", &selects("there", "n1"));
    node.wait_for_running("there");
    assert_eq!(node.wait_for_told("there", 1), ["start"]);
    assert_eq!(node.told("here"), ["start"]);
    node.take("here.yaml");
    node.wait_for_gone("here");
}

#[test]
fn a_pod_sets_the_kernel_settings_that_the_node_allows() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure("allowedUnsafeSysctls: [net.core.*, kernel.msg*]");
    node.launch();
    let sets = |name: &str, settings: &[(&str, &str)]| {
        let list = settings.iter().map(|(name, value)| json!({ "name": name, "value": value }));
        let list: Vec<_> = list.collect();
        pod(name).set("spec.hostNetwork", false).set("spec.securityContext.sysctls", list)
    };
    let settings = [
        ("net.ipv4.ip_unprivileged_port_start", "80"),
        ("net/core/somaxconn", "1234"),
        ("kernel.msgmax", "4321"),
        ("kernel.shm_rmid_forced", "1"),
    ];
    node.put("sets.yaml", &sets("sets", &settings));
    node.put("plain.yaml", &pod("plain").set("spec.hostNetwork", false));
    node.put("forbidden.yaml", &sets("forbidden", &[("kernel.shmall", "1")]));
    node.wait_for_running("sets");
    node.wait_for_running("plain");
    for (name, value) in settings {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        let of = |pod: &str| node.mainstay(&["exec", pod, "--", "cat", &file]).success();
        assert_eq!(of("sets").trim(), value, "{name}");
        assert_ne!(of("plain").trim(), value, "{name}");
        assert_ne!(std::fs::read_to_string(&file).unwrap().trim(), value, "{name}");
    }
    let forbidden = node.wait_for_state("forbidden", "SysctlForbidden");
    let message = "Pod was rejected: forbidden sysctl: \"kernel.shmall\" not allowlisted";
    assert_eq!(forbidden.status.message.as_deref(), Some(message));
}

#[test]
fn a_pod_of_the_api_has_to_tolerate_what_evicts_and_a_static_one_does() {
    let Some(mut node) = Node::prepare() else { return };
    // Else the pod may be gone before the node has seen it.
    node.arguments.push("--controllers=*,-taint-eviction-controller".to_owned());
    node.configure("evictionHard: {}");
    node.launch();
    let kubectl = |arguments: &[&str]| {
        let mut kubectl = command(tools::kubectl());
        run(kubectl.arg("--kubeconfig").arg(node.path("root/kubeconfig")).args(arguments))
    };
    let ready = || kubectl(&["wait", "--for=condition=Ready", "node/n1", "--timeout=1s"]);
    assert!(wait_for(|| ready().status.success().then_some(())).is_some());
    kubectl(&["taint", "node", "n1", "own=yes:NoExecute", "other=yes:NoSchedule"]).success();
    node.put("web.yaml", &pod("web"));
    for (name, key) in [("refused", "another"), ("taken", "own")] {
        let tolerations = json!([{ "key": key, "operator": "Exists" }]);
        let bound = pod(name).set("spec.nodeName", "n1").set("spec.tolerations", tolerations);
        let file = node.stage(&format!("{name}.json"), &bound);
        let create = || {
            let created = kubectl(&["create", "-f", file.to_str().unwrap()]);
            created.status.success().then_some(())
        };
        // It may be early for an account.
        assert!(wait_for(create).is_some(), "{name}");
    }
    node.wait_for_running("web");
    let phase = |name: &str| {
        let path = "jsonpath={.status.phase}|{.status.reason}|{.status.message}";
        kubectl(&["get", "pod", name, "-o", path]).stdout
    };
    assert!(wait_for(|| phase("taken").starts_with("Running").then_some(())).is_some());
    let refused = wait_for(|| Some(phase("refused")).filter(|it| !it.starts_with("Pending")));
    assert_eq!(
        refused.as_deref(),
        Some(
            "Failed|TaintToleration|Pod was rejected: Predicate TaintToleration failed: node(s) had \
             taints that the pod didn't tolerate"
        )
    );
}
