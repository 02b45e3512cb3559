//! What pods see of the network, and who can reach them.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use mainstay_linux::namespace::in_network;
use mainstay_testkit::datagrams::Server;
use serde_json::json;

use crate::http;
use crate::machines::Machines;
use crate::manifest::pod;
use crate::node::{Node, wait_for};

#[test]
fn a_pod_of_its_own_network_is_reached_by_its_address_and_by_ports_of_the_host() {
    let Some(node) = Node::start() else { return };
    if node.skips_on_containerd("ports of the host in a network without the plugin portmap") {
        return;
    }
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
            assert_eq!(node.sh("other", "main", &format!("wget -qO- http://{address}")), "page\n");
        }
        // From the pod itself.
        if address.starts_with(&ip) {
            assert_eq!(node.sh("web", "main", &format!("wget -qO- http://{address}")), "page\n");
        }
    }
    assert!(get(&format!("{host}:{}", port + 1)).is_err());
    // Gone with the pod.
    node.take("web.yaml");
    node.wait_for_gone("web");
    assert!(get(&format!("127.0.0.1:{port}")).is_err());
}

/// Whoever it runs as: it is the pod's own port.
#[test]
fn whoever_is_not_root_binds_any_port_of_a_network_of_the_pods_own_and_pings() {
    let Some(node) = Node::start() else { return };
    if node.skips_on_containerd("ports below 1024 for whoever is not root") {
        return;
    }
    let nobody =
        json!({ "runAsUser": 1000, "runAsGroup": 1000, "capabilities": { "drop": ["ALL"] } });
    let web = pod("web").set("spec.hostNetwork", false).main("securityContext", nobody);
    let web = web.set("spec.terminationGracePeriodSeconds", 0);
    let serves = "exec httpd -f -p 80 -h /";
    node.put("web.yaml", &web.clone().exactly(serves));
    let ip = node.wait_for_running("web").status.pod_ip.unwrap();
    let address: SocketAddr = format!("{ip}:80").parse().unwrap();
    assert!(wait_for(|| http::get(address).ok()).is_some(), "nobody listens on {address}");
    // The program that pings here knows raw sockets only.
    let pings = node.sh("web", "main", "cat /proc/sys/net/ipv4/ping_group_range");
    assert_eq!(pings.split_whitespace().collect::<Vec<_>>(), ["0", "2147483647"]);
    // A pod that says otherwise has it so.
    let first = json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "1024" }]);
    let asks = web.set("metadata.name", "asks").set("spec.securityContext.sysctls", first);
    node.put("asks.yaml", &asks.set("spec.restartPolicy", "Never").exactly(serves));
    node.wait_for_state("asks", "Error");
}

/// What takes part in a network namespace.
fn there<T: Send>(space: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    in_network(File::open(space).unwrap().as_fd(), work)
}

/// A server of datagrams in the network of the only pod of a node, which busybox does not have. It says who it is.
fn serve_datagrams(node: &Node, port: u16, word: &'static str) -> Server {
    let shims = Vec::from_iter(node.processes("shims"));
    let [shim] = shims[..] else { panic!("shims: {shims:?}") };
    let network = format!("/proc/{shim}/ns/net");
    let socket =
        there(Path::new(&network), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap();
    Server::start(socket, |_, _| vec![word.as_bytes().to_vec()])
}

/// Who asks at an address by datagrams, and hears nobody else.
fn asker(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.connect(address)?;
    Ok(socket)
}

/// What is said to one who asks.
fn ask(socket: &UdpSocket) -> io::Result<String> {
    let mut answer = [0; 64];
    socket.send(b"who?")?;
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Asks until it is said what is expected: who goes on with one socket notices that a port leads elsewhere a moment
/// after its pod is gone, or another one runs.
#[track_caller]
fn ask_until(socket: &UdpSocket, expected: Result<&str, io::ErrorKind>) {
    let mut said = None;
    let is_said = wait_for(|| {
        let answer = said.insert(ask(socket).map_err(|error| error.kind()));
        (answer.as_deref().map_err(|kind| *kind) == expected).then_some(())
    });
    assert!(is_said.is_some(), "{socket:?}: {said:?}");
}

#[test]
fn datagrams_to_ports_of_the_host_reach_the_pod_that_has_them_now() {
    let Some(machines) = Machines::new(2) else { return };
    let Some(mut node) = Node::prepare() else { return };
    node.machine = Some(machines.path(0));
    node.launch();
    let ports = json!([
        { "containerPort": 53, "hostPort": 5300, "protocol": "UDP" },
        { "containerPort": 53, "hostPort": 5301, "protocol": "UDP", "hostIP": "127.0.0.1" },
    ]);
    let dns = pod("dns").set("spec.hostNetwork", false).set("spec.dnsPolicy", "Default");
    let dns = dns.main("ports", ports);
    node.put("dns.yaml", &dns);
    node.wait_for_running("dns");
    let first = serve_datagrams(&node, 53, "first");
    let (own, loopback) = (Machines::address(0), Ipv4Addr::LOCALHOST);
    let at = |machine: usize, address: Ipv4Addr, port: u16| {
        there(&machines.path(machine), || asker((address, port).into())).unwrap()
    };
    for (machine, address, port) in
        [(1, own, 5300), (0, own, 5300), (0, loopback, 5300), (0, loopback, 5301)]
    {
        let answer = ask(&at(machine, address, port));
        assert_eq!(answer.unwrap(), "first", "{address}:{port} from machine {machine}");
    }
    // Neither the other address nor the other protocol.
    let refused = |answer: io::Result<_>| answer.unwrap_err().kind();
    let elsewhere = ask(&at(1, own, 5301));
    assert_eq!(refused(elsewhere), io::ErrorKind::ConnectionRefused);
    let stream = there(&machines.path(1), || TcpStream::connect((own, 5300)).map(drop));
    assert_eq!(refused(stream.map(|()| String::new())), io::ErrorKind::ConnectionRefused);

    // Those who asked before and those who asked in vain reach the one that comes next.
    let known = [at(1, own, 5300), at(0, loopback, 5300)];
    assert!(known.iter().all(|asker| ask(asker).unwrap() == "first"));
    node.take("dns.yaml");
    node.wait_for_gone("dns");
    drop(first);
    let early = [at(1, own, 5300), at(0, loopback, 5301)];
    for asker in known.iter().chain(&early) {
        ask_until(asker, Err(io::ErrorKind::ConnectionRefused));
    }
    node.put("dns.yaml", &dns.set("metadata.labels.version", "second"));
    node.wait_for_running("dns");
    let _second = serve_datagrams(&node, 53, "second");
    for asker in known.iter().chain(&early) {
        ask_until(asker, Ok("second"));
    }
}

/// Whatever its network, and whoever has the port: a pod waits for it, and begins when it is free.
#[test]
fn a_pod_waits_for_ports_of_the_host_that_another_one_has() {
    let Some(mut node) = Node::start() else { return };
    let (port, host) = (http::free_port(), node.host());
    let web = |name: &str| {
        let ports = json!([{ "containerPort": port }]);
        pod(name)
            .main("ports", ports)
            .with_host_directory(&host)
            .script(&format!("httpd -p {port} -h / && echo {name} >> /host/served"))
    };
    node.put("a.yaml", &web("a"));
    node.wait_for_running("a");
    node.wait_for_told("served", 1);
    node.put("b.yaml", &web("b"));
    let in_network = json!([{ "containerPort": 80, "hostPort": port }]);
    node.put("c.yaml", &pod("c").set("spec.hostNetwork", false).main("ports", in_network));
    // Another protocol is another port.
    let udp = json!([{ "containerPort": port, "protocol": "UDP" }]);
    node.put("udp.yaml", &pod("udp").main("ports", udp));
    node.wait_for_running("udp");
    let in_use = format!("host port {port}/TCP is in use by pod default/a-n1");
    for name in ["b", "c"] {
        let waiting = node.wait_for_state(name, "FailedCreatePodSandBox").problem.unwrap();
        assert!(waiting.contains(&in_use), "{waiting}");
    }
    assert_eq!(node.told("served"), ["a"]);
    // Another agent finds it as it was.
    node.kill();
    node.launch();
    for name in ["b", "c"] {
        let waiting = node.wait_for_state(name, "FailedCreatePodSandBox").problem.unwrap();
        assert!(waiting.contains(&in_use), "{waiting}");
    }
    node.take("c.yaml");
    node.wait_for_gone("c");
    node.take("a.yaml");
    let b = node.wait_for_running("b");
    assert_eq!(b.container("main").restart_count, 0);
    assert_eq!(node.wait_for_told("served", 2), ["a", "b"]);

    // One that is called otherwise waits for the end of the one before, also when its manifest is gone for good.
    let slow = format!(
        "trap 'while [ ! -e /host/go ]; do sleep 0.05; done; exit' TERM\nhttpd -p {port} -h /\n\
         echo old >> /host/served\nsleep infinity & wait"
    );
    let old = web("old").exactly(&slow).set("spec.terminationGracePeriodSeconds", 600);
    node.put("b.yaml", &old);
    node.wait_for_told("served", 3);
    node.put("b.yaml", &web("new"));
    let in_use = format!("host port {port}/TCP is in use by pod default/old-n1");
    for _ in 0..2 {
        let waiting = node.wait_for_state("new", "FailedCreatePodSandBox").problem.unwrap();
        assert!(waiting.contains(&in_use), "{waiting}");
        node.kill();
        node.launch();
    }
    std::fs::write(node.host().join("go"), "").unwrap();
    let new = node.wait_for_running("new");
    assert_eq!(new.container("main").restart_count, 0);
    node.wait_for_gone("old");
    assert_eq!(node.wait_for_told("served", 4), ["a", "b", "old", "new"]);
}

/// One that waits for what the machine does not have is in nobody's way.
#[test]
fn a_pod_waits_for_huge_pages_and_keeps_no_port_from_others() {
    let Some(node) = Node::start() else { return };
    let ports = json!([{ "containerPort": http::free_port() }]);
    let limits = json!({ "cpu": "1", "hugepages-2Mi": "1Pi" });
    let big = pod("big").main("resources.limits", limits).main("ports", ports.clone());
    node.put("big.yaml", &big);
    let waiting = node.wait_for_state("big", "FailedCreatePodSandBox");
    assert_eq!(waiting.status.phase.as_deref(), Some("Pending"));
    let problem = waiting.problem.unwrap();
    let few =
        "Node didn't have enough resource: hugepages-2Mi, requested: 1125899906842624, used: 0, ";
    assert!(problem.contains(few), "{problem}");
    node.put("web.yaml", &pod("web").main("ports", ports));
    node.wait_for_running("web");
}

/// Of two that come together the first one by name begins, and both when each has what it needs.
#[test]
fn two_pods_with_one_port_of_the_host_never_wait_for_each_other() {
    let Some(mut node) = Node::prepare() else { return };
    let (one, two) = (http::free_port(), http::free_port());
    let pods = [("a", json!([one, two])), ("b", json!([two, one])), ("c", json!([two]))];
    for (name, ports) in pods {
        let ports = ports.as_array().unwrap().iter();
        let ports: Vec<_> = ports.map(|port| json!({ "containerPort": port })).collect();
        node.put(&format!("{name}.yaml"), &pod(name).main("ports", ports));
    }
    node.launch();
    node.wait_for_running("a");
    for name in ["b", "c"] {
        let waiting = node.wait_for_state(name, "FailedCreatePodSandBox").problem.unwrap();
        assert!(waiting.ends_with("/TCP is in use by pod default/a-n1"), "{waiting}");
    }
    node.take("a.yaml");
    node.wait_for_running("b");
    node.take("b.yaml");
    node.wait_for_running("c");
}

#[test]
fn a_pod_has_names_files_and_a_loopback_of_its_own() {
    let Some(mut node) = Node::prepare() else { return };
    let resolv_conf = node.path("resolv.conf");
    std::fs::write(&resolv_conf, "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n")
        .unwrap();
    node.configure(&format!("resolvConf: {}", resolv_conf.display()));
    node.launch();
    let web = pod("web").set("spec.hostNetwork", false).set("spec.dnsPolicy", "Default");
    node.put("web.yaml", &web);
    node.put("named.yaml", &pod("named").set("spec.hostNetwork", false).set("spec.hostname", "db"));
    node.put("host.yaml", &pod("host"));
    let web = node.wait_for_running("web");
    node.wait_for_running("named");
    node.wait_for_running("host");
    assert_eq!(node.sh("web", "main", "hostname; cat /etc/hostname"), "web-n1\nweb-n1\n");
    assert_eq!(node.sh("named", "main", "hostname; cat /etc/hostname"), "db\ndb\n");
    let own = rustix::system::uname();
    let own = own.nodename().to_str().unwrap();
    assert_eq!(node.sh("host", "main", "hostname"), format!("{own}\n"));
    assert_eq!(
        node.sh("web", "main", "cat /etc/resolv.conf"),
        "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n"
    );
    let hosts = node.sh("web", "main", "cat /etc/hosts");
    let ip = web.status.pod_ip.unwrap();
    assert!(hosts.lines().any(|line| line == format!("{ip}\tweb-n1")), "{hosts}");
    let links = node.sh("web", "main", "ls /sys/class/net");
    assert_eq!(links.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    // A server that has a program says all of it, also to a client that has nothing to say.
    let script = "nc -l -p 9 -e echo up & until nc -w 5 127.0.0.1 9; do :; done";
    assert_eq!(node.sh("web", "main", script).trim(), "up");
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
        node.sh(pod, container, script).lines().map(str::to_owned).collect::<Vec<_>>()
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

#[test]
fn a_pod_resolves_names_as_its_manifest_and_the_cluster_say() {
    let Some(mut node) = Node::prepare() else { return };
    let resolv_conf = node.path("resolv.conf");
    std::fs::write(&resolv_conf, "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n")
        .unwrap();
    node.configure(&format!(
        "resolvConf: {}\nclusterDNS: [10.96.0.10]\nclusterDomain: cluster.local",
        resolv_conf.display()
    ));
    node.launch();
    let own = |name: &str| pod(name).set("spec.hostNetwork", false);
    let config = json!({
        "nameservers": ["192.0.2.1", "192.0.2.2"], "searches": ["a.example.org"],
        "options": [{ "name": "ndots", "value": "7" }, { "name": "rotate" }],
    });
    node.put("cluster.yaml", &own("cluster"));
    let none = own("none").set("spec.dnsPolicy", "None").set("spec.dnsConfig", config.clone());
    node.put("none.yaml", &none);
    let more = own("more").set("spec.dnsPolicy", "Default").set("spec.dnsConfig", config.clone());
    let more = more.set("spec.dnsConfig.nameservers.2", "192.0.2.3");
    node.put("more.yaml", &more);
    node.put("host.yaml", &pod("host"));
    for (name, expected) in [
        (
            "cluster",
            "search default.svc.cluster.local svc.cluster.local cluster.local example.org\n\
             nameserver 10.96.0.10\noptions ndots:5\n",
        ),
        (
            "none",
            "search a.example.org\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n\
             options ndots:7 rotate\n",
        ),
        (
            "more",
            "search example.org a.example.org\nnameserver 192.0.2.53\nnameserver 192.0.2.1\n\
             nameserver 192.0.2.2\noptions ndots:7 rotate\n",
        ),
        ("host", "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n"),
    ] {
        node.wait_for_running(name);
        assert_eq!(node.sh(name, "main", "cat /etc/resolv.conf"), expected, "{name}");
    }
    let left_out = "Nameserver limits were exceeded, some nameservers have been omitted, the applied \
                    nameserver line is: 192.0.2.53 192.0.2.1 192.0.2.2";
    let status = node.status();
    let events = status.pod("more").unwrap().events("DNSConfigForming");
    let events: Vec<_> = events.iter().map(|event| (&*event.kind, &*event.message)).collect();
    assert_eq!(events, [("Warning", left_out)]);
    assert!(status.pod("none").unwrap().events("DNSConfigForming").is_empty());
}

#[test]
fn a_pod_is_called_and_knows_others_as_its_manifest_says() {
    let Some(mut node) = Node::prepare() else { return };
    node.configure("clusterDomain: cluster.local");
    node.launch();
    let own = |name: &str| pod(name).set("spec.hostNetwork", false);
    let aliases = json!([{ "ip": "192.0.2.7", "hostnames": ["db", "db.example.org"] }]);
    let in_domain = own("domain").set("spec.hostname", "web").set("spec.subdomain", "sub");
    node.put("domain.yaml", &in_domain.clone().set("spec.hostAliases", aliases.clone()));
    node.put(
        "full.yaml",
        &own("full")
            .set("spec.hostname", "web")
            .set("spec.subdomain", "sub")
            .set("spec.setHostnameAsFQDN", true),
    );
    node.put("other.yaml", &own("other").set("spec.hostnameOverride", "web.example.org"));
    node.put("host.yaml", &pod("host").set("spec.hostAliases", aliases));
    let long = own("long").set("spec.hostname", "b".repeat(60)).set("spec.subdomain", "sub");
    node.put("long.yaml", &long.set("spec.setHostnameAsFQDN", true));
    for (name, hostname, names) in [
        ("domain", "web", "web.sub.default.svc.cluster.local\tweb"),
        ("full", "web.sub.default.svc.cluster.local", "web.sub.default.svc.cluster.local\tweb"),
        ("other", "web.example.org", "web.example.org"),
    ] {
        let ip = node.wait_for_running(name).status.pod_ip.unwrap();
        let told = node.sh(name, "main", "hostname; cat /etc/hostname; echo $HOSTNAME");
        assert_eq!(told, format!("{hostname}\n{hostname}\n{hostname}\n"));
        let hosts = node.sh(name, "main", "cat /etc/hosts");
        assert!(hosts.contains(&format!("\n{ip}\t{names}\n")), "{hosts}");
    }
    let added = "\n\n# Entries added by HostAliases.\n192.0.2.7\tdb\tdb.example.org\n";
    node.wait_for_running("host");
    for name in ["domain", "host"] {
        let hosts = node.sh(name, "main", "cat /etc/hosts");
        assert!(hosts.ends_with(added), "{name}: {hosts}");
    }
    let why = "is too long (64 characters is the max, 90 characters requested)";
    node.wait_until("it is told why", |status| {
        let problem = status.pod("long").and_then(|pod| pod.problem.as_ref());
        problem.is_some_and(|problem| problem.contains(why))
    });
}
