//! A node of a cluster by a kubeconfig, as kubeadm leaves it one, and what can be wrong with that.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::{fs, thread};

use jiff::Timestamp;
use mainstay_linux::namespace::in_network;
use mainstay_pki::{Pki, Wanted};
use serde_json::{Value, json};

use crate::join::Cluster;
use crate::manifest::pod;
use crate::node::{Node, wait_for};

/// Whom the node's own API knows, and who knows it: the API asks no node whose certificate it has not signed.
const CLIENT_CA: &str = "authentication: {x509: {clientCAFile: ca.crt}}\nserverTLSBootstrap: true";

impl Cluster {
    /// A node on a machine, with no agent yet, that is to be one of this cluster, with this configuration.
    pub(crate) fn member(&self, at: usize, name: &str, fields: &str) -> Node {
        let node = self.node(at, name);
        node.configure(&format!("{CLIENT_CA}\n{fields}"));
        fs::copy(self.authority(), node.path("ca.crt")).unwrap();
        node
    }

    /// Where this cluster's authority is.
    pub(crate) fn authority(&self) -> PathBuf {
        self.control.path("root/pki/ca.crt")
    }

    /// The kubeconfig of somebody with a token, whose file is this one.
    pub(crate) fn bootstrap(&self, path: &Path) {
        let token = self.token(&[]);
        // The third part is mainstay's own.
        let (token, _) = token.rsplit_once('.').unwrap();
        write(path, &self.authority(), &json!({ "token": token }));
    }
}

/// Writes the kubeconfig of a user of the cluster, whole.
fn write(path: &Path, authority: &Path, user: &Value) {
    put(path, &kubeconfig_of(authority, user).to_string());
}

fn kubeconfig_of(authority: &Path, user: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "kubernetes",
            "cluster": { "server": Cluster::server(), "certificate-authority": authority },
        }],
        "users": [{ "name": "tls-bootstrap-token-user", "user": user }],
        "contexts": [{
            "name": "tls-bootstrap-token-user@kubernetes",
            "context": { "cluster": "kubernetes", "user": "tls-bootstrap-token-user" },
        }],
        "current-context": "tls-bootstrap-token-user@kubernetes",
    })
}

/// Puts a file in place, whole.
fn put(path: &Path, text: &str) {
    let staged = path.with_extension("staged");
    fs::write(&staged, text).unwrap();
    fs::rename(staged, path).unwrap();
}

#[test]
fn a_node_of_a_kubeconfig_has_certificates_as_a_kubelet_and_renews_them() {
    // Where a tenth of it is not enough for the next one, on a machine that is busy with other things, the
    // bootstrap kubeconfig is: it stays to the end.
    let Some(cluster) = Cluster::new(2, &["--cluster-signing-duration=40s"]) else { return };
    let mut node = cluster.member(1, "n2", "rotateCertificates: true");
    let (kubeconfig, bootstrap) = (node.path("kubelet.conf"), node.path("bootstrap.conf"));
    cluster.bootstrap(&bootstrap);
    node.belong(&kubeconfig, Some(&bootstrap));
    node.launch();
    cluster.wait_for_ready("n2");
    for name in ["client", "server"] {
        let current = node.path(&format!("root/kubelet/kubelet-{name}-current.pem"));
        let newest = || fs::read_link(&current).ok();
        let first = wait_for(newest).unwrap();
        let dated = first.file_name().unwrap().to_str().unwrap();
        assert!(dated.starts_with(&format!("kubelet-{name}-20")), "{dated}");
        assert!(wait_for(|| newest().filter(|it| *it != first)).is_some(), "{name}");
    }
    let written: Value = serde_json::from_str(&fs::read_to_string(&kubeconfig).unwrap()).unwrap();
    assert_eq!(written["current-context"], "default-context");
    cluster.run_on("n2", "api");
    cluster.wait_for_running("api");
    cluster.wait_for_output(&["logs", "api"], "hello");
    assert_eq!(
        cluster.kubectl(&["exec", "api", "--", "echo", "inside"]).success().trim(),
        "inside"
    );
    // A later agent goes on with what there is.
    node.terminate();
    node.launch();
    cluster.wait_for_output(&["logs", "api"], "hello");
}

#[test]
fn what_is_wrong_with_a_kubeconfig_is_said_and_mended_without_the_agent() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(tokens.path(), "good,system:node:n2,1,\"system:nodes\"\n").unwrap();
    let flag = format!("--token-auth-file={}", tokens.path().display());
    let Some(cluster) = Cluster::new(2, &[&flag]) else { return };
    let mut node = cluster.member(1, "n2", "");
    let (kubeconfig, token) = (node.path("node.conf"), node.path("token"));
    node.belong(&kubeconfig, None);
    node.launch();
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    node.wait_for_log("cannot read");
    put(&kubeconfig, "{ half of a file");
    node.wait_for_log("node.conf:1");
    put(&kubeconfig, "kind: Config");
    node.wait_for_log("it has no current-context");
    // Another cluster's authority.
    Pki::open(&node.path("other"), &Wanted::default(), Timestamp::now()).unwrap();
    write(&kubeconfig, &node.path("other/ca.crt"), &json!({ "tokenFile": "token" }));
    node.wait_for_log("tokenFile: cannot read");
    put(&token, "bad\n");
    node.wait_for_log("who answers is not the API that this node knows");
    write(&kubeconfig, &cluster.authority(), &json!({ "tokenFile": "token" }));
    node.wait_for_log("401 Unauthorized");
    assert_eq!(node.log().matches("401 Unauthorized").count(), 1);
    // Who rotates tokens replaces the file.
    put(&token, "good\n");
    cluster.wait_for_ready("n2");
    cluster.wait_for_running("web-n2");
    cluster.run_on("n2", "api");
    cluster.wait_for_running("api");
    cluster.wait_for_output(&["logs", "api"], "hello");
    // The kubeconfig is taken away while it is in use: nothing has to be thrown away for that.
    fs::remove_file(&kubeconfig).unwrap();
    cluster.wait_for_output(&["logs", "api"], "hello");
    let after = node.wait_for_running("web");
    assert_eq!((after.id(), after.restarts), (before.id(), 0));
    let refused = node.mainstay(&["run", "--kubeconfig=k", "--secure-port=0"]).failure(2);
    assert!(refused.contains("cannot be used with"), "{refused}");
}

#[test]
fn an_api_may_be_behind_a_proxy() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(tokens.path(), "good,system:node:n2,1,\"system:nodes\"\n").unwrap();
    let flag = format!("--token-auth-file={}", tokens.path().display());
    let Some(cluster) = Cluster::new(2, &[&flag]) else { return };
    let mut node = cluster.member(1, "n2", "");
    let kubeconfig = node.path("node.conf");
    let behind = |proxy: String| {
        let mut config = kubeconfig_of(&cluster.authority(), &json!({ "token": "good" }));
        config["clusters"][0]["cluster"]["proxy-url"] = proxy.into();
        put(&kubeconfig, &config.to_string());
    };
    // Nobody listens there.
    behind("http://127.0.0.1:1".to_owned());
    node.belong(&kubeconfig, None);
    node.launch();
    node.wait_for_log("cannot reach 10.0.0.1 through the proxy http://127.0.0.1:1/");
    let (proxy, asked) = proxy(node.machine.as_deref().unwrap());
    behind(format!("http://{proxy}"));
    cluster.wait_for_ready("n2");
    let server = Cluster::server().replace("https://", "");
    assert_eq!(asked.recv().unwrap(), format!("CONNECT {server} HTTP/1.1"));
}

/// A proxy in a network namespace, and the first line of whatever it is asked for. It goes with the test.
fn proxy(space: &Path) -> (SocketAddr, mpsc::Receiver<String>) {
    let space = Arc::new(fs::File::open(space).unwrap());
    let listener = in_network(space.as_fd(), || TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (asks, asked) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, space, asks) = (client.unwrap(), space.clone(), asks.clone());
            thread::spawn(move || tunnel(&client, &space, &asks));
        }
    });
    (address, asked)
}

/// Connects a client with whom it asks for, until one of them ends.
fn tunnel(mut client: &TcpStream, space: &fs::File, asks: &mpsc::Sender<String>) -> Option<()> {
    // Nothing of TLS comes before the answer.
    let mut lines = BufReader::new(client).lines().map_while(Result::ok);
    let first = lines.next()?;
    lines.find(String::is_empty)?;
    let server = first.split(' ').nth(1)?;
    let server = in_network(space.as_fd(), || TcpStream::connect(server)).unwrap();
    // Whether the test still wants to know is its own matter.
    let _ = asks.send(first);
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        // However it ends, it ends.
        let _ = io::copy(&mut &from, &mut &to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut &server, &mut client);
    client.shutdown(Shutdown::Both).ok()
}
