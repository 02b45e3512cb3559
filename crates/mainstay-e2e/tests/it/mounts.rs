//! What is mounted on one side and seen, or written, on the other.

use std::fs;
use std::path::Path;

use mainstay_linux::mount;
use rustix::mount::{MountPropagationFlags, mount_change};
use serde_json::{Value, json};

use crate::manifest::{Manifest, command, pod};
use crate::node::Node;

/// A directory that shares what is mounted in it, until it is dropped.
struct Shared<'a>(&'a Path);

impl<'a> Shared<'a> {
    fn make(path: &'a Path) -> Self {
        fs::create_dir(path).unwrap();
        mount::tmpfs(path, None, 0o755).unwrap();
        mount_change(path, MountPropagationFlags::SHARED).unwrap();
        Self(path)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        for point in mount::mount_points().unwrap().iter().rev() {
            if point.starts_with(self.0) {
                mount::detach(point).unwrap();
            }
        }
    }
}

/// A pod whose containers, of these names, have a directory of the host at `/data`, each in its way.
fn with_directory(name: &str, path: &Path, containers: &[(&str, Value)]) -> Manifest {
    let container = |(name, mount): &(&str, Value)| {
        let mut mounted = json!({ "name": "data", "mountPath": "/data" });
        mounted.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
        json!({
            "name": name, "image": "local/busybox:1", "command": command(""),
            "volumeMounts": [mounted],
            "securityContext": { "privileged": mount["mountPropagation"] == "Bidirectional" },
        })
    };
    pod(name)
        .set("spec.containers", containers.iter().map(container).collect::<Vec<_>>())
        .set("spec.volumes", json!([{ "name": "data", "hostPath": { "path": path } }]))
}

#[test]
fn mounts_are_seen_on_the_sides_that_a_manifest_names() {
    let Some(node) = Node::start() else { return };
    let directory = node.path("shared");
    let shared = Shared::make(&directory);
    for name in ["host", "pod"] {
        fs::create_dir(directory.join(name)).unwrap();
    }
    let propagation = |mode: &str| json!({ "mountPropagation": mode });
    let containers = [
        ("none", json!({})),
        ("receives", propagation("HostToContainer")),
        ("both", propagation("Bidirectional")),
    ];
    node.put("web.yaml", &with_directory("web", &directory, &containers));
    node.wait_for_running("web");
    // What the host mounts later.
    mount::tmpfs(&directory.join("host"), None, 0o755).unwrap();
    fs::write(directory.join("host/file"), "host").unwrap();
    // What a container mounts.
    node.sh("web", "both", "mount -t tmpfs none /data/pod && echo pod > /data/pod/file");
    assert_eq!(fs::read_to_string(directory.join("pod/file")).unwrap(), "pod\n");
    let seen = "for name in host pod; do [ -e /data/$name/file ] && echo $name; done; true";
    assert_eq!(node.sh("web", "none", seen), "");
    assert_eq!(node.sh("web", "receives", seen), "host\npod\n");
    assert_eq!(node.sh("web", "both", seen), "host\npod\n");
    // What is unmounted goes on both sides, and only a privileged container may mount at all.
    node.sh("web", "both", "umount /data/pod");
    mount::detach(&directory.join("host")).unwrap();
    assert_eq!(node.sh("web", "receives", seen), "");
    assert!(!directory.join("pod/file").exists());
    let mount =
        ["exec", "web", "-c", "receives", "--", "mount", "-t", "tmpfs", "none", "/data/pod"];
    assert!(!node.mainstay(&mount).status.success());
    // Nothing of a container that ends stays on the host.
    node.take("web.yaml");
    node.wait_for_gone("web");
    let below = |point: &&std::path::PathBuf| point.starts_with(&directory);
    assert_eq!(mount::mount_points().unwrap().iter().filter(below).count(), 1);
    drop(shared);
}

#[test]
fn a_directory_that_shares_with_nobody_is_named() {
    let Some(node) = Node::start() else { return };
    let directory = node.path("private");
    let private = Shared::make(&directory);
    mount_change(&directory, MountPropagationFlags::PRIVATE).unwrap();
    for (name, mode, wanted) in [
        ("receives", "HostToContainer", "a shared or slave mount"),
        ("both", "Bidirectional", "a shared mount"),
    ] {
        let mode = json!({ "mountPropagation": mode });
        node.put(&format!("{name}.yaml"), &with_directory(name, &directory, &[("main", mode)]));
        let pod = node.wait_for_state(name, "CreateContainerError");
        let path = directory.display();
        let problem = format!("path \"{path}\" is mounted on \"{path}\" but it is not {wanted}");
        assert!(pod.problem.as_ref().unwrap().contains(&problem), "{:?}", pod.problem);
    }
    for name in ["receives", "both"] {
        node.take(&format!("{name}.yaml"));
        node.wait_for_gone(name);
    }
    drop(private);
}

#[test]
fn what_cannot_be_written_cannot_below_either_if_that_is_asked_for() {
    let Some(node) = Node::start() else { return };
    if node.skips_on_containerd("recursiveReadOnly, since 2.0") {
        return;
    }
    let directory = node.path("outer");
    let shared = Shared::make(&directory);
    fs::create_dir(directory.join("inner")).unwrap();
    mount::tmpfs(&directory.join("inner"), None, 0o777).unwrap();
    let readonly = |mode: &str| json!({ "readOnly": true, "recursiveReadOnly": mode });
    let containers = [
        ("writable", json!({})),
        ("plain", json!({ "readOnly": true })),
        ("disabled", readonly("Disabled")),
        ("possible", readonly("IfPossible")),
        ("enabled", readonly("Enabled")),
    ];
    node.put("web.yaml", &with_directory("web", &directory, &containers));
    let web = node.wait_for_running("web");
    for (name, outer, inner, told) in [
        ("writable", true, true, None),
        ("plain", false, true, Some("Disabled")),
        ("disabled", false, true, Some("Disabled")),
        ("possible", false, false, Some("Enabled")),
        ("enabled", false, false, Some("Enabled")),
    ] {
        for (file, writable) in [("/data/file", outer), ("/data/inner/file", inner)] {
            let touch = ["exec", "web", "-c", name, "--", "touch", file];
            let outcome = node.mainstay(&touch);
            assert_eq!(outcome.status.success(), writable, "{name} {file}: {outcome:?}");
        }
        let mounts = web.container(name).volume_mounts.clone().unwrap();
        assert_eq!(mounts[0].recursive_read_only.as_deref(), told, "{name}");
    }
    node.take("web.yaml");
    node.wait_for_gone("web");
    drop(shared);
}
