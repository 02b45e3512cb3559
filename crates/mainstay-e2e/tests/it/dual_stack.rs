//! Pods with addresses of IPv4 and IPv6, and bounds of what they receive and send.

use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use mainstay_linux::namespace::in_network;
use mainstay_linux::netlink::RouteSocket;
use serde_json::json;

use crate::api::{create, shown, wait_for_event, wait_for_words};
use crate::http;
use crate::machines::{Machines, enter};
use crate::manifest::{Manifest, pod};
use crate::node::{Node, wait_for};
use crate::program::run;

/// Whether this machine has IPv6; if not it is printed.
pub(crate) fn has_ipv6() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    let has = setting.is_ok_and(|text| text.trim() == "0");
    if !has {
        println!("skipped: this machine has no IPv6");
    }
    has
}

/// A pod with a network of its own that serves a page on port 80, and is ready when it does.
fn server(name: &str) -> Manifest {
    let probe = json!({ "httpGet": { "port": 80 }, "periodSeconds": 1 });
    let field =
        json!({ "name": "IPS", "valueFrom": { "fieldRef": { "fieldPath": "status.podIPs" } } });
    pod(name)
        .set("spec.hostNetwork", false)
        .set("spec.terminationGracePeriodSeconds", 0)
        .main("env", json!([field]))
        .main("readinessProbe", probe)
        .exactly("echo page > /index.html; exec httpd -f -p 80 -h /")
}

/// What the API says, once it has that many words.
#[track_caller]
fn told(node: &Node, kind: &str, name: &str, path: &str, count: usize) -> Vec<String> {
    wait_for_words(|| shown(node, &[kind, name], path).unwrap_or_default(), count)
}

#[test]
fn a_pod_has_addresses_of_both_kinds_and_is_reached_by_them() {
    let Some(node) = Node::start().filter(|_| has_ipv6()) else { return };
    let port = http::free_port();
    let ports = json!([{ "containerPort": 80, "hostPort": port }]);
    node.put("web.yaml", &server("web").main("ports", ports));
    node.put("other.yaml", &pod("other").set("spec.hostNetwork", false));
    node.wait_for_running("web");
    let ips = told(&node, "pod", "web-n1", "{.status.podIPs[*].ip}", 2);
    assert!(ips[0].contains('.') && ips[1].contains(':'), "{ips:?}");
    assert_eq!(told(&node, "pod", "web-n1", "{.status.podIP}", 1), ips[..1]);
    let ranges = told(&node, "node", "n1", "{.spec.podCIDRs[*]}", 2);
    assert!(ranges[0].ends_with(".0/24") && ranges[1].ends_with("::/64"), "{ranges:?}");
    assert_eq!(node.sh("web", "main", "echo $IPS"), format!("{}\n", ips.join(",")));
    let hosts = node.sh("web", "main", "cat /etc/hosts");
    for ip in &ips {
        assert!(hosts.contains(&format!("\n{ip}\tweb-n1\n")), "{hosts}");
    }
    node.wait_for_running("other");
    let fetch = |address: &str| node.sh("other", "main", &format!("wget -qO- http://{address}"));
    let get = |address: &str| http::get(address.parse::<SocketAddr>().unwrap());
    wait_for(|| get(&format!("{}:80", ips[0])).ok()).unwrap();
    // Directly, and by the ports of the machine.
    let route = "ip -6 route show default | sed 's/.*via \\([^ ]*\\).*/\\1/'";
    let gateway = node.sh("other", "main", route);
    for address in [
        format!("{}:80", ips[0]),
        format!("[{}]:80", ips[1]),
        format!("[{}]:{port}", gateway.trim()),
    ] {
        assert_eq!(fetch(&address), "page\n", "{address}");
        assert!(get(&address).unwrap().ends_with("page\n"), "{address}");
    }
    assert!(get(&format!("127.0.0.1:{port}")).unwrap().ends_with("page\n"));
    // Whoever asks for localhost and tries this first goes on at once.
    let refused = get(&format!("[::1]:{port}")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_port_of_one_address_of_ipv6_or_of_all_of_them_leads_into_the_pod() {
    let Some(machines) = Machines::new(2).filter(|_| has_ipv6()) else { return };
    let Some(mut node) = Node::prepare() else { return };
    node.machine = Some(machines.path(0));
    let add = ["address", "add", "fd10::99/64", "dev", "eth0", "nodad"];
    run(enter(&machines.path(0), "ip").args(add)).success();
    node.launch();
    let ports = json!([
        { "containerPort": 80, "hostPort": 8080, "hostIP": "fd10::1" },
        { "containerPort": 80, "hostPort": 8081, "hostIP": "::" },
    ]);
    node.put("web.yaml", &server("web").main("ports", ports));
    node.wait_for_running("web");
    let get = |from: usize, address: &str| {
        let space = File::open(machines.path(from)).unwrap();
        in_network(space.as_fd(), || http::get(address.parse().unwrap()))
    };
    for from in [0, 1] {
        for address in ["[fd10::1]:8080", "[fd10::1]:8081", "[fd10::99]:8081"] {
            let page = get(from, address).unwrap();
            assert!(page.ends_with("page\n"), "{address} from machine {from}: {page}");
        }
        for address in ["[fd10::99]:8080", "10.0.0.1:8080", "10.0.0.1:8081"] {
            let refused = get(from, address).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{address} from {from}");
        }
    }
    // Gone with the pod.
    node.take("web.yaml");
    node.wait_for_gone("web");
    for address in ["[fd10::1]:8080", "[fd10::99]:8081"] {
        assert_eq!(get(1, address).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{address}");
    }
}

#[test]
fn a_node_whose_pods_have_ipv6_alone() {
    let Some(mut node) = Node::prepare().filter(|_| has_ipv6()) else { return };
    node.configure("podCIDR: fd00:6d73:77:1::/64");
    node.launch();
    node.put("web.yaml", &server("web"));
    // Its probe goes there.
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
    let is_ready = || (told(&node, "pod", "web-n1", ready, 1) == ["True"]).then_some(());
    assert!(wait_for(is_ready).is_some(), "the pod is not ready");
    let ips = told(&node, "pod", "web-n1", "{.status.podIPs[*].ip}", 1);
    assert!(ips[0].starts_with("fd00:6d73:77:1:"), "{ips:?}");
    assert_eq!(node.sh("web", "main", "echo $IPS"), format!("{}\n", ips[0]));
    let page = http::get(format!("[{}]:80", ips[0]).parse().unwrap()).unwrap();
    assert!(page.ends_with("page\n"), "{page}");
    assert_eq!(told(&node, "node", "n1", "{.spec.podCIDRs[*]}", 1), ["fd00:6d73:77:1::/64"]);
}

/// Rates that no other test has.
const RATES: [u64; 2] = [1_542_500, 5_401_250];

/// Which of the rates links of this machine are bounded by.
fn rates() -> Vec<u64> {
    let qdiscs = RouteSocket::open().unwrap().qdiscs().unwrap().into_iter();
    let mut rates: Vec<_> =
        qdiscs.filter_map(|it| it.rate).filter(|it| RATES.contains(it)).collect();
    rates.sort();
    rates
}

#[test]
fn a_pod_receives_and_sends_no_more_than_its_annotations_say() {
    let Some(mut node) = Node::start() else { return };
    let annotations = |ingress: &str, egress: &str| {
        json!({
            "kubernetes.io/ingress-bandwidth": ingress, "kubernetes.io/egress-bandwidth": egress,
        })
    };
    let bounded = annotations("12340k", "43.21M");
    node.put("web.yaml", &server("web").set("metadata.annotations", bounded));
    let web = node.wait_for_running("web");
    assert_eq!(rates(), RATES);
    let ip = web.status.pod_ip.clone().unwrap();
    let get = || http::get(format!("{ip}:80").parse().unwrap()).ok();
    wait_for(get).unwrap();
    // Also of the next agent.
    node.kill();
    node.launch();
    assert_eq!(node.wait_for_running("web").id(), web.id());
    assert_eq!(rates(), RATES);
    assert!(get().is_some());

    let own = |name: &str| pod(name).set("spec.hostNetwork", false);
    node.put("small.yaml", &own("small").set("metadata.annotations", annotations("1M", "999")));
    node.put("host.yaml", &pod("host").set("metadata.annotations", annotations("1M", "1M")));
    for (file, words) in [("small.yaml", "unreasonably small"), ("host.yaml", "spec.hostNetwork")] {
        node.wait_until(&format!("{file} is refused"), |status| {
            let notes = status.notes(file);
            notes.contains("-bandwidth]") && notes.contains(words)
        });
    }
    // A pod of the API is told when it cannot be made.
    let manifest = own("api").set("metadata.annotations", annotations("much", "1M"));
    create(&node, &manifest.set("spec.nodeName", "n1"));
    let text = "kubernetes.io/ingress-bandwidth cannot be \"much\"";
    wait_for_event(&node, "involvedObject.name=api", text);

    node.take("web.yaml");
    node.wait_for_gone("web");
    assert!(wait_for(|| rates().is_empty().then_some(())).is_some(), "{:?}", rates());
}
