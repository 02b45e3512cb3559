//! Pods find each other by their names, and everything else as their machine does.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Stdio};

use mainstay_linux::namespace::in_network;
use mainstay_testkit::datagrams::Server;
use mainstay_testkit::tools;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::dual_stack::has_ipv6;
use crate::machines::{Machines, enter};
use crate::manifest::{Manifest, pod};
use crate::node::{Node, wait_for};
use crate::program::run;

/// What is known of all names that are not the pods'.
const ELSEWHERE: [u8; 4] = [192, 0, 2, 77];

/// A server for names, such as the one that the machine asks, on its loopback network, as systemd-resolved is. It
/// ends when it is dropped.
struct NameServer {
    address: IpAddr,
    _server: Server,
}

impl NameServer {
    fn start() -> Self {
        // Nobody else's, though tests run side by side.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address: IpAddr = [127, high | 0x80, low, 53].into();
        Self::of(UdpSocket::bind((address, 53)).unwrap())
    }

    fn of(socket: UdpSocket) -> Self {
        let address = socket.local_addr().unwrap().ip();
        Self { address, _server: Server::start(socket, |asked, _| vec![answer(asked)]) }
    }
}

/// Who has a port of all addresses of a machine, until it is dropped.
struct Holder(Child);

impl Holder {
    fn start(machine: &Path, port: u16) -> Self {
        let mut holder = enter(machine, tools::program("busybox"));
        holder.args(["nc", "-ll", "-p", &port.to_string(), "-e", "true"]).stdin(Stdio::null());
        let holder = Self(holder.spawn().unwrap());
        let port = format!(":{port:04X} ");
        let table = format!("/proc/{}/net/tcp", holder.0.id());
        let listens = || {
            let tables = [table.clone(), format!("{table}6")];
            let tables = tables.map(|table| std::fs::read_to_string(table).unwrap_or_default());
            // The port, and that it is listened at. Source: proc_pid_net(5).
            let mut lines = tables.iter().flat_map(|table| table.lines());
            lines.any(|line| line.contains(&port) && line.contains(":0000 0A ")).then_some(())
        };
        assert!(wait_for(listens).is_some(), "nobody has the port");
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It has no end of its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Any name has an address of IPv4, and nothing else; but those of the machine's own domain, which programs try
/// for every name, are not there.
fn answer(question: &[u8]) -> Vec<u8> {
    let length = question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let section = &question[12..12 + length];
    let is_there = !section.ends_with(b"\x07example\x03org\0\0\x01\0\x01")
        && !section.ends_with(b"\x07example\x03org\0\0\x1c\0\x01");
    let is_a = is_there && section[length - 4..] == [0, 1, 0, 1];
    let mut packet = question[..2].to_vec();
    let flags = if is_there { 0x80 } else { 0x83 };
    packet.extend([0x81, flags, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    packet.extend(section);
    if is_a {
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        packet.extend(ELSEWHERE);
    }
    packet
}

/// A node whose machine asks this server. Nothing runs on it yet.
fn node(server: &NameServer) -> Option<Node> {
    let node = Node::prepare()?;
    let resolv_conf = node.path("resolv.conf");
    let text = format!("search example.org\nnameserver {}\noptions ndots:2\n", server.address);
    std::fs::write(&resolv_conf, text).unwrap();
    node.configure(&format!("resolvConf: {}", resolv_conf.display()));
    Some(node)
}

/// A pod with a network of its own.
fn own(name: &str) -> Manifest {
    pod(name).set("spec.hostNetwork", false).set("spec.terminationGracePeriodSeconds", 0)
}

/// One that tells on port 80 what it is.
fn serving(name: &str) -> Manifest {
    own(name).exactly(&format!("echo this is {name} > /index.html; exec httpd -f -p 80 -h /"))
}

/// Waits until a script in the pod `client` prints this, as long as it fails or prints something else.
#[track_caller]
fn wait_for_output(node: &Node, script: &str, expected: &str) {
    let run = || node.mainstay(&["exec", "client", "-c", "main", "--", "sh", "-c", script]);
    let found = wait_for(|| (run().stdout == expected).then_some(()));
    assert!(found.is_some(), "{script}: {:?}", run());
}

/// Waits until the pod `client` gets the page of another one by a name.
#[track_caller]
fn wait_for_page(node: &Node, name: &str, page: &str) {
    wait_for_output(node, &format!("wget -qO- http://{name}"), &format!("this is {page}\n"));
}

/// What the pod `client` is told of a name: everything behind the server's address.
fn look_up(node: &Node, kind: &str, name: &str) -> String {
    let told = node.mainstay(&["exec", "client", "-c", "main", "--", "nslookup", kind, name]);
    told.stdout.split_once("\n\n").map_or(told.stdout.as_str(), |(_, told)| told).to_owned()
}

/// Waits until what it is told of a name has this in it.
#[track_caller]
fn wait_for_told(node: &Node, kind: &str, name: &str, expected: &str) {
    let found = wait_for(|| look_up(node, kind, name).contains(expected).then_some(()));
    assert!(found.is_some(), "{kind} {name}: {expected} is not in {}", look_up(node, kind, name));
}

/// The resolver's process; none if there is none.
fn resolver(node: &Node) -> Option<i32> {
    node.processes("resolver").first().copied()
}

#[track_caller]
fn wait_for_resolver(node: &Node) -> i32 {
    wait_for(|| resolver(node)).expect("there is no resolver")
}

/// The servers that a pod asks.
fn servers(node: &Node, pod: &str) -> String {
    node.sh(pod, "main", "sed -n 's/^nameserver //p' /etc/resolv.conf")
}

#[test]
fn pods_find_each_other_by_their_names() {
    let server = NameServer::start();
    let Some(mut node) = node(&server) else { return };
    node.launch();
    node.put("client.yaml", &own("client"));
    node.put("web.yaml", &serving("web"));
    node.put("far.yaml", &serving("far").set("metadata.namespace", "apart"));
    let db = serving("db").set("spec.hostname", "first").set("spec.subdomain", "data");
    node.put("db.yaml", &db);
    node.put("host.yaml", &pod("host"));
    let client = node.wait_for_running("client");
    let web = node.wait_for_running("web");
    node.wait_for_running("db");
    node.wait_for_running("host");
    let resolv_conf = node.sh("client", "main", "cat /etc/resolv.conf");
    let gateway =
        node.sh("client", "main", "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'");
    let expected = format!(
        "search default.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver \
         {gateway}options ndots:5\n"
    );
    assert_eq!(resolv_conf, expected);
    for (name, page) in [
        ("web", "web"),
        ("web-n1", "web"),
        ("web.default", "web"),
        ("web.default.svc", "web"),
        ("WEB.default.svc.cluster.local", "web"),
        ("far.apart", "far"),
        ("far.apart.svc.cluster.local", "far"),
        ("db", "db"),
        ("first.data", "db"),
        ("data.default.svc.cluster.local", "db"),
    ] {
        wait_for_page(&node, name, page);
    }
    // And by what it takes itself to be called.
    let hosts = node.sh("db", "main", "cat /etc/hosts");
    assert!(hosts.contains("\tfirst.data.default.svc.cluster.local\tfirst\n"), "{hosts}");
    // By its address, and its address by its name.
    let ip = web.status.pod_ip.unwrap();
    wait_for_page(&node, &format!("{}.default.pod", ip.replace('.', "-")), "web");
    let name = "name = web.default.svc.cluster.local";
    wait_for_output(&node, &format!("nslookup {ip} | grep -o '{name}'"), &format!("{name}\n"));
    let host = node.wait_for_running("host").status.host_ip.unwrap();
    wait_for_told(&node, "-type=a", "host.default.svc.cluster.local", &host);
    let own = client.status.pod_ip.unwrap();
    wait_for_told(&node, "-type=a", "client.default.svc.cluster.local", &own);
    if has_ipv6() {
        let six = web.status.pod_ips.unwrap()[1].ip.clone();
        wait_for_told(&node, "-type=aaaa", "web.default.svc.cluster.local", &six);
    }
    // What is not there, and what is another's.
    let told = look_up(&node, "-type=a", "nobody.default.svc.cluster.local");
    assert!(told.contains("NXDOMAIN"), "{told}");
    let told = look_up(&node, "-type=a", "far.default.svc.cluster.local");
    assert!(told.contains("NXDOMAIN"), "{told}");
    let told = look_up(&node, "-type=mx", "web.default.svc.cluster.local");
    assert!(!told.contains("NXDOMAIN"), "{told}");
    // What the machine knows.
    let elsewhere = IpAddr::from(ELSEWHERE).to_string();
    wait_for_told(&node, "-type=a", "example.com", &elsewhere);
    // A name goes with its pod, and comes back with another address.
    let resolver = wait_for_resolver(&node);
    node.take("web.yaml");
    node.wait_for_gone("web");
    wait_for_told(&node, "-type=a", "web.default.svc.cluster.local", "NXDOMAIN");
    node.put("web.yaml", &serving("web").set("metadata.labels", json!({ "new": "yes" })));
    wait_for_page(&node, "web", "web");
    assert_eq!(wait_for_resolver(&node), resolver);
}

#[test]
fn names_are_told_while_no_agent_runs() {
    let server = NameServer::start();
    let Some(mut node) = node(&server) else { return };
    node.launch();
    node.put("client.yaml", &own("client"));
    node.put("web.yaml", &serving("web"));
    node.wait_for_running("client");
    node.wait_for_running("web");
    wait_for_page(&node, "web", "web");
    let before = wait_for_resolver(&node);
    let elsewhere = IpAddr::from(ELSEWHERE).to_string();
    node.kill();
    wait_for_page(&node, "web", "web");
    wait_for_told(&node, "-type=a", "example.com", &elsewhere);
    // The next agent finds it, and tells it what is new.
    node.launch();
    node.put("db.yaml", &serving("db"));
    wait_for_page(&node, "db", "db");
    node.take("web.yaml");
    node.wait_for_gone("web");
    wait_for_told(&node, "-type=a", "web.default.svc.cluster.local", "NXDOMAIN");
    assert_eq!(resolver(&node), Some(before));
    // One that ends while an agent runs is started again; one that ends while none does, by the next one.
    let kill = |pid| kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    kill(before);
    wait_for_page(&node, "db", "db");
    let second = wait_for_resolver(&node);
    assert_ne!(second, before);
    node.kill();
    kill(second);
    node.launch();
    wait_for_page(&node, "db", "db");
    // One that does not answer is replaced.
    let third = wait_for_resolver(&node);
    let group = format!("/proc/{third}/cgroup");
    let is_placed =
        || std::fs::read_to_string(&group).unwrap().lines().all(|it| it.ends_with("/resolver"));
    assert!(wait_for(|| is_placed().then_some(())).is_some());
    node.kill();
    kill_process(Pid::from_raw(third).unwrap(), Signal::STOP).unwrap();
    node.launch();
    wait_for_page(&node, "db", "db");
    assert_ne!(wait_for_resolver(&node), third);
    // Its parent has ended: the machine's first process takes leave of it in its own time.
    assert!(wait_for(|| (!Path::new(&group).exists()).then_some(())).is_some());
    // It ends when there has been no pod for a while, which the next agent sees at once.
    node.take("client.yaml");
    node.take("db.yaml");
    node.wait_for_gone("client");
    node.wait_for_gone("db");
    node.terminate();
    node.launch();
    assert!(wait_for(|| resolver(&node).is_none().then_some(())).is_some());
}

#[test]
fn pods_that_do_not_ask_have_what_they_had() {
    let server = NameServer::start();
    let Some(mut node) = node(&server) else { return };
    node.launch();
    let of_machine = format!("{}\n", server.address);
    let own_server = json!({ "nameservers": ["192.0.2.9"] });
    node.put("default.yaml", &own("default").set("spec.dnsPolicy", "Default"));
    let none = own("none").set("spec.dnsPolicy", "None").set("spec.dnsConfig", own_server.clone());
    node.put("none.yaml", &none);
    node.put("host.yaml", &pod("host"));
    let asking = pod("asking").set("spec.dnsPolicy", "ClusterFirstWithHostNet");
    node.put("asking.yaml", &asking);
    node.put("client.yaml", &own("client").set("spec.dnsConfig", own_server));
    for name in ["default", "none", "host", "asking", "client"] {
        node.wait_for_running(name);
    }
    let gateway =
        node.sh("client", "main", "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'");
    assert_eq!(servers(&node, "default"), of_machine);
    assert_eq!(servers(&node, "none"), "192.0.2.9\n");
    assert_eq!(servers(&node, "host"), of_machine);
    assert_eq!(servers(&node, "asking"), gateway);
    assert_eq!(servers(&node, "client"), format!("{gateway}192.0.2.9\n"));
    let name = "client.default.svc.cluster.local";
    let told = || node.mainstay(&["exec", "asking", "--", "nslookup", "-type=a", name]).stdout;
    assert!(wait_for(|| told().contains("Name:").then_some(())).is_some(), "{}", told());
    // Switched off, those that run keep what they have.
    node.terminate();
    node.arguments.push("--no-pod-dns".to_owned());
    node.launch();
    node.put("new.yaml", &own("new"));
    node.wait_for_running("new");
    assert_eq!(servers(&node, "new"), of_machine);
    wait_for_told(&node, "-type=a", "client.default.svc.cluster.local", "Name:");
    wait_for_told(&node, "-type=a", "new.default.svc.cluster.local", "NXDOMAIN");
}

#[test]
fn a_pod_on_the_machines_network_asks_as_long_as_it_runs() {
    let server = NameServer::start();
    let Some(mut node) = node(&server) else { return };
    node.launch();
    // It is alone, and has no link to a bridge.
    node.put("client.yaml", &pod("client").set("spec.dnsPolicy", "ClusterFirstWithHostNet"));
    node.wait_for_running("client");
    client_has_names(&node);
    node.terminate();
    node.arguments.push("--no-pod-dns".to_owned());
    node.launch();
    client_has_names(&node);
}

/// A node on a machine of its own, whose name server is not there, before anybody listens.
fn without_names() -> Option<(Machines, Node)> {
    let machines = Machines::new(1)?;
    let mut node = Node::prepare()?;
    node.machine = Some(machines.path(0));
    let resolv_conf = node.path("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 192.0.2.53\n").unwrap();
    node.configure(&format!("resolvConf: {}", resolv_conf.display()));
    Some((machines, node))
}

/// Starts the agent and the pod `web`, which gets the machine's servers; what it is told about that.
#[track_caller]
fn why_it_has_the_machines(node: &mut Node) -> String {
    node.launch();
    node.put("web.yaml", &own("web"));
    node.wait_for_running("web");
    assert_eq!(servers(node, "web"), "192.0.2.53\n");
    let told = node.wait_until("it is told why", |status| {
        status.pod("web").is_some_and(|pod| !pod.events("MissingClusterDNS").is_empty())
    });
    told.pod("web").unwrap().events("MissingClusterDNS")[0].message.clone()
}

/// The pod `client` finds `web` by its name.
#[track_caller]
fn the_next_has_names(node: &Node) {
    node.put("client.yaml", &own("client"));
    node.wait_for_running("client");
    assert_ne!(servers(node, "client"), "192.0.2.53\n");
    wait_for_told(node, "-type=a", "web.default.svc.cluster.local", "Name:");
}

#[test]
fn where_somebody_else_has_its_port_pods_have_the_machines_servers() {
    let Some((machines, mut node)) = without_names() else { return };
    let holder = Holder::start(&machines.path(0), 253);
    let message = why_it_has_the_machines(&mut node);
    assert!(message.contains("host port 253/TCP") && message.contains("busybox"), "{message}");
    assert!(node.log().contains("pods do not find each other by their names"), "{}", node.log());
    assert_eq!(resolver(&node), None);
    // When it is free, the next one has names.
    drop(holder);
    the_next_has_names(&node);
    wait_for_told(&node, "-type=a", "nobody.default.svc.cluster.local", "NXDOMAIN");
    wait_for_resolver(&node);
}

/// A server for names of the machine that was there first, and a pod that names it.
#[test]
fn port_53_of_the_machine_may_be_somebody_elses() {
    let Some((machines, mut node)) = without_names() else { return };
    let _holder = Holder::start(&machines.path(0), 53);
    node.launch();
    node.put("web.yaml", &own("web"));
    node.wait_for_running("web");
    the_next_has_names(&node);
    let gateway = servers(&node, "client");
    let gateway = gateway.trim_end();
    let config = json!({ "nameservers": [gateway, "192.0.2.9"] });
    let named = own("named").set("spec.dnsPolicy", "None").set("spec.dnsConfig", config);
    node.put("named.yaml", &named);
    node.wait_for_running("named");
    let told = node.wait_until("it is told who answers", |status| {
        status.pod("named").is_some_and(|pod| !pod.events("DNSConfigForming").is_empty())
    });
    let messages = told.pod("named").unwrap().events("DNSConfigForming");
    let [event] = &messages[..] else { panic!("{messages:?}") };
    let expected = format!("nameserver {gateway} of dnsConfig is the node's own resolver");
    assert!(event.message.starts_with(&expected), "{}", event.message);
    assert!(event.message.contains("(busybox)"), "{}", event.message);
    let told = node.sh("named", "main", "nslookup -type=a web.default.svc.cluster.local");
    assert!(told.contains("Name:"), "{told}");
}

/// The pod `client` finds itself by its name, also when it asks at the bridge's address.
#[track_caller]
fn client_has_names(node: &Node) {
    let name = "client.default.svc.cluster.local";
    wait_for_told(node, "-type=a", name, "Name:");
    let gateway = servers(node, "client");
    let asks = format!("nslookup -type=a {name} {} | grep -o Name:", gateway.trim_end());
    wait_for_output(node, &asks, "Name:\n");
}

/// As a server does that all machines ask for names.
#[test]
fn a_pod_on_the_machines_network_may_listen_at_port_53() {
    let Some(machines) = Machines::new(2) else { return };
    let Some(mut node) = Node::prepare() else { return };
    node.machine = Some(machines.path(0));
    node.launch();
    node.put("client.yaml", &own("client"));
    node.wait_for_running("client");
    client_has_names(&node);
    let serves = pod("serves").set("spec.terminationGracePeriodSeconds", 0);
    node.put("serves.yaml", &serves.exactly("exec nc -ll -p 53 -e echo this is it"));
    node.wait_for_running("serves");
    // Busybox does not listen for datagrams; the network is the pod's.
    let network = File::open(machines.path(0)).unwrap();
    let udp = in_network(network.as_fd(), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)));
    let _server = NameServer::of(udp.unwrap());
    let machine = Machines::address(0).to_string();
    let from_elsewhere = |arguments: &[&str]| {
        let mut command = enter(&machines.path(1), tools::program("busybox"));
        run(command.args(arguments)).stdout
    };
    let serves = |node: &Node| {
        wait_for_output(node, &format!("nc -w 5 {machine} 53"), "this is it\n");
        assert_eq!(from_elsewhere(&["nc", "-w", "5", &machine, "53"]), "this is it\n");
        let told = from_elsewhere(&["nslookup", "-type=a", "server.test", &machine]);
        assert!(told.contains(&IpAddr::from(ELSEWHERE).to_string()), "{told}");
    };
    serves(&node);
    client_has_names(&node);
    // Neither keeps the other from beginning anew.
    let before = wait_for_resolver(&node);
    kill_process(Pid::from_raw(before).unwrap(), Signal::KILL).unwrap();
    client_has_names(&node);
    assert_ne!(wait_for_resolver(&node), before);
    node.kill();
    node.launch();
    node.put("later.yaml", &own("later"));
    node.wait_for_running("later");
    wait_for_told(&node, "-type=a", "later.default.svc.cluster.local", "Name:");
    client_has_names(&node);
    serves(&node);
}

#[test]
fn a_pod_may_have_port_53_of_the_machine() {
    let Some(machines) = Machines::new(1) else { return };
    let Some(mut node) = Node::prepare() else { return };
    node.machine = Some(machines.path(0));
    node.launch();
    let own_port = |name: &str| {
        let ports = json!([{ "containerPort": 53, "hostPort": 53 }]);
        let serves = own(name).main("ports", ports).set("spec.dnsPolicy", "Default");
        serves.exactly(&format!("exec nc -ll -p 53 -e echo this is {name}"))
    };
    let wait_for_word = |name: &str| {
        let script = format!("nc -w 5 {} 53", Machines::address(0));
        wait_for_output(&node, &script, &format!("this is {name}\n"));
        wait_for_told(&node, "-type=a", &format!("{name}.default.svc.cluster.local"), "Name:");
    };
    // Before there is a resolver.
    node.put("first.yaml", &own_port("first"));
    node.wait_for_running("first");
    node.put("client.yaml", &own("client"));
    node.wait_for_running("client");
    wait_for_word("first");
    // And while there is one.
    node.take("first.yaml");
    node.wait_for_gone("first");
    node.put("second.yaml", &own_port("second"));
    node.wait_for_running("second");
    wait_for_word("second");
}

#[test]
fn where_a_packet_filter_keeps_pods_from_the_machine_they_have_its_servers() {
    let Some((machines, mut node)) = without_names() else { return };
    let nft = |commands: &str| run(enter(&machines.path(0), "nft").arg(commands)).success();
    nft("table inet foreign { chain input { type filter hook input priority 0; policy drop; \
         iifname lo accept; }; }");
    let message = why_it_has_the_machines(&mut node);
    assert!(message.contains("table inet foreign drops connections"), "{message}");
    // Nobody keeps them from it any more.
    nft("delete table inet foreign");
    the_next_has_names(&node);
}
