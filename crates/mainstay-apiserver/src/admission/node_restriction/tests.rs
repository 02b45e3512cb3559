//! After `admission_test.go` of Kubernetes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

const NODE: &str = "mynode";

fn mirror() -> Value {
    json!({
        "metadata": {
            "name": "web-mynode",
            "namespace": "ns",
            "annotations": { "kubernetes.io/config.mirror": "abc" },
            "ownerReferences": [owner()],
        },
        "spec": { "nodeName": NODE, "containers": [{ "name": "a", "image": "b" }] },
    })
}

fn owner() -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "node-uid", "controller": true })
}

fn object(value: Value) -> Object {
    Object::from_json(value)
}

/// `mirror()` with something else at a path.
fn with(pointer: &str, value: Value) -> Object {
    let mut pod = mirror();
    let (at, key) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(at).unwrap()[key] = value;
    object(pod)
}

fn on(node: &str) -> Object {
    object(
        json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "pod-uid" }, "spec": { "nodeName": node } }),
    )
}

/// `OPERATION RESOURCE[.GROUP][/SUBRESOURCE][@NAMESPACE][ NAME]`.
fn ask(
    user: &User,
    text: &str,
    new: Option<&Object>,
    old: Option<&Object>,
    found: &Found<'_>,
) -> Result<(), String> {
    let (operation, rest) = text.split_once(' ').unwrap();
    let (what, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let (what, namespace) = what.split_once('@').unwrap_or((what, ""));
    let (what, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let operation = match operation {
        "create" => Operation::Create,
        "update" => Operation::Update,
        _ => Operation::Delete,
    };
    let request = Request { user, operation, group, resource, subresource, namespace, name };
    let needs = needs(&request, new);
    assert!(needs.pod.is_some() || found.pod.is_none(), "nobody would look the pod up: {text}");
    assert!(needs.node.is_some() || found.node.is_none(), "nobody would look the node up: {text}");
    admit(&request, new, old, found).map_err(|refusal| match refusal {
        Refusal::Forbidden(text) => text,
        Refusal::NotFound { resource, name } => format!("404 {resource} {name}"),
    })
}

fn node() -> User {
    User::node(NODE)
}

#[test]
fn mirrors_can_be_made() {
    let own = object(json!({ "metadata": { "name": NODE, "uid": "node-uid" } }));
    let found = Found { node: Some(&own), pod: None };
    let quoted = format!("node {NODE:?}");
    let owner_text = format!("{quoted} can only create pods with an owner reference set to itself");
    let owners = |change: &dyn Fn(&mut Value)| {
        let mut owner = owner();
        change(&mut owner);
        with("/metadata/ownerReferences", json!([owner]))
    };
    for (pod, expected) in [
        (object(mirror()), None),
        (
            with("/metadata/annotations", json!({ "other": "abc" })),
            Some(format!(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, {quoted} can only create mirror pods"
            )),
        ),
        (
            with("/spec/nodeName", json!("other")),
            Some(format!("{quoted} can only create pods with spec.nodeName set to itself")),
        ),
        (
            with("/spec/nodeName", json!("")),
            Some(format!("{quoted} can only create pods with spec.nodeName set to itself")),
        ),
        (
            with("/metadata/ownerReferences", json!([owner(), owner()])),
            Some(format!(
                "{quoted} can only create pods with a single owner reference set to itself"
            )),
        ),
        (with("/metadata/ownerReferences", json!([])), Some(owner_text.clone())),
        (with("/metadata/ownerReferences", Value::Null), Some(owner_text.clone())),
        (owners(&|it| it["apiVersion"] = "v2".into()), Some(owner_text.clone())),
        (owners(&|it| it["kind"] = "Pod".into()), Some(owner_text.clone())),
        (owners(&|it| it["name"] = "other".into()), Some(owner_text)),
        (
            owners(&|it| it["controller"] = false.into()),
            Some(format!(
                "{quoted} can only create pods with a controller owner reference set to itself"
            )),
        ),
        (
            owners(&|it| it["controller"] = Value::Null),
            Some(format!(
                "{quoted} can only create pods with a controller owner reference set to itself"
            )),
        ),
        (
            owners(&|it| it["blockOwnerDeletion"] = true.into()),
            Some(format!("{quoted} must not set blockOwnerDeletion on an owner reference")),
        ),
        (owners(&|it| it["blockOwnerDeletion"] = false.into()), None),
        (
            owners(&|it| it["uid"] = "wrong".into()),
            Some(format!("node {NODE} UID mismatch: expected wrong got node-uid")),
        ),
        (
            with("/spec/serviceAccountName", json!("a")),
            Some(format!("{quoted} can not create pods that reference serviceaccounts")),
        ),
        (
            with("/spec/imagePullSecrets", json!([{ "name": "a" }])),
            Some(format!("{quoted} can not create pods that reference secrets")),
        ),
        (
            with(
                "/spec/containers",
                json!([{ "name": "a", "envFrom": [{ "configMapRef": { "name": "m" } }] }]),
            ),
            Some(format!("{quoted} can not create pods that reference configmaps")),
        ),
        (
            with(
                "/spec/volumes",
                json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]),
            ),
            Some(format!("{quoted} can not create pods that reference persistentvolumeclaims")),
        ),
        (
            with(
                "/spec/volumes",
                json!([{ "name": "v", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } }]),
            ),
            Some(format!(
                "{quoted} can not create pods that reference serviceaccounts (via projected volumes)"
            )),
        ),
        (
            with("/spec/resourceClaims", json!([{ "name": "c" }])),
            Some(format!("{quoted} can not create pods that reference resourceclaims")),
        ),
        (with("/spec/volumes", json!([{ "name": "v", "hostPath": { "path": "/etc" } }])), None),
    ] {
        let result = ask(&node(), "create pods@ns web-mynode", Some(&pod), None, &found);
        assert_eq!(result.err(), expected, "{pod:?}");
    }
    let pod = object(mirror());
    let missing = ask(&node(), "create pods@ns", Some(&pod), None, &Found::default());
    assert_eq!(missing.unwrap_err(), "404 nodes mynode");
}

#[test]
fn pods_of_the_node_only() {
    let (own, other, none) = (on(NODE), on("other"), on(""));
    let new = on(NODE);
    let update =
        "unexpected operation \"UPDATE\", node \"mynode\" can only create and delete mirror pods";
    let delete = "node \"mynode\" can only delete pods with spec.nodeName set to itself";
    let status =
        "node \"mynode\" can only update pod status for pods with spec.nodeName set to itself";
    let evict = "node mynode can only evict pods with spec.nodeName set to itself";
    let eviction = object(json!({ "metadata": { "name": "p" } }));
    let unnamed = object(json!({}));
    let nothing = Found::default();
    let pod = |pod| Found { pod: Some(pod), node: None };
    for (text, new, old, found, expected) in [
        ("update pods@ns p", Some(&new), Some(&own), nothing, Err(update)),
        ("delete pods@ns p", None, Some(&own), pod(&own), Ok(())),
        ("delete pods@ns p", None, Some(&other), pod(&other), Err(delete)),
        ("delete pods@ns p", None, Some(&none), pod(&none), Err(delete)),
        ("delete pods@ns p", None, None, nothing, Err("404 pods p")),
        ("update pods/status@ns p", Some(&new), Some(&own), nothing, Ok(())),
        ("update pods/status@ns p", Some(&new), Some(&other), nothing, Err(status)),
        (
            "create pods/status@ns p",
            Some(&new),
            None,
            nothing,
            Err("unexpected operation \"CREATE\""),
        ),
        (
            "delete pods/status@ns p",
            None,
            Some(&own),
            nothing,
            Err("unexpected operation \"DELETE\""),
        ),
        ("create pods/eviction@ns p", Some(&eviction), None, pod(&own), Ok(())),
        ("create pods/eviction@ns p", Some(&unnamed), None, pod(&own), Ok(())),
        ("create pods/eviction@ns", Some(&eviction), None, pod(&own), Ok(())),
        ("create pods/eviction@ns p", Some(&eviction), None, pod(&other), Err(evict)),
        ("create pods/eviction@ns p", Some(&eviction), None, nothing, Err("404 pods p")),
        (
            "create pods/eviction@ns",
            Some(&unnamed),
            None,
            nothing,
            Err("could not determine pod from request data"),
        ),
        (
            "update pods/eviction@ns p",
            Some(&eviction),
            Some(&own),
            nothing,
            Err("unexpected operation UPDATE"),
        ),
        (
            "create pods/exec@ns p",
            Some(&unnamed),
            None,
            nothing,
            Err("unexpected pod subresource \"exec\", only 'status' and 'eviction' are allowed"),
        ),
    ] {
        let result = ask(&node(), text, new, old, &found);
        assert_eq!(
            result.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|it| *it),
            "{text}"
        );
        // Nobody else is held to that.
        let jane = User { name: "jane".to_owned(), ..User::default() };
        assert_eq!(ask(&jane, text, new, old, &Found::default()), Ok(()));
    }
    let nameless = User::node("");
    assert_eq!(
        ask(&nameless, "update pods@ns p", Some(&new), Some(&own), &nothing).unwrap_err(),
        "could not determine node from user \"system:node:\""
    );
}

#[test]
fn the_status_of_a_pod_and_nothing_beside_it() {
    let old = object(json!({
        "metadata": { "name": "p", "labels": { "a": "1", "b": "2" } },
        "spec": { "nodeName": NODE },
        "status": { "resourceClaimStatuses": [{ "name": "c", "resourceClaimName": "d" }] },
    }));
    let labels = "node \"mynode\" cannot update labels through pod status";
    let claims = "node \"mynode\" cannot update resource claim statues";
    let extended = "node \"mynode\" cannot update extended resource claim status";
    for (pointer, value, expected) in [
        ("/status/phase", json!("Running"), None),
        ("/metadata/labels", json!({ "b": "2", "a": "1" }), None),
        ("/metadata/labels", json!({ "a": "1" }), Some(labels)),
        ("/metadata/labels", json!({ "a": "1", "b": "3" }), Some(labels)),
        ("/metadata/labels", json!({ "a": "1", "b": "2", "c": "3" }), Some(labels)),
        ("/metadata/labels", Value::Null, Some(labels)),
        ("/status/resourceClaimStatuses", json!([]), Some(claims)),
        ("/status/resourceClaimStatuses", json!([{ "name": "c" }]), Some(claims)),
        (
            "/status/extendedResourceClaimStatus",
            json!({ "resourceClaimName": "x" }),
            Some(extended),
        ),
    ] {
        let mut new = Value::Object(old.0.clone());
        let (at, key) = pointer.rsplit_once('/').unwrap();
        new.pointer_mut(at).unwrap()[key] = value;
        let result = ask(
            &node(),
            "update pods/status@ns p",
            Some(&object(new)),
            Some(&old),
            &Found::default(),
        );
        assert_eq!(result.err().as_deref(), expected, "{pointer}");
    }
}

#[test]
fn its_own_node_object() {
    let plain = || json!({ "metadata": { "name": NODE, "labels": { "a": "1", "foo.kubernetes.io/old": "1" } }, "spec": { "taints": [{ "key": "t", "effect": "NoSchedule" }] } });
    let set = "node \"mynode\" is not allowed to set the following labels: ";
    let modify = "is not allowed to modify labels: ";
    let old = object(plain());
    let other = object(json!({ "metadata": { "name": "other" } }));
    let nothing = Found::default();
    for text in [
        "create nodes other",
        "update nodes other",
        "delete nodes other",
        "update nodes/status other",
    ] {
        assert_eq!(
            ask(&node(), text, Some(&other), Some(&other), &nothing).unwrap_err(),
            "node \"mynode\" is not allowed to modify node \"other\"",
            "{text}"
        );
    }
    assert_eq!(ask(&node(), "delete nodes mynode", None, Some(&old), &nothing), Ok(()));
    for (labels, forbidden) in [
        (json!({}), ""),
        (json!({ "a": "1", "example.com/b": "2" }), ""),
        (
            json!({ "kubernetes.io/hostname": "h", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "z", "node.kubernetes.io/instance-type": "t" }),
            "",
        ),
        (
            json!({ "node.kubernetes.io/x": "1", "foo.node.kubernetes.io/x": "1", "kubelet.kubernetes.io/x": "1", "a.kubelet.kubernetes.io/x": "1" }),
            "",
        ),
        (json!({ "kubernetes.io": "1", "k8s.io": "1" }), ""),
        (
            json!({ "foo.kubernetes.io/x": "1", "k8s.io/y": "1", "kubernetes.io/z": "1" }),
            "foo.kubernetes.io/x, k8s.io/y, kubernetes.io/z",
        ),
        (
            json!({ "node-restriction.kubernetes.io/x": "1", "a.node-restriction.kubernetes.io/x": "1" }),
            "a.node-restriction.kubernetes.io/x, node-restriction.kubernetes.io/x",
        ),
        (
            json!({ "node-role.kubernetes.io/control-plane": "" }),
            "node-role.kubernetes.io/control-plane",
        ),
        (
            json!({ "notkubernetes.io/x": "1", "xnode.kubernetes.io/y": "1" }),
            "xnode.kubernetes.io/y",
        ),
    ] {
        let mut new = plain();
        new["metadata"]["labels"] = labels;
        let new = object(new);
        let result = ask(&node(), "create nodes mynode", Some(&new), None, &nothing);
        let expected = (!forbidden.is_empty()).then(|| format!("{set}{forbidden}"));
        assert_eq!(result.err(), expected, "{new:?}");
    }
    // Of a change, what differs counts: what others have set may stay.
    for (pointer, value, expected) in [
        ("/metadata/labels/a", json!("2"), None),
        ("/metadata/labels/kubernetes.io~1os", json!("linux"), None),
        ("/metadata/labels/foo.kubernetes.io~1old", json!("2"), Some(format!("{modify}foo.kubernetes.io/old"))),
        ("/metadata/labels", json!({}), Some(format!("{modify}foo.kubernetes.io/old"))),
        ("/metadata/annotations", json!({ "x": "y" }), None),
        ("/metadata/ownerReferences", json!([{ "name": "x" }]), Some("node \"mynode\" is not allowed to modify ownerReferences".to_owned())),
        ("/spec/taints", json!([]), Some("node \"mynode\" is not allowed to modify taints".to_owned())),
        ("/spec/unschedulable", json!(true), None),
        (
            "/spec/configSource",
            json!({ "configMap": {} }),
            Some("node \"mynode\" is not allowed to update configSource to a new non-nil configSource".to_owned()),
        ),
    ] {
        let mut new = plain();
        let (at, key) = pointer.rsplit_once('/').unwrap();
        new.pointer_mut(at).unwrap()[&key.replace("~1", "/")] = value;
        let result = ask(&node(), "update nodes mynode", Some(&object(new)), Some(&old), &nothing);
        assert_eq!(result.err(), expected, "{pointer}");
    }
    let mut configured = plain();
    configured["spec"]["configSource"] = json!({ "configMap": {} });
    assert_eq!(
        ask(&node(), "create nodes", Some(&object(configured)), None, &nothing).unwrap_err(),
        "node \"mynode\" is not allowed to create pods with a non-nil configSource"
    );
}

#[test]
fn its_own_lease() {
    let lease = |name: &str| object(json!({ "metadata": { "name": name } }));
    let (own, other) = (lease(NODE), lease("other"));
    let namespace = "can only access leases in the \"kube-node-lease\" system namespace";
    let name = "can only access node lease with the same name as the requesting node";
    for (text, new, expected) in [
        ("create leases.coordination.k8s.io@kube-node-lease", &own, None),
        ("create leases.coordination.k8s.io@kube-node-lease", &other, Some(name)),
        ("update leases.coordination.k8s.io@kube-node-lease mynode", &own, None),
        ("update leases.coordination.k8s.io@kube-node-lease other", &other, Some(name)),
        ("delete leases.coordination.k8s.io@kube-node-lease mynode", &own, None),
        ("delete leases.coordination.k8s.io@kube-node-lease other", &other, Some(name)),
        ("create leases.coordination.k8s.io@default", &own, Some(namespace)),
    ] {
        let result = ask(&node(), text, Some(new), Some(new), &Found::default());
        assert_eq!(result.err().as_deref(), expected, "{text}");
    }
}

#[test]
fn tokens_for_its_own_pods() {
    let mut pod = on(NODE);
    let volumes = json!([{ "name": "t", "projected": { "sources": [
        { "serviceAccountToken": { "path": "a" } },
        { "serviceAccountToken": { "path": "b", "audience": "vault" } },
    ] } }]);
    pod.field_mut("spec").insert("volumes".into(), volumes);
    let elsewhere = on("other");
    let bound = |name: &str, uid: &str, audiences: Value| {
        let reference = json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid });
        object(json!({ "spec": { "boundObjectRef": reference, "audiences": audiences } }))
    };
    let unbound = object(json!({ "spec": {} }));
    let secret = object(
        json!({ "spec": { "boundObjectRef": { "apiVersion": "v1", "kind": "Secret", "name": "p" } } }),
    );
    for (request, pod, expected) in [
        (bound("p", "pod-uid", json!([])), Some(&pod), None),
        (bound("p", "pod-uid", json!(["vault"])), Some(&pod), None),
        (
            bound("p", "pod-uid", json!(["bank"])),
            Some(&pod),
            Some(
                "audience \"bank\" not found in pod spec volume, system:node:mynode is not authorized to request tokens for this audience",
            ),
        ),
        (
            bound("p", "pod-uid", json!(["a", "b"])),
            Some(&pod),
            Some("node may only request 0 or 1 audiences"),
        ),
        (
            bound("p", "", json!([])),
            Some(&pod),
            Some("node requested token with a pod binding without a uid"),
        ),
        (
            bound("p", "old", json!([])),
            Some(&pod),
            Some(
                "the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated",
            ),
        ),
        (
            bound("p", "pod-uid", json!([])),
            Some(&elsewhere),
            Some("node requested token bound to a pod scheduled on a different node"),
        ),
        (bound("p", "pod-uid", json!([])), None, Some("404 pods p")),
        (unbound, None, Some("node requested token not bound to a pod")),
        (secret, None, Some("node requested token not bound to a pod")),
    ] {
        let found = Found { pod, node: None };
        let result =
            ask(&node(), "create serviceaccounts/token@ns a", Some(&request), None, &found);
        assert_eq!(result.err().as_deref(), expected, "{request:?}");
    }
}

#[test]
fn certificates_in_its_own_name() {
    // openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -subj /O=system:nodes/CN=system:node:mynode
    let mine = include_str!("tests/mynode.csr");
    let request = |signer: &str, pem: &str| {
        object(json!({ "spec": { "signerName": signer, "request": STANDARD.encode(pem) } }))
    };
    let serving = "kubernetes.io/kubelet-serving";
    let other = User::node("other");
    let text = "create certificatesigningrequests.certificates.k8s.io";
    let ask = |user: &User, object: &Object| ask(user, text, Some(object), None, &Found::default());
    assert_eq!(ask(&node(), &request(serving, mine)), Ok(()));
    assert_eq!(
        ask(&other, &request(serving, mine)).unwrap_err(),
        "can only create a node CSR with CN=system:node:other"
    );
    assert_eq!(ask(&other, &request("example.com/other", mine)), Ok(()));
    assert!(
        ask(&node(), &request(serving, "nonsense")).unwrap_err().starts_with("unable to parse csr")
    );
}

#[test]
fn mirrors_get_containers_from_their_node_alone() {
    let mirror = object(mirror());
    let with = |env: Value| {
        let container = json!({ "name": "debug", "image": "b", "env": env });
        with("/spec/ephemeralContainers", json!([container]))
    };
    let secret =
        json!([{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }]);
    let referring = with(secret);
    let text = "update pods/ephemeralcontainers@ns web-mynode";
    let none = Found::default();
    let ask = |user: &User, new, old| ask(user, text, Some(new), Some(old), &none);
    let plain = with(json!([]));
    assert_eq!(ask(&node(), &plain, &mirror), Ok(()));
    assert_eq!(
        ask(&User::node("other"), &plain, &mirror).unwrap_err(),
        "node \"other\" can only update ephemeral containers of pods with spec.nodeName set to itself"
    );
    assert_eq!(
        ask(&node(), &referring, &mirror).unwrap_err(),
        "node \"mynode\" can not update pods to reference secrets"
    );
    // Somebody else has put it there.
    assert_eq!(ask(&node(), &referring, &referring), Ok(()));
    assert_eq!(
        ask(&node(), &on(NODE), &on(NODE)).unwrap_err(),
        "unexpected pod subresource \"ephemeralcontainers\", only 'status' and 'eviction' are allowed"
    );
}

#[test]
fn what_lies_beside_manifests_can_be_shown_and_taken_back() {
    let own = object(json!({ "metadata": { "name": NODE, "uid": "node-uid" } }));
    let shown = |change: &dyn Fn(&mut Value)| {
        let mut shown = json!({
            "metadata": {
                "name": "web.mainstay-mynode",
                "namespace": "ns",
                "labels": { "mainstay.dev/config.node": NODE },
                "annotations": { "mainstay.dev/config.path": "/m/web.yaml" },
                "ownerReferences": [owner()],
            },
        });
        change(&mut shown);
        object(shown)
    };
    let refused = |what: &str| {
        Err(format!(
            "node \"mynode\" can only create and delete {what} whose names end in \".mainstay-mynode\", with the label \
             \"mainstay.dev/config.node\" set to itself and the annotation \"mainstay.dev/config.path\""
        ))
    };
    for what in ["configmaps", "secrets"] {
        let create = format!("create {what}@ns");
        let delete = format!("delete {what}@ns web.mainstay-mynode");
        let found = Found { node: Some(&own), pod: None };
        let none = Found::default();
        for change in [
            (&|it: &mut Value| it["metadata"]["name"] = "web".into()) as &dyn Fn(&mut Value),
            &|it| it["metadata"]["name"] = "mynode".into(),
            &|it| it["metadata"]["labels"] = json!({}),
            &|it| it["metadata"]["labels"]["mainstay.dev/config.node"] = "node".into(),
            &|it| it["metadata"]["annotations"] = json!({}),
        ] {
            let other = shown(change);
            assert_eq!(ask(&node(), &create, Some(&other), None, &found), refused(what));
            assert_eq!(ask(&node(), &delete, None, Some(&other), &none), refused(what));
        }
        let mirror = shown(&|_| {});
        assert_eq!(ask(&node(), &create, Some(&mirror), None, &found), Ok(()));
        assert_eq!(ask(&node(), &delete, None, Some(&mirror), &none), Ok(()));
        let orphan = shown(&|it| it["metadata"]["ownerReferences"] = json!([]));
        let why =
            format!("node \"mynode\" can only create {what} with an owner reference set to itself");
        assert_eq!(ask(&node(), &create, Some(&orphan), None, &found), Err(why));
        // It may lose its owner, and is taken back nevertheless.
        assert_eq!(ask(&node(), &delete, None, Some(&orphan), &none), Ok(()));
        for kind in ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"] {
            let token = shown(&|it| it["type"] = kind.into());
            let why = format!("node \"mynode\" can not create {what} of the type {kind:?}");
            assert_eq!(ask(&node(), &create, Some(&token), None, &found), Err(why));
        }
    }
}
