//! Containers that are added to pods, to look into them.

use serde_json::{Value, json};

use crate::api::{create, kubectl, pod_object, wait_for_event, wait_for_node_port, wait_for_phase};
use crate::manifest::{command, container, pod};
use crate::node::{Node, wait_for};

/// A container that tells when it is there, and its number, and waits to be told to end.
const TOOL: &str = "trap 'exit 3' TERM; echo $$$$ > /number; echo here; sleep 4321 & wait";

/// The status of a container that was added to a pod.
fn status(pod: &Value, name: &str) -> Value {
    let all = pod["status"]["ephemeralContainerStatuses"].as_array();
    let found = all.into_iter().flatten().find(|it| it["name"] == name);
    found.cloned().unwrap_or_default()
}

#[track_caller]
fn wait_for_state(node: &Node, pod: &str, name: &str, state: &str) -> Value {
    let found = wait_for(|| {
        let status = status(&pod_object(node, pod), name);
        (!status["state"][state].is_null()).then_some(status)
    });
    found.unwrap_or_else(|| {
        let pod = pod_object(node, pod);
        panic!("{name} never came to be {state}: {pod:#}\n{}", node.log())
    })
}

/// Adds a container that runs a script to a pod, with the processes of another one.
fn debug(node: &Node, pod: &str, name: &str, target: &str, script: &str) {
    let mut arguments = vec!["debug", pod, "--image=local/busybox:1", "--profile=general"];
    let target = format!("--target={target}");
    if target != "--target=" {
        arguments.push(&target);
    }
    arguments.extend(["-c", name, "--", "sh", "-c", script]);
    kubectl(node, &arguments).success();
}

/// What a shell prints in a container.
fn sh(node: &Node, pod: &str, container: &str, script: &str) -> String {
    kubectl(node, &["exec", pod, "-c", container, "--", "sh", "-c", script]).success()
}

#[test]
fn what_is_added_to_a_static_pod_outlives_the_agent_and_the_mirror_and_ends_with_the_pod() {
    let Some(mut node) = Node::start() else { return };
    node.put("web.yaml", &pod("web").script("sleep 1234 &"));
    node.wait_for_running("web");
    wait_for_phase(&node, "web-n1", "Running");
    debug(&node, "web-n1", "tool", "main", TOOL);
    let before = wait_for_state(&node, "web-n1", "tool", "running");
    let logs = |node: &Node| kubectl(node, &["logs", "web-n1", "-c", "tool"]).success();
    assert!(wait_for(|| (logs(&node) == "here\n").then_some(())).is_some());
    assert!(sh(&node, "web-n1", "tool", "ps -o args").contains("sleep 1234"));
    assert!(sh(&node, "web-n1", "main", "ps -o args").contains("sleep 4321"));
    let pod = pod_object(&node, "web-n1");
    assert_eq!(pod["status"]["phase"], "Running");
    let main = node.status().pod("web").unwrap().id().to_owned();

    // Another agent finds it as it is.
    node.kill();
    node.launch();
    wait_for_node_port(&node);
    let after = wait_for_state(&node, "web-n1", "tool", "running");
    assert_eq!(after, before);
    assert!(sh(&node, "web-n1", "tool", "ps -o args").contains("sleep 1234"));

    // Another mirror gets it again.
    let uid = pod_object(&node, "web-n1")["metadata"]["uid"].clone();
    kubectl(&node, &["delete", "pod", "web-n1", "--grace-period=0", "--force"]).success();
    let again = wait_for(|| {
        let pod = pod_object(&node, "web-n1");
        let is_added = pod["spec"]["ephemeralContainers"][0]["targetContainerName"] == "main";
        (is_added && pod["metadata"]["uid"] != uid).then_some(pod)
    });
    assert!(again.is_some(), "{}", node.log());
    assert_eq!(wait_for_state(&node, "web-n1", "tool", "running"), before);
    assert_eq!(logs(&node), "here\n");

    // It is started once, whatever becomes of its sandbox.
    // Whoever tells it to end may end with it.
    kubectl(&node, &["exec", "web-n1", "-c", "tool", "--", "sh", "-c", "kill $(cat /number)"]);
    let ended = wait_for_state(&node, "web-n1", "tool", "terminated");
    assert_eq!(ended["state"]["terminated"]["exitCode"], 3);
    assert_eq!(node.status().pod("web").unwrap().id(), main);
    node.mainstay(&["restart", "web-n1"]).success();
    node.wait_until("it runs anew", |status| {
        status.pod("web").is_some_and(|pod| pod.runs() && pod.id() != main)
    });
    debug(&node, "web-n1", "next", "main", TOOL);
    wait_for_state(&node, "web-n1", "next", "running");
    let tool = status(&pod_object(&node, "web-n1"), "tool");
    assert_eq!(tool["state"]["terminated"]["exitCode"], 3, "{tool}");

    // And neither does another start of the machine.
    node.cut_power();
    node.launch();
    node.wait_until("it runs again", |status| {
        status.pod("web").is_some_and(|pod| pod.runs() && pod.id() != main)
    });
    wait_for_phase(&node, "web-n1", "Running");
    debug(&node, "web-n1", "last", "main", TOOL);
    wait_for_state(&node, "web-n1", "last", "running");
    for name in ["tool", "next"] {
        wait_for_state(&node, "web-n1", name, "terminated");
    }

    node.take("web.yaml");
    node.wait_for_gone("web");
    assert!(wait_for(|| node.processes("shims").is_empty().then_some(())).is_some());
}

#[test]
fn what_is_added_to_a_pod_of_the_api_runs_while_it_is_initialized_and_says_why_it_does_not() {
    let Some(node) = Node::start() else { return };
    let gate = "echo init >> /host/web; until [ -e /host/gate ]; do sleep 0.02; done";
    let init = container("init", &json!(["sh", "-c", gate]));
    let web = pod("web")
        .with_host_directory(&node.host())
        .set("spec.nodeName", "n1")
        .set("spec.automountServiceAccountToken", false)
        .set("spec.terminationGracePeriodSeconds", 1)
        .set("spec.initContainers", json!([init]))
        .script("sleep 1234 &");
    create(&node, &web);
    node.wait_for_told("web", 1);
    debug(&node, "web", "early", "main", TOOL);
    debug(&node, "web", "tool", "init", "tr '\\0' ' ' < /proc/1/cmdline; echo; sleep 4321");
    let early = wait_for_state(&node, "web", "early", "waiting");
    wait_for_state(&node, "web", "tool", "running");
    let seen = wait_for(|| {
        let log = kubectl(&node, &["logs", "web", "-c", "tool"]).stdout;
        log.ends_with('\n').then_some(log)
    });
    assert!(seen.unwrap().contains("echo init >>"));
    assert_eq!(pod_object(&node, "web")["status"]["phase"], "Pending");
    let why = wait_for(|| {
        let waiting = status(&pod_object(&node, "web"), "early")["state"]["waiting"].clone();
        (waiting["reason"] == "CreateContainerConfigError").then_some(waiting)
    });
    let why = why.unwrap_or_else(|| panic!("{early}\n{}", node.log()));
    assert_eq!(why["message"], "unable to find target container main");
    let field = "involvedObject.fieldPath=spec.ephemeralContainers{early}";
    wait_for_event(&node, field, "Error: unable to find target container main");

    // When its target has come, it does too.
    std::fs::write(node.host().join("gate"), "").unwrap();
    wait_for_state(&node, "web", "early", "running");
    assert!(sh(&node, "web", "early", "ps -o args").contains("sleep 1234"));
    // With the first of its processes, the other one has ended.
    let tool = wait_for_state(&node, "web", "tool", "terminated");
    assert_eq!(tool["state"]["terminated"]["exitCode"], 137);
    debug(&node, "web", "late", "init", TOOL);
    let why = wait_for(|| {
        let waiting = status(&pod_object(&node, "web"), "late")["state"]["waiting"].clone();
        (waiting["reason"] == "CreateContainerError").then_some(waiting)
    });
    let why = why.unwrap_or_else(|| panic!("{}", node.log()));
    let message = why["message"].as_str().unwrap();
    assert!(message.contains("invalid target container: container \""), "{message}");
    assert!(message.ends_with("\" is not running - in state CONTAINER_EXITED"), "{message}");
    kubectl(&node, &["delete", "pod", "web"]).success();
    assert!(wait_for(|| node.processes("shims").is_empty().then_some(())).is_some());
}

#[test]
fn containers_that_share_their_processes_share_them_with_what_is_added() {
    let Some(node) = Node::start() else { return };
    let web =
        pod("web").set("spec.shareProcessNamespace", true).main("command", command("sleep 1234 &"));
    node.put("web.yaml", &web);
    node.wait_for_running("web");
    wait_for_phase(&node, "web-n1", "Running");
    debug(&node, "web-n1", "tool", "", TOOL);
    debug(&node, "web-n1", "other", "main", TOOL);
    for name in ["tool", "other"] {
        wait_for_state(&node, "web-n1", name, "running");
        assert!(sh(&node, "web-n1", name, "ps -o args").contains("sleep 1234"));
    }
}
