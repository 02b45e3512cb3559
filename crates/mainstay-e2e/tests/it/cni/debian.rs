//! The plugins that Debian has.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use mainstay_linux::namespace::in_network;
use mainstay_testkit::tools;
use serde_json::{Value, json};

use super::own;
use crate::http;
use crate::machines::{Machines, enter};
use crate::node::{Node, wait_for};
use crate::program::run;

/// A bridge with addresses of its own, ports of the host, and a firewall; in any version.
fn network(leases: &Path, disable_check: bool) -> Value {
    json!({
        "cniVersion": "1.1.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"], "name": "mainstay-test",
        // This portmap misses IPv6 rules of a port that has none to have.
        "disableCheck": disable_check,
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": leases,
                    "ranges": [[{ "subnet": "10.111.0.0/24" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
            { "type": "firewall" },
        ],
    })
}

/// A node on a machine of its own, with these plugins.
fn start(machines: &Machines, disable_check: bool) -> Option<Node> {
    let mut node = Node::prepare()?;
    node.machine = Some(machines.path(0));
    fs::create_dir(node.path("net.d")).unwrap();
    let list = network(&node.path("leases"), disable_check).to_string();
    fs::write(node.path("net.d/10-net.conflist"), list).unwrap();
    node.arguments.push(format!("--cni-conf-dir={}", node.path("net.d").display()));
    node.arguments.push(format!("--cni-bin-dir={}", tools::program("cni").display()));
    node.launch();
    Some(node)
}

/// The addresses that are taken.
fn leases(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.path("leases/mainstay-test")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("10.")).collect()
}

/// What a server answers on an address that is to be reached from the machine.
fn get(machines: &Machines, address: &str) -> io::Result<String> {
    let space = File::open(machines.path(0))?;
    in_network(space.as_fd(), || http::get(address.parse().unwrap()))
}

#[test]
fn the_plugins_of_debian_give_pods_their_network_and_take_it_back() {
    let Some(machines) = Machines::new(1) else { return };
    let Some(mut node) = start(&machines, true) else { return };
    let port = json!([{ "containerPort": 80, "hostPort": 8080 }]);
    let web = own("web").main("ports", port);
    node.put("web.yaml", &web.exactly("echo page > /index.html; exec httpd -f -p 80 -h /"));
    node.put("other.yaml", &own("other"));
    let address = node.wait_for_running("web").status.pod_ip.unwrap();
    node.wait_for_running("other");
    assert!(address.starts_with("10.111.0."), "{address}");
    // They speak no later one.
    let attachments = fs::read_dir(node.path("root/cni")).unwrap().flatten();
    for entry in attachments {
        let attachment: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        assert_eq!(attachment["network"]["cni_version"], "1.0.0");
    }
    let served = |address: &str| {
        let page = || get(&machines, address).is_ok_and(|it| it.ends_with("page\n")).then_some(());
        assert!(wait_for(page).is_some(), "{address}: {:?}", get(&machines, address));
    };
    let (inside, here) = (format!("{address}:80"), format!("{}:8080", Machines::address(0)));
    for address in [inside.as_str(), "127.0.0.1:8080", &here] {
        served(address);
    }
    for address in [&inside, &here] {
        let page = node.sh("other", "main", &format!("wget -qO- http://{address}"));
        assert_eq!(page, "page\n", "{address}");
    }
    assert_eq!(leases(&node).len(), 2);

    // What the next agent finds is as it was made.
    node.kill();
    node.launch();
    node.wait_for_running("web");
    served("127.0.0.1:8080");

    // Ended as it should be, and with nobody to end it.
    node.take("web.yaml");
    node.wait_for_gone("web");
    node.take("other.yaml");
    node.kill_shims();
    node.wait_for_gone("other");
    assert_eq!(leases(&node), Vec::<String>::new());
    let rules = run(&mut enter(&machines.path(0), "iptables-save")).success();
    assert!(!rules.contains("10.111.0.") && !rules.contains("8080"), "{rules}");
    assert!(!node.log().contains("is not as it was made"), "{}", node.log());
}

#[test]
fn a_network_that_somebody_broke_is_told_by_the_plugins_that_made_it() {
    let Some(machines) = Machines::new(1) else { return };
    let Some(mut node) = start(&machines, false) else { return };
    node.put("web.yaml", &own("web"));
    node.wait_for_running("web");
    node.kill();
    run(enter(&machines.path(0), "ip").args(["link", "delete", "cni0"])).success();
    node.launch();
    node.wait_for_log("a plugin says that the network of a sandbox is not as it was made");
    node.wait_for_log("plugin type=\\\"bridge\\\" name=\\\"mainstay-test\\\" failed (check)");
    // It runs on, and is deleted all the same.
    node.wait_for_running("web");
    node.take("web.yaml");
    node.wait_for_gone("web");
    assert_eq!(leases(&node), Vec::<String>::new());
}
