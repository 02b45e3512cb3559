//! After `node_authorizer_test.go` of Kubernetes.

use serde_json::{Value, json};

use super::*;
use crate::authn::User;
use crate::object::Object;

fn pod(name: &str, node: &str, spec: &Value) -> Object {
    let mut pod = Object::from_json(
        json!({ "metadata": { "name": name, "namespace": "ns0" }, "spec": spec }),
    );
    pod.field_mut("spec").insert("nodeName".into(), node.into());
    pod
}

/// A pod that refers to something of every kind, in every way, each named after the way and the pod.
fn full(name: &str, node: &str) -> Object {
    let named = |way: &str| format!("{way}-{name}");
    let volumes: Vec<Value> = [
        ("azureFile", json!({ "secretName": named("azureFile") })),
        ("cephfs", json!({ "secretRef": { "name": named("cephfs") } })),
        ("cinder", json!({ "secretRef": { "name": named("cinder") } })),
        ("csi", json!({ "nodePublishSecretRef": { "name": named("csi") } })),
        ("flexVolume", json!({ "secretRef": { "name": named("flexVolume") } })),
        ("iscsi", json!({ "secretRef": { "name": named("iscsi") } })),
        ("rbd", json!({ "secretRef": { "name": named("rbd") } })),
        ("scaleIO", json!({ "secretRef": { "name": named("scaleIO") } })),
        ("secret", json!({ "secretName": named("secret") })),
        ("storageos", json!({ "secretRef": { "name": named("storageos") } })),
        ("configMap", json!({ "name": named("configMap") })),
        (
            "projected",
            json!({ "sources": [
                { "secret": { "name": named("projected") } },
                { "configMap": { "name": named("projected") } },
                { "downwardAPI": {} },
            ] }),
        ),
        ("persistentVolumeClaim", json!({ "claimName": named("claim") })),
        ("ephemeral", json!({})),
        ("emptyDir", json!({})),
    ]
    .into_iter()
    .map(|(kind, source)| json!({ "name": "v", (kind): source }))
    .collect();
    let container = |way: &str| {
        json!({
            "name": way,
            "env": [
                { "name": "A", "valueFrom": { "secretKeyRef": { "name": named(&format!("{way}-env")), "key": "k" } } },
                { "name": "B", "valueFrom": { "configMapKeyRef": { "name": named(&format!("{way}-env")), "key": "k" } } },
                { "name": "C", "value": "c" },
            ],
            "envFrom": [
                { "secretRef": { "name": named(&format!("{way}-from")) } },
                { "configMapRef": { "name": named(&format!("{way}-from")) } },
            ],
        })
    };
    pod(
        name,
        node,
        &json!({
            "serviceAccountName": named("account"),
            "imagePullSecrets": [{ "name": named("pull") }, { "name": "shared" }, {}],
            "initContainers": [container("init")],
            "containers": [container("main")],
            "ephemeralContainers": [container("debug")],
            "volumes": volumes,
        }),
    )
}

fn graph() -> Graph {
    let mut graph = Graph::default();
    graph.observe_pod(&full("pod0", "node0"));
    graph.observe_pod(&full("pod1", "node1"));
    graph.observe_pod(&pod("plain", "node0", &json!({})));
    graph
}

/// `VERB RESOURCE[.GROUP][/SUBRESOURCE][@NAMESPACE][ NAME]`.
fn decide(graph: &Graph, node: &str, text: &str, fields: &[(&str, &str)]) -> Decision {
    decide_with(graph, node, text, fields, &[])
}

fn decide_with(
    graph: &Graph,
    node: &str,
    text: &str,
    fields: &[(&str, &str)],
    labels: &[(&str, &str)],
) -> Decision {
    let user = User::node(node);
    let (verb, rest) = text.split_once(' ').unwrap();
    let (what, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let (what, namespace) = what.split_once('@').unwrap_or((what, ""));
    let (what, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let (fields, labels) = (owned(fields), owned(labels));
    graph.decide(&Attributes {
        user: &user,
        verb,
        group,
        resource,
        subresource,
        namespace,
        name,
        path: "",
        is_resource: true,
        fields: &fields,
        labels: &labels,
    })
}

fn refused(decision: &Decision) -> Option<&str> {
    match decision {
        Decision::Allow(_) => None,
        Decision::NoOpinion(reason) => Some(reason),
    }
}

#[test]
fn what_pods_refer_to_can_be_read() {
    let graph = graph();
    let secrets = [
        "azureFile",
        "cephfs",
        "cinder",
        "csi",
        "flexVolume",
        "iscsi",
        "rbd",
        "scaleIO",
        "secret",
        "storageos",
        "projected",
        "pull",
        "init-env",
        "init-from",
        "main-env",
        "main-from",
        "debug-env",
        "debug-from",
    ];
    let config_maps = [
        "configMap",
        "projected",
        "init-env",
        "init-from",
        "main-env",
        "main-from",
        "debug-env",
        "debug-from",
    ];
    let unrelated = "no relationship found between node 'node0' and this object";
    for (resource, ways) in [("secrets", &secrets[..]), ("configmaps", &config_maps)] {
        for way in ways {
            for verb in ["get", "list", "watch"] {
                let own = format!("{verb} {resource}@ns0 {way}-pod0");
                assert_eq!(refused(&decide(&graph, "node0", &own, &[])), None, "{own}");
                for other in [
                    format!("{verb} {resource}@ns0 {way}-pod1"),
                    format!("{verb} {resource}@ns1 {way}-pod0"),
                ] {
                    assert_eq!(
                        refused(&decide(&graph, "node0", &other, &[])),
                        Some(unrelated),
                        "{other}"
                    );
                }
            }
        }
    }
    for text in [
        "get secrets@ns0 configMap-pod0",
        "get configmaps@ns0 secret-pod0",
        "get secrets@ns0 account-pod0",
    ] {
        assert_eq!(refused(&decide(&graph, "node0", text, &[])), Some(unrelated), "{text}");
    }
}

#[test]
fn a_table_of_requests() {
    let graph = graph();
    let own = &[("spec.nodeName", "node0")][..];
    let other = &[("spec.nodeName", "node1")][..];
    let none = &[][..];
    let unrelated = Some("no relationship found between node 'node0' and this object");
    let no_name = Some("No Object name found");
    let lease = Some("can only access node lease with the same name as the requesting node");
    for (text, fields, expected) in [
        ("get secrets@ns0 shared", none, None),
        ("list secrets@ns0", none, no_name),
        ("watch secrets@ns0", none, no_name),
        ("list secrets secret-pod0", none, Some("can only read namespaced object of this type")),
        ("list secrets", none, Some("can only read namespaced object of this type")),
        ("update secrets@ns0 secret-pod0", none, Some("can only read resources of this type")),
        (
            "delete configmaps@ns0 configMap-pod0",
            none,
            Some("can only read resources of this type"),
        ),
        ("get secrets/status@ns0 secret-pod0", none, Some("cannot read subresource")),
        ("get persistentvolumeclaims@ns0 claim-pod0", none, None),
        ("get persistentvolumeclaims@ns0 pod0-v", none, None),
        ("get persistentvolumeclaims@ns0 claim-pod1", none, unrelated),
        (
            "list persistentvolumeclaims@ns0",
            none,
            Some("can only get individual resources of this type"),
        ),
        ("patch persistentvolumeclaims/status@ns0 claim-pod0", none, None),
        ("patch persistentvolumeclaims/status@ns0 claim-pod1", none, unrelated),
        ("get serviceaccounts@ns0 account-pod0", none, None),
        ("get serviceaccounts@ns0 account-pod1", none, unrelated),
        (
            "list serviceaccounts@ns0",
            none,
            Some("can only create tokens for individual service accounts"),
        ),
        ("create serviceaccounts/token@ns0 account-pod0", none, None),
        ("create serviceaccounts/token@ns0 account-pod1", none, unrelated),
        (
            "create serviceaccounts@ns0 account-pod0",
            none,
            Some("can only create token subresource of serviceaccount"),
        ),
        (
            "create serviceaccounts@ns0",
            none,
            Some("can only create tokens for individual service accounts"),
        ),
        (
            "update serviceaccounts/token@ns0 account-pod0",
            none,
            Some("can only create tokens for individual service accounts"),
        ),
        // Leases
        ("get leases.coordination.k8s.io@kube-node-lease node0", none, None),
        ("create leases.coordination.k8s.io@kube-node-lease", none, None),
        ("update leases.coordination.k8s.io@kube-node-lease node0", none, None),
        ("patch leases.coordination.k8s.io@kube-node-lease node0", none, None),
        ("delete leases.coordination.k8s.io@kube-node-lease node0", none, None),
        ("get leases.coordination.k8s.io@kube-node-lease node1", none, lease),
        ("update leases.coordination.k8s.io@kube-node-lease node1", none, lease),
        (
            "get leases.coordination.k8s.io@foo node0",
            none,
            Some("can only access leases in the \"kube-node-lease\" system namespace"),
        ),
        (
            "list leases.coordination.k8s.io@kube-node-lease",
            none,
            Some("can only get, create, update, patch, or delete a node lease"),
        ),
        // Pods
        ("get pods@ns0 pod0", none, None),
        ("get pods@ns0 pod1", none, unrelated),
        ("get pods@ns0 plain", none, None),
        ("list pods", own, None),
        ("list pods@ns0", own, None),
        ("watch pods", own, None),
        ("list pods", other, Some("can only list/watch pods with spec.nodeName field selector")),
        ("list pods", none, Some("can only list/watch pods with spec.nodeName field selector")),
        ("watch pods", none, Some("can only list/watch pods with spec.nodeName field selector")),
        ("list pods@ns0 pod0", none, None),
        ("watch pods@ns0 pod0", none, None),
        ("list pods@ns0 pod1", none, unrelated),
        ("create pods@ns0", none, None),
        ("create pods/proxy@ns0", none, Some("")),
        ("delete pods@ns0 pod0", none, None),
        ("delete pods@ns0 pod1", none, None),
        ("deletecollection pods@ns0", own, Some("")),
        ("update pods@ns0 pod0", none, Some("")),
        ("update pods/status@ns0 pod0", none, None),
        ("patch pods/status@ns0 pod1", none, None),
        ("get pods/status@ns0 pod0", none, Some("")),
        ("create pods/eviction@ns0 pod0", none, None),
        ("create pods/exec@ns0 pod0", none, Some("")),
        ("get pods/log@ns0 pod0", none, Some("")),
        // Nodes
        ("get nodes node0", none, None),
        ("list nodes node0", none, None),
        ("watch nodes node0", none, None),
        (
            "get nodes node1",
            none,
            Some("node 'node0' cannot read 'node1', only its own Node object"),
        ),
        ("list nodes", none, Some("node 'node0' cannot read all nodes, only its own Node object")),
        ("create nodes", none, None),
        ("update nodes node1", none, None),
        ("patch nodes/status node0", none, None),
        ("delete nodes node0", none, Some("")),
        ("get nodes/proxy node0", none, Some("")),
        // Anything else
        ("list services", none, None),
        ("get endpoints@ns0 a", none, None),
        ("create events@ns0", none, None),
        ("patch events.events.k8s.io@ns0 a", none, None),
        ("list events", none, Some("")),
        ("create tokenreviews.authentication.k8s.io", none, None),
        ("create subjectaccessreviews.authorization.k8s.io", none, None),
        ("create certificatesigningrequests.certificates.k8s.io", none, None),
        ("watch runtimeclasses.node.k8s.io", none, None),
        ("get persistentvolumes a", none, Some("")),
        ("create csinodes.storage.k8s.io", none, Some("")),
        ("list namespaces", none, Some("")),
    ] {
        assert_eq!(refused(&decide(&graph, "node0", text, fields)), expected, "{text} {fields:?}");
    }
    assert_eq!(refused(&decide(&graph, "unregistered", "get nodes unregistered", &[])), None);
    assert_eq!(
        refused(&decide(&graph, "", "get nodes node0", &[])),
        Some("unknown node for user \"system:node:\"")
    );
}

#[test]
fn others_are_no_business_of_it() {
    let graph = graph();
    for user in [
        User { name: "system:node:node0".to_owned(), ..User::default() },
        User {
            name: "node0".to_owned(),
            groups: vec!["system:nodes".to_owned()],
            ..User::default()
        },
    ] {
        let attributes = Attributes {
            user: &user,
            verb: "get",
            group: "",
            resource: "nodes",
            subresource: "",
            namespace: "",
            name: "node0",
            path: "",
            is_resource: true,
            fields: &[],
            labels: &[],
        };
        assert_eq!(refused(&graph.decide(&attributes)), Some(""));
    }
}

/// What NodeRestriction looks at is let through; nothing but what bears the node's label is shown to it.
#[test]
fn a_node_shows_what_lies_beside_its_manifests() {
    let graph = graph();
    let own = [("mainstay.dev/config.node", "node0")];
    let other = [("mainstay.dev/config.node", "node1")];
    for resource in ["secrets", "configmaps"] {
        for (text, labels, allowed) in [
            ("create R@ns0", &[][..], true),
            ("delete R@ns0 a.mainstay-node0", &[], true),
            ("delete R@ns0 a.mainstay-node1", &[], false),
            ("list R", &own, true),
            ("watch R", &own, true),
            ("list R@ns0", &own, true),
            ("list R", &other, false),
            ("list R", &[], false),
            ("watch R@ns0", &other, false),
            ("create R", &[], false),
            ("update R@ns0 a.mainstay-node0", &own, false),
            ("patch R@ns0 a.mainstay-node0", &own, false),
            ("get R@ns0 a.mainstay-node0", &own, false),
            ("deletecollection R@ns0", &own, false),
            ("create R/status@ns0", &[], false),
        ] {
            let text = text.replace('R', resource);
            let decided = decide_with(&graph, "node0", &text, &[], labels);
            assert_eq!(refused(&decided).is_none(), allowed, "{text} {labels:?}");
        }
    }
}

/// A node must not get at secrets by saying that a static pod refers to them.
#[test]
fn mirrors_refer_to_nothing() {
    let mut graph = Graph::default();
    let mut mirror = full("pod0", "node0");
    mirror.meta_mut().insert("annotations".into(), json!({ "kubernetes.io/config.mirror": "" }));
    graph.observe_pod(&mirror);
    assert_eq!(refused(&decide(&graph, "node0", "get pods@ns0 pod0", &[])), None);
    for text in [
        "get secrets@ns0 secret-pod0",
        "get configmaps@ns0 configMap-pod0",
        "create serviceaccounts/token@ns0 account-pod0",
    ] {
        assert!(refused(&decide(&graph, "node0", text, &[])).is_some(), "{text}");
    }
}

#[test]
fn what_changes_counts_and_what_is_gone_does_not() {
    let mut graph = graph();
    let allows =
        |graph: &Graph, node: &str, text: &str| refused(&decide(graph, node, text, &[])).is_none();
    // A pod that is on no node yet matters to nobody.
    graph.observe_pod(&pod("waiting", "", &json!({ "serviceAccountName": "a" })));
    assert!(!allows(&graph, "node0", "get pods@ns0 waiting"));
    assert!(!allows(&graph, "", "get serviceaccounts@ns0 a"));
    // An ephemeral container brings a reference with it.
    let debugged =
        json!({ "ephemeralContainers": [{ "envFrom": [{ "secretRef": { "name": "new" } }] }] });
    graph.observe_pod(&pod("plain", "node0", &debugged));
    assert!(allows(&graph, "node0", "get secrets@ns0 new"));
    // What two pods refer to stays until both are gone.
    graph.observe_pod(&full("pod2", "node0"));
    graph.forget_pod("ns0", "pod0");
    assert!(allows(&graph, "node0", "get secrets@ns0 shared"));
    assert!(!allows(&graph, "node0", "get secrets@ns0 secret-pod0"));
    graph.forget_pod("ns0", "pod2");
    assert!(!allows(&graph, "node0", "get secrets@ns0 shared"));
    assert!(allows(&graph, "node1", "get secrets@ns0 shared"));
    // One of the same name, on another node.
    graph.observe_pod(&full("pod1", "node2"));
    assert!(!allows(&graph, "node1", "get secrets@ns0 secret-pod1"));
    assert!(allows(&graph, "node2", "get secrets@ns0 secret-pod1"));
    for name in ["pod1", "plain", "never was"] {
        graph.forget_pod("ns0", name);
    }
    assert!(graph.is_empty());
}
