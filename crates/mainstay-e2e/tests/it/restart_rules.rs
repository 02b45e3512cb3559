//! What a container's own restart policy and its rules say.

use std::fs;

use serde_json::{Value, json};

use crate::manifest::{Manifest, command, container, exactly, pod, sidecar};
use crate::node::{Node, Pod};

/// A container that tells that it starts, and does as the script says.
fn telling(name: &str, script: &str) -> Value {
    container(name, &exactly(&format!("echo {name} >> /host/web; {script}")))
}

/// One that runs until it is told to end.
fn lasting(name: &str) -> Value {
    container(name, &command(&format!("echo {name} >> /host/web")))
}

fn with(mut container: Value, field: &str, value: Value) -> Value {
    container[field] = value;
    container
}

fn rule(action: &str, code: u8) -> Value {
    json!([{ "action": action, "exitCodes": { "operator": "In", "values": [code] } }])
}

#[test]
fn a_container_is_started_again_as_it_says_itself() {
    let Some(node) = Node::start() else { return };
    let ends = |name: &str, policy: &str, code: u8| {
        with(telling(name, &format!("exit {code}")), "restartPolicy", policy.into())
    };
    let ruled = with(ends("ruled", "Never", 7), "restartPolicyRules", rule("Restart", 7));
    let unruled = with(ends("unruled", "Never", 8), "restartPolicyRules", rule("Restart", 7));
    let containers =
        [lasting("main"), ends("once", "Never", 3), ends("well", "OnFailure", 0), ruled, unruled];
    let web = pod("web").with_host_directory(&node.host()).set("spec.containers", &containers[..]);
    node.put("web.yaml", &web);
    let over = |pod: &Pod, name: &str| {
        let state = pod.container(name).state.clone()?;
        Some(state.terminated?.exit_code)
    };
    let ended = [("once", 3), ("well", 0), ("unruled", 8)];
    let status = node.wait_until("one waits and three have ended", |status| {
        let pod = status.pod("web").filter(|pod| pod.state == "CrashLoopBackOff");
        pod.is_some_and(|pod| ended.iter().all(|(name, _)| over(pod, name).is_some()))
    });
    let pod = status.pod("web").unwrap();
    let count = |name: &str| node.told("web").iter().filter(|line| *line == name).count();
    assert!(count("ruled") >= 2);
    for (name, code) in ended {
        assert_eq!(over(pod, name), Some(code), "{name}");
        assert_eq!(count(name), 1, "{name}");
    }
    assert_eq!(pod.status.phase.as_deref(), Some("Running"));
}

/// A pod of this policy whose only container comes after these.
fn prepared(node: &Node, policy: &str, init: &[Value]) -> Manifest {
    pod("web")
        .with_host_directory(&node.host())
        .set("spec.restartPolicy", policy)
        .set("spec.initContainers", init)
        .set("spec.containers", json!([lasting("main")]))
}

/// Fails once with this code.
fn fails_once(code: u8) -> String {
    format!("[ -e /host/failed ] || {{ touch /host/failed; exit {code}; }}")
}

#[test]
fn what_prepares_a_pod_is_started_again_as_it_says_itself() {
    let Some(node) = Node::start() else { return };
    let fails = |name: &str, code: u8| telling(name, &fails_once(code));
    let on_failure = with(fails("init", 3), "restartPolicy", "OnFailure".into());
    let never = |code: u8| with(fails("init", code), "restartPolicy", "Never".into());
    let ruled = |code: u8| with(never(code), "restartPolicyRules", rule("Restart", 7));
    for (what, policy, init) in
        [("policy", "Never", on_failure), ("rule", "Never", ruled(7)), ("rule", "Always", ruled(7))]
    {
        node.put("web.yaml", &prepared(&node, policy, &[init]));
        let told = node.wait_for_told("web", 3);
        assert_eq!(told, ["init", "init", "main"], "{what} {policy}");
        assert_eq!(node.wait_for_running("web").init("init").restart_count, 1);
        clear(&node);
    }
    for (what, policy, init) in [("policy", "Always", never(3)), ("rule", "OnFailure", ruled(8))] {
        node.put("web.yaml", &prepared(&node, policy, &[init]));
        let web = node.wait_for_state("web", "Init:Error");
        assert_eq!(web.status.phase.as_deref(), Some("Failed"), "{what} {policy}");
        assert_eq!(node.told("web"), ["init"]);
        clear(&node);
    }
}

/// Takes the pod away, and what it told.
fn clear(node: &Node) {
    node.take("web.yaml");
    node.wait_for_gone("web");
    fs::remove_file(node.host().join("web")).unwrap();
    fs::remove_file(node.host().join("failed")).unwrap();
}

#[test]
fn what_prepares_a_pod_can_have_all_containers_started_over() {
    let Some(node) = Node::start() else { return };
    let second = with(telling("second", &fails_once(7)), "restartPolicy", "Never".into());
    let second = with(second, "restartPolicyRules", rule("RestartAllContainers", 7));
    let sidecar = sidecar(lasting("log"), "web", "log");
    let init = [telling("first", "true"), sidecar, second];
    node.put("web.yaml", &prepared(&node, "Never", &init));
    let told = node.wait_for_told("web", 7);
    assert_eq!(told, ["first", "log", "second", "first", "log", "second", "main"]);
    let web = node.wait_for_running("web");
    for (name, code) in [("first", 0), ("log", 143), ("second", 7)] {
        let status = web.init(name);
        let last = status.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((status.restart_count, last.exit_code), (1, code), "{name}");
    }
    assert_eq!(web.container("main").restart_count, 0);
}

#[test]
fn all_containers_are_started_over_in_the_sandbox_that_they_have() {
    let Some(mut node) = Node::start() else { return };
    let gate =
        "trap exit TERM; until [ -e /host/gate ]; do sleep 0.02; done; rm /host/gate; exit 7";
    let source = with(telling("source", gate), "restartPolicy", "Never".into());
    let source = with(source, "restartPolicyRules", rule("RestartAllContainers", 7));
    let sidecar = sidecar(lasting("log"), "web", "log");
    let web = pod("web")
        .with_host_directory(&node.host())
        .set("spec.restartPolicy", "Never")
        .set("spec.hostNetwork", false)
        .set("spec.initContainers", json!([telling("init", "true"), sidecar]))
        .set("spec.containers", json!([lasting("main"), source]));
    node.put("web.yaml", &web);
    let before = node.wait_for_running("web");
    let told = node.wait_for_told("web", 4);
    assert_eq!(told[..2], ["init", "log"]);
    let shims = node.processes("shims");
    fs::write(node.host().join("gate"), "").unwrap();
    let again = node.wait_for_told("web", 8);
    assert_eq!(again[4..6], ["init", "log"]);
    let after = node.wait_for_running("web");
    assert_eq!(after.status.pod_ip, before.status.pod_ip);
    assert_eq!(node.processes("shims"), shims);
    for (name, code) in [("init", 0), ("log", 143), ("main", 143), ("source", 7)] {
        let status = after.any(name);
        assert_eq!(status.restart_count, 1, "{name}");
        let last = status.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!(last.exit_code, code, "{name}");
    }
    assert_eq!(after.condition("AllContainersRestarting").status, "False");
    // The second time an agent that comes in between does it.
    node.kill();
    fs::write(node.host().join("gate"), "").unwrap();
    let gone = crate::node::wait_for(|| (!node.host().join("gate").exists()).then_some(()));
    assert!(gone.is_some());
    node.launch();
    let again = node.wait_for_told("web", 12);
    assert_eq!(again[8..10], ["init", "log"]);
    node.wait_for_running("web");
}
