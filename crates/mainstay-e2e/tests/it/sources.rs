//! Where manifests come from: directories and files in all the states that they get into.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::manifest::pod;
use crate::node::{Node, Pod, Status};

/// Replaces paths of the instance.
fn without_paths(node: &Node, text: &str) -> String {
    text.replace(node.manifests().parent().unwrap().to_str().unwrap(), "DIR")
}

/// What is said about manifests and directories.
fn told(node: &Node, status: &Status) -> String {
    let mut lines = Vec::new();
    for manifest in &status.manifests {
        lines.extend(manifest.notes.iter().map(|note| note.message.clone()));
    }
    for source in &status.sources {
        let error = source.error.as_deref().unwrap_or_default();
        lines.push(format!("{}: {error}{}", source.path, source.ignored.join(" ")));
    }
    without_paths(node, &lines.join("\n"))
}

#[track_caller]
fn check(node: &Node, expected: &Expect) {
    expected.assert_eq(&told(node, &node.status()));
}

#[test]
fn only_manifests_by_their_names_are_read() {
    let Some(node) = Node::start() else { return };
    let others = [
        ".hidden.yaml",
        "web.yaml.bak",
        "web.yaml~",
        "#web.yaml#",
        ".web.yaml.swp",
        "4913",
        "web.yaml.orig",
        "web.yaml.rpmsave",
        "notes.txt",
    ];
    for name in others {
        node.put(name, &pod("other"));
    }
    fs::create_dir(node.manifests().join("below")).unwrap();
    fs::write(node.manifests().join("below/web.yaml"), pod("below").to_string()).unwrap();
    for (name, file) in [("a", "a.yaml"), ("b", "b.yml"), ("c", "c.json")] {
        node.put(file, &pod(name));
        node.wait_for_running(name);
    }
    let status = node.wait_until("all others are listed", |status| {
        status.sources.first().is_some_and(|source| source.ignored.len() == others.len())
    });
    assert_eq!(status.pods.len(), 3);
    check(
        &node,
        &expect![
            "DIR/manifests: #web.yaml# .hidden.yaml .web.yaml.swp 4913 notes.txt web.yaml.bak web.yaml.orig web.yaml.rpmsave web.yaml~"
        ],
    );
    // All is as it should be.
    node.mainstay(&["status"]).success();
}

#[test]
fn a_file_that_is_being_written_is_not_read_as_a_pod() {
    let Some(node) = Node::start() else { return };
    let manifest = |name: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  hostNetwork: true
  volumes:
  - {{name: host, hostPath: {{path: {}}}}}
  containers:
  - name: first
    image: local/busybox:1
    command: [sh, -c, \"trap exit TERM; echo $0 >> /host/{name}; sleep infinity & wait\", half]
    volumeMounts:
    - {{name: host, mountPath: /host}}
",
            node.host().display()
        )
    };
    // The first half is a pod by itself. Between the two, another manifest is seen to be read. If
    // that takes longer than anybody would pause in writing a file, it says nothing.
    let slow = Duration::from_millis(600);
    for number in 0.. {
        let name = format!("web-{number}");
        let first = manifest(&name);
        let rest = first.split_once("  - name: first").unwrap().1;
        let rest = format!("  - name: second{}", rest.replace("half", "whole"));
        let begin = Instant::now();
        let mut file = File::create(node.manifests().join(format!("{name}.yaml"))).unwrap();
        file.write_all(first.as_bytes()).unwrap();
        let fence = format!("fence-{number}");
        node.put(&format!("{fence}.yaml"), &pod(&fence));
        node.wait_until("the other manifest is read", |status| status.pod(&fence).is_some());
        file.write_all(rest.as_bytes()).unwrap();
        drop(file);
        let pause = begin.elapsed();
        let pod = node.wait_for_running(&name);
        if pause < slow {
            assert_eq!(pod.containers, 2);
            let mut told = node.wait_for_told(&name, 2);
            told.sort();
            assert_eq!(told, ["half", "whole"]);
            return;
        }
    }
}

#[test]
fn a_file_may_hold_several_pods_and_one_bad_document_harms_only_itself() {
    let Some(node) = Node::start() else { return };
    let text = format!(
        "---\n{}\n---\n# nothing\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: b}}\n---\n\
         apiVersion: v1\nkind: List\nitems:\n- {}\n- apiVersion: v1\n  kind: Service\n- {}\n---\n{}\n",
        pod("a"),
        pod("c").to_string().replace('\n', " "),
        pod("d").to_string().replace('\n', " "),
        pod("e").set("spec.hostNetwrk", true),
    );
    node.put("all.yaml", &text);
    for name in ["a", "c", "d"] {
        node.wait_for_running(name);
    }
    check(
        &node,
        &expect![[r#"
        DIR/manifests/all.yaml:27:7: kind: document 2 is of kind Deployment; a manifest directory takes Pods, ConfigMaps and Secrets only (static pods are Pods: write a Pod from the template of the Deployment, or apply the Deployment through the Kubernetes API)
        DIR/manifests/all.yaml:35:9: kind: document 3 is of kind Service; a manifest directory takes Pods, ConfigMaps and Secrets only (objects of kind Service are applied through the Kubernetes API: kubectl apply -f)
        DIR/manifests/all.yaml:57:5: spec.hostNetwrk: unknown field (did you mean hostNetwork?)"#]],
    );
    let before = node.status();
    // One of them is taken out of the file, and one goes bad.
    let text = format!("---\n{}\n---\n{}\n", pod("c").set("spec.x", 1), pod("d"));
    node.put("all.yaml", &text);
    node.wait_for_gone("a");
    let status = node.status();
    for name in ["c", "d"] {
        assert_eq!(status.pod(name).unwrap().id(), before.pod(name).unwrap().id());
    }
    check(&node, &expect!["DIR/manifests/all.yaml:21:5: spec.x: unknown field"]);
}

#[test]
fn unknown_fields_are_refused_or_told_or_let_pass_as_the_flag_says() {
    for (flag, runs, expected) in [
        (
            "strict",
            false,
            expect![[r#"
            DIR/manifests/web.yaml:16:9: spec.containers[0].imagePolicy: unknown field (did you mean imagePullPolicy?)
            DIR/manifests/web.yaml:21:5: spec.hostNetwrk: unknown field (did you mean hostNetwork?)"#]],
        ),
        (
            "warn",
            true,
            expect![[r#"
            DIR/manifests/web.yaml:16:9: spec.containers[0].imagePolicy: unknown field (did you mean imagePullPolicy?)
            DIR/manifests/web.yaml:21:5: spec.hostNetwrk: unknown field (did you mean hostNetwork?)"#]],
        ),
        ("ignore", true, expect![[""]]),
    ] {
        let Some(mut node) = Node::prepare() else { return };
        node.arguments.push(format!("--validate={flag}"));
        node.launch();
        node.put("web.yaml", &pod("web").set("spec.hostNetwrk", true).main("imagePolicy", "Never"));
        node.put("web2.yaml", &pod("web2"));
        node.wait_for_running("web2");
        let status = node.wait_until("the manifest was read", |status| {
            !status.manifests.is_empty() || status.pod("web").is_some_and(Pod::runs)
        });
        assert_eq!(status.pod("web").is_some(), runs);
        check(&node, &expected);
        if runs {
            node.wait_for_running("web");
        }
    }
}

#[test]
fn of_two_manifests_for_one_pod_the_one_that_runs_counts() {
    let Some(mut node) = Node::prepare() else { return };
    let host = node.host();
    let version = |word: &str| {
        pod("web").with_host_directory(&host).script(&format!("echo {word} >> /host/web"))
    };
    let (b, c) = (version("b"), version("c"));
    // At first the lower path.
    node.put("c.yaml", &c);
    node.put("b.yaml", &b);
    node.launch();
    let first = node.wait_for_running("web");
    check(
        &node,
        &expect!["pod default/web-n1 is taken from DIR/manifests/b.yaml; remove one of the two"],
    );
    // A lower one that comes later does not.
    node.put("a.yaml", &version("a"));
    let status = node.wait_until("both others are told", |status| status.manifests.len() == 2);
    assert_eq!(status.pod("web").unwrap().id(), first.id());
    check(
        &node,
        &expect![[r#"
        pod default/web-n1 is taken from DIR/manifests/b.yaml; remove one of the two
        pod default/web-n1 is taken from DIR/manifests/b.yaml; remove one of the two"#]],
    );
    // Nor with the next agent.
    node.kill();
    node.launch();
    let status = node.wait_until("both others are told", |status| status.manifests.len() == 2);
    let second = status.pod("web").unwrap();
    assert!(second.manifest.as_ref().unwrap().ends_with("/b.yaml"));
    assert_eq!(second.id(), first.id());
    // The same version in another file is no reason to start anew, another one is.
    node.put("a.yaml", &b);
    node.take("b.yaml");
    let status = node.wait_until("another manifest counts", |status| {
        status.pod("web").unwrap().manifest.as_ref().unwrap().ends_with("/a.yaml")
    });
    assert_eq!(status.pod("web").unwrap().id(), first.id());
    node.take("a.yaml");
    node.wait_for_told("web", 2);
    node.wait_for_running("web");
    assert_eq!(node.told("web"), ["b", "c"]);
}

#[test]
fn a_directory_that_goes_away_stops_nothing() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure("fileCheckFrequency: 100ms");
    node.launch();
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    let (place, aside) = (node.manifests(), node.path("aside"));
    let check = |error: &str| {
        let expected = format!("DIR/manifests: {error}");
        let status = node.wait_until(&format!("this is told: {error}"), |status| {
            told(&node, status) == expected
        });
        assert_eq!(status.pod("web").unwrap().id(), before.id());
        assert_eq!(node.mainstay(&["status"]).status.code(), Some(1));
    };
    let back = || {
        fs::rename(&aside, &place).unwrap();
        let status = node.wait_until("the directory is back", |status| status.sources.is_empty());
        assert_eq!(status.pod("web").unwrap().id(), before.id());
    };
    // Renamed away.
    fs::rename(&place, &aside).unwrap();
    check("No such file or directory (os error 2)");
    back();
    // An empty one in its place, as when a file system is not mounted.
    fs::rename(&place, &aside).unwrap();
    fs::create_dir(&place).unwrap();
    check(
        "it is not the directory that the manifests were in, and it is empty; their pods run on. \
         Bring it back, or put a manifest into it",
    );
    fs::remove_dir(&place).unwrap();
    back();
    // Something else in its place, and something that root cannot look at either.
    fs::rename(&place, &aside).unwrap();
    fs::write(&place, "").unwrap();
    check("Not a directory (os error 20)");
    fs::remove_file(&place).unwrap();
    symlink("manifests", &place).unwrap();
    check("Too many levels of symbolic links (os error 40)");
    fs::remove_file(&place).unwrap();
    back();
    // It is watched as before.
    node.take("web.yaml");
    node.wait_for_gone("web");
    // Another one with manifests counts.
    node.put("web.yaml", &pod("web"));
    node.wait_for_running("web");
    fs::rename(&place, &aside).unwrap();
    fs::create_dir(&place).unwrap();
    node.put("new.yaml", &pod("new"));
    node.wait_for_running("new");
    node.wait_for_gone("web");
    node.take("new.yaml");
    node.wait_for_gone("new");
}

#[test]
fn a_disk_that_is_away_when_the_agent_starts_stops_nothing() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure("fileCheckFrequency: 100ms");
    node.launch();
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    node.terminate();
    // The place where it is to be mounted is there, and empty.
    let (place, aside) = (node.manifests(), node.path("aside"));
    fs::rename(&place, &aside).unwrap();
    fs::create_dir(&place).unwrap();
    node.launch();
    check(
        &node,
        &expect![[r"
        DIR/manifests: it is not the directory that the manifests were in, and it is empty; their pods run on. Bring it back, or put a manifest into it"]],
    );
    assert_eq!(node.wait_for_running("web").id(), before.id());
    // After a reboot it is started as it was.
    node.cut_power();
    node.launch();
    let after = node.wait_for_running("web");
    assert_ne!(after.id(), before.id());
    fs::remove_dir(&place).unwrap();
    fs::rename(&aside, &place).unwrap();
    let status = node.wait_until("the directory is back", |status| status.sources.is_empty());
    assert_eq!(status.pod("web").unwrap().id(), after.id());
    node.take("web.yaml");
    node.wait_for_gone("web");
}

#[test]
fn a_missing_directory_is_told_once_and_used_when_it_is_there() {
    let Some(mut node) = Node::prepare() else { return };
    let missing = node.path("missing/below");
    node.configure("fileCheckFrequency: 100ms");
    node.arguments.push(format!("--pod-manifest-path={}", missing.display()));
    node.launch();
    node.put("other.yaml", &pod("other"));
    node.wait_for_running("other");
    check(&node, &expect!["DIR/missing/below: No such file or directory (os error 2)"]);
    fs::create_dir_all(&missing).unwrap();
    fs::write(missing.join("web.yaml"), pod("web").to_string()).unwrap();
    node.wait_for_running("web");
    node.wait_until("nothing is missing", |status| status.sources.is_empty());
    let log = node.log();
    let told = log.lines().filter(|line| line.contains(missing.to_str().unwrap()));
    // Of events it is told as well, as often as they come.
    let told = told.filter_map(|line| line.split_once("Z ")).map(|it| it.1.trim());
    let told: Vec<&str> = told.filter(|line| !line.starts_with("DEBUG")).collect();
    expect![[r#"
         WARN cannot look at the manifests; their pods run on path=DIR/missing/below error="No such file or directory (os error 2)"
         INFO the manifests can be looked at again path=DIR/missing/below"#]].assert_eq(&without_paths(&node, &told.join("\n")));
}

#[test]
fn what_is_no_regular_file_is_told_and_holds_nothing_up() {
    let Some(node) = Node::start() else { return };
    let special = |name: &str, kind: FileType, device: u64| {
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, node.manifests().join(name), kind, mode, device).unwrap();
    };
    special("fifo.yaml", FileType::Fifo, 0);
    // /dev/zero, which never ends.
    special("zero.yaml", FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    let _socket = UnixListener::bind(node.manifests().join("socket.yaml")).unwrap();
    symlink("nowhere", node.manifests().join("link.yaml")).unwrap();
    symlink("loop.yaml", node.manifests().join("loop.yaml")).unwrap();
    node.put("web.yaml", &pod("web"));
    node.wait_for_running("web");
    node.wait_until("all are told", |status| status.manifests.len() == 5);
    check(
        &node,
        &expect![[r#"
        cannot be read: it is not a regular file, and only those are read
        cannot be read: it is a link to nowhere
        cannot be read: Too many levels of symbolic links (os error 40)
        cannot be read: No such device or address (os error 6)
        cannot be read: it is not a regular file, and only those are read"#]],
    );
    for name in ["fifo.yaml", "zero.yaml", "socket.yaml", "link.yaml", "loop.yaml", "web.yaml"] {
        node.take(name);
    }
    node.wait_for_gone("web");
    node.wait_until("all are forgotten", |status| status.manifests.is_empty());
}

#[test]
fn manifests_behind_links_are_followed_also_when_the_links_change() {
    let Some(node) = Node::start() else { return };
    let data = |name: &str, word: &str| {
        let directory = node.manifests().join(name);
        fs::create_dir(&directory).unwrap();
        let web = pod("web").with_host_directory(&node.host());
        let web = web.script(&format!("echo {word} >> /host/web"));
        fs::write(directory.join("web.yaml"), web.to_string()).unwrap();
    };
    let point_to = |name: &str| {
        symlink(name, node.manifests().join("..tmp")).unwrap();
        fs::rename(node.manifests().join("..tmp"), node.manifests().join("..data")).unwrap();
    };
    // As the kubelet lays out a ConfigMap.
    data("..1", "first");
    point_to("..1");
    symlink("..data/web.yaml", node.manifests().join("web.yaml")).unwrap();
    node.wait_for_told("web", 1);
    data("..2", "second");
    point_to("..2");
    node.wait_for_told("web", 2);
    node.wait_for_running("web");
    assert_eq!(node.told("web"), ["first", "second"]);
}

#[test]
fn a_single_file_and_several_directories_can_be_watched() {
    let Some(mut node) = Node::prepare() else { return };
    let (more, file) = (node.path("more"), node.path("single.yaml"));
    fs::create_dir(&more).unwrap();
    node.arguments.push(format!("--pod-manifest-path={}/", more.display()));
    node.arguments.push(format!("--pod-manifest-path={}", file.display()));
    let put = |place: &Path, name: &str| {
        fs::rename(node.stage("x", &pod(name)), place).unwrap();
    };
    put(&file, "single");
    put(&more.join("a.yaml"), "more");
    // Beside the single file, so none of ours.
    put(&node.path("other.yaml"), "other");
    node.launch();
    node.put("web.yaml", &pod("web"));
    for name in ["web", "more", "single"] {
        node.wait_for_running(name);
    }
    fs::remove_file(&file).unwrap();
    node.wait_for_gone("single");
    fs::rename(node.stage("x", &pod("single")), &file).unwrap();
    node.wait_for_running("single");
    fs::remove_file(more.join("a.yaml")).unwrap();
    node.wait_for_gone("more");
    let names: Vec<String> = node.status().pods.into_iter().map(|pod| pod.name).collect();
    assert_eq!(names, ["single-n1", "web-n1"]);
}

#[test]
fn what_a_cluster_added_to_a_pasted_manifest_is_dropped_with_a_warning() {
    let Some(node) = Node::start() else { return };
    let web = pod("web-n1")
        .set("metadata.uid", "7a5c9d0e-0f42-4c4a-9d6e-111111111111")
        .set("metadata.resourceVersion", "123")
        .set("metadata.creationTimestamp", "2026-01-01T00:00:00Z")
        .set("metadata.annotations", serde_json::json!({"kubernetes.io/config.mirror": "0b1c"}))
        .set(
            "metadata.ownerReferences",
            serde_json::json!([{
                "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "7a5c", "controller": true
            }]),
        )
        .set("status.phase", "Running");
    node.put("web.yaml", &web);
    let pod = node.wait_for_running("web");
    assert_ne!(pod.uid, "7a5c9d0e-0f42-4c4a-9d6e-111111111111");
    check(
        &node,
        &expect![
            "DIR/manifests/web.yaml:9:13: dropped what a cluster had added: the suffix -n1 of metadata.name, metadata.uid, metadata.resourceVersion, metadata.creationTimestamp, metadata.ownerReferences, metadata.annotations[kubernetes.io/config.mirror], status"
        ],
    );
}
