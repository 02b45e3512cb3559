//! Nodes and what is on them, as far as scheduling has to know it. Kept as changes come, so that nothing
//! is counted anew for each pod.
//!
//! Source: `NodeInfo` in `pkg/scheduler/framework/types.go`, `pkg/scheduler/backend/cache`.

mod kinds;
mod node;
mod workloads;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use mainstay_pod::scheduling::selector::Labels;

pub(super) use self::kinds::Count;
use self::kinds::Kinds;
pub(super) use self::node::{NodeInfo, taints};
pub(super) use self::workloads::Workloads;
use super::pod::PodInfo;
use crate::informer::ObjectKey;

/// Which node, for as long as it is there or something is on it.
pub(super) type Slot = usize;

/// All there is.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Those without a node hold pods of nodes that are not, or not any more, heard of.
    slots: Vec<NodeInfo>,
    by_name: BTreeMap<Arc<str>, Slot>,
    free: Vec<Slot>,
    /// By UID.
    pods: HashMap<String, (Slot, Arc<PodInfo>)>,
    pub(super) kinds: Kinds,
    /// Bytes of each image, by its names and where it is.
    images: HashMap<String, BTreeMap<Slot, i64>>,
    /// Pods that wait for room that is being made for them, by the name of their node.
    nominated: BTreeMap<String, Vec<Arc<PodInfo>>>,
    /// The UIDs of pods that this scheduler is deleting, to make room.
    pub(super) leaving: BTreeSet<String>,
    /// The labels of each.
    pub(super) namespaces: BTreeMap<String, Labels>,
    pub(super) workloads: Workloads,
    pub(super) budgets: BTreeMap<ObjectKey, Arc<PodDisruptionBudget>>,
}

// === nodes ===

impl Snapshot {
    /// The nodes by their names.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (Slot, &NodeInfo, &Node)> {
        self.by_name.values().filter_map(|slot| {
            let info = self.slots.get(*slot)?;
            Some((*slot, info, &**info.node.as_ref()?))
        })
    }

    /// Each slot is less than this.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// What is at a slot; none if the node is not heard of.
    pub(super) fn at(&self, slot: Slot) -> Option<(&NodeInfo, &Node)> {
        let info = self.slots.get(slot)?;
        Some((info, &**info.node.as_ref()?))
    }

    /// A label of a node: its key and its value.
    pub(super) fn label(&self, slot: Slot, key: &str) -> Option<(&str, &str)> {
        let (_, node) = self.at(slot)?;
        let (key, value) = node.metadata.labels.as_ref()?.get_key_value(key)?;
        Some((key, value))
    }

    pub(super) fn named(&self, name: &str) -> Option<Slot> {
        let slot = *self.by_name.get(name)?;
        self.at(slot).map(|_| slot)
    }

    /// Puts a node in, or what it is like now.
    pub(super) fn set_node(&mut self, node: &Arc<Node>) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let slot = self.slot(name);
        self.forget_images(slot);
        for image in node.status.iter().flat_map(|status| status.images.iter().flatten()) {
            for name in image.names.iter().flatten() {
                let sizes = self.images.entry(name.clone()).or_default();
                sizes.insert(slot, image.size_bytes.unwrap_or(0));
            }
        }
        if let Some(info) = self.slots.get_mut(slot) {
            info.set_node(Some(node.clone()));
        }
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        self.forget_images(slot);
        if let Some(info) = self.slots.get_mut(slot) {
            info.set_node(None);
        }
        self.tidy(slot);
    }

    /// Where an image is, by its name, and how many bytes it has there.
    pub(super) fn image(&self, name: &str) -> Option<&BTreeMap<Slot, i64>> {
        self.images.get(name)
    }

    fn forget_images(&mut self, slot: Slot) {
        let node = self.slots.get(slot).and_then(|info| info.node.clone());
        let status = node.as_ref().and_then(|node| node.status.as_ref());
        for image in status.iter().flat_map(|status| status.images.iter().flatten()) {
            for name in image.names.iter().flatten() {
                if let Some(sizes) = self.images.get_mut(name) {
                    sizes.remove(&slot);
                    if sizes.is_empty() {
                        self.images.remove(name);
                    }
                }
            }
        }
    }

    /// The slot of a node, which is made if there is none.
    fn slot(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let name: Arc<str> = name.into();
        let info = NodeInfo::new(name.clone());
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(NodeInfo::default());
                self.slots.len() - 1
            }
        };
        if let Some(place) = self.slots.get_mut(slot) {
            *place = info;
        }
        self.by_name.insert(name, slot);
        slot
    }

    /// Gives up a slot that nothing is at.
    fn tidy(&mut self, slot: Slot) {
        let Some(info) = self.slots.get_mut(slot) else { return };
        if info.node.is_none() && info.pods().len() == 0 {
            self.by_name.remove(&info.name);
            *info = NodeInfo::default();
            self.free.push(slot);
        }
    }
}

// === pods ===

impl Snapshot {
    /// A pod that is on a node, or will be.
    pub(super) fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|(_, pod)| pod)
    }

    /// Puts a pod on a node, or puts in what it is like now. Its kind becomes the one of pods like it.
    pub(super) fn add_pod(&mut self, pod: PodInfo, node: &str) -> Arc<PodInfo> {
        self.remove_pod(&pod.uid);
        let slot = self.slot(node);
        let kind = self.kinds.add(pod.kind.clone(), slot, pod.ending);
        let pod = Arc::new(PodInfo { kind, ..pod });
        if let Some(info) = self.slots.get_mut(slot) {
            info.add(&pod);
        }
        self.pods.insert(pod.uid.clone(), (slot, pod.clone()));
        pod
    }

    pub(super) fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let (slot, pod) = self.pods.remove(uid)?;
        self.kinds.remove(&pod.kind, slot, pod.ending);
        if let Some(info) = self.slots.get_mut(slot) {
            info.remove(&pod);
        }
        self.tidy(slot);
        Some(pod)
    }

    /// Remembers for which node room is being made for a pod, or that there is none.
    pub(super) fn nominate(&mut self, pod: &Arc<PodInfo>, node: Option<&str>) {
        self.nominated.retain(|_, pods| {
            pods.retain(|other| other.uid != pod.uid);
            !pods.is_empty()
        });
        if let Some(node) = node {
            self.nominated.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }

    /// The pods that wait for room on a node.
    pub(super) fn nominated(&self, node: &str) -> &[Arc<PodInfo>] {
        self.nominated.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// The node for which a pod is nominated.
    pub(super) fn nomination(&self, uid: &str) -> Option<&str> {
        let mut all = self.nominated.iter();
        let (node, _) = all.find(|(_, pods)| pods.iter().any(|pod| pod.uid == uid))?;
        Some(node)
    }
}

#[cfg(test)]
mod tests;
