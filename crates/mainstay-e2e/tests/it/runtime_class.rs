//! Classes of runtimes: a node has one runtime, whose handler is called `mainstay`.

use serde_json::json;

use crate::api::{create, kubectl, wait_for_event, wait_for_phase};
use crate::container::{MEMORY, in_group};
use crate::manifest::{Manifest, pod};
use crate::node::Node;

fn of_class(name: &str, class: &str) -> Manifest {
    pod(name)
        .set("spec.runtimeClassName", class)
        .set("spec.nodeName", "n1")
        .main("imagePullPolicy", "Never")
}

#[test]
fn a_pod_of_a_class_runs_where_its_handler_is_that_of_the_runtime() {
    let Some(node) = Node::start() else { return };
    for (name, handler) in [("own", "mainstay"), ("other", "kata")] {
        create(
            &node,
            &json!({
                "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
                "metadata": { "name": name }, "handler": handler,
                "overhead": { "podFixed": { "memory": "16Mi" } },
            }),
        );
    }
    let limits = json!({ "limits": { "memory": "32Mi" } });
    create(&node, &of_class("runs", "own").main("resources", limits));
    create(&node, &of_class("waits", "other"));
    wait_for_phase(&node, "runs", "Running");
    // What its runtime takes up is the pod's, beside what its containers may have.
    let uid = node.status().pods.iter().find(|it| it.name == "runs").unwrap().uid.clone();
    assert_eq!(in_group(&node, &format!("pod{uid}"), MEMORY), (48 << 20).to_string());
    let why = "Failed to create pod sandbox: no runtime for \"kata\" is configured";
    wait_for_event(&node, "involvedObject.name=waits,reason=FailedCreatePodSandBox", why);
    wait_for_phase(&node, "waits", "Pending");
    let file = node.stage("none.json", &of_class("none", "nobody"));
    let refused = kubectl(&node, &["create", "-f", file.to_str().unwrap()]).failure(1);
    let why = "pod rejected: RuntimeClass \"nobody\" not found";
    assert!(refused.contains(why), "{refused}");
}

/// There is no API that could say what the class is.
#[test]
fn a_static_pod_of_a_class_is_refused_by_name() {
    let Some(node) = Node::start() else { return };
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    node.put("web.yaml", &pod("web").set("spec.runtimeClassName", "mainstay"));
    let status = node.wait_until("it is refused", |status| !status.notes("web.yaml").is_empty());
    let notes = status.notes("web.yaml");
    let words = "spec.runtimeClassName: not supported by this version of mainstay yet";
    assert!(notes.contains(words), "{notes}");
    // The version that worked runs on.
    let after = node.wait_for_running("web");
    assert_eq!((after.id(), after.restarts), (before.id(), 0));
}
