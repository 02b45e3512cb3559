//! The Node object of the API, and its lease.
//!
//! # Flow
//!
//! The node is registered, and looked at every [`NodeTimes::update`] and whenever something about it changes;
//! what differs is patched. Its UID, to which mirrors belong, is on a `watch` channel.
//!
//! # Guarantees
//!
//! - A Node that somebody deletes is registered anew.
//! - Without news its status is written every [`NodeTimes::report`] only; that the node is there is what the
//!   lease shows.
//!
//! Source: `pkg/kubelet/kubelet_node_status.go`.

mod lease;
mod machine;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use mainstay_cri::{Image, Images, RuntimeCondition};
use mainstay_plan::node_status::{self, LEASE_DURATION, Machine, NodeFacts, NodeSettings};
use mainstay_plan::pressure::Pressure;
use mainstay_plan::status::NodeAddresses;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::api::{CallError, CallErrorKind, Calls, Trouble};
use super::{EventKind, Events, PodNetwork};
use crate::version;

pub(crate) use lease::keep as keep_lease;
pub(crate) use machine::{architecture, huge_pages};
pub use machine::{look_at_processors, look_at_resources};

/// When something of a node is told to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTimes {
    /// How often the node is looked at. Source: `nodeStatusUpdateFrequency`.
    pub update: Duration,
    /// How often its status is written without news. Source: `nodeStatusReportFrequency`.
    pub report: Duration,
    /// How long its lease holds, which is renewed four times in that. Source: `nodeLeaseDurationSeconds`.
    pub lease: Duration,
}

impl Default for NodeTimes {
    /// Those of a kubelet.
    fn default() -> Self {
        Self {
            update: Duration::from_secs(10),
            report: Duration::from_secs(300),
            lease: LEASE_DURATION,
        }
    }
}

/// How often images are listed without news.
const LIST_IMAGES: Duration = Duration::from_secs(30);

/// How long is waited for that list.
const IMAGES_PATIENCE: Duration = Duration::from_secs(5);

/// What the Node object is kept with.
pub(crate) struct NodeKeeper {
    pub(crate) calls: Calls,
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
    /// What the machine's owner has said of it.
    pub(crate) settings: Arc<NodeSettings>,
    pub(crate) times: NodeTimes,
    /// Whether it registers itself. Without that, somebody else makes its Node.
    pub(crate) registers: bool,
    /// A directory of the file system whose space is the node's.
    pub(crate) directory: PathBuf,
    /// What is short on the machine.
    pub(crate) pressure: watch::Receiver<Pressure>,
    /// Whether the machine is being shut down.
    pub(crate) shutting_down: watch::Receiver<bool>,
    /// Such as `mainstay://0.1.0`.
    pub(crate) runtime_version: watch::Receiver<String>,
    pub(crate) images: Arc<dyn Images>,
    /// Changes when images come or go.
    pub(crate) image_changes: watch::Receiver<u64>,
    pub(crate) health: watch::Receiver<Vec<RuntimeCondition>>,
    pub(crate) addresses: watch::Receiver<NodeAddresses>,
    /// Whether the API answers.
    pub(crate) reachable: watch::Receiver<bool>,
    pub(crate) events: Events,
    /// The Node's UID, when there is one.
    pub(crate) uid: watch::Sender<Option<String>>,
    /// The network of pods, if the node makes it.
    pub(crate) network: Option<Arc<dyn PodNetwork>>,
    /// Notified by whoever has reason to think that the Node is another one.
    pub(crate) doubt: Arc<Notify>,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    machine: Machine,
    images: Vec<Image>,
    listed: Option<Instant>,
    reported: Option<Instant>,
    /// The status that was written last: what it turns from.
    status: Option<NodeStatus>,
    trouble: Trouble,
}

impl NodeKeeper {
    /// Keeps it, for ever.
    pub(crate) async fn run(mut self) {
        let mut memory =
            Memory { machine: machine::look(&self.directory).await, ..Memory::default() };
        self.events.tell_node(EventKind::Normal, "Starting", "Starting kubelet.".to_owned());
        loop {
            let facts = self.facts(&mut memory).await;
            let wait = match self.sync(&facts, &mut memory).await {
                Ok(()) => {
                    if memory.trouble.end() {
                        tracing::info!("the Node object is kept again");
                    }
                    self.times.update
                }
                Err(error) => {
                    if memory.trouble.is_news(&error) {
                        tracing::warn!(error = error.message, "cannot keep the Node object");
                    }
                    memory.trouble.count(error.longest())
                }
            };
            tokio::select! {
                // Cancel-safe per docs on `watch::Receiver::changed`; the same holds below. None of
                // the senders ends before the agent.
                _ = self.health.changed() => {}
                _ = self.runtime_version.changed() => {}
                _ = self.addresses.changed() => {}
                _ = self.pressure.changed() => {}
                _ = self.shutting_down.changed() => {}
                _ = self.image_changes.changed() => memory.listed = None,
                _ = self.reachable.changed() => {}
                () = self.doubt.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn facts(&mut self, memory: &mut Memory) -> NodeFacts {
        let due = memory.listed.is_none_or(|listed| listed.elapsed() >= LIST_IMAGES);
        // A runtime that hangs keeps nobody from hearing that it does.
        if due && let Ok(Ok(images)) = timeout(IMAGES_PATIENCE, self.images.list_images()).await {
            memory.images = images;
            memory.listed = Some(Instant::now());
        }
        NodeFacts {
            name: self.name.clone(),
            machine: memory.machine.clone(),
            pressure: *self.pressure.borrow_and_update(),
            shutting_down: *self.shutting_down.borrow_and_update(),
            addresses: self.addresses.borrow_and_update().ips.clone(),
            runtime: self.health.borrow_and_update().clone(),
            runtime_version: self.runtime_version.borrow_and_update().clone(),
            kubelet_version: version(),
            port: self.port,
            images: memory.images.clone(),
            settings: self.settings.clone(),
            pod_range: self.network.as_ref().and_then(|network| network.range()),
        }
    }

    /// Makes the API's Node be what it should.
    async fn sync(&self, facts: &NodeFacts, memory: &mut Memory) -> Result<(), CallError> {
        let path = format!("/api/v1/nodes/{}", self.name);
        let held = match self.calls.get::<Node>(&path).await {
            Ok(held) => held,
            Err(error) if error.kind == CallErrorKind::NotFound => {
                self.uid.send_if_modified(|uid| uid.take().is_some());
                if !self.registers {
                    return Ok(());
                }
                let node = node_status::node(facts, Timestamp::now());
                let node = self.calls.post("/api/v1/nodes", &node).await?;
                tracing::info!(node = self.name, "registered with the API");
                node
            }
            Err(error) => return Err(error),
        };
        self.uid.send_if_modified(|uid| {
            let changed = *uid != held.metadata.uid;
            uid.clone_from(&held.metadata.uid);
            changed
        });
        if let Some(patch) = node_status::metadata_patch(&held, facts) {
            self.calls.patch::<Node>(&path, &patch).await?;
        }
        let before = held.status.unwrap_or_default();
        let status = node_status::status(&before, facts, Timestamp::now());
        let due = memory.reported.is_none_or(|reported| reported.elapsed() >= self.times.report);
        let patch = node_status::status_patch(&before, &status);
        if due || patch.as_ref().is_some_and(|(_, news)| *news) {
            if let Some((patch, _)) = patch {
                self.calls.patch::<Node>(&format!("{path}/status"), &patch).await?;
            }
            memory.reported = Some(Instant::now());
        }
        // A new agent tells what it finds, whatever the last one said.
        let known = memory.status.take().unwrap_or_default();
        for turned in node_status::transitions(&self.name, &known, &status) {
            self.events.tell_node(EventKind::Normal, turned.reason, turned.message);
        }
        memory.status = Some(status);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
