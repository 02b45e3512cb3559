//! What containers find of the node's: volumes, files of the pod, logs of earlier runs.

use std::fs;
use std::os::unix::fs::chown;

use serde_json::{Value, json};

use crate::config::config_map;
use crate::manifest::{Manifest, pod};
use crate::node::{Node, wait_for};

/// A pod with this volume, which tells what `script` prints, and runs.
fn showing(node: &Node, name: &str, volume: Value, script: &str) -> Manifest {
    pod(name)
        .with_host_directory(&node.host())
        .with_volume(volume)
        .script(&format!("{script} >> /host/{name}"))
}

#[test]
fn a_directory_of_the_host_that_has_gone_is_there_for_the_next_run() {
    let Some(node) = Node::start() else { return };
    let directory = node.path("gone/inner");
    let volume = json!({ "name": "data", "hostPath": { "path": directory } });
    let script =
        "ls -d /data >> /host/web; until [ -e /host/end ]; do sleep 0.02; done; rm /host/end";
    let web = showing(&node, "web", volume, "true")
        .set("spec.terminationGracePeriodSeconds", 0)
        .exactly(script);
    node.put("web.yaml", &web);
    node.wait_for_running("web");
    node.wait_for_told("web", 1);
    fs::remove_dir(&directory).unwrap();
    fs::write(node.host().join("end"), "").unwrap();
    assert_eq!(node.wait_for_told("web", 2), ["/data", "/data"]);
    assert!(directory.is_dir());
}

#[test]
fn memory_is_no_larger_than_its_pod_may_be() {
    let Some(node) = Node::start() else { return };
    let size =
        "stat -f -c '%b %S' /memory | while read blocks each; do echo $((blocks * each)); done";
    for (name, volume, expected) in [
        ("pod", json!({ "medium": "Memory" }), 64 << 20),
        ("own", json!({ "medium": "Memory", "sizeLimit": "1Mi" }), 1 << 20),
        ("more", json!({ "medium": "Memory", "sizeLimit": "1Gi" }), 64 << 20),
    ] {
        let volume = json!({ "name": "memory", "emptyDir": volume });
        let limits = json!({ "limits": { "memory": "64Mi" } });
        let pod = showing(&node, name, volume, &format!("({size})"));
        node.put(&format!("{name}.yaml"), &pod.main("resources", limits));
        assert_eq!(node.wait_for_told(name, 1), [expected.to_string()], "{name}");
    }
}

/// Volumes that begin empty are given the pod's group when they are made, those of the host never, and files that
/// are made for the pod always: `fsGroupChangePolicy` says something of none of these.
#[test]
fn the_group_of_files_that_a_pod_has_changed_stays_whatever_is_said_of_it() {
    let Some(mut node) = Node::start() else { return };
    node.put("app.yaml", &config_map("app", &json!({ "conf": "c" })));
    let policies = ["OnRootMismatch", "Always"];
    let script = "cd /; for it in host/file disk disk/old memory memory/old map/conf; do \
                  echo $it $(stat -L -c %g $it 2> /dev/null || echo none); done";
    for policy in policies {
        let name = policy.to_lowercase();
        let directory = node.path(&name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), "").unwrap();
        chown(directory.join("file"), None, Some(7)).unwrap();
        let context = json!({ "fsGroup": 2000, "fsGroupChangePolicy": policy });
        let web = pod(&name)
            .with_host_directory(&directory)
            .set("spec.securityContext", context)
            .set("spec.terminationGracePeriodSeconds", 0)
            .with_volume(json!({ "name": "disk", "emptyDir": {} }))
            .with_volume(json!({ "name": "memory", "emptyDir": { "medium": "Memory" } }))
            .with_volume(json!({ "name": "map", "configMap": { "name": "app" } }));
        let told = format!("({script}) > /host/.told; cat /host/.told >> /host/told");
        // It gives the root of one volume and a file of the other to another group.
        let changes = "touch /disk/old /memory/old; chgrp 8 /disk /memory/old; \
                       until [ -e /host/end ]; do sleep 0.02; done; rm /host/end";
        node.put(&format!("{name}.yaml"), &web.exactly(&format!("{told}; {changes}")));
    }
    let told = |node: &Node, lines: usize| {
        policies.map(|policy| {
            let path = node.path(&policy.to_lowercase()).join("told");
            let read = || fs::read_to_string(&path).unwrap_or_default();
            let told = wait_for(|| Some(read()).filter(|it| it.lines().count() == lines));
            told.unwrap_or_else(|| panic!("{policy}: {}\n{}", read(), node.log()))
        })
    };
    let [first, same] = told(&node, 6);
    assert_eq!(first, same);
    expect_test::expect![[r#"
        host/file 7
        disk 2000
        disk/old none
        memory 2000
        memory/old none
        map/conf 2000
    "#]]
    .assert_eq(&first);
    // Another run, of another agent.
    node.kill();
    for policy in policies {
        fs::write(node.path(&policy.to_lowercase()).join("end"), "").unwrap();
    }
    node.launch();
    let [both, same] = told(&node, 12);
    assert_eq!(both, same);
    expect_test::expect![[r#"
        host/file 7
        disk 8
        disk/old 2000
        memory 2000
        memory/old 8
        map/conf 2000
    "#]]
    .assert_eq(both.strip_prefix(&first).unwrap());
}

#[test]
fn a_volume_in_the_place_of_a_directory_leaves_the_pod_its_own_files() {
    let Some(node) = Node::start() else { return };
    let script = "(cat /etc/resolv.conf; cat /etc/hostname; grep -c . /etc/hosts; ls /etc)";
    let volume = json!({ "name": "etc", "emptyDir": {} });
    let web = showing(&node, "web", volume, script)
        .set("spec.hostNetwork", false)
        .set("spec.dnsPolicy", "None")
        .set("spec.dnsConfig", json!({ "nameservers": ["192.0.2.1"] }));
    node.put("web.yaml", &web);
    let told = node.wait_for_told("web", 6);
    assert_eq!(told[..2], ["nameserver 192.0.2.1", "web-n1"], "{told:?}");
    assert_eq!(told[3..], ["hostname", "hosts", "resolv.conf"], "{told:?}");
}

#[test]
fn what_runs_have_logged_that_nobody_knows_any_more_is_gone() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure("crashLoopBackOff: { maxContainerRestartPeriod: 1s }\n");
    node.launch();
    // The fifth run lasts.
    let script = "echo run | tee -a /host/web; [ $(grep -c . /host/web) = 5 ] || exit";
    node.put("web.yaml", &pod("web").with_host_directory(&node.host()).script(script));
    node.wait_for_told("web", 5);
    let uid = node.status().pod("web").unwrap().uid.clone();
    let logs = node.path("root/log/pods");
    let of_pod = fs::read_dir(logs).unwrap().map(|entry| entry.unwrap().path());
    let of_pod: Vec<_> = of_pod.filter(|path| path.to_string_lossy().ends_with(&uid)).collect();
    assert_eq!(of_pod.len(), 1);
    let there = |run: u32| of_pod[0].join(format!("main/{run}.log")).exists();
    // The two before it can be asked for.
    assert!(wait_for(|| (!there(0) && !there(1)).then_some(())).is_some());
    assert!(there(3) && there(4));
}
