//! The API above a node, where that is to be another instance's: in a network namespace of its own, over TLS,
//! by a kubeconfig.
//!
//! Tests do not know of it: with `MAINSTAY_TEST_SHAPE=member` they are run so.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::{Node, SHAPE, wait_for};
use crate::machines::Space;
use crate::program::{command, run};

/// Where the ways to the namespaces have addresses of, four for each. Source: RFC 2544.
const RANGE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const WAYS: u32 = 1 << 15;

/// What is an API's, and not a node's.
const OF_API: [&str; 6] = [
    "--token-auth-file=",
    "--tls-san=",
    "--controllers=",
    "--cluster-signing-duration=",
    "--node-monitor-grace-period=",
    "--write-kubeconfig=",
];

/// The other instance.
pub(super) struct Above {
    // In this order: the agent goes before its machine.
    control: Box<Node>,
    _space: Space,
}

/// Whether nodes are to be such ones.
pub(super) fn is_wanted() -> bool {
    std::env::var_os(SHAPE).is_some_and(|shape| shape == "member")
}

impl Above {
    /// One for this node, which gets its kubeconfigs: that of the node, and the admin's where it has its own
    /// else. What is said of an API is taken over.
    pub(super) fn new(node: &mut Node) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let space = Space::new();
        let ip = |arguments: String| run(command("ip").args(arguments.split_whitespace()));
        let (number, way) = loop {
            // Processes that live at the same time mostly have other numbers.
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let number = process::id().wrapping_mul(4).wrapping_add(count) % WAYS;
            let way = format!("mst{number}");
            let made = ip(format!("link add {way} type veth peer name eth0 netns {}", space.pid()));
            // Who has the link has the addresses.
            if made.stderr.contains("File exists") {
                continue;
            }
            made.success();
            break (number, way);
        };
        let first = RANGE + number * 4;
        let (here, there) = (Ipv4Addr::from(first + 1), Ipv4Addr::from(first + 2));
        let ip = |arguments| drop(ip(arguments).success());
        ip(format!("address add {here}/30 dev {way}"));
        ip(format!("link set {way} up"));
        space.ip("link set lo up");
        space.ip(&format!("address add {there}/30 dev eth0"));
        space.ip("link set eth0 up");
        space.ip(&format!("route add default via {here}"));
        let mut control = Box::new(Node::prepare().unwrap());
        control.machine = Some(space.path());
        "control".clone_into(&mut control.name);
        let tokens = node.path("tokens");
        let own = format!("node-token,system:node:{},1,\"system:nodes\"\n", node.name);
        let is_of_api = |it: &String| OF_API.iter().any(|flag| it.starts_with(flag));
        let (theirs, rest) = std::mem::take(&mut node.arguments).into_iter().partition(is_of_api);
        node.arguments = rest;
        // Nobody reaches it there from elsewhere.
        let loopback = node.arguments.iter_mut().find(|it| *it == "--node-ip=127.0.0.1");
        if let Some(loopback) = loopback {
            *loopback = format!("--node-ip={here}");
        }
        let theirs: Vec<String> = theirs;
        let more = theirs.iter().find_map(|it| it.strip_prefix(OF_API[0]));
        let more = more.map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
        fs::write(&tokens, own + &more).unwrap();
        let kubeconfig = format!("--write-kubeconfig={}", node.path("root/kubeconfig").display());
        let is_written = theirs.iter().any(|it| it.starts_with(OF_API[5]));
        control.arguments.extend((!is_written).then_some(kubeconfig));
        control.arguments.extend(theirs.into_iter().filter(|it| !it.starts_with(OF_API[0])));
        control.arguments.extend([
            format!("--token-auth-file={}", tokens.display()),
            format!("--node-ip={there}"),
            format!("--bind-address={there}"),
            // Nothing is to be scheduled there.
            "--register-node=false".to_owned(),
        ]);
        control.launch();
        let port = control.path("run/secure-port");
        // It is whole with its line.
        let whole = || fs::read_to_string(&port).ok().filter(|it| it.ends_with('\n'));
        let port = wait_for(whole).unwrap();
        let ready = || node.path("root/kubeconfig").exists().then_some(());
        assert!(is_written || wait_for(ready).is_some(), "{}", control.log());
        let authority = control.path("root/pki/ca.crt");
        let named = |name: &str, kind: &str, what| json!([{ "name": name, kind: what }]);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": named("k", "cluster", json!({
                "server": format!("https://{there}:{}", port.trim()),
                "certificate-authority": authority,
            })),
            "users": named("u", "user", json!({ "token": "node-token" })),
            "contexts": named("c", "context", json!({ "cluster": "k", "user": "u" })),
        });
        let path = Self::kubeconfig(node);
        fs::write(&path, config.to_string()).unwrap();
        node.server = vec![
            format!("--kubeconfig={}", path.display()),
            format!("--client-ca-file={}", authority.display()),
            // The API asks no node whose certificate it has not signed.
            "--rotate-server-certificates".to_owned(),
        ];
        Self { control, _space: space }
    }

    fn kubeconfig(node: &Node) -> PathBuf {
        node.path("member.conf")
    }

    /// What its agent logged.
    pub(super) fn log(&self) -> String {
        self.control.log()
    }
}
