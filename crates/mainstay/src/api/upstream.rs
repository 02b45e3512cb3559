//! Another API than the instance's own, as far as it can be asked, with the port of the node's own API beside it.

use std::path::Path;
use std::sync::Arc;

use mainstay_client::Calls;
use mainstay_node::ApiAccess;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::remote::{Remote, late_client};
use super::{NodePort, forget_own_port};
use crate::config::NodeServer;

pub(super) struct Upstream {
    remote: watch::Sender<Option<Arc<Remote>>>,
    node: NodePort,
}

impl Upstream {
    /// Nothing is asked yet. Only the port of the node's own API is taken, which the node registers with.
    pub(super) fn new(server: &NodeServer, run_dir: &Path) -> Self {
        let node = NodePort::bind(server, run_dir);
        forget_own_port(run_dir);
        Self { remote: watch::Sender::new(None), node }
    }

    /// How the agent reaches it.
    pub(super) fn access(&self) -> ApiAccess {
        ApiAccess { client: self.client(), node_port: self.node.port() }
    }

    /// What asks it, as soon as it can be asked.
    pub(super) fn calls(&self) -> Calls {
        Calls::new(self.client(), super::AGENT)
    }

    fn client(&self) -> kube::Client {
        late_client(self.remote.subscribe())
    }

    /// Whoever asks uses this from now on.
    pub(super) fn connect(&self, remote: Remote) {
        self.remote.send_replace(Some(Arc::new(remote)));
    }

    /// The node's own port, to be served.
    pub(super) fn take_port(&mut self) -> Option<TcpListener> {
        self.node.take()
    }
}
