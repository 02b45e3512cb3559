//! The pods that an API has for this node, as far as is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use mainstay_plan::mirror::{CONFIG_MIRROR_ANNOTATION, Held};
use mainstay_pod::FullName;
use tokio::sync::watch;

/// Kept by [`super::follow`], and by the answers to our own requests, which come before what is
/// heard of them.
pub(crate) struct ApiPods {
    pods: Mutex<Pods>,
    changed: watch::Sender<u64>,
    /// Whether the API answers.
    reachable: watch::Sender<bool>,
}

#[derive(Default)]
struct Pods {
    /// Whether all of them are known.
    complete: bool,
    by_name: BTreeMap<FullName, Arc<Entry>>,
    /// The UIDs of pods that are gone and may still be heard of.
    gone: BTreeSet<String>,
}

/// One pod.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) uid: String,
    /// The resource version; `None` where it is not a number.
    pub(crate) version: Option<u64>,
    /// What a static pod of this name has to know of it.
    pub(crate) held: Held,
    /// The pod itself, if it is no mirror.
    pub(crate) pod: Option<Arc<KubernetesPod>>,
}

// === impl Entry ===

impl Entry {
    fn of(mut pod: KubernetesPod) -> (FullName, Self) {
        pod.metadata.managed_fields = None;
        let metadata = &pod.metadata;
        let name = FullName {
            name: metadata.name.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
        };
        let uid = metadata.uid.clone().unwrap_or_default();
        let version = metadata.resource_version.as_ref().and_then(|version| version.parse().ok());
        let is_mirror = metadata
            .annotations
            .as_ref()
            .is_some_and(|it| it.contains_key(CONFIG_MIRROR_ANNOTATION));
        let own = (!is_mirror).then(|| Arc::new(pod.clone()));
        (name, Self { uid, version, held: Held::of(pod), pod: own })
    }
}

// === impl ApiPods ===

impl ApiPods {
    pub(crate) fn new() -> Self {
        Self {
            pods: Mutex::default(),
            changed: watch::Sender::new(0),
            reachable: watch::Sender::new(false),
        }
    }

    /// Changes with every change of a pod.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether the API answers.
    pub(crate) fn reachable(&self) -> watch::Receiver<bool> {
        self.reachable.subscribe()
    }

    /// All pods; `None` until they have been listed once.
    pub(crate) fn all(&self) -> Option<BTreeMap<FullName, Arc<Entry>>> {
        let pods = self.lock();
        pods.complete.then(|| pods.by_name.clone())
    }

    pub(super) fn set_reachable(&self, reachable: bool) {
        self.reachable.send_if_modified(|known| std::mem::replace(known, reachable) != reachable);
    }

    /// Takes in a pod as it is, unless something newer is known.
    pub(crate) fn put(&self, pod: KubernetesPod) {
        let (name, entry) = Entry::of(pod);
        let mut pods = self.lock();
        let newer = |known: &Arc<Entry>| match (known.version, entry.version) {
            (Some(known), Some(version)) => version < known,
            _ => false,
        };
        if pods.gone.contains(&entry.uid) || pods.by_name.get(&name).is_some_and(newer) {
            return;
        }
        pods.by_name.insert(name, Arc::new(entry));
        drop(pods);
        self.tell();
    }

    /// A pod was deleted by us, which will be heard of.
    pub(crate) fn removed(&self, name: &FullName, uid: &str) {
        let mut pods = self.lock();
        pods.gone.insert(uid.to_owned());
        if pods.by_name.get(name).is_some_and(|known| known.uid == uid) {
            pods.by_name.remove(name);
        }
        drop(pods);
        self.tell();
    }

    /// A pod was heard to be deleted.
    pub(super) fn deleted(&self, pod: KubernetesPod) {
        let (name, entry) = Entry::of(pod);
        let mut pods = self.lock();
        pods.gone.remove(&entry.uid);
        if pods.by_name.get(&name).is_some_and(|known| known.uid == entry.uid) {
            pods.by_name.remove(&name);
        }
        drop(pods);
        self.tell();
    }

    /// Takes in all pods as of one version. What is known to be newer stays.
    pub(super) fn replace(&self, listed: Vec<KubernetesPod>, version: Option<u64>) {
        let mut pods = self.lock();
        let newer = |known: &Entry| match (known.version, version) {
            (Some(known), Some(version)) => known > version,
            _ => false,
        };
        let gone = std::mem::take(&mut pods.gone);
        let entries = listed.into_iter().map(Entry::of);
        let mut by_name: BTreeMap<FullName, Arc<Entry>> = entries
            .filter(|(_, entry)| !gone.contains(&entry.uid))
            .map(|(name, entry)| (name, Arc::new(entry)))
            .collect();
        for (name, known) in &pods.by_name {
            let same =
                by_name.get(name).filter(|it| it.uid == known.uid && it.version == known.version);
            if newer(known) || same.is_some() {
                by_name.insert(name.clone(), known.clone());
            }
        }
        pods.by_name = by_name;
        pods.complete = true;
        drop(pods);
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, version: u64) -> KubernetesPod {
        let metadata = json!({"name": "a", "namespace": "b", "uid": uid, "resourceVersion": version.to_string()});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn known(pods: &ApiPods) -> Option<(String, Option<u64>)> {
        let all = pods.all()?;
        all.into_values().next().map(|entry| (entry.uid.clone(), entry.version))
    }

    #[test]
    fn what_is_newer_counts() {
        let name = FullName { name: "a".into(), namespace: "b".into() };
        let pods = ApiPods::new();
        pods.put(pod("1", 4));
        assert_eq!(pods.all().map(|all| all.len()), None);
        pods.replace(Vec::new(), Some(3));
        assert_eq!(known(&pods), Some(("1".into(), Some(4))));
        // Heard late.
        pods.put(pod("1", 2));
        assert_eq!(known(&pods), Some(("1".into(), Some(4))));
        pods.removed(&name, "1");
        pods.put(pod("1", 5));
        assert_eq!(known(&pods), None);
        pods.put(pod("2", 7));
        pods.deleted(pod("1", 6));
        assert_eq!(known(&pods), Some(("2".into(), Some(7))));
        pods.replace(Vec::new(), Some(8));
        assert_eq!(known(&pods), None);
    }

    #[test]
    fn what_is_listed_again_is_the_same_entry() {
        let pods = ApiPods::new();
        pods.replace(vec![pod("1", 4)], Some(4));
        let first = pods.all().unwrap().into_values().next().unwrap();
        pods.replace(vec![pod("1", 4)], Some(9));
        let second = pods.all().unwrap().into_values().next().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }
}
