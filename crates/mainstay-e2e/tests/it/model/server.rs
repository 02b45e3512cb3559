//! The server that the model is held against: an agent of the test's own, or any other.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use hyper::Method;
use mainstay_e2e::api::{Api, Connection};
use mainstay_testkit::tools;
use serde_json::{Value, json};

use super::kind::KINDS;
use crate::node::{Node, wait_for};
use crate::program::{command, run};

/// Names the kubeconfig of a server that is asked instead of an agent of the test's own. The test
/// makes namespaces of its own there and takes them away again.
const KUBECONFIG: &str = "MAINSTAY_TEST_KUBECONFIG";

/// A server.
pub(super) struct Server {
    pub(super) api: Api,
    /// The agent that it is of.
    node: Option<Node>,
}

impl Server {
    /// None if this is not root, which is printed.
    pub(super) fn start() -> Option<Self> {
        if let Some(kubeconfig) = std::env::var_os(KUBECONFIG) {
            return Some(Self { api: api(&kubeconfig), node: None });
        }
        let mut node = Node::prepare()?;
        // Nobody but the clients writes.
        node.arguments.push("--controllers=".to_owned());
        node.launch();
        let kubeconfig = node.path("root/kubeconfig");
        let there = wait_for(|| kubeconfig.exists().then_some(()));
        assert!(there.is_some(), "{} is not written", kubeconfig.display());
        Some(Self { api: api(kubeconfig.as_os_str()), node: Some(node) })
    }

    /// Whether it is the reference, and not ours.
    pub(super) fn is_reference(&self) -> bool {
        self.node.is_none()
    }
}

/// The server of a kubeconfig.
pub(crate) fn api(kubeconfig: &OsStr) -> Api {
    let mut kubectl = command(tools::kubectl());
    kubectl.arg("--kubeconfig").arg(Path::new(kubeconfig));
    kubectl.args(["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]);
    let config = serde_json::from_str(&run(&mut kubectl).success()).unwrap();
    Api::of_kubeconfig(&config).unwrap()
}

/// Makes a namespace, with all that pods in it need.
pub(super) async fn make_namespace(connection: &Connection, name: &str) -> anyhow::Result<()> {
    let namespace = json!({ "metadata": { "name": name } });
    post(connection, "/api/v1/namespaces", &namespace).await?;
    let account = json!({ "metadata": { "name": "default" } });
    let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
    let body = serde_json::to_vec(&account)?;
    // Somebody may be faster who makes one in each namespace.
    let (code, body) = connection.answer(Method::POST, &path, "application/json", body).await?;
    ensure!(code.is_success() || code.as_u16() == 409, "POST {path}: {body:?}");
    Ok(())
}

async fn post(connection: &Connection, path: &str, object: &Value) -> anyhow::Result<()> {
    let body = serde_json::to_vec(object)?;
    connection.done(Method::POST, path, "application/json", body).await?;
    Ok(())
}

/// Takes a namespace away, with all that is held in it.
pub(super) async fn remove_namespace(
    connection: &Arc<Connection>,
    name: &str,
) -> anyhow::Result<()> {
    for kind in KINDS {
        let collection = kind.collection(name);
        let list = connection.done(Method::GET, &collection, "", Vec::new()).await?;
        let list: Value = serde_json::from_slice(&list)?;
        for item in list["items"].as_array().context("a list has no items")? {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("{collection}/{name}");
            let free = serde_json::to_vec(&json!({ "metadata": { "finalizers": null } }))?;
            let merge = "application/merge-patch+json";
            connection.answer(Method::PATCH, &path, merge, free).await?;
            let now = format!("{path}?gracePeriodSeconds=0");
            connection.answer(Method::DELETE, &now, "", Vec::new()).await?;
        }
    }
    connection.done(Method::DELETE, &format!("/api/v1/namespaces/{name}"), "", Vec::new()).await?;
    Ok(())
}
