//! The Node object of the API, and its lease.
//!
//! # Flow
//!
//! The node is registered, and looked at every [`TICK`] and whenever something about it changes;
//! what differs is patched. Its UID, to which mirrors belong, is on a `watch` channel.
//!
//! # Guarantees
//!
//! - A Node that somebody deletes is registered anew.
//! - Without news its status is written every [`REPORT`] only; that the node is there is what the
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
use mainstay_plan::node_status::{self, Machine, NodeFacts};
use mainstay_plan::pressure::Pressure;
use mainstay_plan::status::NodeAddresses;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::api::{CallError, CallErrorKind, Calls, Trouble};
use super::{EventKind, Events, PodNetwork};
use crate::version;

pub(crate) use lease::keep as keep_lease;
pub use machine::allocatable;
pub(crate) use machine::architecture;

/// How often the node is looked at. Source: `nodeStatusUpdateFrequency`.
const TICK: Duration = Duration::from_secs(10);

/// How often its status is written without news. Source: `nodeStatusReportFrequency`.
const REPORT: Duration = Duration::from_secs(300);

/// How often images are listed without news.
const LIST_IMAGES: Duration = Duration::from_secs(30);

/// What the Node object is kept with.
pub(crate) struct NodeKeeper {
    pub(crate) calls: Calls,
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
    /// A directory of the file system whose space is the node's.
    pub(crate) directory: PathBuf,
    /// What is short on the machine.
    pub(crate) pressure: watch::Receiver<Pressure>,
    /// Such as `mainstay://0.1.0`.
    pub(crate) runtime_version: String,
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
                    TICK
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
                _ = self.addresses.changed() => {}
                _ = self.pressure.changed() => {}
                _ = self.image_changes.changed() => memory.listed = None,
                _ = self.reachable.changed() => {}
                () = self.doubt.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn facts(&mut self, memory: &mut Memory) -> NodeFacts {
        let due = memory.listed.is_none_or(|listed| listed.elapsed() >= LIST_IMAGES);
        if due && let Ok(images) = self.images.list_images().await {
            memory.images = images;
            memory.listed = Some(Instant::now());
        }
        NodeFacts {
            name: self.name.clone(),
            machine: memory.machine.clone(),
            pressure: *self.pressure.borrow_and_update(),
            addresses: self.addresses.borrow_and_update().ips.clone(),
            runtime: self.health.borrow_and_update().clone(),
            runtime_version: self.runtime_version.clone(),
            kubelet_version: version(),
            port: self.port,
            images: memory.images.clone(),
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
        let due = memory.reported.is_none_or(|reported| reported.elapsed() >= REPORT);
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
