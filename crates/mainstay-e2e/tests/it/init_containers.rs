//! What runs before a pod's main containers, and beside them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::manifest::{self, Manifest, command, container, exactly, pod};
use crate::node::{Node, Pod, wait_for};

/// A container that tells in the pod's file that it has begun, and does as the script says.
fn telling(pod: &str, name: &str, script: &str) -> Value {
    container(name, &exactly(&format!("echo {name} >> /host/{pod}; {script}")))
}

/// One that runs until it is told to end, and tells of that.
fn lasting(pod: &str, name: &str) -> Value {
    let script = format!(
        "trap 'echo -{name} >> /host/{pod}; exit' TERM; echo {name} >> /host/{pod}; sleep infinity & wait"
    );
    container(name, &exactly(&script))
}

fn sidecar(pod: &str, name: &str) -> Value {
    manifest::sidecar(lasting(pod, name), pod, name)
}

fn with(name: &str, host: &Path, init: Value, main: Value) -> Manifest {
    pod(name)
        .with_host_directory(host)
        .set("spec.terminationGracePeriodSeconds", 5)
        .set("spec.initContainers", init)
        .set("spec.containers", main)
}

/// A gate of the file `name`, for which a script waits.
fn gate(name: &str) -> String {
    format!("until [ -e /host/{name} ]; do sleep 0.02; done")
}

fn open(node: &Node, name: &str) {
    fs::write(node.host().join(name), "").unwrap();
}

/// The condition `Initialized` of a pod: its status, reason and message.
fn initialized(pod: &Pod) -> String {
    let it = pod.condition("Initialized");
    let (reason, message) = (it.reason.as_deref(), it.message.as_deref());
    format!("{} {} {}", it.status, reason.unwrap_or_default(), message.unwrap_or_default())
}

#[test]
fn what_prepares_a_pod_runs_before_it_one_after_another() {
    let Some(node) = Node::start() else { return };
    let init = json!([
        telling("web", "first", &format!("{}; echo one > /host/result", gate("first"))),
        telling("web", "second", &format!("cat /host/result >> /host/web; {}", gate("second"))),
    ]);
    node.put("web.yaml", &with("web", &node.host(), init, json!([lasting("web", "main")])));

    node.wait_for_told("web", 1);
    let pod = node.wait_until("the first runs", |status| {
        let pod = status.pod("web").filter(|pod| pod.state == "Init:0/2");
        pod.is_some_and(|pod| pod.init("first").state.as_ref().unwrap().running.is_some())
    });
    let pod = pod.pod("web").unwrap();
    assert_eq!(
        initialized(pod),
        "False ContainersNotInitialized containers with incomplete status: [first second]"
    );
    let waiting = |pod: &Pod, name| {
        let state = pod.any(name).state.clone().unwrap();
        state.waiting.and_then(|waiting| waiting.reason)
    };
    for name in ["second", "main"] {
        assert_eq!(waiting(pod, name).as_deref(), Some("PodInitializing"));
    }
    assert_eq!((pod.ready, pod.containers), (0, 1));
    assert_eq!(pod.status.phase.as_deref(), Some("Pending"));
    assert_eq!(node.told("web"), ["first"]);

    open(&node, "first");
    node.wait_for_state("web", "Init:1/2");
    node.wait_for_told("web", 3);
    open(&node, "second");
    let pod = node.wait_for_running("web");
    assert_eq!(node.wait_for_told("web", 4), ["first", "second", "one", "main"]);
    assert_eq!(initialized(&pod), "True  ");
    for name in ["first", "second"] {
        let status = pod.init(name);
        let end = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((end.exit_code, end.reason.as_deref()), (0, Some("Completed")));
        assert_eq!((status.ready, status.started, status.restart_count), (true, Some(false), 0));
    }
    // Their logs are there.
    let logs = node.mainstay(&["logs", "web", "-c", "first"]).success();
    assert_eq!(logs, "");
}

#[test]
fn what_fails_to_prepare_a_pod_is_repeated_or_ends_it() {
    let Some(node) = Node::start() else { return };
    for policy in ["Always", "OnFailure", "Never"] {
        let name = policy.to_lowercase();
        let init = json!([telling(&name, "init", "exit 3")]);
        let main = json!([lasting(&name, "main")]);
        let manifest = with(&name, &node.host(), init, main).set("spec.restartPolicy", policy);
        node.put(&format!("{name}.yaml"), &manifest);
    }
    for name in ["always", "onfailure"] {
        let pod = node.wait_for_state(name, "Init:CrashLoopBackOff");
        assert!(pod.restarts >= 1);
        let expected = format!("init: back-off {}s", 10 << (pod.restarts - 1));
        assert!(pod.problem.as_ref().unwrap().starts_with(&expected), "{pod:#?}");
        assert_eq!(pod.status.phase.as_deref(), Some("Pending"));
    }
    let pod = node.wait_for_state("never", "Init:Error");
    assert_eq!(pod.status.phase.as_deref(), Some("Failed"));
    assert_eq!(node.told("never"), ["init"]);
    // It stays so, whoever looks.
    let mut node = node;
    node.kill();
    node.launch();
    node.wait_for_state("never", "Init:Error");
    for name in ["always", "onfailure", "never"] {
        assert!(!node.told(name).contains(&"main".to_owned()));
    }
}

#[test]
fn sidecars_start_first_and_end_last() {
    let Some(node) = Node::start() else { return };
    let init =
        || json!([sidecar("web", "log"), telling("web", "init", "true"), sidecar("web", "proxy"),]);
    let main = || json!([lasting("web", "main")]);
    node.put("web.yaml", &with("web", &node.host(), init(), main()));
    let pod = node.wait_for_running("web");
    assert_eq!((pod.ready, pod.containers), (3, 3));
    let told = node.wait_for_told("web", 4);
    assert_eq!(told, ["log", "init", "proxy", "main"]);
    for name in ["log", "proxy"] {
        let status = pod.init(name);
        assert_eq!((status.ready, status.started), (true, Some(true)));
    }

    // A sidecar that ends is started again, and nobody else.
    let pid = |pod: &Pod, name: &str| pod.any(name).container_id.clone();
    node.mainstay(&["exec", "web", "-c", "log", "--", "kill", "-TERM", "1"]);
    let told = node.wait_for_told("web", 6);
    assert_eq!(told[4..], ["-log", "log"]);
    let again = node.wait_for_running("web");
    assert_eq!(again.restarts, 1);
    assert_eq!(pid(&again, "main"), pid(&pod, "main"));
    assert_eq!(pid(&again, "proxy"), pid(&pod, "proxy"));

    // A successor waits for all of it; it ends in the right order.
    node.put("web.yaml", &with("web", &node.host(), init(), json!([lasting("web", "next")])));
    let told = node.wait_for_told("web", 13);
    assert_eq!(told[6..9], ["-main", "-proxy", "-log"]);
    assert_eq!(told[9..], ["log", "init", "proxy", "next"]);

    // So does one that is taken away when nobody knows its manifest any more.
    let mut node = node;
    node.wait_for_running("web");
    node.kill();
    node.take("web.yaml");
    node.launch();
    node.wait_for_gone("web");
    assert_eq!(node.told("web")[13..], ["-next", "-proxy", "-log"]);
}

#[test]
fn a_pod_that_is_through_ends_its_sidecars() {
    let Some(node) = Node::start() else { return };
    let init = json!([sidecar("job", "log"), sidecar("job", "proxy")]);
    let main = json!([telling("job", "main", &gate("job-ends"))]);
    let manifest = with("job", &node.host(), init, main).set("spec.restartPolicy", "OnFailure");
    node.put("job.yaml", &manifest);
    node.wait_for_running("job");
    open(&node, "job-ends");
    let pod = node.wait_for_state("job", "Completed");
    assert_eq!(pod.status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(node.told("job"), ["log", "proxy", "main", "-proxy", "-log"]);
    assert_eq!(initialized(&pod), "True PodCompleted ");
    let ended = |name| pod.any(name).state.as_ref().unwrap().terminated.is_some();
    assert!(["log", "proxy", "main"].into_iter().all(ended));
}

#[test]
fn an_agent_that_is_killed_meanwhile_goes_on_where_it_was() {
    let Some(mut node) = Node::start() else { return };
    let init = json!([
        telling("web", "first", "true"),
        sidecar("web", "log"),
        telling("web", "second", &gate("second")),
    ]);
    node.put("web.yaml", &with("web", &node.host(), init, json!([lasting("web", "main")])));
    node.wait_for_told("web", 3);
    if node.is_on_containerd() {
        // It breaks off what somebody has asked for who is killed, and undoes a start.
        node.wait_until("its start is done", |status| {
            let state = status.pod("web").and_then(|pod| pod.init("second").state.clone());
            state.is_some_and(|state| state.running.is_some())
        });
    }
    node.kill();
    node.launch();
    node.wait_for_state("web", "Init:2/3");
    assert_eq!(node.told("web"), ["first", "log", "second"]);
    node.kill();
    // It ends while nobody looks.
    open(&node, "second");
    node.launch();
    node.wait_for_running("web");
    assert_eq!(node.wait_for_told("web", 4), ["first", "log", "second", "main"]);

    // With the machine all of it goes, and comes again.
    node.cut_power();
    node.launch();
    node.wait_for_running("web");
    let told = node.wait_for_told("web", 8);
    assert_eq!(told[4..], ["first", "log", "second", "main"]);
}

#[test]
fn a_sandbox_that_is_made_anew_is_initialized_anew() {
    let Some(node) = Node::start() else { return };
    let init = json!([telling("web", "init", "true"), sidecar("web", "log")]);
    let main = json!([lasting("web", "main"), container("other", &command("true")),]);
    node.put("web.yaml", &with("web", &node.host(), init, main));
    let before = node.wait_for_running("web");
    assert_eq!(node.wait_for_told("web", 3), ["init", "log", "main"]);
    node.kill_shims();
    let again = || {
        let pod = node.status().pod("web").cloned()?;
        (pod.runs() && pod.id() != before.id()).then_some(pod)
    };
    let pod = wait_for(again).expect("it runs again");
    assert_eq!(node.wait_for_told("web", 6)[3..], ["init", "log", "main"]);
    assert_eq!(pod.init("init").restart_count, 1);
}
