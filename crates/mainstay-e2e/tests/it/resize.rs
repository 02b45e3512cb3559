//! Resources that change while their pods run.

use serde_json::{Value, json};

use crate::api::{create, kubectl, pod_object, shown, wait_for_event, wait_for_phase};
use crate::configuration::kibibytes;
use crate::container::{MEMORY, in_group};
use crate::manifest::{Manifest, command, pod};
use crate::node::{Node, wait_for};
use crate::program::Outcome;

const QUOTA: [&str; 2] = ["cpu.cfs_quota_us", "cpu.max"];

/// Makes a pod of the API, bound to the node, and waits until it runs.
#[track_caller]
fn start(node: &Node, name: &str, manifest: Manifest) {
    let manifest = manifest.set("spec.nodeName", "n1");
    let manifest = manifest.set("spec.automountServiceAccountToken", false);
    create(node, &manifest);
    wait_for_phase(node, name, "Running");
}

/// Waits until the API shows a pod as it is to be.
#[track_caller]
fn wait_for_pod(node: &Node, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let found = wait_for(|| Some(pod_object(node, name)).filter(|pod| is(pod)));
    found.unwrap_or_else(|| panic!("{what}: {:#}\n{}", pod_object(node, name), node.log()))
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|it| it["type"] == kind)
}

fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = pod["status"]["containerStatuses"].as_array().unwrap();
    all.iter().find(|it| it["name"] == name).unwrap()
}

fn id(pod: &Value, name: &str) -> String {
    status(pod, name)["containerID"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// Asks for other resources of a container, in a way that every kubectl has.
fn resize(node: &Node, pod: &str, container: &str, resources: &Value) -> Outcome {
    let mut wanted = pod_object(node, pod);
    wanted["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let containers = wanted["spec"]["containers"].as_array_mut().unwrap();
    let container = containers.iter_mut().find(|it| it["name"] == container).unwrap();
    container["resources"] = resources.clone();
    let file = node.stage("resize.json", &wanted);
    let path = format!("--raw=/api/v1/namespaces/default/pods/{pod}/resize");
    kubectl(node, &["replace", &path, "-f", file.to_str().unwrap()])
}

fn resources(cpu: [&str; 2], memory: [&str; 2]) -> Value {
    json!({
        "requests": { "cpu": cpu[0], "memory": memory[0] },
        "limits": { "cpu": cpu[1], "memory": memory[1] },
    })
}

/// Whether all that a pod is to have is in force.
fn is_resized(pod: &Value, container: &str, wanted: &Value) -> bool {
    condition(pod, "PodResizeInProgress").is_none()
        && condition(pod, "PodResizePending").is_none()
        && status(pod, container)["resources"] == *wanted
        && status(pod, container)["allocatedResources"] == wanted["requests"]
        && pod["status"]["observedGeneration"] == pod["metadata"]["generation"]
}

fn quota_of(node: &Node, group: &str) -> String {
    in_group(node, group, QUOTA).split(' ').next().unwrap().to_owned()
}

#[test]
fn a_container_goes_on_with_other_limits_and_another_agent_finds_them_so() {
    let Some(mut node) = Node::start() else { return };
    let beside = json!({ "name": "beside", "image": "local/busybox:1", "command": command(""),
        "resources": resources(["10m", "100m"], ["1Mi", "16Mi"]) });
    let web = pod("web")
        .main("resources", resources(["100m", "200m"], ["16Mi", "64Mi"]))
        .main("volumeMounts", json!([{ "name": "m", "mountPath": "/m" }]))
        .set("spec.volumes", json!([{ "name": "m", "emptyDir": { "medium": "Memory" } }]))
        .set("spec.containers.1", beside);
    start(&node, "web", web);
    let before = wait_for_pod(&node, "web", "it runs", |pod| {
        pod["status"]["containerStatuses"].as_array().is_some_and(|all| all.len() == 2)
    });
    let main = id(&before, "main");
    let group = format!("pod{}", before["metadata"]["uid"].as_str().unwrap());
    let limits = |node: &Node| {
        let memory = |group: &str| in_group(node, group, MEMORY).parse::<u64>().unwrap() >> 20;
        (quota_of(node, &main), quota_of(node, &group), memory(&main), memory(&group))
    };
    assert_eq!(limits(&node), ("20000".into(), "30000".into(), 64, 80));

    // More of everything, then less of it.
    let cases = [
        (resources(["150m", "400m"], ["32Mi", "96Mi"]), ("40000", "50000", 96, 112)),
        (resources(["50m", "150m"], ["16Mi", "48Mi"]), ("15000", "25000", 48, 64)),
    ];
    for (at, (wanted, (own, all, memory, memory_of_all))) in cases.iter().enumerate() {
        resize(&node, "web", "main", wanted).success();
        let after =
            wait_for_pod(&node, "web", "it is resized", |pod| is_resized(pod, "main", wanted));
        assert_eq!(limits(&node), ((*own).into(), (*all).into(), *memory, *memory_of_all));
        assert_eq!(
            (id(&after, "main"), &status(&after, "main")["restartCount"]),
            (main.clone(), &json!(0))
        );
        assert_eq!(status(&after, "beside"), status(&before, "beside"));
        let generation = format!("\"generation\":{}", at + 2);
        wait_for_event(&node, "involvedObject.name=web,reason=ResizeStarted", &generation);
        wait_for_event(&node, "involvedObject.name=web,reason=ResizeCompleted", &generation);
    }
    let totals = &pod_object(&node, "web")["status"]["resources"];
    assert_eq!(*totals, resources(["60m", "250m"], ["17Mi", "64Mi"]));

    // It does not get less than it uses, and is told so for as long as that is so.
    node.sh("web", "main", "dd if=/dev/zero of=/m/file bs=1M count=24 2> /dev/null");
    let less = resources(["50m", "150m"], ["16Mi", "16Mi"]);
    resize(&node, "web", "main", &less).success();
    let failing = |pod: &Value| {
        condition(pod, "PodResizeInProgress").is_some_and(|it| it["reason"] == "Error")
    };
    let pod = wait_for_pod(&node, "web", "it does not fit", failing);
    let error = condition(&pod, "PodResizeInProgress").unwrap();
    let message = error["message"].as_str().unwrap();
    let start = "cannot decrease memory limits: ";
    let text = "attempting to set container \"main\" memory limit (16777216) below current usage";
    assert!(message.starts_with(start) && message.contains(text), "{message}");
    assert_eq!(error["observedGeneration"], 4);
    assert_eq!(status(&pod, "main")["resources"], cases[1].0);
    assert_eq!(status(&pod, "main")["allocatedResources"], less["requests"]);
    wait_for_event(
        &node,
        "involvedObject.name=web,reason=ResizeError",
        "\"error\":\"cannot decrease memory limits: ",
    );
    node.kill();
    node.launch();
    let same = |pod: &Value| condition(pod, "PodResizeInProgress").is_some();
    let pod = wait_for_pod(&node, "web", "it still does not fit", same);
    assert_eq!(limits(&node), ("15000".into(), "25000".into(), 48, 64));
    assert_eq!(
        (
            id(&pod, "main"),
            condition(&pod, "PodResizeInProgress").unwrap()["observedGeneration"].clone()
        ),
        (main.clone(), json!(4))
    );
    node.sh("web", "main", "rm /m/file");
    // Whatever another allocation asks for is tried at once.
    let less = resources(["60m", "150m"], ["16Mi", "16Mi"]);
    resize(&node, "web", "main", &less).success();
    wait_for_pod(&node, "web", "it fits", |pod| is_resized(pod, "main", &less));
    assert_eq!(limits(&node), ("15000".into(), "25000".into(), 16, 32));
    assert!(!node.log().contains("panicked"), "{}", node.log());
    node.kill();
    node.launch();
    let after =
        wait_for_pod(&node, "web", "another agent has it so", |pod| is_resized(pod, "main", &less));
    assert_eq!((id(&after, "main"), limits(&node).2), (main.clone(), 16));
    kubectl(&node, &["delete", "pod", "web"]).success();
    assert!(wait_for(|| node.processes("shims").is_empty().then_some(())).is_some());
}

#[test]
fn a_container_that_wants_it_is_started_anew_with_other_resources_and_no_other_is() {
    let Some(node) = Node::start() else { return };
    let policy = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    let beside = json!({ "name": "beside", "image": "local/busybox:1", "command": command("") });
    // It ends well when it is asked to, and by its pod's policy for good.
    let web = pod("web")
        .set("spec.restartPolicy", "OnFailure")
        .exactly("trap 'exit 0' TERM; sleep infinity & wait")
        .main("resources", resources(["10m", "100m"], ["16Mi", "64Mi"]))
        .main("resizePolicy", policy)
        .set("spec.containers.1", beside);
    start(&node, "web", web);
    let before = pod_object(&node, "web");
    let only_cpu = resources(["10m", "200m"], ["16Mi", "64Mi"]);
    resize(&node, "web", "main", &only_cpu).success();
    let after = wait_for_pod(&node, "web", "its CPU is", |pod| is_resized(pod, "main", &only_cpu));
    assert_eq!(id(&after, "main"), id(&before, "main"));
    let wanted = resources(["10m", "200m"], ["16Mi", "128Mi"]);
    resize(&node, "web", "main", &wanted).success();
    let after = wait_for_pod(&node, "web", "it is started anew", |pod| {
        is_resized(pod, "main", &wanted)
            && status(pod, "main")["restartCount"] == 1
            && !status(pod, "main")["state"]["running"].is_null()
    });
    assert_eq!(after["status"]["phase"], "Running");
    assert_eq!(status(&after, "main")["lastState"]["terminated"]["exitCode"], 0);
    assert_eq!(status(&after, "beside"), status(&before, "beside"));
    assert_eq!(in_group(&node, &id(&after, "main"), MEMORY), (128 << 20).to_string());
    assert_eq!(quota_of(&node, &id(&after, "main")), "20000");
    wait_for_event(
        &node,
        "involvedObject.name=web,reason=Killing",
        "Container main resize requires restart",
    );
    wait_for_event(&node, "involvedObject.name=web,reason=ResizeCompleted", "\"generation\":3");
    // What has ended does not keep its pod from becoming smaller.
    let less = resources(["10m", "50m"], ["16Mi", "128Mi"]);
    resize(&node, "web", "main", &less).success();
    wait_for_pod(&node, "web", "it is smaller", |pod| is_resized(pod, "main", &less));
}

#[test]
fn a_pod_waits_for_room_also_under_another_agent_and_does_not_outgrow_its_node() {
    let Some(mut node) = Node::start() else { return };
    let memory = |amount: u64| json!({ "requests": { "memory": amount.to_string() } });
    let small = json!({ "requests": { "memory": "1Mi" } });
    start(&node, "small", pod("small").main("resources", small));
    let of_node = shown(&node, &["node", "n1"], "{.status.allocatable.memory}").unwrap();
    let all = kibibytes(&of_node) << 10;
    start(&node, "large", pod("large").main("resources", memory(all / 2)));
    let refused = resize(&node, "small", "main", &memory(all + 1)).failure(1);
    let text = format!(
        "node didn't have enough allocatable resources: memory, requested: {}, allocatable: {all}",
        all + 1
    );
    assert!(refused.contains(&text), "{refused}");
    resize(&node, "small", "main", &memory(all / 4 * 3)).success();
    let waits = |pod: &Value| {
        condition(pod, "PodResizePending").is_some_and(|it| it["reason"] == "Deferred")
    };
    let check = |node: &Node| {
        let pod = wait_for_pod(node, "small", "it waits", waits);
        let pending = condition(&pod, "PodResizePending").unwrap();
        let message = pending["message"].as_str().unwrap();
        let start = "Node didn't have enough resource: memory, requested: ";
        assert!(message.starts_with(start), "{message}");
        assert_eq!(
            (&pending["status"], &pending["observedGeneration"]),
            (&json!("True"), &json!(2))
        );
        assert_eq!(status(&pod, "main")["allocatedResources"]["memory"], "1Mi");
        assert!(condition(&pod, "PodResizeInProgress").is_none());
        id(&pod, "main")
    };
    let before = check(&node);
    wait_for_event(
        &node,
        "involvedObject.name=small,reason=ResizeDeferred",
        "Pod resize Deferred: {\"containers\":",
    );
    node.kill();
    node.launch();
    assert_eq!(check(&node), before);
    kubectl(&node, &["delete", "pod", "large"]).success();
    let wanted = memory(all / 4 * 3);
    let after = wait_for_pod(&node, "small", "there is room", |pod| {
        condition(pod, "PodResizePending").is_none()
            && condition(pod, "PodResizeInProgress").is_none()
    });
    assert_eq!(status(&after, "main")["allocatedResources"], wanted["requests"]);
    assert_eq!(id(&after, "main"), before);
}
