//! Pods with users of their own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::manifest::{Manifest, pod};
use crate::node::Node;

/// A pod that may mount, has a directory of the host, and both kinds of volumes that go with it.
fn web(node: &Node, name: &str) -> Manifest {
    let volumes = json!([
        { "name": "host", "hostPath": { "path": node.path("host") } },
        { "name": "disk", "emptyDir": {} },
        { "name": "memory", "emptyDir": { "medium": "Memory" } },
    ]);
    let mounts = json!([
        { "name": "host", "mountPath": "/host" },
        { "name": "disk", "mountPath": "/disk" },
        { "name": "memory", "mountPath": "/memory" },
    ]);
    let pod = pod(name).set("spec.hostNetwork", false).set("spec.hostUsers", false);
    let pod = pod.set("spec.volumes", volumes).main("volumeMounts", mounts);
    pod.main("securityContext.capabilities.add", json!(["SYS_ADMIN", "NET_ADMIN"]))
}

/// Which of the machine's users the pod's first one is; `user` is the one that its processes have.
fn root_of(node: &Node, pod: &str, user: u32) -> u32 {
    node.wait_for_running(pod);
    let map = node.sh(pod, "main", "cat /proc/self/uid_map");
    let root = map.split_whitespace().nth(1).unwrap().parse().unwrap();
    let has =
        |pid: &i32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|it| it.uid() == root + user);
    assert!(node.processes("").iter().any(has), "nobody on the machine is {root} and {user}");
    root
}

#[test]
fn root_in_a_pod_is_nobody_on_the_machine() {
    let Some(mut node) = Node::start() else { return };
    node.put("a.yaml", &web(&node, "a"));
    node.put("b.yaml", &web(&node, "b"));
    let (a, b) = (root_of(&node, "a", 0), root_of(&node, "b", 0));
    assert!(a >= 1 << 16 && b >= 1 << 16 && a.abs_diff(b) >= 1 << 16, "{a} {b}");
    for again in [false, true] {
        assert_eq!(node.sh("a", "main", "id -u; id -g"), "0\n0\n");
        // Owners are as in the image and in the volumes, on both sides.
        let write = "for it in host disk memory; do echo x > /$it/new; done; touch /new; \
                     stat -c %u /host/new /disk/new /memory/new /new /bin /etc/hosts /dev/null";
        assert_eq!(node.sh("a", "main", write), "0\n".repeat(7));
        assert_eq!(fs::metadata(node.path("host/new")).unwrap().uid(), 0);
        // It has its rights over what is the pod's, and none over what is the machine's.
        let may = "ip link set lo mtu 1400 && mount -t tmpfs x /tmp && umount /tmp && hostname x";
        node.sh("a", "main", may);
        let may_not = "echo 1 > /proc/sys/kernel/panic || mknod /tmp/a b 8 0 || umount /proc/keys";
        node.mainstay(&["exec", "a", "--", "sh", "-c", may_not]).failure(1);
        if !again {
            node.kill();
            node.launch();
        }
    }
    assert_eq!((root_of(&node, "a", 0), root_of(&node, "b", 0)), (a, b));
}

#[test]
fn other_users_of_a_pod_have_what_the_manifest_gives_them() {
    let Some(node) = Node::start() else { return };
    let web = web(&node, "web").set("spec.securityContext", json!({ "fsGroup": 2000 }));
    let own = |user: u32| web.clone().main("securityContext", json!({ "runAsUser": user }));
    node.put("web.yaml", &own(1000));
    root_of(&node, "web", 1000);
    let script = "echo x > /disk/new; echo x > /memory/new; stat -c %u:%g /disk/new /memory/new";
    assert_eq!(node.sh("web", "main", script), "1000:2000\n".repeat(2));
    // Such a user is none of the pod's.
    node.put("web.yaml", &own(70_000).set("metadata.name", "far"));
    let far = node.wait_for_state("far", "CreateContainerError");
    let problem = far.problem.unwrap();
    assert!(problem.contains("70000 is not one of its 65536"), "{problem}");
}

#[test]
fn all_of_proc_is_shown_where_that_is_asked_for() {
    let Some(node) = Node::start() else { return };
    let web = web(&node, "web");
    node.put("web.yaml", &web);
    node.wait_for_running("web");
    // Only who sees all of a process file system gets another one in namespaces of its own.
    let nested = "unshare -U -r -m -p -f mount -t proc proc /tmp";
    let refused = node.mainstay(&["exec", "web", "--", "sh", "-c", nested]).failure(1);
    assert!(refused.contains("Operation not permitted") || refused.contains("denied"), "{refused}");
    let open = web.set("metadata.name", "open").main("securityContext.procMount", "Unmasked");
    node.put("open.yaml", &open);
    node.wait_for_running("open");
    node.sh("open", "main", nested);
}

#[test]
fn disks_of_the_machine_stay_the_machines() {
    let Some(node) = Node::start() else { return };
    let partitions = fs::read_to_string("/proc/partitions").unwrap();
    let disk = partitions.lines().skip(2).find_map(|line| line.split_whitespace().nth(3)).unwrap();
    let web = web(&node, "web").main("securityContext", json!({ "privileged": true }));
    node.put("web.yaml", &web);
    node.wait_for_running("web");
    let read = format!("head -c 1 /dev/{disk}");
    let refused = node.mainstay(&["exec", "web", "--", "sh", "-c", &read]).failure(1);
    assert!(refused.contains("Permission denied"), "{refused}");
    node.sh("web", "main", "echo x > /dev/null");
}
