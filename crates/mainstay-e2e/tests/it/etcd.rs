//! Several mainstays that serve one cluster out of one etcd, and an etcd that is away.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use mainstay_testkit::etcd::{Etcd, Extent};
use mainstay_testkit::tools;
use serde_json::json;

use crate::api::{create, kubectl, shown, wait_for_phase, wait_for_shown};
use crate::manifest::pod;
use crate::node::{Node, wait_for};
use crate::program::command;

const LEASE: [&str; 4] = ["lease", "-n", "kube-system", "kube-controller-manager"];

fn etcd(members: usize) -> (Etcd, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (Etcd::start(directory.path(), members, Extent::default()), directory)
}

/// A server over an etcd, with the keys of another one.
fn server(etcd: &Etcd, name: &str, first: Option<&Node>) -> Option<Node> {
    let mut node = Node::prepare()?;
    name.clone_into(&mut node.name);
    node.arguments.push(format!("--store=etcd://{}", etcd.list()));
    if let Some(first) = first {
        let pki = node.path("root/pki");
        fs::create_dir(&pki).unwrap();
        for file in ["ca.crt", "ca.key", "sa.key", "sa.pub"] {
            fs::copy(first.path("root/pki").join(file), pki.join(file)).unwrap();
        }
    }
    Some(node)
}

#[track_caller]
fn wait_for_ready(node: &Node) {
    let ready = || kubectl(node, &["get", "--raw=/readyz"]).status.success().then_some(());
    assert!(wait_for(ready).is_some(), "the API does not become ready\n{}", node.log());
}

/// Waits until this node's process runs the controllers.
#[track_caller]
fn wait_for_leader(asked: &Node, leader: &str) {
    let holder = || shown(asked, &LEASE, "{.spec.holderIdentity}").unwrap_or_default();
    let leads = || holder().starts_with(&format!("{leader}_")).then_some(());
    assert!(wait_for(leads).is_some(), "{} has the Lease\n{}", holder(), asked.log());
}

/// What the Lease of the controllers says.
#[track_caller]
fn lease(asked: &Node, field: &str) -> String {
    shown(asked, &LEASE, &format!("{{.spec.{field}}}")).unwrap()
}

fn config_map(name: &str) -> serde_json::Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

fn deployment(replicas: u32) -> serde_json::Value {
    let mut template = json!({ "metadata": { "labels": { "app": "web" } } });
    let spec = serde_json::from_str::<serde_json::Value>(&pod("web").to_string()).unwrap();
    template["spec"] = spec["spec"].clone();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": template,
        },
    })
}

#[test]
fn two_servers_of_one_etcd_are_one_cluster() {
    let (etcd, _directory) = etcd(1);
    let Some(mut one) = server(&etcd, "n1", None) else { return };
    one.launch();
    wait_for_ready(&one);
    // Before there is somebody else who might.
    wait_for_leader(&one, "n1");
    let mut two = server(&etcd, "n2", Some(&one)).unwrap();
    two.launch();
    wait_for_ready(&two);

    // What is made through one is there for whoever asks the other, and told to whoever watches.
    let watched = two.path("watched");
    let mut watch = command(tools::kubectl());
    watch.arg("--kubeconfig").arg(two.path("root/kubeconfig"));
    watch.args(["get", "configmaps", "--watch", "-o", "name"]).stdin(Stdio::null());
    let mut watch = watch.stdout(File::create(&watched).unwrap()).spawn().unwrap();
    let tells = |name: &str| {
        let told = || read(&watched).contains(&format!("configmap/{name}\n")).then_some(());
        wait_for(told).is_some()
    };
    // It is there from the beginning, so that the watch has begun when it is told.
    create(&one, &config_map("first"));
    let first = tells("first");
    for number in 0..10 {
        let (made, asked) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let name = format!("made-{number}");
        let file = made.stage("object.json", &config_map(&name));
        kubectl(made, &["create", "-f", file.to_str().unwrap()]).success();
        kubectl(asked, &["get", "configmap", &name]).success();
    }
    let told = (0..10).all(|number| tells(&format!("made-{number}")));
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(first && told, "{}", read(&watched));

    // The controllers run once.
    assert!(lease(&two, "holderIdentity").starts_with("n1_"));
    create(&two, &deployment(2));
    wait_for_shown(&one, &["deployment", "web"], "{.status.readyReplicas}", Some("2"));
    let sets = || shown(&two, &["replicasets"], "{.items[*].metadata.name}").unwrap();
    assert_eq!(sets().split_whitespace().count(), 1, "{}", sets());
    let pods = shown(&one, &["pods", "-l", "app=web"], "{.items[*].metadata.name}").unwrap();
    assert_eq!(pods.split_whitespace().count(), 2, "{pods}");
    // A token of one is good for the other.
    let file = one.stage(
        "request.json",
        &json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {},
        }),
    );
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let arguments = ["create", "--raw", path, "-f", file.to_str().unwrap()];
    let token = kubectl(&one, &arguments).success();
    let token: serde_json::Value = serde_json::from_str(&token).unwrap();
    let file = two.stage(
        "review.json",
        &json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": { "token": token["status"]["token"] },
        }),
    );
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let arguments = ["create", "--raw", path, "-f", file.to_str().unwrap()];
    let review = kubectl(&two, &arguments).success();
    assert!(review.contains("\"system:serviceaccount:default:default\""), "{review}");

    // The one that runs them is killed; the other goes on.
    one.kill();
    wait_for_leader(&two, "n2");
    let transitions = || lease(&two, "leaseTransitions").parse::<u32>().unwrap();
    let before = transitions();
    kubectl(&two, &["scale", "deployment", "web", "--replicas=3"]).success();
    wait_for_shown(&two, &["deployment", "web"], "{.status.replicas}", Some("3"));
    assert_eq!(sets().split_whitespace().count(), 1, "{}", sets());
    // Back, it is one of two again, and keeps out of it.
    one.launch();
    wait_for_ready(&one);
    kubectl(&one, &["get", "configmap", "made-9"]).success();
    let renewed = lease(&two, "renewTime");
    let again = || (lease(&one, "renewTime") != renewed).then_some(());
    assert!(wait_for(again).is_some(), "the Lease is not renewed\n{}", two.log());
    assert_eq!(transitions(), before);
    assert!(lease(&one, "holderIdentity").starts_with("n2_"));
    // Until it is its turn.
    two.kill();
    wait_for_leader(&one, "n1");
    assert_eq!(lease(&one, "leaseTransitions"), (before + 1).to_string());
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_server_with_another_authority_is_refused_and_its_static_pods_run() {
    let (etcd, _directory) = etcd(1);
    let Some(mut one) = server(&etcd, "n1", None) else { return };
    one.launch();
    wait_for_ready(&one);
    let mut stranger = server(&etcd, "n2", None).unwrap();
    stranger.launch();
    stranger.wait_for_log("has another authority or key of service accounts");
    stranger.put("web.yaml", &pod("web"));
    stranger.wait_for_running("web");
    kubectl(&one, &["get", "pods"]).success();
}

#[test]
fn without_etcd_static_pods_run_and_the_api_goes_on_when_it_is_back() {
    let (mut etcd, _directory) = etcd(3);
    let Some(mut node) = server(&etcd, "n1", None) else { return };
    node.launch();
    wait_for_ready(&node);
    create(&node, &config_map("before"));
    for member in 0..3 {
        etcd.kill(member);
    }
    node.put("web.yaml", &pod("web"));
    node.wait_for_running("web");
    // Writes and reads of what is now are refused, by name.
    let file = node.stage("object.json", &config_map("meanwhile"));
    let refused = kubectl(&node, &["create", "-f", file.to_str().unwrap()]);
    let told = ["Error from server (ServiceUnavailable): ", ": etcd at "];
    assert!(told.iter().all(|text| refused.stderr.contains(text)), "{refused:?}");
    // What was known is still told to who does not ask for more.
    let known = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
    let known = kubectl(&node, &["get", "--raw", known]).success();
    assert!(known.contains("\"before\"") && !known.contains("\"meanwhile\""), "{known}");
    // An agent that begins now does not wait for it.
    node.terminate();
    node.launch();
    node.put("more.yaml", &pod("more"));
    node.wait_for_running("more");
    node.wait_for_running("web");
    node.wait_for_log("cannot open the Kubernetes API: etcd at ");
    etcd.spawn(0);
    etcd.spawn(1);
    wait_for_phase(&node, "web-n1", "Running");
    wait_for_phase(&node, "more-n1", "Running");
    create(&node, &config_map("after"));
    kubectl(&node, &["get", "configmap", "before"]).success();
}
