//! Files of images, as volumes.

use serde_json::{Value, json};

use crate::api::{kubectl, wait_for_phase};
use crate::image::Image;
use crate::manifest::{Manifest, pod};
use crate::node::Node;

/// A pod with these volumes of images, each of them at `/<name>`.
fn with_images(manifest: Manifest, images: &[(&str, &str)]) -> Manifest {
    let (mut volumes, mut mounts) = (Vec::<Value>::new(), Vec::<Value>::new());
    for (name, reference) in images {
        let image = json!({ "reference": reference, "pullPolicy": "IfNotPresent" });
        volumes.push(json!({ "name": name, "image": image }));
        mounts.push(json!({ "name": name, "mountPath": format!("/{name}") }));
    }
    manifest.set("spec.volumes", volumes).main("volumeMounts", mounts)
}

fn import(node: &Node, image: &Image, name: &str) {
    let file = node.path("import.tar");
    image.docker_archive(name, &file);
    node.import(&file);
}

#[test]
fn images_are_mounted_whole_and_in_part_and_cannot_be_changed_or_run() {
    let Some(node) = Node::start() else { return };
    let files = Image::busybox().with_file("dir/file", "text\n").with_file("dir/more/x", "x\n");
    import(&node, &files, "local/files:1");
    let web = with_images(pod("web"), &[("one", "local/busybox:1"), ("files", "local/files:1")])
        .main(
            "volumeMounts.2",
            json!({ "name": "files", "mountPath": "/part", "subPath": "dir/more" }),
        )
        .main(
            "volumeMounts.3",
            json!({ "name": "files", "mountPath": "/own.conf", "subPath": "dir/file" }),
        )
        .main("volumeMounts.4", json!({ "name": "files", "mountPath": "/again" }));
    node.put("web.yaml", &web);
    node.wait_for_running("web");
    let sh = |script: &str| node.sh("web", "main", script);
    assert_eq!(
        sh("cat /files/dir/file /part/x /own.conf /again/dir/file"),
        "text\nx\ntext\ntext\n"
    );
    let listed = sh("ls /one/bin/busybox");
    assert_eq!(listed, "/one/bin/busybox\n", "one layer alone is enough");
    let refused =
        sh("echo x 2>&1 > /files/new; echo y 2>&1 > /part/x; /one/bin/busybox true 2>&1; true");
    assert_eq!(refused.matches("Read-only file system").count(), 2, "{refused}");
    assert!(refused.contains("Permission denied"), "{refused}");
    let mounts = sh("grep -E ' /(files|part|one|own.conf) ' /proc/mounts");
    for line in mounts.lines() {
        assert!(line.contains(" overlay ro,nosuid,nodev,noexec,"), "{line}");
    }
    assert_eq!(mounts.lines().count(), 4, "{mounts}");
    // What a container uses stays.
    let complaint = node.mainstay(&["image", "rm", "local/files:1"]).failure(1);
    assert!(complaint.contains("is in use by"), "{complaint}");
    wait_for_phase(&node, "web-n1", "Running");
    let reference = "jsonpath={.spec.volumes[1].image.reference}";
    let shown = kubectl(&node, &["get", "pod", "web-n1", "-o", reference]).success();
    assert_eq!(shown, "local/files:1");
    node.take("web.yaml");
    node.wait_for_gone("web");
    node.mainstay(&["image", "rm", "local/files:1"]).success();
}

#[test]
fn an_image_of_a_volume_that_cannot_be_had_is_told_of_and_waited_for() {
    let Some(node) = Node::start() else { return };
    let never = json!({ "reference": "local/late:1", "pullPolicy": "Never" });
    let web =
        with_images(pod("web"), &[("late", "local/late:1")]).set("spec.volumes.0.image", never);
    let web = web.main("volumeMounts.0.subPath", "dir");
    node.put("web.yaml", &web);
    let status =
        node.wait_until("the volume is missed", |it| it.state("web") == "ErrImageNeverPull");
    let problem = status.pod("web").unwrap().problem.clone().unwrap();
    let wanted = "the image of volume \"late\": Container image \"local/late:1\" is not present with \
                  pull policy of Never";
    assert!(problem.contains(wanted), "{problem}");
    // A part that the image does not have.
    import(&node, &Image::busybox().with_file("other/file", "x\n"), "local/late:1");
    let status =
        node.wait_until("the part is missed", |it| it.state("web") == "CreateContainerError");
    let problem = status.pod("web").unwrap().problem.clone().unwrap();
    assert!(problem.contains("take dir for the mount at /late: No such file"), "{problem}");
    // An image that has it counts with the next try.
    import(&node, &Image::busybox().with_file("dir/file", "late\n"), "local/late:1");
    node.wait_for_running("web");
    assert_eq!(node.sh("web", "main", "cat /late/file"), "late\n");
}
