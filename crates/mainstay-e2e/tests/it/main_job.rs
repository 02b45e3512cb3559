//! Files in, pods run.

use expect_test::{Expect, expect};
use mainstay_testkit::registry::Registry;

use crate::image::Image;
use crate::manifest::pod;
use crate::node::Node;

#[test]
fn a_pod_runs_while_its_manifest_is_there() {
    let Some(node) = Node::start() else { return };
    node.put("host.yaml", &pod("host"));
    node.put("bridge.yaml", &pod("bridge").set("spec.hostNetwork", false));
    let host = node.wait_for_running("host");
    let bridge = node.wait_for_running("bridge");
    assert_eq!(host.status.pod_ip, host.status.host_ip);
    assert_ne!(bridge.status.pod_ip, bridge.status.host_ip);
    node.take("host.yaml");
    node.wait_for_gone("host");
    assert_eq!(node.status().pod("bridge").unwrap().id(), bridge.id());
    node.take("bridge.yaml");
    node.wait_for_gone("bridge");
}

/// A pod that tells when it is asked to end, and does when it is let.
const SLOW: &str = "trap 'echo asked >> /host/web; until [ -e /host/go ]; do sleep 0.02; done
    echo ended >> /host/web; exit' TERM
    echo first >> /host/web; sleep infinity & wait";

#[test]
fn an_edited_pod_is_replaced_when_it_has_ended_and_its_image_is_there_by_then() {
    let Some(node) = Node::start() else { return };
    let registry = Registry::open();
    Image::busybox().with_file("version", "second").push(&registry, "app", "2");
    let web = pod("web").with_host_directory(&node.host());
    let first = web.clone().exactly(SLOW).set("spec.terminationGracePeriodSeconds", 600);
    node.put("web.yaml", &first);
    node.wait_for_running("web");
    node.wait_for_told("web", 1);
    let image = registry.name("app:2");
    let second = web.script("cat /version >> /host/web").main("image", image.clone());
    node.put("web.yaml", &second);
    node.wait_for_told("web", 2);
    let status = node.wait_until("the image is pulled", |status| {
        status.pod("web").is_some_and(|pod| !pod.events("Pulled").is_empty())
    });
    assert!(node.images().contains(&image[..image.len() - 2]));
    let waiting = status.pod("web").unwrap();
    assert_eq!(waiting.state, "Pending");
    assert!(waiting.problem.as_ref().unwrap().contains("waits for its predecessor"));
    assert_eq!(node.told("web"), ["first", "asked"]);
    std::fs::write(node.host().join("go"), "").unwrap();
    let pod = node.wait_for_running("web");
    assert_eq!(pod.container("main").image, image);
    assert_eq!(node.wait_for_told("web", 4), ["first", "asked", "ended", "second"]);
}

/// A manifest with lines to name.
fn web(line_6: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
{line_6}
  hostNetwork: true
  containers:
  - name: main
    image: local/busybox:1
    command: [sh, -c, trap exit TERM; sleep infinity & wait]
"
    )
}

#[test]
fn a_broken_manifest_leaves_its_pod_running_and_is_explained() {
    let Some(node) = Node::start() else { return };
    node.put("web.yaml", &web("  restartPolicy: Always"));
    let before = node.wait_for_running("web");
    let check = |text: String, expected: Expect| {
        let known = node.status().notes("web.yaml");
        node.put("web.yaml", &text);
        let status = node.wait_until("the manifest is seen to be broken", |status| {
            let notes = status.notes("web.yaml");
            let first = notes.lines().next().unwrap_or_default();
            let problem = format!(
                "its manifest is not valid any more, and the last good version is kept: {first}"
            );
            // The pod hears of it after the manifest is told.
            let heard = status.pod("web").and_then(|pod| pod.problem.as_ref()) == Some(&problem);
            heard && !["", &known].contains(&notes.as_str())
        });
        let text = |text: &str| text.replace(node.manifests().to_str().unwrap(), "DIR");
        expected.assert_eq(&text(&status.notes("web.yaml")));
        let pod = status.pod("web").unwrap();
        assert_eq!((pod.id(), pod.restarts, pod.runs()), (before.id(), 0, true));
        assert_eq!(node.mainstay(&["status"]).status.code(), Some(1));
    };
    check(web("  restartPolicy: \"Always"), expect!["DIR/web.yaml:6:18: unclosed quote"]);
    check(
        web("  restartPolicy: Sometimes"),
        expect![[
            r#"DIR/web.yaml:6:18: spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#
        ]],
    );
    check(
        web("  restartPolcy: Never"),
        expect!["DIR/web.yaml:6:3: spec.restartPolcy: unknown field (did you mean restartPolicy?)"],
    );
    check(
        web("  hostNetwork: false"),
        expect!["DIR/web.yaml:7:3: spec.hostNetwork: duplicate field, already set on line 6"],
    );
    check(
        web("  terminationGracePeriodSeconds: soon"),
        expect![[
            r#"DIR/web.yaml:6:34: spec.terminationGracePeriodSeconds: expected an integer, found the string "soon""#
        ]],
    );
    check(
        String::new(),
        expect!["DIR/web.yaml: the file holds no manifest (remove the file to stop its pods)"],
    );

    // The same again changes nothing.
    node.put("web.yaml", &web("  restartPolicy: Always"));
    // The pod hears of it after the manifest is told.
    let status = node.wait_until("the manifest is mended", |status| {
        let heard = status.pod("web").is_some_and(|pod| pod.problem.is_none());
        heard && status.manifests.is_empty()
    });
    assert_eq!(status.pod("web").unwrap().id(), before.id());
    node.mainstay(&["status"]).success();
    // A new version counts.
    node.put("web.yaml", &web("  restartPolicy: Always").replace("exit", "'exit 0'"));
    node.wait_until("the pod is replaced", |status| {
        status.pod("web").is_some_and(|pod| pod.runs() && pod.id() != before.id())
    });
}

#[test]
fn a_removed_pod_ends_within_its_grace_period_and_its_way() {
    let Some(node) = Node::start() else { return };
    let image = node.path("quit.tar");
    Image::busybox().set("StopSignal", "SIGQUIT").docker_archive("local/quit:1", &image);
    node.import(&image);
    let told = |name: &str, script: &str| {
        let script = script.replace("FILE", &format!("/host/{name}"));
        pod(name).with_host_directory(&node.host()).exactly(&script)
    };
    let wait = "sleep infinity & wait; sleep infinity";
    // Each hears of its end; the first one obeys and may take long, which it does not.
    let obeys = format!("trap 'echo TERM >> FILE; exit' TERM; echo up >> FILE; {wait}");
    let obeys = told("obeys", &obeys).set("spec.terminationGracePeriodSeconds", 600);
    let quits = format!("trap 'echo QUIT >> FILE; exit' QUIT; echo up >> FILE; {wait}");
    let quits = told("quits", &quits).main("image", "local/quit:1");
    let quits = quits.set("spec.terminationGracePeriodSeconds", 600);
    let ignores = format!("trap 'echo TERM >> FILE' TERM; echo up >> FILE; {wait}");
    let ignores = told("ignores", &ignores).set("spec.terminationGracePeriodSeconds", 3);
    // Without a handler the first process of a container hears nothing at all.
    let deaf = told("deaf", "echo up >> FILE; exec sleep infinity");
    let deaf = deaf.set("spec.terminationGracePeriodSeconds", 0);
    let pods = [("obeys", obeys), ("quits", quits), ("ignores", ignores), ("deaf", deaf)];
    for (name, pod) in &pods {
        node.put(&format!("{name}.yaml"), pod);
    }
    for (name, _) in &pods {
        node.wait_for_told(name, 1);
        node.wait_for_running(name);
    }
    for (name, _) in &pods {
        node.take(&format!("{name}.yaml"));
    }
    for (name, _) in &pods {
        node.wait_for_gone(name);
    }
    assert_eq!(node.told("obeys"), ["up", "TERM"]);
    assert_eq!(node.told("quits"), ["up", "QUIT"]);
    assert_eq!(node.told("ignores"), ["up", "TERM"]);
    assert_eq!(node.told("deaf"), ["up"]);
}

/// Versions of a pod tell when they start. The last one shows that nothing came between.
#[test]
fn what_means_the_same_restarts_nothing() {
    let Some(node) = Node::start() else { return };
    let manifest = |word: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  hostNetwork: true
  containers:
  - name: main
    image: local/busybox:1
    command: [sh, -c, \"trap exit TERM; echo {word} >> /host/web; sleep infinity & wait\"]
    volumeMounts:
    - name: host
      mountPath: /host
  volumes:
  - name: host
    hostPath:
      path: {}
",
            node.host().display()
        )
    };
    let same = manifest("first");
    node.put("web.yaml", &same);
    let first = node.wait_for_running("web");

    // Another name for the file.
    let path = |name: &str| node.manifests().join(name);
    std::fs::rename(path("web.yaml"), path("other.yaml")).unwrap();
    node.wait_until("the manifest is known by its new name", |status| {
        let manifest = status.pod("web").and_then(|pod| pod.manifest.clone());
        manifest.is_some_and(|path| path.ends_with("/other.yaml"))
    });
    // Other words for the same, each followed by a manifest whose pod shows that it was read.
    let comment = format!("# web\n{}", same.replace("spec:", "\nspec: # here"));
    let order = same.replace("apiVersion: v1\nkind: Pod\n", "kind: Pod\napiVersion: v1\n");
    let quotes = same.replace("name: web\n", "name: 'web'\n").replace("kind: Pod", "\"kind\": Pod");
    for (number, text) in [comment, order, quotes, same].iter().enumerate() {
        node.put("other.yaml", text);
        let fence = format!("fence-{number}");
        node.put(&format!("{fence}.yaml"), &pod(&fence));
        node.wait_for_running(&fence);
        let pod = node.status().pod("web").unwrap().clone();
        assert_eq!((pod.id(), &pod.uid, pod.restarts), (first.id(), &first.uid, 0), "{text}");
    }
    node.put("other.yaml", &manifest("second"));
    node.wait_for_told("web", 2);
    node.wait_for_running("web");
    assert_eq!(node.told("web"), ["first", "second"]);
}
