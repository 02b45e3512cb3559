//! Pods that take more of the disk than they may.

use std::fs;

use serde_json::json;

use crate::manifest::{Manifest, pod};
use crate::node::{Node, wait_for};

/// A pod with a volume of its own that writes so many MiB to a file.
fn writes(node: &Node, name: &str, mebibytes: u32, file: &str) -> Manifest {
    pod(name)
        .set("spec.restartPolicy", "Never")
        .with_host_directory(&node.host())
        .with_volume(json!({ "name": "cache", "emptyDir": {} }))
        .script(&format!(
            "echo start >> /host/{name}; dd if=/dev/zero of={file} bs=1M count={mebibytes}"
        ))
}

#[test]
fn a_static_pod_that_takes_more_of_the_disk_than_it_may_begins_again_with_empty_volumes() {
    let Some(node) = Node::start() else { return };
    let again = writes(&node, "again", 0, "/cache/none")
        .set("spec.restartPolicy", "Always")
        .set("spec.volumes.1.emptyDir.sizeLimit", "2Mi")
        .script(
            "echo $(ls /cache | wc -l) files >> /host/again; test -e /host/mark || \
             { touch /host/mark; dd if=/dev/zero of=/cache/file bs=1M count=4; }",
        );
    node.put("again.yaml", &again);
    assert_eq!(node.wait_for_told("again", 2), ["0 files", "0 files"]);
    let pod = node.wait_for_running("again");
    let (ends, returns) = (pod.events("Evicted"), pod.events("Returned"));
    assert_eq!((ends.len(), returns.len()), (1, 1), "{pod:#?}");
    assert_eq!(
        ends[0].message,
        "Usage of EmptyDir volume \"cache\" exceeds the limit \"2Mi\". It is started again with empty volumes. "
    );
}

#[test]
fn a_pod_that_takes_more_of_the_disk_than_it_may_is_ended_and_stays_so() {
    let Some(mut node) = Node::start() else { return };
    let limit = |size: &str| json!({ "limits": { "ephemeral-storage": size } });
    let sized = |pod: Manifest| pod.set("spec.volumes.1.emptyDir.sizeLimit", "2Mi");
    node.put("fits.yaml", &sized(writes(&node, "fits", 1, "/cache/file")));
    node.put("volume.yaml", &sized(writes(&node, "volume", 4, "/cache/file")));
    let layer = writes(&node, "layer", 4, "/file").main("resources", limit("2Mi"));
    let beside = json!({
        "name": "beside", "image": "local/busybox:1", "command": crate::manifest::command(""),
        "resources": limit("100Mi"),
    });
    node.put("layer.yaml", &layer.set("spec.containers.1", beside));
    let whole = writes(&node, "whole", 4, "/cache/file").main("resources", limit("2Mi"));
    node.put("whole.yaml", &whole);
    node.wait_for_running("fits");
    let ends = [
        ("volume", "Usage of EmptyDir volume \"cache\" exceeds the limit \"2Mi\". "),
        ("layer", "Container main exceeded its local ephemeral storage limit \"2Mi\". "),
        ("whole", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
    ];
    let check = |node: &Node| {
        for (name, message) in ends {
            let pod = node.wait_for_state(name, "Evicted");
            let status = &pod.status;
            assert_eq!(status.phase.as_deref(), Some("Failed"), "{name}");
            assert_eq!(status.message.as_deref(), Some(message), "{name}");
            assert_eq!(node.told(name), ["start"], "{name}");
        }
    };
    for (name, message) in ends {
        let status = node.wait_until("it is told and ended", |status| {
            let pod = status.pod(name);
            pod.is_some_and(|pod| pod.state == "Evicted" && !pod.events("Evicted").is_empty())
        });
        let events = status.pod(name).unwrap().events("Evicted");
        assert_eq!((&*events[0].kind, &*events[0].message), ("Warning", message));
    }
    check(&node);
    // When the next agent can know of it.
    let ledger = node.path("root/ledger");
    let recorded = || {
        let files = fs::read_dir(&ledger).unwrap();
        let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap_or_default());
        texts.filter(|text| text.contains("Evicted")).count()
    };
    wait_for(|| (recorded() == ends.len()).then_some(())).unwrap();
    node.kill();
    node.launch();
    check(&node);
    assert!(node.wait_for_running("fits").runs());
    // By order it runs again.
    node.mainstay(&["restart", "volume"]).success();
    node.wait_for_told("volume", 2);
}
