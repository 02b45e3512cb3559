//! The machine is shut down, as logind tells it.

use mainstay_testkit::logind::FakeLogind;

use crate::api::{create, shown, wait_for_shown};
use crate::manifest::{Manifest, pod};
use crate::node::Node;

/// Says when it begins, and that it ends.
fn telling(node: &Node, name: &str) -> Manifest {
    let script = format!(
        "trap 'echo {name} >> /host/ends; exit' TERM; echo start >> /host/{name}; sleep infinity & wait"
    );
    pod(name).with_host_directory(&node.host()).exactly(&script)
}

#[track_caller]
fn until(node: &Node, logind: &FakeLogind, what: &str, holds: impl Fn(&FakeLogind) -> bool) {
    assert!(logind.until(holds), "{what}\n{}", node.log());
}

#[test]
fn pods_end_in_their_order_and_static_ones_run_again() {
    let Some(mut node) = Node::prepare() else { return };
    let logind = FakeLogind::start().unwrap();
    node.environment
        .push(("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", logind.bus().display())));
    // In all no more than logind waits anyway, so that nothing is written on this machine.
    node.configure("shutdownGracePeriod: 5s\nshutdownGracePeriodCriticalPods: 2s");
    node.launch();
    let critical = telling(&node, "critical");
    node.put("critical.yaml", &critical.set("spec.priorityClassName", "system-node-critical"));
    node.put("plain.yaml", &telling(&node, "plain").set("spec.restartPolicy", "OnFailure"));
    for name in ["critical", "plain"] {
        node.wait_for_told(name, 1);
    }
    let of_api = |name: &str| {
        create(&node, &telling(&node, name).set("spec.nodeName", "n1"));
    };
    of_api("own");
    node.wait_for_told("own", 1);
    until(&node, &logind, "the shutdown is delayed", |logind| logind.locks() == 1);

    logind.prepare(true);
    until(&node, &logind, "the machine may go down", |logind| logind.locks() == 0);
    let mut ends = node.told("ends");
    // Those of one group end beside each other.
    ends[..2].sort();
    assert_eq!(ends, ["own", "plain", "critical"]);
    let message = "Pod was terminated in response to imminent node shutdown.";
    let why = "{.status.phase} {.status.reason} {.status.message}";
    for name in ["own", "plain-n1", "critical-n1"] {
        wait_for_shown(&node, &["pod", name], why, Some(&format!("Failed Terminated {message}")));
    }
    let disrupted = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    wait_for_shown(&node, &["pod", "own"], disrupted, Some("TerminationByKubelet"));
    let ready = "{.status.conditions[?(@.type==\"Ready\")].message}";
    wait_for_shown(&node, &["node", "n1"], ready, Some("node is shutting down"));
    of_api("late");
    wait_for_shown(
        &node,
        &["pod", "late"],
        "{.status.phase} {.status.reason}",
        Some("Failed NodeShutdown"),
    );

    // It is called off.
    logind.prepare(false);
    until(&node, &logind, "the next one is delayed", |logind| logind.locks() == 1);
    for name in ["critical", "plain"] {
        node.wait_for_told(name, 2);
        node.wait_for_running(name);
    }
    wait_for_shown(&node, &["node", "n1"], ready, Some("kubelet is posting ready status"));
    wait_for_shown(
        &node,
        &["pod", "plain-n1"],
        "{.status.phase} {.status.reason}",
        Some("Running "),
    );

    // It is not, and the machine starts again.
    logind.prepare(true);
    until(&node, &logind, "the machine may go down", |logind| logind.locks() == 0);
    node.cut_power();
    logind.prepare(false);
    node.launch();
    for name in ["critical", "plain"] {
        node.wait_for_told(name, 3);
        node.wait_for_running(name);
    }
    wait_for_shown(
        &node,
        &["pod", "own"],
        "{.status.phase} {.status.reason}",
        Some("Failed Terminated"),
    );
    assert_eq!(node.told("own"), ["start"]);
    let path = "{.items[?(@.reason==\"NodeShutdown\")].message}";
    let events = shown(&node, &["events", "-A"], path).unwrap();
    assert!(events.contains("Shutdown manager detected shutdown cancellation"), "{events}");
}
