//! Pods with users of their own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::api::{create, kubectl, wait_for_phase};
use crate::config::{config_map, put_secret, secret};
use crate::manifest::{Manifest, pod};
use crate::node::{Node, wait_for};

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

/// Files that the node makes are their owners' also in there, and each user reads what it may.
#[test]
fn other_users_of_a_pod_read_what_is_made_for_them() {
    let Some(node) = Node::start() else { return };
    node.put("app.yaml", &config_map("app", &json!({ "conf": "c" })));
    put_secret(&node, "db.yaml", &secret("db", &json!({ "password": "p" })));
    let sources = json!([
        { "configMap": { "name": "app" } },
        { "secret": { "name": "db", "items": [{ "key": "password", "path": "d/password" }] } },
        { "downwardAPI": { "items":
            [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
    ]);
    let web = |name: &str, pod: Value, user: u32| {
        web(&node, name)
            .set("spec.securityContext", pod)
            .main("securityContext", json!({ "runAsUser": user }))
            .with_volume(json!({ "name": "map", "configMap": { "name": "app" } }))
            .with_volume(json!({ "name": "secret", "secret":
                { "secretName": "db", "defaultMode": 0o400 } }))
            .with_volume(json!({ "name": "all", "projected":
                { "sources": sources, "defaultMode": 0o600 } }))
    };
    let files = "cd /; for it in map/conf secret/password all/conf all/d/password all/name; do \
                 echo $(stat -L -c '%a %u:%g' $it) $(cat $it 2> /dev/null || echo none); done";
    let grouped = json!({ "fsGroup": 2000 });
    node.put("root.yaml", &web("root", json!({}), 0));
    node.put("group.yaml", &web("group", grouped, 1000));
    node.put("other.yaml", &web("other", json!({}), 1000));
    let told = |name: &str, user: u32| {
        root_of(&node, name, user);
        node.sh(name, "main", files)
    };
    expect_test::expect![[r#"
        644 0:0 c
        400 0:0 p
        600 0:0 c
        600 0:0 p
        600 0:0 root-n1
    "#]]
    .assert_eq(&told("root", 0));
    expect_test::expect![[r#"
        644 0:2000 c
        440 0:2000 p
        640 0:2000 c
        640 0:2000 p
        640 0:2000 group-n1
    "#]]
    .assert_eq(&told("group", 1000));
    expect_test::expect![[r#"
        644 0:0 c
        400 0:0 none
        600 0:0 none
        600 0:0 none
        600 0:0 none
    "#]]
    .assert_eq(&told("other", 1000));
}

/// A token is its user's alone.
#[test]
fn another_user_of_a_pod_of_the_api_has_its_token() {
    let Some(node) = Node::start() else { return };
    let account = ["get", "serviceaccount", "default"];
    let made = wait_for(|| kubectl(&node, &account).status.success().then_some(()));
    assert!(made.is_some(), "{}", node.log());
    let web = web(&node, "web").set("spec.nodeName", "n1").main("imagePullPolicy", "Never");
    create(&node, &web.main("securityContext", json!({ "runAsUser": 1000 })));
    wait_for_phase(&node, "web", "Running");
    let script = "cd /var/run/secrets/kubernetes.io/serviceaccount; stat -L -c '%a %u' token; \
                  cat namespace; head -c 3 token; head -c 10 ca.crt";
    let told = kubectl(&node, &["exec", "web", "--", "sh", "-c", script]).success();
    assert_eq!(told, "600 1000\ndefaulteyJ-----BEGIN");
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
