//! Networks that plugins give pods.

mod debian;
mod killed;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::bad_input::wait_for_problem;
use crate::manifest::{Manifest, pod};
use crate::node::{Node, wait_for};
use crate::program::write_program;

/// A plugin that makes nothing. It writes down its name, what it is asked and of whom; says an address
/// that is nobody's; fails where a file says so, and where another one does, stays until it is ended.
const FAKE: &str = r#"#!/bin/sh
input=$(cat)
me=${0##*/}
netns=$([ -e "$CNI_NETNS" ] && echo " there")
echo "$CNI_COMMAND $me $CNI_CONTAINERID$netns" >> HERE/calls
echo "$input" >> HERE/inputs
if [ -f HERE/block-$CNI_COMMAND-$me ]; then
    rm HERE/block-$CNI_COMMAND-$me
    sleep 1000
fi
if [ -f HERE/fail-$CNI_COMMAND-$me ]; then cat HERE/fail-$CNI_COMMAND-$me; exit 1; fi
if [ $CNI_COMMAND = ADD ]; then
    echo '{"cniVersion":"1.1.0","ips":[{"address":"198.51.100.7/24"}]}'
fi
"#;

/// A node with a directory of configurations and one of plugins, whose plugins are these fakes.
fn prepare(plugins: &[&str]) -> Option<Node> {
    let mut node = Node::prepare()?;
    for name in ["net.d", "bin"] {
        fs::create_dir(node.path(name)).unwrap();
    }
    node.arguments.push(format!("--cni-conf-dir={}", node.path("net.d").display()));
    node.arguments.push(format!("--cni-bin-dir={}", node.path("bin").display()));
    let script = FAKE.replace("HERE", &node.host().display().to_string());
    for name in plugins {
        write_program(&node.path("bin").join(name), &script);
    }
    Some(node)
}

/// Puts a configuration in place, whole.
fn configure(node: &Node, plugins: &Value) {
    let list = json!({ "cniVersion": "1.1.0", "name": "net", "plugins": plugins });
    fs::rename(node.stage("new", &list), node.path("net.d/10-net.conflist")).unwrap();
}

/// A pod with a network of its own, that ends at once.
fn own(name: &str) -> Manifest {
    pod(name).set("spec.hostNetwork", false).set("spec.terminationGracePeriodSeconds", 0)
}

/// What plugins were asked, but for how they are.
fn calls(node: &Node) -> Vec<String> {
    let mut calls = node.told("calls");
    calls.retain(|call| !call.starts_with("STATUS"));
    calls
}

/// What they read then, in the same order.
fn inputs(node: &Node) -> Vec<Value> {
    node.told("inputs").iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What plugins were asked without the names of sandboxes, which are all the same.
fn anonymous(node: &Node) -> Vec<String> {
    let calls = calls(node);
    let ids: BTreeSet<_> = calls.iter().filter_map(|call| call.split(' ').nth(2)).collect();
    let ids: Vec<_> = ids.into_iter().filter(|id| !id.is_empty()).collect();
    assert!(ids.len() < 2, "{calls:?}");
    let id = ids.first().copied().unwrap_or("-");
    calls.iter().map(|call| call.replace(id, "ID")).collect()
}

#[test]
fn plugins_are_asked_in_order_through_the_life_of_a_pod_and_of_agents() {
    let Some(mut node) = prepare(&["first", "second"]) else { return };
    configure(&node, &json!([{ "type": "first" }, { "type": "second" }]));
    node.launch();
    node.put("host.yaml", &pod("host"));
    node.wait_for_running("host");
    wait_for_calls(&node, "GC second", 1);
    node.put("web.yaml", &own("web"));
    let web = node.wait_for_running("web");
    assert_eq!(web.status.pod_ip.as_deref(), Some("198.51.100.7"));
    // It has what no plugin gave it.
    assert_eq!(
        node.sh("web", "main", "ls /sys/class/net; cat /sys/class/net/lo/flags"),
        "lo\n0x9\n"
    );
    let before = ["GC first ", "GC second ", "ADD first ID there", "ADD second ID there"];
    assert_eq!(anonymous(&node), before);
    let chained = |input: &Value| input["prevResult"]["ips"][0]["address"] == "198.51.100.7/24";
    assert_eq!(inputs(&node).iter().filter(|input| chained(input)).count(), 1);

    // The next agent has them look at what is there.
    node.kill();
    node.launch();
    let during = ["GC first ", "GC second ", "CHECK first ID there", "CHECK second ID there"];
    let expected: Vec<_> = before.iter().chain(&during).copied().collect();
    let all = wait_for(|| (calls(&node).len() >= expected.len()).then(|| anonymous(&node)));
    assert_eq!(all.unwrap(), expected);
    let collected: Vec<_> = inputs(&node)
        .iter()
        .filter_map(|input| Some(input["cni.dev/valid-attachments"].as_array()?.len()))
        .collect();
    assert_eq!(collected, [0, 0, 1, 1]);

    node.take("web.yaml");
    node.wait_for_gone("web");
    let after = ["DEL second ID there", "DEL first ID there"];
    let expected: Vec<_> = expected.iter().chain(&after).copied().collect();
    assert_eq!(anonymous(&node), expected);
    assert_eq!(fs::read_dir(node.path("root/cni")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(node.path("run/netns")).unwrap().count(), 0);
}

#[test]
fn a_plugin_that_fails_is_named_and_what_was_given_is_taken_back() {
    let Some(mut node) = prepare(&["first", "second"]) else { return };
    configure(&node, &json!([{ "type": "first" }, { "type": "second" }]));
    let failing = node.host().join("fail-ADD-second");
    fs::write(&failing, r#"{"code":11,"msg":"not now","details":"no lease"}"#).unwrap();
    node.launch();
    node.put("web.yaml", &own("web"));
    let failed = "cannot set up the pod's network: plugin type=\"second\" name=\"net\" failed \
                  (add): not now; no lease";
    node.wait_until("the failure is told", |status| {
        let pod = status.pod("web");
        let events = pod.map(|pod| pod.events("FailedCreatePodSandBox")).unwrap_or_default();
        events.iter().any(|event| event.message == failed)
    });
    fs::remove_file(failing).unwrap();
    node.wait_for_running("web");
    node.take("web.yaml");
    node.wait_for_gone("web");
    assert_eq!(unbalanced(&node), Vec::<String>::new());
    // What nobody can give is refused by name.
    let ports = json!([{ "containerPort": 80, "hostPort": 8080 }]);
    node.put("port.yaml", &own("port").main("ports", ports));
    let why = "the pod asks for host port 8080/TCP, and no plugin of network net (";
    wait_for_problem(&node, "port", &[why]);
    let slow = json!({ "kubernetes.io/egress-bandwidth": "8M" });
    node.put("slow.yaml", &own("slow").set("metadata.annotations", slow));
    let why = "the pod asks for bounds of its bandwidth, and no plugin of network net (";
    wait_for_problem(&node, "slow", &[why]);
    let both = json!({ "portMappings": true, "bandwidth": true });
    let again = json!({ "type": "second", "capabilities": both });
    configure(&node, &json!([{ "type": "first" }, again]));
    node.wait_for_running("port");
    node.wait_for_running("slow");
    let told = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    assert!(inputs(&node).iter().any(|input| input["runtimeConfig"]["portMappings"] == told));
    let told = json!({ "egressRate": 8_000_000, "egressBurst": u32::MAX });
    assert!(inputs(&node).iter().any(|input| input["runtimeConfig"]["bandwidth"] == told));
}

#[test]
fn pods_wait_for_plugins_that_are_not_ready_and_the_node_says_so() {
    let Some(mut node) = prepare(&["first"]) else { return };
    configure(&node, &json!([{ "type": "first" }]));
    let failing = node.host().join("fail-STATUS-first");
    fs::write(&failing, r#"{"code":50,"msg":"no uplink"}"#).unwrap();
    node.launch();
    node.put("web.yaml", &own("web"));
    node.put("host.yaml", &pod("host"));
    node.wait_for_running("host");
    let why = "Network plugin returns error: plugin type=\"first\" name=\"net\" failed (status): \
               no uplink";
    let expected = format!(
        "network is not ready: container runtime network not ready: NetworkReady=false \
         reason:NetworkPluginNotReady message:{why}"
    );
    node.wait_until("both say why", |status| {
        let network = status.runtime.iter().find(|it| it.kind == "NetworkReady");
        let events = status.pod("web").map(|it| it.events("NetworkNotReady")).unwrap_or_default();
        network.is_some_and(|it| !it.status && it.message == why)
            && events.iter().any(|event| event.message == expected)
    });
    assert_eq!(calls(&node).iter().filter(|call| call.starts_with("ADD")).count(), 0);
    fs::remove_file(failing).unwrap();
    node.wait_for_running("web");
}

#[test]
fn a_configuration_that_comes_and_goes_is_for_pods_that_come_then() {
    let Some(mut node) = prepare(&["first"]) else { return };
    // The one that Debian's podman brings is for podman.
    let podman = json!({ "name": "podman", "plugins": [{ "type": "first" }] });
    fs::write(node.path("net.d/05-podman.conflist"), podman.to_string()).unwrap();
    node.launch();
    let address = |name: &str| node.wait_for_running(name).status.pod_ip.unwrap();
    node.put("before.yaml", &own("before"));
    let before = address("before");
    assert_ne!(before, "198.51.100.7");
    configure(&node, &json!([{ "type": "first" }]));
    node.put("web.yaml", &own("web"));
    assert_eq!(address("web"), "198.51.100.7");
    fs::remove_file(node.path("net.d/10-net.conflist")).unwrap();
    node.put("after.yaml", &own("after"));
    assert_ne!(address("after"), "198.51.100.7");
    assert!(node.sh("after", "main", &format!("ping -c 1 {before}")).contains(" 0% packet loss"));
    // Each is ended by what made it.
    for name in ["before", "web", "after"] {
        node.take(&format!("{name}.yaml"));
        node.wait_for_gone(name);
    }
    assert_eq!(anonymous(&node), ["ADD first ID there", "DEL first ID there"]);
    // One that cannot be used is no reason to use another network.
    fs::write(node.path("net.d/10-net.conflist"), "{").unwrap();
    node.put("web.yaml", &own("web"));
    let why = "10-net.conflist is no network configuration: it is no JSON";
    wait_for_problem(&node, "web", &[why]);
}

/// Sandboxes for which a plugin was asked to add and not, after that, to delete.
fn unbalanced(node: &Node) -> Vec<String> {
    let mut left = BTreeSet::new();
    for call in calls(node) {
        let mut words = call.split(' ');
        let (command, plugin, id) = (words.next().unwrap(), words.next().unwrap(), words.next());
        let attachment = format!("{plugin} {}", id.unwrap());
        match command {
            "ADD" => drop(left.insert(attachment)),
            "DEL" => drop(left.remove(&attachment)),
            _ => {}
        }
    }
    left.into_iter().collect()
}

/// Waits until calls that begin so have been made so often; returns the sandbox of the last one.
#[track_caller]
fn wait_for_calls(node: &Node, begin: &str, count: usize) -> String {
    let found = || {
        let mut calls = calls(node);
        calls.retain(|call| call.starts_with(begin));
        let last = calls.last()?.split(' ').nth(2)?.to_owned();
        (calls.len() >= count).then_some(last)
    };
    wait_for(found).unwrap_or_else(|| panic!("{begin} is not called: {:?}", calls(node)))
}

/// The processes of plugins of a node that have this in their environment.
fn plugins(node: &Node, with: &str) -> usize {
    let path = format!("CNI_PATH={}", node.path("bin").display());
    let runs = |entry: &fs::DirEntry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        environment.split('\0').any(|it| it == path) && environment.contains(with)
    };
    fs::read_dir("/proc").unwrap().flatten().filter(runs).count()
}
