//! What pods see of the network, and who can reach them.

use std::net::SocketAddr;

use serde_json::json;

use crate::http;
use crate::manifest::pod;
use crate::node::{Node, wait_for};

fn sh(node: &Node, pod: &str, script: &str) -> String {
    node.mainstay(&["exec", pod, "--", "sh", "-c", script]).success()
}

#[test]
fn a_pod_of_its_own_network_is_reached_by_its_address_and_by_ports_of_the_host() {
    let Some(node) = Node::start() else { return };
    let port = http::free_port();
    let ports = json!([
        { "containerPort": 80, "hostPort": port },
        { "containerPort": 80, "hostPort": port + 1, "hostIP": "127.0.0.1" },
    ]);
    let web = pod("web").set("spec.hostNetwork", false).main("ports", ports);
    let web = web.set("spec.terminationGracePeriodSeconds", 0);
    node.put("web.yaml", &web.exactly("echo page > /index.html; exec httpd -f -p 80 -h /"));
    node.put("other.yaml", &pod("other").set("spec.hostNetwork", false));
    let web = node.wait_for_running("web");
    let other = node.wait_for_running("other");
    let (ip, host) = (web.status.pod_ip.unwrap(), web.status.host_ip.unwrap());
    assert_ne!(Some(&ip), other.status.pod_ip.as_ref());
    let get = |address: &str| http::get(address.parse::<SocketAddr>().unwrap());
    wait_for(|| get(&format!("{ip}:80")).ok()).unwrap();
    for address in [
        format!("{ip}:80"),
        format!("{host}:{port}"),
        format!("127.0.0.1:{port}"),
        format!("127.0.0.1:{}", port + 1),
    ] {
        let answer = get(&address).unwrap();
        assert!(answer.ends_with("page\n"), "{address}: {answer}");
        // From another pod; what the host has for itself is not for pods.
        if !address.starts_with("127.") {
            assert_eq!(sh(&node, "other", &format!("wget -qO- http://{address}")), "page\n");
        }
        // From the pod itself.
        if address.starts_with(&ip) {
            assert_eq!(sh(&node, "web", &format!("wget -qO- http://{address}")), "page\n");
        }
    }
    assert!(get(&format!("{host}:{}", port + 1)).is_err());
    // Gone with the pod.
    node.take("web.yaml");
    node.wait_for_gone("web");
    assert!(get(&format!("127.0.0.1:{port}")).is_err());
}

#[test]
fn a_pod_has_names_files_and_a_loopback_of_its_own() {
    let Some(mut node) = Node::prepare() else { return };
    let resolv_conf = node.path("resolv.conf");
    std::fs::write(&resolv_conf, "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n")
        .unwrap();
    node.configure(&format!("resolvConf: {}", resolv_conf.display()));
    node.launch();
    node.put("web.yaml", &pod("web").set("spec.hostNetwork", false));
    node.put("named.yaml", &pod("named").set("spec.hostNetwork", false).set("spec.hostname", "db"));
    node.put("host.yaml", &pod("host"));
    let web = node.wait_for_running("web");
    node.wait_for_running("named");
    node.wait_for_running("host");
    assert_eq!(sh(&node, "web", "hostname; cat /etc/hostname"), "web-n1\nweb-n1\n");
    assert_eq!(sh(&node, "named", "hostname; cat /etc/hostname"), "db\ndb\n");
    let own = rustix::system::uname();
    let own = own.nodename().to_str().unwrap();
    assert_eq!(sh(&node, "host", "hostname"), format!("{own}\n"));
    assert_eq!(
        sh(&node, "web", "cat /etc/resolv.conf"),
        "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n"
    );
    let hosts = sh(&node, "web", "cat /etc/hosts");
    let ip = web.status.pod_ip.unwrap();
    assert!(hosts.lines().any(|line| line == format!("{ip}\tweb-n1")), "{hosts}");
    let links = sh(&node, "web", "ls /sys/class/net");
    assert_eq!(links.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    // A server that has a program says all of it, also to a client that has nothing to say.
    let script = "nc -l -p 9 -e echo up & until nc -w 5 127.0.0.1 9; do :; done";
    assert_eq!(sh(&node, "web", script).trim(), "up");
}

#[test]
fn containers_of_a_pod_share_network_and_memory_and_have_processes_of_their_own() {
    let Some(node) = Node::start() else { return };
    let beside = json!({
        "name": "beside", "image": "local/busybox:1", "command": crate::manifest::command(""),
    });
    let web = pod("web").set("spec.hostNetwork", false).set("spec.containers.1", beside);
    node.put("web.yaml", &web);
    node.put("other.yaml", &pod("other"));
    node.wait_for_running("web");
    node.wait_for_running("other");
    let namespaces = |pod: &str, container: &str| {
        let script = "for name in net ipc uts mnt pid cgroup; do readlink /proc/1/ns/$name; done";
        let told =
            node.mainstay(&["exec", pod, "-c", container, "--", "sh", "-c", script]).success();
        told.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let own = |name: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        link.to_str().unwrap().to_owned()
    };
    let (main, beside) = (namespaces("web", "main"), namespaces("web", "beside"));
    let other = namespaces("other", "main");
    assert_eq!(main[..3], beside[..3]);
    for (a, b) in main.iter().zip(&beside).skip(3) {
        // On version 1 of control groups there may be no namespace for them.
        assert!(a != b || a.starts_with("cgroup"), "{a}");
    }
    for (place, name) in ["net", "ipc", "uts", "mnt", "pid"].iter().enumerate() {
        assert_ne!(main[place], own(name));
        assert_eq!(other[place] == own(name), ["net", "uts"].contains(name), "{name}");
    }
    // Shared memory by name.
    node.mainstay(&["exec", "web", "--", "sh", "-c", "echo here > /dev/shm/a"]).success();
    let read = node.mainstay(&["exec", "web", "-c", "beside", "--", "cat", "/dev/shm/a"]);
    assert_eq!(read.success(), "here\n");
    let absent = node.mainstay(&["exec", "other", "--", "test", "-e", "/dev/shm/a"]);
    assert_eq!(absent.status.code(), Some(1));
    let processes = node.mainstay(&["exec", "web", "-c", "beside", "--", "ps", "-o", "pid"]);
    assert!(processes.success().lines().any(|line| line.trim() == "1"));
}
