//! Variables from files of volumes, and of services.

use serde_json::json;

use crate::api::{kubectl, wait_for_phase};
use crate::manifest::{container, exactly, pod};
use crate::node::{Node, wait_for};

#[test]
fn variables_stand_in_a_file_that_an_init_container_wrote() {
    let Some(node) = Node::start() else { return };
    let from = |key: &str, more: serde_json::Value| {
        let mut file = json!({ "volumeName": "config", "path": "d/env", "key": key });
        file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "name": key, "valueFrom": { "fileKeyRef": file } })
    };
    let volumes = json!([
        { "name": "host", "hostPath": { "path": node.host() } },
        { "name": "config", "emptyDir": {} },
    ]);
    // What it writes is on the host, to be changed.
    let script = "cp /host/env /config/env; mkdir /config/d; ln -s /env /config/d/env";
    let mut init = container("init", &exactly(script));
    let mounts = init["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({ "name": "config", "mountPath": "/config" }));
    let web =
        pod("web").set("spec.volumes", volumes).set("spec.initContainers", json!([init])).main(
            "env",
            json!([
                from("WORD", json!({})),
                from("LINES", json!({})),
                from("NONE", json!({ "optional": true })),
                { "name": "BOTH", "value": "$(WORD) and $(WORD)" },
            ]),
        );
    std::fs::write(node.host().join("env"), "# of mine\nWORD='a b'\nLINES='x\n$y' # z\n").unwrap();
    node.put("web.yaml", &web);
    node.wait_for_running("web");
    let told = node.sh("web", "main", "echo \"$WORD|$LINES|$BOTH|${NONE-none}\"");
    assert_eq!(told, "a b|x\n$y|a b and a b|none\n");

    // One that cannot be read, and one that has not what is needed.
    for (name, content, wanted) in [
        ("bad", "WORD=a", "line 1: value must be enclosed in single quotes"),
        ("lacking", "OTHER='a'", "environment variable key \"WORD\" not found in file"),
    ] {
        std::fs::write(node.host().join("env"), content).unwrap();
        node.put("web.yaml", &web.clone().set("metadata.labels.test", name));
        let status = node.wait_until(name, |status| {
            status.pod("web").is_some_and(|pod| {
                pod.state == "CreateContainerConfigError"
                    && pod.problem.as_ref().is_some_and(|it| it.contains(wanted))
            })
        });
        assert_eq!(status.state("web"), "CreateContainerConfigError");
    }
}

#[test]
fn containers_are_told_of_the_api_and_of_services() {
    let Some(node) = Node::start() else { return };
    let service = ["create", "service", "clusterip", "my-web", "--tcp=80:8080"];
    let made = wait_for(|| kubectl(&node, &service).status.success().then_some(()));
    assert!(made.is_some(), "{}", node.log());
    let field = ["get", "service", "my-web", "-o", "jsonpath={.spec.clusterIP}"];
    let address = kubectl(&node, &field).success();
    let web = |name: &str, links: bool| {
        let web = pod(name).set("spec.nodeName", "n1").set("spec.enableServiceLinks", links);
        web.main("imagePullPolicy", "Never")
    };
    // The node hears of it in its own time. What it knows its static pods do too, at their next start at the latest.
    let script = "[ \"$MY_WEB_SERVICE_HOST\" ] || exit 1; echo $MY_WEB_SERVICE_HOST >> /host/own";
    node.put("own.yaml", &web("own", true).with_host_directory(&node.host()).script(script));
    assert_eq!(node.wait_for_told("own", 1), [&*address]);
    for (name, links) in [("with", true), ("without", false)] {
        let file = node.stage("pod.json", &web(name, links));
        kubectl(&node, &["create", "-f", file.to_str().unwrap()]).success();
        wait_for_phase(&node, name, "Running");
        let exec = ["exec", name, "--", "env"];
        let told = kubectl(&node, &exec).success();
        let has = |line: &str| told.lines().any(|it| it == line);
        assert!(has("KUBERNETES_SERVICE_PORT_HTTPS=443"), "{told}");
        assert_eq!(has(&format!("MY_WEB_SERVICE_HOST={address}")), links, "{told}");
        assert_eq!(has(&format!("MY_WEB_PORT=tcp://{address}:80")), links, "{told}");
    }
}
