//! What is done in containers after their start and before their end.

use serde_json::{Value, json};

use crate::http::free_port;
use crate::manifest::{Manifest, container, exactly, pod, sidecar};
use crate::node::{Node, Pod};

/// A container that tells when it starts and when it is asked to end, with these hooks.
fn telling(name: &str, script: &str, lifecycle: &Value) -> Value {
    let script = format!(
        "trap 'echo end {name} >> /host/web; exit' TERM; {script}; echo start {name} >> /host/web; \
         sleep infinity & wait"
    );
    let mut container = container(name, &exactly(&script));
    container["lifecycle"] = lifecycle.clone();
    container
}

fn exec(script: &str) -> Value {
    json!({ "exec": { "command": exactly(script) } })
}

fn web(node: &Node, containers: &[Value]) -> Manifest {
    pod("web")
        .with_host_directory(&node.host())
        .set("spec.terminationGracePeriodSeconds", 20)
        .set("spec.containers", containers)
}

fn events(pod: &Pod, reason: &str) -> Vec<String> {
    pod.events(reason).iter().map(|event| event.message.clone()).collect()
}

#[test]
fn what_is_done_after_a_start_holds_up_the_next_containers() {
    let Some(node) = Node::start() else { return };
    let gate = "until [ -e /host/gate ]; do sleep 0.02; done; echo hook >> /host/web";
    let containers = [
        telling("first", "true", &json!({ "postStart": exec(gate) })),
        telling("second", "true", &Value::Null),
    ];
    node.put("web.yaml", &web(&node, &containers));
    assert_eq!(node.wait_for_told("web", 1), ["start first"]);
    let status = node.wait_until("the first runs", |status| {
        let pod = status.pod("web");
        pod.is_some_and(|pod| pod.container("first").state.as_ref().unwrap().running.is_some())
    });
    let pod = status.pod("web").unwrap();
    assert_eq!(pod.container("first").started, Some(false));
    assert!(!pod.container("first").ready);
    assert_eq!(pod.status.phase.as_deref(), Some("Pending"));
    assert_eq!(node.told("web"), ["start first"]);
    std::fs::write(node.host().join("gate"), "").unwrap();
    node.wait_for_running("web");
    assert_eq!(node.wait_for_told("web", 3), ["start first", "hook", "start second"]);
}

#[test]
fn what_fails_after_a_start_ends_the_container() {
    let Some(node) = Node::start() else { return };
    let hooks = json!({
        // Once for each start.
        "postStart": exec(
            "until [ $(grep -c start.first /host/web) -gt $(grep -c hook /host/web) ]; do \
             sleep 0.02; done; echo hook >> /host/web; exit 3",
        ),
        "preStop": exec("echo stop >> /host/web"),
    });
    let containers = [
        telling("first", "true", &hooks),
        telling("second", "until [ -e /host/gate ]; do sleep 0.02; done", &Value::Null),
    ];
    node.put("web.yaml", &web(&node, &containers));
    let pod = node.wait_for_state("web", "CrashLoopBackOff");
    let told = node.told("web");
    assert_eq!(told[told.len() - 3..], ["hook", "stop", "end first"], "{told:?}");
    assert_eq!(events(&pod, "FailedPostStartHook"), ["PostStartHook failed"]);
    assert!(events(&pod, "Killing").contains(&"FailedPostStartHook".to_owned()), "{pod:#?}");
    assert!(pod.container("second").state.as_ref().unwrap().running.is_some());
}

#[test]
fn what_is_done_before_an_end_is_waited_for_and_then_the_signal_comes() {
    let Some(mut node) = Node::start() else { return };
    let hook = "echo stop >> /host/web; until [ -e /host/gate ]; do sleep 0.02; done";
    let containers = [telling("main", "true", &json!({ "preStop": exec(hook) }))];
    node.put("web.yaml", &web(&node, &containers));
    node.wait_for_running("web");
    node.wait_for_told("web", 1);
    // It is replaced.
    let containers = [telling("main", "true", &json!({ "preStop": exec("exit 3") }))];
    node.put("web.yaml", &web(&node, &containers));
    assert_eq!(node.wait_for_told("web", 2), ["start main", "stop"]);
    // Not by an agent that comes in between and knows no more than what is noted with the container.
    node.kill();
    std::fs::write(node.host().join("gate"), "").unwrap();
    node.launch();
    let told = node.wait_for_told("web", 5);
    assert_eq!(told[1..], ["stop", "stop", "end main", "start main"]);
    // One that fails is told of, and changes nothing.
    node.wait_for_running("web");
    node.put("web.yaml", &web(&node, &[telling("main", "true", &json!({}))]));
    let told = node.wait_for_told("web", 7);
    assert_eq!(told[5..], ["end main", "start main"]);
    let pod = node.wait_for_running("web");
    assert_eq!(events(&pod, "FailedPreStopHook"), ["PreStopHook failed"]);
}

#[test]
fn what_is_done_before_an_end_has_the_grace_period_and_no_longer() {
    let Some(node) = Node::start() else { return };
    let hooks = json!({ "preStop": { "sleep": { "seconds": 1 } } });
    let manifest = web(&node, &[telling("main", "true", &hooks)]);
    node.put("web.yaml", &manifest.set("spec.terminationGracePeriodSeconds", 1));
    node.wait_for_running("web");
    node.wait_for_told("web", 1);
    node.take("web.yaml");
    node.wait_for_gone("web");
    // There was time to end also after it.
    assert_eq!(node.told("web"), ["start main", "end main"]);
}

#[test]
fn what_is_done_before_the_end_of_sidecars_is_done_at_once_and_they_end_last() {
    let Some(node) = Node::start() else { return };
    // Each hook waits for the other one, which it can only do beside it.
    let both = "until [ $(grep -c '^stop [lp]' /host/web) = 2 ]; do sleep 0.02; done";
    let hooked = |name: &str| {
        let stop = exec(&format!("echo stop {name} >> /host/web; {both}"));
        let container = telling(name, "true", &json!({ "preStop": stop }));
        sidecar(container, "web", &format!("start {name}"))
    };
    let init = json!([hooked("log"), hooked("proxy")]);
    let gate = "until [ -e /host/gate ]; do sleep 0.02; done; echo stop main >> /host/web";
    let main = telling("main", "true", &json!({ "preStop": exec(gate) }));
    node.put("web.yaml", &web(&node, &[main]).set("spec.initContainers", init.clone()));
    node.wait_for_running("web");
    assert_eq!(node.wait_for_told("web", 3), ["start log", "start proxy", "start main"]);
    node.take("web.yaml");
    // All hooks run at the same time, so these two tell in whatever order; and nothing ends before the main container.
    let hooks = |told: &[String]| {
        let mut hooks = told[3..5].to_vec();
        hooks.sort();
        assert_eq!(hooks, ["stop log", "stop proxy"], "{told:?}");
    };
    hooks(&node.wait_for_told("web", 5));
    std::fs::write(node.host().join("gate"), "").unwrap();
    node.wait_for_gone("web");
    let told = node.told("web");
    assert_eq!(told[5..], ["stop main", "end main", "end proxy", "end log"]);

    // Where the main container ends by itself, its sidecars' hooks run after it.
    std::fs::remove_file(node.host().join("web")).unwrap();
    let script = "echo start main >> /host/web; until [ -e /host/end ]; do sleep 0.02; done";
    let main = container("main", &exactly(script));
    let job = web(&node, &[main]).set("spec.restartPolicy", "Never");
    node.put("web.yaml", &job.set("spec.initContainers", init));
    node.wait_for_running("web");
    assert_eq!(node.wait_for_told("web", 3), ["start log", "start proxy", "start main"]);
    std::fs::write(node.host().join("end"), "").unwrap();
    node.wait_for_state("web", "Completed");
    let told = node.told("web");
    hooks(&told);
    assert_eq!(told[5..], ["end proxy", "end log"]);
}

#[test]
fn a_container_can_name_the_signal_that_ends_it() {
    let Some(node) = Node::start() else { return };
    if node.skips_on_containerd("lifecycle.stopSignal, since 2.2") {
        return;
    }
    let container = telling(
        "main",
        "trap 'echo usr1 >> /host/web; exit' USR1",
        &json!({ "stopSignal": "SIGUSR1" }),
    );
    node.put("web.yaml", &web(&node, &[container]).set("spec.os.name", "linux"));
    node.wait_for_running("web");
    node.wait_for_told("web", 1);
    node.take("web.yaml");
    node.wait_for_gone("web");
    assert_eq!(node.told("web"), ["start main", "usr1"]);
}

#[test]
fn hooks_over_http_reach_the_pod_by_its_address() {
    let Some(node) = Node::start() else { return };
    check_hooks_over_http(&node, false, 8080);
}

/// Also when its manifest has gone, and nothing but its sandbox tells where it is.
#[test]
fn hooks_over_http_reach_a_pod_on_the_hosts_network() {
    let Some(node) = Node::start() else { return };
    check_hooks_over_http(&node, true, free_port());
}

fn check_hooks_over_http(node: &Node, host_network: bool, port: u16) {
    // Busybox's server runs a program for each request below `cgi-bin`, which tells the file of its name.
    let serve = format!(
        "mkdir -p /www/cgi-bin; for it in up down; do \
         printf '#!/bin/sh\\necho %s >> /host/web; echo; echo' $it > /www/cgi-bin/$it; \
         chmod +x /www/cgi-bin/$it; done; httpd -p {port} -h /www"
    );
    let hook = |path: &str| json!({ "httpGet": { "port": "http", "path": format!("/cgi-bin/{path}"), "scheme": "HTTPS" } });
    // There is a server before the first hook runs and until after the last one.
    let mut server = sidecar(telling("server", &serve, &Value::Null), "web", "start server");
    server["startupProbe"] = json!({ "tcpSocket": { "port": port }, "periodSeconds": 1 });
    let mut main =
        telling("main", "true", &json!({ "postStart": hook("up"), "preStop": hook("down") }));
    main["ports"] = json!([{ "name": "http", "containerPort": port }]);
    let manifest = web(node, &[main]).set("spec.hostNetwork", host_network);
    node.put("web.yaml", &manifest.set("spec.initContainers", json!([server])));
    node.wait_for_running("web");
    let told = node.wait_for_told("web", 3);
    assert_eq!(told[..1], ["start server"], "{told:?}");
    assert!(told.contains(&"up".to_owned()), "{told:?}");
    node.take("web.yaml");
    node.wait_for_gone("web");
    let told = node.told("web");
    assert_eq!(told[told.len() - 3..], ["down", "end main", "end server"], "{told:?}");
}
