//! Pods that take more of the node's disk than they may. Without limits nothing is measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_cri::FilesystemUsage;
use mainstay_plan::ephemeral_storage::{Usage, comes_back, exceeded, is_limited};
use mainstay_plan::pod::{EvictionCause, PodKey};
use mainstay_pod::Pod;

use super::usage::{OnDisk, on_disk};
use crate::publish::EventKind;
use crate::worker::{EvictionOrder, Performer};

/// How long such a pod has to end. Source: `immediateEvictionGracePeriodSeconds`.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// What follows for a static pod, in our words.
const RETURNS: &str = "It is started again with empty volumes. ";

/// Measures the pods that have limits, one after the other, and has those ended that take more; answers
/// which.
pub(super) async fn enforce(
    performer: &Performer,
    pods: &[(PodKey, Arc<Pod>)],
) -> Vec<(PodKey, Arc<Pod>)> {
    let mut ended = Vec::new();
    for (key, pod) in pods.iter().filter(|(_, pod)| is_limited(pod.spec())) {
        match on_disk(performer, key, pod).await {
            Ok(found) => {
                if let Some(mut message) = exceeded(pod.spec(), &found.bytes()) {
                    if comes_back(pod) {
                        message.push_str(RETURNS);
                    }
                    let order =
                        EvictionOrder { message, grace: GRACE, cause: EvictionCause::Limit };
                    performer.evict(key, pod, order);
                    ended.push((key.clone(), pod.clone()));
                }
            }
            Err(why) => {
                let message = format!("Its local storage cannot be measured: {why}");
                performer.events.tell(key, EventKind::Warning, "StorageNotMeasured", message);
            }
        }
    }
    ended
}

impl OnDisk {
    fn bytes(&self) -> Usage {
        let bytes = |all: &BTreeMap<String, FilesystemUsage>| {
            all.iter().map(|(name, used)| (name.clone(), used.used_bytes)).collect()
        };
        Usage { volumes: bytes(&self.volumes), containers: bytes(&self.containers) }
    }
}
