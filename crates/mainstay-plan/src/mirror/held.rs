//! What an API holds under a name.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod as KubernetesPod, PodStatus};
use mainstay_pod::Pod;
use mainstay_pod::identity::CONFIG_PATH_ANNOTATION;

use super::object::CONFIG_MIRROR_ANNOTATION;

/// A pod of the API that bears a static pod's name.
#[derive(Clone, Debug, PartialEq)]
pub enum Held {
    /// A mirror pod.
    Mirror(Box<Mirror>),
    /// Any other pod.
    Foreign(Arc<KubernetesPod>),
}

/// A mirror pod, as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Its own UID, given by the API.
    pub uid: String,
    /// The static UID of the version that it shows.
    pub hash: String,
    /// The manifest that it names.
    pub path: Option<String>,
    /// The UID of the Node that it belongs to.
    pub owner: Option<String>,
    /// Whether it has a `deletionTimestamp`.
    pub deleting: bool,
    /// The containers that were added to it.
    pub ephemeral: Vec<EphemeralContainer>,
    /// What it says.
    pub status: Said,
}

/// A status as a mirror has it, in JSON: it is looked at when something changes only, and has three times the size
/// when it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Said(Box<[u8]>);

// === impl Held ===

impl Held {
    /// What matters of a pod of the API, without the room that reading leaves.
    pub fn of(mut pod: KubernetesPod) -> Self {
        let annotations = pod.metadata.annotations.as_mut();
        let Some(hash) = annotations.and_then(|it| it.remove(CONFIG_MIRROR_ANNOTATION)) else {
            return Self::Foreign(Arc::new(pod.clone()));
        };
        let metadata = pod.metadata;
        let mut annotations = metadata.annotations.unwrap_or_default();
        let uid = metadata.uid.unwrap_or_default();
        let owners = metadata.owner_references.unwrap_or_default();
        let owner = owners.into_iter().find(|it| it.kind == "Node" && it.controller == Some(true));
        Self::Mirror(Box::new(Mirror {
            uid,
            hash,
            path: annotations.remove(CONFIG_PATH_ANNOTATION),
            owner: owner.map(|owner| owner.uid),
            deleting: metadata.deletion_timestamp.is_some(),
            ephemeral: pod.spec.and_then(|spec| spec.ephemeral_containers).unwrap_or_default(),
            status: Said::from(&pod.status.unwrap_or_default()),
        }))
    }
}

// === impl Said ===

impl Said {
    /// The status.
    pub fn read(&self) -> PodStatus {
        serde_json::from_slice(&self.0).expect("it was written from a status")
    }
}

impl From<&PodStatus> for Said {
    fn from(status: &PodStatus) -> Self {
        let json = serde_json::to_vec(status);
        Self(json.expect("a status has string keys and no values that JSON lacks").into())
    }
}

// === impl Mirror ===

impl Mirror {
    /// Whether it shows this version of the pod. Beside the hash its owner counts, without which
    /// garbage collection takes it away, and the path, which tells people what to edit.
    pub(super) fn shows(&self, pod: &Pod, node: Option<&str>) -> bool {
        self.hash == pod.uid()
            && self.path.as_deref() == pod.config_path()
            && node.is_none_or(|node| self.owner.as_deref() == Some(node))
    }
}
