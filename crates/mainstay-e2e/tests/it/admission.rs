//! Pods that the node does not take, and what it lets them set.

use serde_json::json;

use crate::manifest::pod;
use crate::node::Node;

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
    assert_eq!(
        (node.told("here"), node.told("there")),
        (vec!["start".into()], vec!["start".into()])
    );
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
