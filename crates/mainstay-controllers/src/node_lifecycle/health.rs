//! Whether a node is heard of.
//!
//! Source: `tryUpdateNodeHealth` in `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use tokio::time::Instant;

use super::NodeTimes;

/// What nobody knows of a node that is not heard of. Whether its network is there is not the node's to
/// say.
const UNKNOWN: [&str; 4] = [READY, "MemoryPressure", "DiskPressure", "PIDPressure"];
const READY: &str = "Ready";

/// What a node says of itself, or is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    True,
    False,
    Unknown,
}

/// The time, as clocks show it, and as it passes whatever they show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) time: Timestamp,
    pub(super) instant: Instant,
}

/// What is known of how a node is heard of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Health {
    /// When it was heard of last.
    pub(super) heard: Instant,
    /// When the node wrote its status last, by its own clock, if it ever did.
    beat: Option<Option<Time>>,
    /// When it renewed its lease last, by its own clock.
    renewed: Option<MicroTime>,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { time: Timestamp::now(), instant: Instant::now() }
    }

    /// When it was that, as long as clocks did not change since.
    fn instant_of(self, time: Timestamp) -> Instant {
        let ago = Duration::try_from(self.time.duration_since(time)).unwrap_or_default();
        self.instant.checked_sub(ago).unwrap_or(self.instant)
    }
}

/// How ready a node is; `None` when it has never said so.
pub(super) fn ready(node: &Node) -> Option<Ready> {
    condition(node, READY).map(|it| match it.status.as_str() {
        "True" => Ready::True,
        "False" => Ready::False,
        _ => Ready::Unknown,
    })
}

impl Health {
    /// What is known now that this is what the API has of the node. That a clock is wrong does not
    /// matter: what counts is that something changed.
    pub(super) fn observe(
        before: Option<&Self>,
        node: &Node,
        lease: Option<&Lease>,
        now: Now,
    ) -> Self {
        let beat = condition(node, READY).map(|it| it.last_heartbeat_time.clone());
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
        let heard = match before {
            Some(before) if before.beat == beat => before.heard,
            None if beat.is_none() => {
                let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
                now.instant_of(created.unwrap_or(now.time))
            }
            _ => now.instant,
        };
        let known = before.and_then(|before| before.renewed.clone());
        let is_renewed = match (lease.is_some(), &known, &renewed) {
            (false, ..) => false,
            (true, None, _) => true,
            (true, Some(known), renewed) => renewed.as_ref().is_some_and(|it| it.0 > known.0),
        };
        match is_renewed {
            true => Self { heard: now.instant, beat, renewed },
            false => Self { heard, beat, renewed: known },
        }
    }

    /// The conditions of a node that was not heard of for too long, as far as they are to change.
    pub(super) fn lost(&self, node: &Node, times: &NodeTimes, now: Now) -> Vec<NodeCondition> {
        let grace = match self.beat {
            Some(_) => times.monitor_grace_period,
            None => times.startup_grace_period,
        };
        if now.instant.duration_since(self.heard) <= grace {
            return Vec::new();
        }
        let unknown = |kind: &&str| {
            let mut lost = NodeCondition {
                type_: (*kind).to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now.time)),
            };
            if let Some(known) = condition(node, kind) {
                lost.reason = Some("NodeStatusUnknown".to_owned());
                lost.message = Some("Kubelet stopped posting node status.".to_owned());
                lost.last_heartbeat_time = known.last_heartbeat_time.clone();
                if known.status == "Unknown" {
                    return None;
                }
            }
            Some(lost)
        };
        let lost: Vec<NodeCondition> = UNKNOWN.iter().filter_map(unknown).collect();
        // The others are written with it only.
        match lost.first() {
            Some(first) if first.type_ == READY => lost,
            _ => Vec::new(),
        }
    }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let mut conditions = node.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|it| it.type_ == kind)
}
