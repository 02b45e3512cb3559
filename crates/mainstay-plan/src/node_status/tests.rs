use expect_test::expect;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mainstay_cri::ImageId;
use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn condition(kind: &str, status: bool) -> RuntimeCondition {
    let (reason, message) = if status { ("", "") } else { ("Broken", "it is broken") };
    RuntimeCondition { kind: kind.into(), status, reason: reason.into(), message: message.into() }
}

fn image(id: &str, size: u64) -> Image {
    Image {
        id: ImageId(id.into()),
        repo_tags: vec![format!("{id}:1")],
        repo_digests: (0..9).map(|number| format!("{id}@sha256:{number}")).collect(),
        size,
        pinned: false,
        user: String::new(),
    }
}

fn facts() -> NodeFacts {
    NodeFacts {
        shutting_down: false,
        name: "n1".into(),
        machine: Machine {
            machine_id: "m".into(),
            system_uuid: "s".into(),
            boot_id: "b".into(),
            kernel_version: "6.1.0".into(),
            os_image: "Debian GNU/Linux 12 (bookworm)".into(),
            architecture: "amd64".into(),
            processors: 2,
            memory: 4_000_000_000,
            swap: 0,
            storage: 1 << 40,
            huge_pages: [("2Mi".to_owned(), 4 << 20), ("1Gi".to_owned(), 0)].into(),
        },
        pressure: Pressure::default(),
        addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        runtime: vec![condition("RuntimeReady", true), condition("NetworkReady", true)],
        runtime_version: "mainstay://0.1.0".into(),
        kubelet_version: "v1.36.0+mainstay-0.1.0".into(),
        port: Some(10250),
        images: vec![image("small", 1), image("large", 2)],
        settings: Arc::default(),
        pod_range: Some("10.201.7.0/24".into()),
    }
}

#[test]
fn a_node_is_registered_with_all_that_tools_look_for() {
    let node = node(&facts(), at(7));
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Node",
          "metadata": {
            "annotations": {
              "mainstay.dev/proposed-pod-cidr": "10.201.7.0/24"
            },
            "labels": {
              "beta.kubernetes.io/arch": "amd64",
              "beta.kubernetes.io/os": "linux",
              "kubernetes.io/arch": "amd64",
              "kubernetes.io/hostname": "n1",
              "kubernetes.io/os": "linux"
            },
            "name": "n1"
          },
          "spec": {},
          "status": {
            "addresses": [
              {
                "address": "10.0.0.7",
                "type": "InternalIP"
              },
              {
                "address": "fd00::7",
                "type": "InternalIP"
              },
              {
                "address": "n1",
                "type": "Hostname"
              }
            ],
            "allocatable": {
              "cpu": "2",
              "ephemeral-storage": "966367640Ki",
              "hugepages-1Gi": "0",
              "hugepages-2Mi": "4Mi",
              "memory": "3799754Ki",
              "pods": "110"
            },
            "capacity": {
              "cpu": "2",
              "ephemeral-storage": "1Ti",
              "hugepages-1Gi": "0",
              "hugepages-2Mi": "4Mi",
              "memory": "3906250Ki",
              "pods": "110"
            },
            "conditions": [
              {
                "lastHeartbeatTime": "1970-01-01T00:00:07Z",
                "lastTransitionTime": "1970-01-01T00:00:07Z",
                "message": "kubelet has sufficient memory available",
                "reason": "KubeletHasSufficientMemory",
                "status": "False",
                "type": "MemoryPressure"
              },
              {
                "lastHeartbeatTime": "1970-01-01T00:00:07Z",
                "lastTransitionTime": "1970-01-01T00:00:07Z",
                "message": "kubelet has no disk pressure",
                "reason": "KubeletHasNoDiskPressure",
                "status": "False",
                "type": "DiskPressure"
              },
              {
                "lastHeartbeatTime": "1970-01-01T00:00:07Z",
                "lastTransitionTime": "1970-01-01T00:00:07Z",
                "message": "kubelet has sufficient PID available",
                "reason": "KubeletHasSufficientPID",
                "status": "False",
                "type": "PIDPressure"
              },
              {
                "lastHeartbeatTime": "1970-01-01T00:00:07Z",
                "lastTransitionTime": "1970-01-01T00:00:07Z",
                "message": "kubelet is posting ready status",
                "reason": "KubeletReady",
                "status": "True",
                "type": "Ready"
              }
            ],
            "daemonEndpoints": {
              "kubeletEndpoint": {
                "Port": 10250
              }
            },
            "features": {
              "supplementalGroupsPolicy": true
            },
            "images": [
              {
                "names": [
                  "large@sha256:0",
                  "large@sha256:1",
                  "large@sha256:2",
                  "large@sha256:3",
                  "large@sha256:4"
                ],
                "sizeBytes": 2
              },
              {
                "names": [
                  "small@sha256:0",
                  "small@sha256:1",
                  "small@sha256:2",
                  "small@sha256:3",
                  "small@sha256:4"
                ],
                "sizeBytes": 1
              }
            ],
            "nodeInfo": {
              "architecture": "amd64",
              "bootID": "b",
              "containerRuntimeVersion": "mainstay://0.1.0",
              "kernelVersion": "6.1.0",
              "kubeProxyVersion": "",
              "kubeletVersion": "v1.36.0+mainstay-0.1.0",
              "machineID": "m",
              "operatingSystem": "linux",
              "osImage": "Debian GNU/Linux 12 (bookworm)",
              "systemUUID": "s"
            },
            "runtimeHandlers": [
              {
                "features": {
                  "recursiveReadOnlyMounts": true,
                  "userNamespaces": false
                },
                "name": ""
              }
            ]
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&node).unwrap());
    // What it has is not given to it again.
    assert_eq!(metadata_patch(&node, &facts()), None);
    let bare = Node::default();
    let patch = metadata_patch(&bare, &facts()).unwrap();
    assert_eq!(patch["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
}

#[test]
fn a_node_says_why_it_is_not_ready() {
    let said = |facts: &NodeFacts| {
        let status = status(&NodeStatus::default(), facts, at(1));
        let ready = status.conditions.unwrap().pop().unwrap();
        format!("{} {} {}", ready.status, ready.reason.unwrap(), ready.message.unwrap())
    };
    let message =
        |runtime: &[RuntimeCondition]| said(&NodeFacts { runtime: runtime.to_vec(), ..facts() });
    let rows = [
        message(&[]),
        message(&[condition("RuntimeReady", false)]),
        message(&[condition("RuntimeReady", true), condition("NetworkReady", false)]),
        message(&[condition("RuntimeReady", false), condition("NetworkReady", false)]),
        message(&[condition("RuntimeReady", true), condition("ImagesReady", false)]),
        {
            let fine = vec![condition("RuntimeReady", true)];
            let facts = NodeFacts { runtime: fine, shutting_down: true, ..facts() };
            said(&facts)
        },
    ];
    expect![[r#"
        False KubeletNotReady container runtime status check may not have completed yet
        False KubeletNotReady container runtime not ready: RuntimeReady=false reason:Broken message:it is broken
        False KubeletNotReady container runtime network not ready: NetworkReady=false reason:Broken message:it is broken
        False KubeletNotReady [container runtime not ready: RuntimeReady=false reason:Broken message:it is broken, container runtime network not ready: NetworkReady=false reason:Broken message:it is broken]
        True KubeletReady kubelet is posting ready status
        False KubeletNotReady node is shutting down"#]]
    .assert_eq(&rows.join("\n"));
}

#[test]
fn what_turns_is_told_and_keeps_its_time() {
    let unknown = NodeFacts { runtime: Vec::new(), ..facts() };
    let first = status(&NodeStatus::default(), &unknown, at(1));
    let second = status(&first, &facts(), at(2));
    let pressure = Pressure { memory: true, disk: true, processes: true };
    let third = status(&second, &NodeFacts { pressure, ..unknown }, at(3));
    let told = |before: &NodeStatus, after: &NodeStatus| {
        let turned = transitions("n1", before, after);
        turned.into_iter().map(|it| it.reason).collect::<Vec<_>>().join(" ")
    };
    let rows = [
        told(&NodeStatus::default(), &first),
        told(&NodeStatus::default(), &second),
        told(&first, &second),
        told(&second, &second),
        told(&second, &third),
    ];
    expect![[r#"
        NodeHasSufficientMemory NodeHasNoDiskPressure NodeHasSufficientPID
        NodeHasSufficientMemory NodeHasNoDiskPressure NodeHasSufficientPID NodeReady
        NodeReady

        NodeHasInsufficientMemory NodeHasDiskPressure NodeHasInsufficientPID NodeNotReady"#]]
    .assert_eq(&rows.join("\n"));
    let turned = transitions("n1", &first, &second);
    assert_eq!(turned[0].message, "Node n1 status is now: NodeReady");
    let times = |status: &NodeStatus| {
        let conditions = status.conditions.iter().flatten();
        let time = |it: &NodeCondition| it.last_transition_time.clone().unwrap().0.as_second();
        conditions.map(time).collect::<Vec<_>>()
    };
    assert_eq!(times(&second), [1, 1, 1, 2]);
    assert_eq!(times(&third), [3, 3, 3, 3]);
}

#[test]
fn only_a_heartbeat_is_no_change() {
    let first = status(&NodeStatus::default(), &facts(), at(1));
    let has_changed = |after: &NodeStatus| status_patch(&first, after).map(|(_, news)| news);
    assert_eq!(has_changed(&first), None);
    assert_eq!(has_changed(&status(&first, &facts(), at(2))), Some(false));
    let moved = NodeFacts { addresses: Vec::new(), ..facts() };
    assert_eq!(has_changed(&status(&first, &moved, at(2))), Some(true));
    assert_eq!(has_changed(&status(&first, &moved, at(1))), Some(true));
}

#[test]
fn what_others_wrote_stays() {
    let gpu = [("example.com/gpu".to_owned(), Quantity("2".into())), {
        ("hugepages-16Gi".to_owned(), Quantity("0".into()))
    }];
    let network = NodeCondition {
        type_: "NetworkUnavailable".into(),
        status: "False".into(),
        ..NodeCondition::default()
    };
    let held = NodeStatus {
        capacity: Some(gpu.into()),
        conditions: Some(vec![network]),
        ..NodeStatus::default()
    };
    let status = status(&held, &facts(), at(1));
    let capacity = status.capacity.unwrap();
    assert_eq!(capacity["example.com/gpu"].0, "2");
    assert!(!capacity.contains_key("hugepages-16Gi"));
    assert_eq!(status.conditions.unwrap()[0].type_, "NetworkUnavailable");
}

#[test]
fn a_lease_is_renewed_as_it_is_held() {
    let first = lease(None, "n1", "u", LEASE_DURATION, at(1));
    expect![[r#"
        {
          "apiVersion": "coordination.k8s.io/v1",
          "kind": "Lease",
          "metadata": {
            "name": "n1",
            "namespace": "kube-node-lease",
            "ownerReferences": [
              {
                "apiVersion": "v1",
                "kind": "Node",
                "name": "n1",
                "uid": "u"
              }
            ]
          },
          "spec": {
            "holderIdentity": "n1",
            "leaseDurationSeconds": 40,
            "renewTime": "1970-01-01T00:00:01.000000Z"
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&first).unwrap());
    let mut held = first;
    held.metadata.resource_version = Some("5".into());
    let second = lease(Some(&held), "n1", "u", LEASE_DURATION, at(2));
    let second = serde_json::to_value(&second).unwrap();
    assert_eq!(second["metadata"]["resourceVersion"], json!("5"));
    assert_eq!(second["spec"]["renewTime"], json!("1970-01-01T00:00:02.000000Z"));
}
