//! The resources of pods that are there.

use mainstay_apiserver::User;
use serde_json::{Value, json};

use crate::common::{Response, Server, server};

const PODS: &str = "/api/v1/namespaces/default/pods";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

async fn ask(server: &Server, name: &str, media: &str, patch: &Value) -> Response {
    let query = if media.contains("apply") { "?fieldManager=m&force=true" } else { "" };
    let path = format!("{PODS}/{name}/resize{query}");
    server.ask_as(User::master("admin"), "PATCH", &path, media, Some(patch)).await
}

async fn with_pod(pod: &Value) -> Server {
    let server = server().await;
    let account = json!({ "metadata": { "name": "default" } });
    server.ask("POST", "/api/v1/namespaces/default/serviceaccounts", Some(&account)).await;
    let made = server.ask("POST", PODS, Some(pod)).await;
    assert_eq!(made.code, 201, "{made:?}");
    server
}

fn cpu(request: &str) -> Value {
    json!({ "requests": { "cpu": request }, "limits": { "cpu": "1" } })
}

fn pod() -> Value {
    json!({
        "metadata": { "name": "a", "labels": { "app": "a" } },
        "spec": {
            "initContainers": [
                { "name": "i", "image": "busybox", "resources": cpu("10m") },
                { "name": "s", "image": "busybox", "restartPolicy": "Always", "resources": cpu("10m") },
            ],
            "containers": [
                { "name": "c", "image": "busybox", "resources": cpu("10m") },
                { "name": "d", "image": "busybox", "resources": { "requests": { "memory": "1Mi" } } },
            ],
        },
    })
}

#[tokio::test]
async fn requests_and_limits_change_by_every_patch_and_nothing_else_does() {
    let server = with_pod(&pod()).await;
    let spec = |request: &str| {
        json!({
            "metadata": { "labels": { "app": "b" } },
            "spec": { "hostNetwork": true, "containers": [{ "name": "c", "image": "other", "resources": cpu(request) }] },
        })
    };
    let mut applied = spec("50m");
    applied["apiVersion"] = "v1".into();
    applied["kind"] = "Pod".into();
    let mut whole = server.ask("GET", &format!("{PODS}/a/resize"), None).await.body;
    assert_eq!(whole["kind"], "Pod");
    whole["metadata"]["labels"] = json!({ "app": "c" });
    whole["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "20m".into();
    let put = server.ask("PUT", &format!("{PODS}/a/resize"), Some(&whole)).await;
    let json = [
        (
            "application/json-patch+json",
            json!([{
                "op": "replace", "path": "/spec/containers/0/resources/requests/cpu", "value": "30m",
            }]),
        ),
        (STRATEGIC, spec("40m")),
        ("application/apply-patch+yaml", applied),
    ];
    let mut answers = vec![put];
    for (media, patch) in &json {
        answers.push(ask(&server, "a", media, patch).await);
    }
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(answer.code, 200, "{answer:?}");
        let (meta, spec) = (&answer.body["metadata"], &answer.body["spec"]);
        assert_eq!(meta["generation"], json!(at + 2));
        assert_eq!(meta["labels"], json!({ "app": "a" }));
        let container = &spec["containers"][0];
        let expected = format!("{}m", (at + 2) * 10);
        assert_eq!(container["resources"]["requests"]["cpu"], *expected);
        assert_eq!((&container["image"], spec.get("hostNetwork")), (&json!("busybox"), None));
    }
    let whole = server.ask("GET", &format!("{PODS}/a"), None).await.body;
    let entries = whole["metadata"]["managedFields"].as_array().unwrap();
    let own = entries.iter().filter(|entry| entry["subresource"] == "resize");
    let own: Vec<_> = own.map(|entry| entry["fieldsV1"].to_string()).collect();
    assert!(!own.is_empty());
    for fields in own {
        assert!(!fields.contains("image") && !fields.contains("labels"), "{fields}");
        assert!(
            fields
                .starts_with(r#"{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{"f:resources":"#),
            "{fields}"
        );
    }
    // The pod itself takes none.
    let patch = json!({ "spec": { "containers": [{ "name": "c", "resources": cpu("60m") }] } });
    let path = format!("{PODS}/a");
    let refused =
        server.ask_as(User::master("admin"), "PATCH", &path, STRATEGIC, Some(&patch)).await;
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.contains("pod updates may not change fields other than"), "{message}");
}

#[tokio::test]
async fn what_may_not_change_is_said_in_the_words_of_kubernetes() {
    let server = with_pod(&pod()).await;
    let replace =
        |path: &str, value: Value| json!([{ "op": "replace", "path": path, "value": value }]);
    let remove = |path: &str| json!([{ "op": "remove", "path": path }]);
    let cases = [
        (
            remove("/spec/containers/0/resources/requests/cpu"),
            // The default is the limit.
            None,
        ),
        (
            remove("/spec/containers/0/resources/limits"),
            Some(
                "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
            ),
        ),
        (
            remove("/spec/containers/1/resources/requests"),
            Some(
                "spec.containers[1].resources.requests: Forbidden: resource requests cannot be removed",
            ),
        ),
        (
            remove("/spec/containers/1"),
            Some("spec.containers: Forbidden: containers may not be added or removed on resize"),
        ),
        (
            replace("/spec/initContainers/0/name", json!("j")),
            Some(
                "spec.initContainers[0].name: Forbidden: initContainers may not be renamed or reordered on resize",
            ),
        ),
        (
            json!([{ "op": "add", "path": "/spec/containers/0/resources/requests/ephemeral-storage", "value": "1Mi" }]),
            Some("spec: Forbidden: only cpu and memory resources are mutable"),
        ),
        (
            json!([{ "op": "add", "path": "/spec/initContainers/0/resources/requests/ephemeral-storage", "value": "1Mi" }]),
            Some(
                "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable",
            ),
        ),
        (
            json!([{ "op": "add", "path": "/spec/containers/0/resizePolicy", "value": [{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }] }]),
            Some("spec: Forbidden: only cpu and memory resources are mutable"),
        ),
        (
            replace("/spec/containers/0/resources/requests/cpu", json!("2")),
            Some(
                r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
            ),
        ),
        (replace("/spec/initContainers/0/resources/requests/cpu", json!("20m")), None),
        (replace("/spec/initContainers/1/resources/requests/cpu", json!("20m")), None),
        (
            json!([{ "op": "add", "path": "/spec/resources", "value": { "requests": { "cpu": "2" }, "limits": { "cpu": "4" } } }]),
            None,
        ),
        (
            remove("/spec/resources"),
            Some("spec.resources: Forbidden: pod-level resources cannot be removed"),
        ),
        (
            replace("/spec/resources", json!({ "limits": { "cpu": "4" } })),
            // The default is the limit.
            None,
        ),
    ];
    for (patch, expected) in &cases {
        let answer = ask(&server, "a", "application/json-patch+json", patch).await;
        match expected {
            None => assert_eq!(answer.code, 200, "{patch}: {answer:?}"),
            Some(expected) => {
                let message = answer.body["message"].as_str().unwrap_or_default();
                assert_eq!(answer.code, 422, "{patch}: {answer:?}");
                assert!(message.contains(expected), "{patch}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn the_class_of_a_pod_stays_and_so_does_what_runs_where_nothing_is_resized() {
    let mut pod = pod();
    pod["spec"]["initContainers"] = json!([]);
    pod["spec"]["containers"] = json!([{ "name": "c", "image": "busybox" }]);
    let server = with_pod(&pod).await;
    let patch = json!({ "spec": { "containers": [{ "name": "c", "resources": cpu("60m") }] } });
    let refused = ask(&server, "a", STRATEGIC, &patch).await;
    assert_eq!(
        refused.body["message"],
        "Pod \"a\" is invalid: spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a \
         result of resizing"
    );
    let status = json!({ "status": { "containerStatuses": [{
        "name": "c", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
        "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
    }] } });
    let path = format!("{PODS}/a/status");
    let told = server.ask_as(User::master("admin"), "PATCH", &path, STRATEGIC, Some(&status)).await;
    assert_eq!(told.code, 200, "{told:?}");
    let nothing = json!({ "spec": { "containers": [{ "name": "c", "resources": {} }] } });
    let refused = ask(&server, "a", STRATEGIC, &nothing).await;
    assert_eq!(
        refused.body["message"],
        "Pod \"a\" is invalid: spec: Forbidden: Pod running on node without support for resize"
    );
}

#[tokio::test]
async fn a_pod_does_not_outgrow_its_node() {
    let mut pod = pod();
    pod["spec"]["nodeName"] = "n1".into();
    let server = with_pod(&pod).await;
    let request = |request: &str| {
        let resources = json!({ "requests": { "cpu": request }, "limits": { "cpu": "100" } });
        json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } })
    };
    let refused = ask(&server, "a", STRATEGIC, &request("3")).await;
    assert_eq!(refused.body["message"], "pods \"a\" is forbidden: node \"n1\" not found");
    let status = json!({ "allocatable": { "cpu": "2", "memory": "1Gi" } });
    let node = json!({ "metadata": { "name": "n1" }, "status": status });
    assert_eq!(server.ask("POST", "/api/v1/nodes", Some(&node)).await.code, 201);
    let refused = ask(&server, "a", STRATEGIC, &request("3")).await;
    assert_eq!(
        refused.body["message"],
        "pods \"a\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3010, \
         allocatable: 2000"
    );
    assert_eq!(refused.body["details"]["causes"], json!([{ "reason": "NodeCapacity" }]));
    let patched = ask(&server, "a", STRATEGIC, &request("1500m")).await;
    assert_eq!(patched.code, 200, "{patched:?}");
}
