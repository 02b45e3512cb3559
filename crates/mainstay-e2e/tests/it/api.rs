//! The embedded API when things go wrong.

use std::collections::BTreeSet;
use std::net::TcpListener;

use mainstay_testkit::tools;
use serde_json::Value;

use crate::manifest::pod;
use crate::node::{Node, wait_for};
use crate::program::{Outcome, command, run};

/// Asks the node's API.
pub(crate) fn kubectl(node: &Node, arguments: &[&str]) -> Outcome {
    let mut command = command(tools::kubectl());
    command.arg("--kubeconfig").arg(node.path("root/kubeconfig")).args(arguments);
    run(&mut command)
}

/// Makes an object of the API, which may not answer yet.
#[track_caller]
pub(crate) fn create(node: &Node, object: &impl ToString) {
    let file = node.stage("object.json", object);
    let create = || kubectl(node, &["create", "-f", file.to_str().unwrap()]);
    let made = wait_for(|| create().status.success().then_some(()));
    assert!(made.is_some(), "{}\n{}", create().stderr, node.log());
}

/// What the API has at a path of an object: `get` says which one, `{.status.phase}` would be a path.
pub(crate) fn shown(node: &Node, get: &[&str], path: &str) -> Option<String> {
    let output = format!("jsonpath={path}");
    let outcome = kubectl(node, &[&["get", "-o", &output], get].concat());
    outcome.status.success().then_some(outcome.stdout)
}

/// Waits until the API has this at a path of an object; with `None`, until there is no such object.
#[track_caller]
pub(crate) fn wait_for_shown(node: &Node, get: &[&str], path: &str, expected: Option<&str>) {
    let is = || shown(node, get, path);
    let found = wait_for(|| (is().as_deref() == expected).then_some(()));
    assert!(found.is_some(), "{path} of {get:?} is {:?}, not {expected:?}\n{}", is(), node.log());
}

/// Waits until the API tells a pod's phase.
#[track_caller]
pub(crate) fn wait_for_phase(node: &Node, name: &str, phase: &str) {
    wait_for_shown(node, &["pod", name], "{.status.phase}", Some(phase));
}

/// Asks until the answer has that many words.
#[track_caller]
pub(crate) fn wait_for_words(ask: impl Fn() -> String, count: usize) -> Vec<String> {
    let words = || ask().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let found = wait_for(|| Some(words()).filter(|words| words.len() == count));
    found.unwrap_or_else(|| panic!("{:?} never came to be {count} words", words()))
}

/// Waits until an event that the selector of fields takes has been told, with this in its message.
#[track_caller]
pub(crate) fn wait_for_event(node: &Node, selector: &str, text: &str) {
    let get = ["events", "-A", "--field-selector", selector];
    let told = || shown(node, &get, "{.items[*].message}").unwrap_or_default();
    let found = wait_for(|| told().contains(text).then_some(()));
    assert!(found.is_some(), "{selector}: {text:?} is not in {:?}\n{}", told(), node.log());
}

/// Waits until the API knows the port at which this agent is asked for logs and the like; the one before it had
/// another.
#[track_caller]
pub(crate) fn wait_for_node_port(node: &Node) {
    let port = std::fs::read_to_string(node.path("run/port")).unwrap();
    let path = "{.status.daemonEndpoints.kubeletEndpoint.Port}";
    wait_for_shown(node, &["node", &node.name], path, Some(port.trim()));
}

/// A pod as the API shows it.
pub(crate) fn pod_object(node: &Node, name: &str) -> Value {
    let outcome = kubectl(node, &["get", "pod", name, "-o", "json"]);
    serde_json::from_str(&outcome.stdout).unwrap_or_default()
}

#[test]
fn a_damaged_store_keeps_no_static_pod_from_running() {
    let Some(mut node) = Node::prepare() else { return };
    let store = node.path("root/api.redb");
    std::fs::write(&store, "half a file").unwrap();
    node.launch();
    node.put("web.yaml", &pod("web"));
    node.wait_for_running("web");
    node.wait_for_log(store.to_str().unwrap());
    // Restarted and replaced without it, too.
    node.mainstay(&["restart", "web"]).success();
    node.put("web.yaml", &pod("web").set("metadata.labels.new", "yes"));
    node.wait_for_running("web");
    // The file is left as it was found, and moved away by whoever has read the log.
    assert_eq!(std::fs::read_to_string(&store).unwrap(), "half a file");
    std::fs::remove_file(&store).unwrap();
    wait_for_phase(&node, "web-n1", "Running");
}

#[test]
fn mirrors_tell_what_became_of_their_pods_while_the_api_was_away() {
    const STAYS: [&str; 3] = ["left", "restarted", "replaced"];
    let Some(mut node) = Node::start() else { return };
    for name in STAYS.into_iter().chain(["removed"]) {
        node.put(&format!("{name}.yaml"), &pod(name));
    }
    for name in STAYS.into_iter().chain(["removed"]) {
        wait_for_phase(&node, &format!("{name}-n1"), "Running");
    }
    let before = STAYS.map(|name| node.wait_for_running(name).id().to_owned());
    node.terminate();
    let (store, away) = (node.path("root/api.redb"), node.path("api.redb"));
    std::fs::rename(&store, &away).unwrap();
    std::fs::write(&store, "half a file").unwrap();
    node.launch();
    node.mainstay(&["restart", "restarted"]).success();
    node.put("replaced.yaml", &pod("replaced").set("metadata.labels.new", "yes"));
    node.take("removed.yaml");
    node.put("added.yaml", &pod("added"));
    node.wait_for_gone("removed");
    node.wait_for_running("added");
    for (name, before) in STAYS.into_iter().zip(before) {
        node.wait_until("what was to be renewed is", |status| {
            let pod = status.pod(name).filter(|pod| pod.runs());
            pod.is_some_and(|pod| (pod.id() == before) == (name == "left"))
        });
    }
    let status = node.status();
    let truth: BTreeSet<String> =
        status.pods.iter().map(|it| format!("{} {}", it.name, it.id())).collect();
    std::fs::rename(&away, &store).unwrap();
    let told = || -> BTreeSet<String> {
        let output = "jsonpath={range .items[*]}{.metadata.name} \
                      {.status.containerStatuses[0].containerID}{\"\\n\"}{end}";
        let shown = kubectl(&node, &["get", "pods", "-o", output]).stdout;
        shown.lines().map(str::to_owned).collect()
    };
    let right = wait_for(|| (told() == truth).then_some(()));
    assert!(right.is_some(), "{:#?} is not {truth:#?}\n{}", told(), node.log());
}

#[test]
fn a_port_that_is_taken_keeps_no_static_pod_from_running() {
    let Some(mut node) = Node::prepare() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    node.secure_port = port;
    node.launch();
    node.put("web.yaml", &pod("web"));
    node.wait_for_running("web");
    node.wait_for_log(&format!("port {port} (--secure-port)"));
    drop(taken);
    wait_for_phase(&node, "web-n1", "Running");
}

#[test]
fn what_was_answered_survives_kills_and_power_cuts() {
    let Some(mut node) = Node::start() else { return };
    let names = ["a", "b", "c", "d"];
    for (at, name) in names.into_iter().enumerate() {
        let made = wait_for(|| {
            let outcome = kubectl(&node, &["create", "configmap", name, "--from-literal=k=v"]);
            (outcome.status.success()).then_some(())
        });
        assert!(made.is_some(), "{}", node.log());
        if at % 2 == 0 {
            node.kill();
        } else {
            node.cut_power();
        }
        node.launch();
        for known in names.iter().take(at + 1) {
            let there = wait_for(|| shown(&node, &["configmap", known], "{.data.k}"));
            assert_eq!(there.as_deref(), Some("v"), "{known} after {name}\n{}", node.log());
        }
    }
}

#[test]
fn a_mirror_that_is_deleted_is_back_and_its_containers_run_on() {
    let Some(node) = Node::start() else { return };
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    wait_for_phase(&node, "web-n1", "Running");
    let uid = || shown(&node, &["pod", "web-n1"], "{.metadata.uid}");
    let mut known = uid().unwrap();
    for flags in [&[][..], &["--grace-period=0", "--force"], &["--now"]] {
        kubectl(&node, &[&["delete", "pod", "web-n1", "--wait=false"], flags].concat()).success();
        let other = wait_for(|| uid().filter(|uid| *uid != known));
        known = other.unwrap_or_else(|| panic!("{flags:?}\n{}", node.log()));
        wait_for_phase(&node, "web-n1", "Running");
    }
    let after = node.wait_for_running("web");
    assert_eq!(before.status.container_statuses, after.status.container_statuses);
    node.take("web.yaml");
    node.wait_for_gone("web");
    let gone = wait_for(|| {
        (kubectl(&node, &["get", "pod", "web-n1"]).status.code() == Some(1)).then_some(())
    });
    assert!(gone.is_some());
}
