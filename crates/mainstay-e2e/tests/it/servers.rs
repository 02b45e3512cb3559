//! Servers as people run them: etcd and nginx from their Debian packages, with data on the host.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use mainstay_testkit::{etcd, tools};
use serde_json::json;

use crate::http::{free_port, get};
use crate::manifest::{Manifest, pod};
use crate::node::{Node, Pod, wait_for};
use crate::program::{self, Outcome, command};

/// Breaks the manifest of a pod, which is to run on, and waits until that is known.
#[track_caller]
fn break_manifest(node: &Node, name: &str, manifest: &Manifest) {
    let before = node.status().pod(name).unwrap().clone();
    let file = format!("{name}.yaml");
    node.put(&file, &manifest.to_string().replace("\"containers\"", "\"contaners\""));
    let status = node.wait_until("the manifest is seen to be broken", |status| {
        status.notes(&file).contains("unknown field (did you mean containers?)")
    });
    let pod = status.pod(name).unwrap();
    assert_eq!((pod.id(), pod.restarts, pod.runs()), (before.id(), 0, true));
}

/// Waits until a pod runs in another container than before.
#[track_caller]
fn wait_for_successor(node: &Node, name: &str, before: &Pod) -> Pod {
    let status = node.wait_until(&format!("pod {name} is replaced"), |status| {
        status.pod(name).is_some_and(|pod| pod.runs() && pod.id() != before.id())
    });
    status.pod(name).unwrap().clone()
}

#[test]
fn etcd_answers_and_keeps_its_data_whatever_becomes_of_its_manifest() {
    let Some(mut node) = Node::prepare() else { return };
    node.provide(&tools::image("etcd"));
    node.launch();
    // Nobody else has it.
    let address = etcd::address();
    let clients = format!("http://{address}:2379");
    let peers = format!("http://{address}:2380");
    let etcdctl = |arguments: &[&str]| -> Outcome {
        let mut etcdctl = command(tools::program("etcd/usr/bin/etcdctl"));
        etcdctl.env("ETCDCTL_API", "3").arg(format!("--endpoints={clients}"));
        program::run(etcdctl.args(["--dial-timeout=1s", "--command-timeout=5s"]).args(arguments))
    };
    let answers = || {
        let up = wait_for(|| etcdctl(&["endpoint", "health"]).status.success().then_some(()));
        assert!(up.is_some(), "etcd does not answer: {:?}", etcdctl(&["endpoint", "health"]));
    };
    let read = |key: &str| etcdctl(&["get", "--print-value-only", key]).success();
    let host = node.host();
    let manifest = |snapshots: u32| {
        let arguments = [
            "--name=n1".to_owned(),
            "--data-dir=/host/etcd".to_owned(),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=n1={peers}"),
            format!("--snapshot-count={snapshots}"),
        ];
        pod("etcd")
            .with_host_directory(&host)
            .main("image", "local/etcd:1")
            .main("command", json!(["etcd"]))
            .main("args", json!(arguments))
    };

    let first = manifest(1000);
    node.put("etcd.yaml", &first);
    let before = node.wait_for_running("etcd");
    answers();
    assert_eq!(etcdctl(&["put", "a", "1"]).success(), "OK\n");
    assert_eq!(read("a"), "1\n");

    // Broken: it does not notice.
    break_manifest(&node, "etcd", &first);
    assert_eq!(etcdctl(&["put", "b", "2"]).success(), "OK\n");
    assert_eq!(read("a"), "1\n");

    // Mended as it was, and edited.
    node.put("etcd.yaml", &first);
    let status = node.wait_until("the manifest is mended", |status| status.manifests.is_empty());
    assert_eq!(status.pod("etcd").unwrap().id(), before.id());
    node.put("etcd.yaml", &manifest(2000));
    let before = wait_for_successor(&node, "etcd", &before);
    answers();
    assert_eq!((read("a"), read("b")), ("1\n".into(), "2\n".into()));

    // Started anew by order.
    node.mainstay(&["restart", "etcd"]).success();
    wait_for_successor(&node, "etcd", &before);
    answers();
    assert_eq!((read("a"), read("b")), ("1\n".into(), "2\n".into()));

    // After a power cut.
    node.cut_power();
    TcpStream::connect((address, 2379)).unwrap_err();
    node.launch();
    answers();
    assert_eq!((read("a"), read("b")), ("1\n".into(), "2\n".into()));

    // Removed: nobody answers, and the data stays.
    node.take("etcd.yaml");
    node.wait_for_gone("etcd");
    TcpStream::connect((address, 2379)).unwrap_err();
    assert!(host.join("etcd/member").is_dir());

    // Back.
    node.put("etcd.yaml", &manifest(2000));
    node.wait_for_running("etcd");
    answers();
    assert_eq!((read("a"), read("b")), ("1\n".into(), "2\n".into()));
}

#[test]
fn nginx_serves_its_page_whatever_becomes_of_its_manifest() {
    let Some(mut node) = Node::prepare() else { return };
    node.provide(&tools::image("nginx"));
    node.launch();
    let port = free_port();
    // In a network of its own, as the image has it: on port 80.
    let page = pod("nginx")
        .set("spec.hostNetwork", false)
        .main("image", "local/nginx:1")
        .main("command", json!(["nginx", "-g", "daemon off;"]))
        .main("ports", json!([{ "containerPort": 80, "hostPort": port }]));
    let own_page = page
        .clone()
        .with_host_directory(&node.host())
        .main("volumeMounts.0.mountPath", "/var/www/html");
    fs::write(node.host().join("index.html"), "a page of our own\n").unwrap();

    node.put("nginx.yaml", &page);
    let before = node.wait_for_running("nginx");
    let host = before.status.host_ip.as_deref().unwrap();
    let address = SocketAddr::new(host.parse().unwrap(), port);
    let serves = |text: &str| {
        let found = wait_for(|| get(address).ok().filter(|answer| answer.contains(text)));
        found.unwrap_or_else(|| panic!("nginx does not serve {text:?}: {:?}", get(address)))
    };
    let answer = serves("Welcome to nginx!");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // Beside the port of the host there is that of the pod.
    let pod_ip = before.status.pod_ip.as_deref().unwrap();
    let own = get(SocketAddr::new(pod_ip.parse().unwrap(), 80)).unwrap();
    assert!(own.contains("Welcome to nginx!"), "{own}");

    // Broken: it serves on.
    break_manifest(&node, "nginx", &page);
    assert!(get(address).unwrap().contains("Welcome to nginx!"));

    // Mended with another page.
    node.put("nginx.yaml", &own_page);
    let before = wait_for_successor(&node, "nginx", &before);
    serves("a page of our own\n");

    // Started anew by order, with what the host has by then.
    fs::write(node.host().join("index.html"), "another page\n").unwrap();
    node.mainstay(&["restart", "nginx"]).success();
    wait_for_successor(&node, "nginx", &before);
    serves("another page\n");
    // It tells where containers do.
    let logs = || node.mainstay(&["logs", "nginx"]).success();
    let told = wait_for(|| logs().contains("\"GET / HTTP/1.0\" 200").then_some(()));
    assert!(told.is_some(), "{}", logs());

    // Removed: the port is free again.
    node.take("nginx.yaml");
    node.wait_for_gone("nginx");
    get(address).unwrap_err();
}
