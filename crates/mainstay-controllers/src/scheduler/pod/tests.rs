use std::collections::BTreeMap;

use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use serde_json::{Value, json};

use super::super::testing::{object, pod, requesting};
use super::*;

#[test]
fn stages() {
    let rows: [(Value, Stage); 8] = [
        (json!({}), Stage::Pending),
        (json!({"spec": {"nodeName": ""}}), Stage::Pending),
        (json!({"spec": {"nodeName": "n"}}), Stage::Assigned),
        (json!({"spec": {"nodeName": "n", "schedulerName": "x"}}), Stage::Assigned),
        (json!({"spec": {"schedulerName": "x"}}), Stage::Foreign),
        (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), Stage::Foreign),
        (json!({"spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}}), Stage::Ended),
        (json!({"status": {"phase": "Failed"}}), Stage::Ended),
    ];
    for (over, expected) in rows {
        assert_eq!(stage(&object("p", over.clone())), expected, "{over}");
    }
}

#[test]
fn what_requests_nothing_counts_all_the_same_where_nodes_are_compared() {
    let rows = [
        (json!({}), [100, 200 << 20]),
        (requesting("2", "1Gi"), [2000, 1 << 30]),
        (json!({"containers": [{"name": "a"}, {"name": "b"}]}), [200, 400 << 20]),
        (
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}),
            [1000, 200 << 20],
        ),
    ];
    for (spec, expected) in rows {
        assert_eq!(pod("p", json!({"spec": spec.clone()})).scored, expected, "{spec}");
    }
    assert!(pod("p", json!({})).requests.is_nothing());
}

#[test]
fn what_is_resized_counts_as_the_most_that_it_asks_for_is_allocated_or_has() {
    let requests = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let cpu = |spec: &str, allocated: &str, actual: &str| {
        let status = json!({
            "name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "resources": requests(actual), "allocatedResources": {"cpu": allocated},
        });
        let containers = json!([{"name": "c", "image": "i", "resources": requests(spec)}]);
        let over = json!({
            "spec": {"containers": containers},
            "status": {"containerStatuses": [status]},
        });
        pod("p", over).requests.cpu
    };
    assert_eq!(cpu("3", "1", "2"), 3000);
    assert_eq!(cpu("1", "3", "2"), 3000);
    assert_eq!(cpu("1", "2", "3"), 3000);
}

#[test]
fn nothing_is_taken_away_of_pods_that_counts_here() {
    let full = json!({
        "name": "c", "image": "i", "command": ["x"], "args": ["y"], "workingDir": "/",
        "env": [{"name": "A", "value": "b"}], "envFrom": [{"prefix": "P"}],
        "ports": [{"containerPort": 1, "hostPort": 2}],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "livenessProbe": {"exec": {"command": ["z"]}}, "securityContext": {"runAsUser": 1},
    });
    let sidecar = json!({
        "name": "s", "image": "j", "restartPolicy": "Always", "env": [{"name": "A", "value": "b"}],
        "resources": {"requests": {"cpu": "500m"}}, "ports": [{"containerPort": 3, "hostPort": 4}],
    });
    let init = json!({"name": "d", "image": "k", "resources": {"requests": {"memory": "3Gi"}}});
    let volumes = json!([
        {"name": "a", "emptyDir": {}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "p"}},
        {"name": "c", "hostPath": {"path": "/x"}},
        {"name": "d", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"name": "e", "image": {"reference": "i"}},
    ]);
    let status = |name: &str| {
        json!({
            "name": name, "image": "i", "imageID": "x", "containerID": "y", "ready": true,
            "restartCount": 7, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            "allocatedResources": {"cpu": "3"}, "resources": {"requests": {"cpu": "4"}},
        })
    };
    let quiet = json!({
        "name": "q", "image": "i", "imageID": "x", "ready": true, "restartCount": 0,
        "resources": {"limits": {"cpu": "1"}},
    });
    let over = json!({
        "metadata": {"labels": {"a": "b"}, "annotations": {
            CONFIG_MIRROR_ANNOTATION: "x", "controller.kubernetes.io/pod-deletion-cost": "-7", "y": "z",
        }},
        "spec": {
            "initContainers": [sidecar, init], "containers": [full, {"name": "q"}],
            "volumes": volumes,
            "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "priority": 5,
            "overhead": {"cpu": "10m"}, "securityContext": {"runAsUser": 1},
            "ephemeralContainers": [{"name": "f", "image": "i"}],
        },
        "status": {
            "containerStatuses": [status("c"), quiet], "initContainerStatuses": [status("s")],
            "conditions": [
                {"type": "PodReadyToStartContainers", "status": "True"},
                {"type": "Initialized", "status": "True"},
                {"type": "ContainersReady", "status": "True"},
                {"type": "Ready", "status": "True"},
                {"type": "PodScheduled", "status": "True"},
                {"type": "DisruptionTarget", "status": "True", "reason": "x"},
            ],
            "startTime": "2026-01-01T00:00:00Z", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
        },
    });
    let left = pod("p", over);
    assert_eq!((left.requests.cpu, left.requests.memory), (8010, 3 << 30));
    assert_eq!(left.host_ports.len(), 2);
    let Demand { containers, images, .. } = &left.object.demand;
    assert_eq!((*containers, images.join(" ")), (4, "j k i".to_owned()));
    assert_eq!(*left.object.sidecars, ["s"]);
    assert_eq!(left.object.deletion_cost, -7);
    assert_eq!((&left.key.name, left.priority, left.is_mirror), (&"p".to_owned(), 5, true));
    assert_eq!(left.kind.labels, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    let names = |pod: &PodInfo| -> Vec<String> {
        pod.spec().volumes.iter().flatten().map(|it| it.name.clone()).collect()
    };
    assert_eq!(names(&left), ["b", "d", "e"]);
    let restarts = |pod: &PodInfo| -> Vec<(String, i32)> {
        let status = pod.status().unwrap();
        let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        all.map(|it| (it.name.clone(), it.restart_count)).collect()
    };
    assert_eq!(restarts(&left), [("s".to_owned(), 7), ("c".to_owned(), 7)]);
    let conditions = left.status().unwrap().conditions.iter().flatten();
    let conditions: Vec<&str> = conditions.map(|it| it.type_.as_str()).collect();
    assert_eq!(conditions, ["Ready", "PodScheduled", "DisruptionTarget"]);
    assert_eq!(left.spec().tolerations.iter().flatten().count(), 1);
    // What is much is gone.
    assert_eq!(left.object.metadata.annotations, None);
    assert_eq!((left.spec().containers.len(), &left.spec().init_containers), (0, &None));
    assert!(
        left.status().unwrap().container_statuses.iter().flatten().all(|it| it.state.is_none())
    );
}
