//! The same directory of static pods runs alone, in a cluster, cut off from it, and alone again: nothing of it
//! begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use mainstay_testkit::tools;
use serde_json::json;

use crate::join::Cluster;
use crate::machines::enter;
use crate::manifest::{command, pod};
use crate::node::{Node, wait_for};
use crate::program::run;

/// What there is of the pods, to the last process.
#[derive(Debug, PartialEq)]
struct Picture {
    /// The container `main` of each pod, how often containers of the pod began anew, and its addresses.
    pods: BTreeMap<String, (String, i32, Vec<String>)>,
    processes: BTreeSet<i32>,
}

const PODS: [&str; 3] = ["web", "own", "pair"];

fn picture(node: &Node) -> Picture {
    let pods = PODS.map(|name| {
        let pod = node.wait_for_running(name);
        let ips = pod.status.pod_ips.iter().flatten().map(|it| it.ip.clone());
        (name.to_owned(), (pod.id().to_owned(), pod.restarts, ips.collect()))
    });
    Picture { pods: pods.into(), processes: node.processes("") }
}

/// Waits until all containers have come to what they stay with, and returns the picture.
fn first_picture(node: &Node) -> Picture {
    let sleeps = |pid: &&i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == "sleep\0infinity\0"
    };
    // One of the pods has two containers.
    let stays = |picture: &Picture| picture.processes.iter().filter(sleeps).count() > PODS.len();
    wait_for(|| Some(picture(node)).filter(stays)).unwrap()
}

/// Waits until all is as it was. What began anew never is.
#[track_caller]
fn wait_for_same(node: &Node, first: &Picture) {
    let mut last = None;
    let is_same = || {
        let now = picture(node);
        let found = (now == *first).then_some(());
        last = Some(now);
        found
    };
    assert!(wait_for(is_same).is_some(), "{last:#?} is not {first:#?}");
}

/// Waits until an API shows these pods of the node, and no others, as running.
#[track_caller]
fn wait_for_mirrors(kubectl: impl Fn(&[&str]) -> String, expected: &[&str]) {
    let path = "jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}";
    let get = ["get", "pod", "--field-selector=spec.nodeName=n2", "-o", path];
    let all: BTreeSet<String> = expected.iter().map(|name| format!("{name}-n2=Running")).collect();
    let mut last = String::new();
    let found = wait_for(|| {
        last = kubectl(&get);
        let shown: BTreeSet<String> = last.split_whitespace().map(str::to_owned).collect();
        (shown == all).then_some(())
    });
    assert!(found.is_some(), "{last}");
}

/// Asks the API that the node has when it is alone.
fn own_kubectl(cluster: &Cluster, node: &Node) -> impl Fn(&[&str]) -> String + use<> {
    let (machine, kubeconfig) = (cluster.machines.path(1), node.path("root/kubeconfig"));
    move |arguments| {
        let mut kubectl = enter(&machine, tools::kubectl());
        run(kubectl.arg("--kubeconfig").arg(&kubeconfig).args(arguments)).stdout
    }
}

#[test]
fn pods_outlive_every_change_of_who_is_above_them() {
    let Some(cluster) = Cluster::new(2, &[]) else { return };
    let mut node = cluster.member(1, "n2", "rotateCertificates: true");
    let (kubeconfig, bootstrap) = (node.path("kubelet.conf"), node.path("bootstrap.conf"));
    cluster.bootstrap(&bootstrap);
    let theirs = |arguments: &[&str]| cluster.kubectl(arguments).stdout;
    // Alone.
    node.launch();
    node.put("web.yaml", &pod("web").script("echo alone"));
    node.put("own.yaml", &pod("own").set("spec.hostNetwork", false));
    let other = json!({ "name": "other", "image": "local/busybox:1", "command": command("") });
    node.put("pair.yaml", &pod("pair").set("spec.containers.1", other));
    let first = first_picture(&node);
    wait_for_mirrors(own_kubectl(&cluster, &node), &PODS);
    // In a cluster.
    node.terminate();
    node.belong(&kubeconfig, Some(&bootstrap));
    node.launch();
    cluster.wait_for_ready("n2");
    wait_for_mirrors(theirs, &PODS);
    cluster.wait_for_output(&["logs", "web-n2"], "alone");
    wait_for_same(&node, &first);
    // The cluster does not answer, neither this agent nor the next one.
    cluster.machines.cut(0);
    node.put("later.yaml", &pod("later"));
    node.wait_for_running("later");
    node.take("later.yaml");
    node.wait_for_gone("later");
    wait_for_same(&node, &first);
    node.terminate();
    node.launch();
    wait_for_same(&node, &first);
    node.put("more.yaml", &pod("more"));
    node.wait_for_running("more");
    cluster.machines.heal(0);
    wait_for_mirrors(theirs, &[&PODS[..], &["more"]].concat());
    node.take("more.yaml");
    node.wait_for_gone("more");
    wait_for_mirrors(theirs, &PODS);
    wait_for_same(&node, &first);
    // Alone again.
    node.terminate();
    node.leave();
    node.launch();
    wait_for_mirrors(own_kubectl(&cluster, &node), &PODS);
    wait_for_same(&node, &first);
}
