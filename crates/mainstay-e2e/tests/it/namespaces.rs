//! Process numbers and memory that containers share with each other or with the machine.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::manifest::{Manifest, command, exactly, pod};
use crate::node::{Node, wait_for};

/// A pod whose containers share their process numbers. The one beside `main` is privileged.
fn sharing(name: &str) -> Manifest {
    let beside = json!({
        "name": "beside", "image": "local/busybox:1", "command": command(""),
        "securityContext": { "privileged": true },
    });
    let pod = pod(name).set("spec.hostNetwork", false).set("spec.shareProcessNamespace", true);
    pod.set("spec.containers.1", beside)
}

/// The first process of the numbers that containers of a pod share, as the machine sees it.
fn first_process(node: &Node) -> i32 {
    let is_first = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:\t"));
        numbers.is_some_and(|numbers| numbers.ends_with("\t1"))
    };
    node.processes("").into_iter().find(is_first).unwrap()
}

#[test]
fn containers_that_share_process_numbers_see_each_other_and_nothing_of_the_machine() {
    let Some(mut node) = Node::start() else { return };
    node.put("web.yaml", &sharing("web"));
    let before = node.wait_for_running("web");
    let own = |container: &str| node.sh("web", container, "readlink /proc/self/ns/pid");
    assert_eq!(own("main"), own("beside"));
    let of_host = fs::read_link("/proc/self/ns/pid").unwrap();
    assert_ne!(own("main").trim(), of_host.to_str().unwrap());
    // So is what containerd's sandboxes are made of here.
    let all = 4 + usize::from(node.is_on_containerd());
    let seen = || node.sh("web", "main", "ps -o pid,args");
    // A shell that runs may not have come to it yet.
    let seen =
        wait_for(|| Some(seen()).filter(|seen| seen.matches("sleep infinity").count() == all))
            .unwrap_or_else(|| panic!("{}", seen()));
    assert!(!seen.contains("mainstay run"), "{seen}");

    if !node.is_on_containerd() {
        // The first process has nothing that could be taken from it.
        let status = node.sh("web", "beside", "cat /proc/1/status");
        let field = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), format!("{set}:\t0000000000000000"));
        }
        assert_eq!(field("NoNewPrivs"), "NoNewPrivs:\t1");
        assert_eq!(node.sh("web", "beside", "ls -A /proc/1/root/"), "");
        let mounts = node.sh("web", "beside", "cat /proc/1/mounts");
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        let refused = node.mainstay(&["exec", "web", "--", "ls", "/proc/1/root/"]).failure(1);
        assert!(refused.contains("Permission denied"), "{refused}");
        let open = node.sh("web", "beside", "ls /proc/1/fd | wc -l");
        assert_eq!(open.trim(), "4", "the standard streams and where ends are heard");

        // It takes leave of those whose parents have ended.
        node.sh("web", "main", "(sleep 0.1 & exec true)");
        let none = "cat /proc/[0-9]*/status | grep -q '^State:.Z' || echo none";
        wait_for(|| (node.sh("web", "main", none) == "none\n").then_some(())).unwrap();
    }

    // The next agent finds it, and commands are run there as before.
    node.kill();
    node.launch();
    assert_eq!(node.wait_for_running("web").id(), before.id());
    assert!(node.sh("web", "main", "ps").contains("sleep infinity"));
    // Without its first process nothing of the pod can be; it is made anew.
    kill_process(Pid::from_raw(first_process(&node)).unwrap(), Signal::KILL).unwrap();
    node.wait_until("the pod is made anew", |status| {
        status.pod("web").is_some_and(|pod| pod.runs() && pod.id() != before.id())
    });
}

#[test]
fn what_a_container_leaves_behind_ends_with_it_whatever_numbers_it_has() {
    let Some(node) = Node::start() else { return };
    let leaves = json!({
        "name": "leaves", "image": "local/busybox:1",
        "command": exactly("setsid sleep 4321 & exit 3"),
    });
    for (name, field) in [("shared", "shareProcessNamespace"), ("host", "hostPID")] {
        let pod = pod(name).set("spec.restartPolicy", "Never");
        let pod = pod.set(&format!("spec.{field}"), true).set("spec.containers.1", leaves.clone());
        node.put(&format!("{name}.yaml"), &pod);
        node.wait_until("one container has ended", |status| {
            let pod = status.pod(name).filter(|pod| pod.ready == 1);
            let state = pod.and_then(|pod| pod.container("leaves").state.clone());
            state.is_some_and(|state| state.terminated.is_some())
        });
        let left = || {
            let lines = node
                .processes("")
                .into_iter()
                .map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default());
            lines.filter(|line| line == "sleep\x004321\0").count()
        };
        wait_for(|| (left() == 0).then_some(())).unwrap_or_else(|| panic!("{name}"));
        assert!(node.status().pod(name).unwrap().container("main").ready);
    }
}

#[test]
fn a_pod_may_have_the_machines_processes_and_memory() {
    let Some(node) = Node::start() else { return };
    let host = pod("host").set("spec.hostPID", true).set("spec.hostIPC", true);
    node.put("host.yaml", &host);
    node.put("own.yaml", &pod("own"));
    let before = node.wait_for_running("host");
    node.wait_for_running("own");
    let here = std::process::id();
    let sees = format!("test -e /proc/{here}/exe -o -d /proc/{here} && echo yes || echo no");
    let memory = format!("{}\n", fs::metadata("/dev/shm").unwrap().dev());
    for (name, shares) in [("host", true), ("own", false)] {
        for kind in ["pid", "ipc"] {
            let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            let seen = node.sh(name, "main", &format!("readlink /proc/self/ns/{kind}"));
            assert_eq!(seen.trim() == link.to_str().unwrap(), shares, "{name} {kind}");
        }
        assert_eq!(node.sh(name, "main", &sees) == "yes\n", shares, "{name}");
        assert_eq!(node.sh(name, "main", "stat -c %d /dev/shm") == memory, shares, "{name}");
    }
    // Its end is that of its own processes alone.
    node.take("host.yaml");
    node.wait_for_gone("host");
    assert!(before.runs() && node.status().pod("own").unwrap().runs());
}
