//! Each node has ranges of addresses for its pods that no other node has: one, or one of each kind.
//!
//! A node says in an annotation ([`PROPOSED_POD_CIDR_ANNOTATION`]) which ranges its pods have addresses of. It gets those
//! of which no other node has a part, and otherwise others of the same size; what it gets stands in
//! `spec.podCIDRs`, and is its own until its Node object goes. A node that proposes nothing gets nothing:
//! the network of its pods is somebody else's matter.
//!
//! # Guarantees
//!
//! - One node at a time gets one, and only after all that were given before have been heard of.
//! - What a node has is never changed.
//!
//! [`PROPOSED_POD_CIDR_ANNOTATION`]: mainstay_pod::identity::PROPOSED_POD_CIDR_ANNOTATION
//!
//! Source: `pkg/controller/nodeipam/ipam/range_allocator.go`, for the words.

mod decide;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use mainstay_client::{CallError, CallErrorKind, Partial};
use serde_json::json;

use crate::context::Context;
use crate::events::EventType;
use crate::informer::{Informer, ObjectKey};
use crate::informers::path;
use crate::queue::Queue;
use crate::written::{SOON, Written};
use decide::{Assignment, decide};

/// The controller at work.
struct Controller {
    context: Context,
    nodes: Arc<Informer<Node>>,
    written: Written,
}

pub(crate) async fn run(context: Context) {
    let nodes = context.informers.of::<Node>();
    let queue = Arc::new(Queue::new("node_ipam"));
    let _fed = [
        nodes.feed(&queue, |change| change.new.map(|it| ObjectKey::of(&it.metadata).name)),
        // Who had to go without may get what another one had.
        nodes.feed(&queue, {
            let nodes = nodes.clone();
            move |change| match change.new {
                None => nodes.all().iter().map(|it| ObjectKey::of(&it.metadata).name).collect(),
                Some(_) => Vec::new(),
            }
        }),
    ];
    nodes.complete().await;
    let controller = Controller { context, nodes, written: Written::default() };
    queue.work(1, |name| controller.sync(name)).await;
}

impl Controller {
    async fn sync(&self, name: String) -> Result<Option<Duration>, CallError> {
        let key = ObjectKey::new("", &name);
        let Some(node) = self.nodes.get(&key) else { return Ok(None) };
        // Of all nodes together: a range that was given to another one is taken.
        if !self.written.is_seen(&ObjectKey::default(), self.nodes.reached()) {
            return Ok(Some(SOON));
        }
        let ranges = match decide(&node, &self.nodes.all()) {
            Assignment::None => return Ok(None),
            Assignment::Full => {
                self.tell(&node, "CIDRNotAvailable");
                return Ok(None);
            }
            Assignment::Ranges(ranges) => ranges,
        };
        let patch = json!({
            "metadata": { "uid": node.metadata.uid },
            "spec": { "podCIDR": ranges.first(), "podCIDRs": ranges },
        });
        match self.context.calls.patch::<Partial>(&path::<Node>("", &name), &patch).await {
            Ok(answer) => {
                let ranges = ranges.join(",");
                tracing::info!(node = name, ranges, "a node has ranges for its pods");
                self.written.note(&ObjectKey::default(), &answer.metadata);
                Ok(None)
            }
            Err(error) if error.kind == CallErrorKind::NotFound => Ok(None),
            Err(error) => {
                self.tell(&node, "CIDRAssignmentFailed");
                Err(error)
            }
        }
    }

    /// Source: `RecordNodeStatusChange`.
    fn tell(&self, node: &Node, reason: &str) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Node {name} status is now: {reason}");
        self.context.events.tell(node, EventType::Normal, reason, message);
    }
}

#[cfg(test)]
mod tests;
