//! What is below objects and beside them: scales, tokens, approvals, addresses.

use crate::common::server;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use mainstay_apiserver::User;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

#[tokio::test]
async fn a_scale_is_read_and_patched() {
    let server = server().await;
    let deployment = json!({
        "metadata": { "name": "a" },
        "spec": {
            "selector": { "matchLabels": { "b": "1", "a": "2" } },
            "template": {
                "metadata": { "labels": { "b": "1", "a": "2" } },
                "spec": { "containers": [{ "name": "c", "image": "busybox" }] },
            },
        },
    });
    assert_eq!(server.ask("POST", DEPLOYMENTS, Some(&deployment)).await.code, 201);
    let path = format!("{DEPLOYMENTS}/a/scale");
    let scale = server.ask("GET", &path, None).await.body;
    assert_eq!(scale["status"], json!({ "replicas": 0, "selector": "a=2,b=1" }));
    let patch = json!({ "spec": { "replicas": 4 } });
    for media in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let user = User::master("admin");
        let patched = server.ask_as(user, "PATCH", &path, media, Some(&patch)).await;
        assert_eq!((patched.code, &patched.body["spec"]), (200, &patch["spec"]), "{media}");
    }
    let whole = server.ask("GET", &format!("{DEPLOYMENTS}/a"), None).await.body;
    assert_eq!(
        (&whole["spec"]["replicas"], &whole["metadata"]["generation"]),
        (&4.into(), &2.into())
    );
}

#[tokio::test]
async fn services_have_addresses_of_their_own_and_say_that_nothing_serves_them() {
    let server = server().await;
    let api = server.ask("GET", &format!("{SERVICES}/kubernetes"), None).await.body;
    assert_eq!(api["spec"]["clusterIP"], "10.96.0.1");
    let mut addresses = Vec::new();
    for name in ["a", "b"] {
        let service =
            json!({ "metadata": { "name": name }, "spec": { "ports": [{ "port": 80 }] } });
        let made = server.ask("POST", SERVICES, Some(&service)).await;
        assert_eq!(made.code, 201, "{made:?}");
        addresses.push(made.body["spec"]["clusterIP"].as_str().unwrap().to_owned());
    }
    assert_ne!(addresses[0], addresses[1]);
    let taken = json!({
        "metadata": { "name": "c" },
        "spec": { "clusterIP": addresses[0], "ports": [{ "port": 80 }] },
    });
    let refused = server.ask("POST", SERVICES, Some(&taken)).await;
    assert_eq!(refused.code, 422);
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.ends_with("provided IP is already allocated"), "{message}");
    let events = server.ask("GET", "/api/v1/namespaces/default/events", None).await.body;
    let told: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["reason"] == "NotServed")
        .map(|event| event["involvedObject"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["a", "b"]);
    let proxied = server.ask("GET", &format!("{SERVICES}/a:http/proxy/"), None).await;
    assert_eq!(proxied.body["message"], "no endpoints available for service \"a\"");
}

#[tokio::test]
async fn who_asks_for_a_certificate_is_written_down_and_who_approves_must_be_let() {
    let server = server().await;
    let cases = std::fs::read_to_string(format!(
        "{}/tests/it/recorded/certificatesigningrequest.jsonl",
        env!("CARGO_MANIFEST_DIR")
    ));
    let head: serde_json::Value =
        serde_json::from_str(cases.unwrap().lines().next().unwrap()).unwrap();
    let made = server.ask("POST", REQUESTS, Some(&head["base"])).await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(made.body["spec"]["username"], "admin");
    assert_eq!(made.body["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    let mut approved = made.body.clone();
    approved["status"] = json!({ "conditions": [{ "type": "Approved", "status": "True" }] });
    let path = format!("{REQUESTS}/kinds-a/approval");
    // One who may change approvals, but of no signer.
    let role = json!({
        "metadata": { "name": "approver" },
        "rules": [{
            "verbs": ["update"],
            "apiGroups": ["certificates.k8s.io"],
            "resources": ["certificatesigningrequests/approval"],
        }],
    });
    let binding = json!({
        "metadata": { "name": "approver" },
        "roleRef": { "kind": "ClusterRole", "name": "approver" },
        "subjects": [{ "kind": "User", "name": "joe" }],
    });
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    server.ask("POST", &format!("{rbac}/clusterroles"), Some(&role)).await;
    server.ask("POST", &format!("{rbac}/clusterrolebindings"), Some(&binding)).await;
    let joe = || User { name: "joe".into(), ..User::default() };
    let media = "application/json";
    let refused = server.ask_as(joe(), "PUT", &path, media, Some(&approved)).await;
    assert_eq!(refused.code, 403);
    let message = refused.body["message"].as_str().unwrap();
    let why = "user not permitted to approve requests with signerName \"example.com/sign\"";
    assert!(message.ends_with(why), "{message}");
    let mut role = server.ask("GET", &format!("{rbac}/clusterroles/approver"), None).await.body;
    role["rules"].as_array_mut().unwrap().push(json!({
        "verbs": ["approve"],
        "apiGroups": ["certificates.k8s.io"],
        "resources": ["signers"],
        "resourceNames": ["example.com/*"],
    }));
    server.ask("PUT", &format!("{rbac}/clusterroles/approver"), Some(&role)).await;
    let taken = server.ask_as(joe(), "PUT", &path, media, Some(&approved)).await;
    assert_eq!(taken.code, 200, "{taken:?}");
}

#[tokio::test]
async fn tokens_are_made_of_accounts_that_are_there() {
    let server = server().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let none = server.ask("POST", &format!("{accounts}/robot/token"), Some(&json!({}))).await;
    assert_eq!(none.code, 404);
    let robot = json!({ "metadata": { "name": "robot" } });
    server.ask("POST", accounts, Some(&robot)).await;
    let made = server.ask("POST", &format!("{accounts}/robot/token"), Some(&json!({}))).await;
    assert_eq!(made.code, 201, "{made:?}");
    let token = made.body["status"]["token"].as_str().unwrap();
    let review = json!({ "spec": { "token": token } });
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let reviewed = server.ask("POST", reviews, Some(&review)).await.body;
    assert_eq!(reviewed["status"]["user"]["username"], "system:serviceaccount:default:robot");
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_pods_only() {
    let server = server().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({ "metadata": { "name": "robot" } });
    assert_eq!(server.ask("POST", accounts, Some(&account)).await.code, 201);
    let pod = json!({
        "metadata": { "name": "p" },
        "spec": {
            "nodeName": "n1",
            "serviceAccountName": "robot",
            "containers": [{ "name": "c", "image": "i" }],
            "volumes": [{
                "name": "token",
                "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] },
            }],
        },
    });
    let pod = server.ask("POST", "/api/v1/namespaces/default/pods", Some(&pod)).await;
    assert_eq!(pod.code, 201, "{pod:?}");
    let path = format!("{accounts}/robot/token");
    let ask = async |body: Value| {
        server.ask_as(User::node("n1"), "POST", &path, "application/json", Some(&body)).await
    };
    let unbound = ask(json!({})).await;
    assert_eq!(unbound.code, 403);
    let text = unbound.body["message"].as_str().unwrap();
    assert!(text.ends_with("node requested token not bound to a pod"), "{text}");
    let reference = json!({
        "kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod.body["metadata"]["uid"],
    });
    let bound = ask(json!({ "spec": { "boundObjectRef": reference } })).await;
    assert_eq!(bound.code, 201, "{bound:?}");
}

#[tokio::test]
async fn a_binding_counts_when_it_is_answered_and_not_when_it_is_gone() {
    let server = server().await;
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let binding = json!({
        "metadata": { "name": "b" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane" }],
    });
    let jane = || User { name: "jane".into(), ..User::default() };
    let pods = "/api/v1/namespaces/default/pods";
    for _ in 0..20 {
        assert_eq!(server.ask_as(jane(), "GET", pods, "", None).await.code, 403);
        assert_eq!(server.ask("POST", bindings, Some(&binding)).await.code, 201);
        assert_eq!(server.ask_as(jane(), "GET", pods, "", None).await.code, 200);
        assert_eq!(server.ask("DELETE", &format!("{bindings}/b"), None).await.code, 200);
    }
}

/// An address of this machine that pods could have; `None` if it has none, which is printed.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent.
    let address = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let address = address.ok().map(|it| it.ip()).filter(|ip| !ip.is_loopback());
    if address.is_none() {
        println!("skipped: this machine has no address but its own");
    }
    address
}

#[tokio::test]
async fn the_proxy_of_a_pod_leads_to_the_pod() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Some(ip) = own_address() else { return };
    let listener = tokio::net::TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = server().await;
    let mut pod = json!({
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "image": "x", "ports": [{"containerPort": port}]},
        ]},
    });
    let pods = "/api/v1/namespaces/default/pods";
    server.ask("POST", pods, Some(&pod)).await;
    let nowhere = server.ask("GET", &format!("{pods}/p/proxy/"), None).await;
    assert_eq!((nowhere.code, &nowhere.body["message"]), (400, &"address not allowed".into()));
    pod["status"] = json!({ "podIP": ip, "podIPs": [{ "ip": ip }] });
    let put = server.ask("PUT", &format!("{pods}/p/status"), Some(&pod)).await;
    assert_eq!(put.code, 200, "{put:?}");

    let answers = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\nhello") {
            assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
        }
        let answer = "HTTP/1.1 302 Found\r\nlocation: /login?x\r\ncontent-length: 2\r\n\r\nhi";
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    };
    let path = format!("{pods}/http:p:{port}/proxy/a%2Fb/?c=d");
    let request = Request::post(&path)
        .header("authorization", "Bearer secret")
        .header("content-length", 5)
        .body(Full::new(Bytes::from("hello")))
        .unwrap();
    let (asked, answer) = tokio::join!(answers, server.raw(User::master("admin"), request));
    assert!(asked.starts_with("POST /a%2Fb/?c=d HTTP/1.1\r\n"), "{asked}");
    assert!(!asked.contains("secret"), "{asked}");
    let uri = path.split('?').next().unwrap();
    assert!(asked.contains(&format!("x-forwarded-uri: {uri}\r\n")), "{asked}");
    assert_eq!(answer.status(), 302);
    let login = format!("{pods}/http:p:{port}/proxy/login?x");
    assert_eq!(answer.headers()["location"], login.as_str());
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hi");

    drop(listener);
    let away = server.ask("GET", &format!("{pods}/p/proxy/"), None).await;
    assert_eq!((away.code, &away.body["reason"]), (503, &"ServiceUnavailable".into()));
    let text =
        format!("error trying to reach service: dial tcp {ip}:{port}: connect: connection refused");
    assert_eq!(away.body["message"], text);
    let request = Request::get(format!("{pods}/p/proxy?a=b")).body(Full::default()).unwrap();
    let moved = server.raw(User::master("admin"), request).await;
    assert_eq!(moved.status(), 301);
    assert_eq!(moved.headers()["location"], format!("{pods}/p/proxy/?a=b").as_str());
}

#[tokio::test]
async fn the_service_of_the_api_says_where_it_is() {
    let server = server().await;
    let endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(server.ask("GET", endpoints, None).await.code, 404);
    for address in ["10.0.0.7:6443", "10.0.0.8:6443", "[fd00::7]:6443"] {
        let address: std::net::SocketAddr = address.parse().unwrap();
        server.api.keep_endpoint(Some(address)).await;
        let port = json!({"name": "https", "port": 6443, "protocol": "TCP"});
        let told = server.ask("GET", endpoints, None).await;
        let subset = json!({ "addresses": [{ "ip": address.ip() }], "ports": [port] });
        assert_eq!(told.body["subsets"], json!([subset]));
        assert_eq!(
            told.warnings,
            [
                "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""
            ]
        );
        let slice = server.ask("GET", slices, None).await.body;
        let endpoint = json!({ "addresses": [address.ip()], "conditions": { "ready": true } });
        assert_eq!((&slice["endpoints"], &slice["ports"]), (&json!([endpoint]), &json!([port])));
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        assert_eq!(slice["addressType"], family);
    }
    server.api.keep_endpoint(None).await;
    for path in [endpoints, slices] {
        assert_eq!(server.ask("GET", path, None).await.code, 404, "{path}");
    }
}

/// As a node follows what its pods refer to, one by one.
#[tokio::test]
async fn a_node_lists_and_watches_what_its_pods_refer_to_by_name() {
    let server = server().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["own", "other"] {
        let map = json!({ "metadata": { "name": name }, "data": { "k": name } });
        assert_eq!(server.ask("POST", maps, Some(&map)).await.code, 201);
    }
    let container =
        json!({ "name": "c", "image": "i", "envFrom": [{ "configMapRef": { "name": "own" } }] });
    let pod = json!({
        "metadata": { "name": "p" }, "spec": { "nodeName": "n1", "containers": [container] },
    });
    let made = server.ask("POST", "/api/v1/namespaces/default/pods", Some(&pod)).await;
    assert_eq!(made.code, 201, "{made:?}");
    for (query, code) in [
        ("?fieldSelector=metadata.name%3Down", 200),
        ("?limit=250&fieldSelector=metadata.name%3Down", 200),
        ("?fieldSelector=metadata.name%3Dother", 403),
        ("?fieldSelector=metadata.name%21%3Down", 403),
        ("?fieldSelector=metadata.namespace%3Ddefault", 403),
        ("", 403),
    ] {
        let path = format!("{maps}{query}");
        let answer = server.ask_as(User::node("n1"), "GET", &path, "application/json", None).await;
        assert_eq!(answer.code, code, "{query}: {answer:?}");
        if code == 200 {
            assert_eq!(answer.body["items"].as_array().unwrap().len(), 1);
        }
    }
}

#[tokio::test]
async fn containers_are_added_to_pods_by_every_patch_and_stay() {
    let server = server().await;
    let pod = json!({
        "metadata": { "name": "a", "labels": { "app": "a" } },
        "spec": { "containers": [{ "name": "c", "image": "busybox" }] },
    });
    let pods = "/api/v1/namespaces/default/pods";
    server.ask("POST", "/api/v1/namespaces/default/serviceaccounts", Some(&account())).await;
    let made = server.ask("POST", pods, Some(&pod)).await;
    assert_eq!(made.code, 201, "{made:?}");
    let path = format!("{pods}/a/ephemeralcontainers");
    let container =
        |name: &str| json!({ "name": name, "image": "busybox", "targetContainerName": "c" });
    let spec = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|name| container(name)).collect();
        json!({ "metadata": { "labels": { "app": "b" } }, "spec": { "ephemeralContainers": list } })
    };
    let patches = [
        ("application/strategic-merge-patch+json", spec(&["one"])),
        ("application/merge-patch+json", spec(&["two", "one"])),
        (
            "application/json-patch+json",
            json!([{ "op": "add", "path": "/spec/ephemeralContainers/-", "value": container("three") }]),
        ),
        ("application/strategic-merge-patch+json", spec(&["four"])),
        ("application/apply-patch+yaml", {
            let mut wanted = spec(&["five"]);
            wanted["apiVersion"] = "v1".into();
            wanted["kind"] = "Pod".into();
            wanted
        }),
    ];
    let ask = async |media: &str, patch: &Value| {
        let query = if media.contains("apply") { "?fieldManager=m" } else { "" };
        let path = format!("{path}{query}");
        server.ask_as(User::master("admin"), "PATCH", &path, media, Some(patch)).await
    };
    for (at, (media, patch)) in patches.iter().enumerate() {
        let patched = ask(media, patch).await;
        assert_eq!(patched.code, 200, "{media}: {patched:?}");
        let (meta, spec) = (&patched.body["metadata"], &patched.body["spec"]);
        assert_eq!(meta["generation"], json!(at + 2), "{media}");
        assert_eq!(meta["labels"], json!({ "app": "a" }), "{media}");
        let list = spec["ephemeralContainers"].as_array().unwrap();
        assert_eq!(list.len(), at + 1, "{media}: {list:?}");
        assert!(list.iter().all(|it| it["imagePullPolicy"] == "Always"), "{list:?}");
    }
    let whole = server.ask("GET", &format!("{pods}/a"), None).await.body;
    for entry in whole["metadata"]["managedFields"].as_array().unwrap() {
        if entry["subresource"] == "ephemeralcontainers" {
            let fields = entry["fieldsV1"].as_object().unwrap();
            assert_eq!(fields.keys().collect::<Vec<_>>(), ["f:spec"]);
            let fields = fields["f:spec"].as_object().unwrap();
            assert_eq!(fields.keys().collect::<Vec<_>>(), ["f:ephemeralContainers"]);
        }
    }
    let last = whole["spec"]["ephemeralContainers"].as_array().unwrap().len() - 1;
    let place = format!("/spec/ephemeralContainers/{last}");
    let refusals = [
        (json!([{ "op": "remove", "path": place }]), "may not be removed\n"),
        (
            json!([{ "op": "replace", "path": format!("{place}/image"), "value": "other" }]),
            "may not be changed\n  image: \"busybox\" → \"other\"",
        ),
    ];
    for (patch, text) in &refusals {
        let refused = ask("application/json-patch+json", patch).await;
        let message = refused.body["message"].as_str().unwrap();
        let start = "Pod \"a\" is invalid: spec.ephemeralContainers: Forbidden: existing ephemeral \
                     containers ";
        assert!(refused.code == 422 && message.starts_with(start), "{message}");
        assert!(message.ends_with(text), "{message}");
    }
    // The pod itself takes none.
    let mut more = whole.clone();
    more["spec"]["ephemeralContainers"].as_array_mut().unwrap().push(container("six"));
    let refused = server.ask("PUT", &format!("{pods}/a"), Some(&more)).await;
    let message = refused.body["message"].as_str().unwrap();
    let start =
        "Pod \"a\" is invalid: spec: Forbidden: pod updates may not change fields other than";
    assert!(refused.code == 422 && message.starts_with(start), "{message}");
    assert_eq!(server.ask("PUT", &path, Some(&more)).await.code, 200);
    let mut whole = pod.clone();
    whole["metadata"]["name"] = "b".into();
    whole["spec"]["ephemeralContainers"] = json!([container("one")]);
    let refused = server.ask("POST", pods, Some(&whole)).await;
    assert_eq!(
        refused.body["message"],
        "Pod \"b\" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create"
    );
}

fn account() -> Value {
    json!({ "metadata": { "name": "default" } })
}

#[tokio::test]
async fn a_mirror_takes_containers_and_its_node_may_add_those_it_knows() {
    let server = server().await;
    let node = json!({ "metadata": { "name": "n1" } });
    let node = server.ask("POST", "/api/v1/nodes", Some(&node)).await.body;
    let owner = json!({
        "apiVersion": "v1", "kind": "Node", "name": "n1", "controller": true,
        "uid": node["metadata"]["uid"],
    });
    let mirror = json!({
        "metadata": {
            "name": "web-n1", "annotations": { "kubernetes.io/config.mirror": "abc" },
            "ownerReferences": [owner],
        },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "busybox" }] },
    });
    let pods = "/api/v1/namespaces/default/pods";
    let media = "application/json";
    let made = server.ask_as(User::node("n1"), "POST", pods, media, Some(&mirror)).await;
    assert_eq!(made.code, 201, "{made:?}");
    let path = format!("{pods}/web-n1/ephemeralcontainers");
    let add = async |user: User, container: Value| {
        let media = "application/strategic-merge-patch+json";
        let patch = json!({ "spec": { "ephemeralContainers": [container] } });
        server.ask_as(user, "PATCH", &path, media, Some(&patch)).await
    };
    let refers = |name: &str| {
        let env =
            json!([{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }]);
        json!({ "name": name, "image": "busybox", "env": env })
    };
    let refused = add(User::node("n1"), refers("one")).await;
    assert_eq!(
        refused.body["message"],
        "pods \"web-n1\" is forbidden: node \"n1\" can not update pods to reference secrets"
    );
    assert_eq!(add(User::master("admin"), refers("one")).await.code, 200);
    let plain = json!({ "name": "two", "image": "busybox" });
    assert_eq!(add(User::node("n2"), plain.clone()).await.code, 403);
    let added = add(User::node("n1"), plain).await;
    assert_eq!(added.code, 200, "{added:?}");
    assert_eq!(added.body["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);
    let resized = format!("{pods}/web-n1/resize");
    let refused = server.ask("PUT", &resized, Some(&added.body)).await;
    assert_eq!(
        refused.body["message"],
        "Pod \"web-n1\" is invalid: []: Forbidden: static pods cannot be resized"
    );
}
