//! The pods that an API has for this node, as far as is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_plan::mirror::Held;
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
    /// The version up to which everything was heard.
    heard: Option<u64>,
    /// The UIDs of pods that are gone and may still be heard of.
    gone: BTreeSet<String>,
}

/// One pod.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) uid: String,
    /// The resource version; `None` where it is not a number.
    pub(crate) version: Option<u64>,
    /// The pod, as far as it matters.
    pub(crate) held: Held,
}

// === impl Entry ===

impl Entry {
    fn of(mut pod: KubernetesPod) -> (FullName, Self) {
        pod.metadata.managed_fields = None;
        let metadata = &pod.metadata;
        let (name, uid) = identity(metadata);
        let version = version_of(metadata);
        (name, Self { uid, version, held: Held::of(pod) })
    }

    /// The pod, if it is no mirror.
    pub(crate) fn own(&self) -> Option<&Arc<KubernetesPod>> {
        match &self.held {
            Held::Foreign(pod) => Some(pod),
            Held::Mirror(_) => None,
        }
    }

    fn is_mirror(&self) -> bool {
        self.own().is_none()
    }
}

/// The name and the UID.
fn identity(metadata: &ObjectMeta) -> (FullName, String) {
    let name = metadata.name.clone().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    (FullName { name, namespace }, metadata.uid.clone().unwrap_or_default())
}

fn version_of(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_ref()?.parse().ok()
}

/// Whether one version is known to be before another.
fn is_before(one: Option<u64>, other: Option<u64>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one < other)
}

impl Pods {
    fn take_in(&mut self, name: FullName, entry: Entry) {
        let known = self.by_name.get(&name);
        let newer = known.is_some_and(|known| is_before(entry.version, known.version));
        if !newer && !self.gone.contains(&entry.uid) {
            self.by_name.insert(name, Arc::new(entry));
        }
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

    /// The UID of the mirror of this name, if there is one.
    pub(crate) fn mirror(&self, name: &FullName) -> Option<String> {
        let pods = self.lock();
        let entry = pods.by_name.get(name).filter(|entry| entry.is_mirror())?;
        Some(entry.uid.clone())
    }

    /// How many mirrors there are; `None` until they have been listed once.
    pub(crate) fn mirrors(&self) -> Option<usize> {
        let pods = self.lock();
        let mirrors = || pods.by_name.values().filter(|entry| entry.is_mirror());
        pods.complete.then(|| mirrors().count())
    }

    pub(super) fn set_reachable(&self, reachable: bool) {
        self.reachable.send_if_modified(|known| std::mem::replace(known, reachable) != reachable);
    }

    /// Takes in a pod as an answer has it, unless something newer is known. An answer that comes
    /// after what was heard says nothing new: its pod may be gone since.
    pub(crate) fn put(&self, pod: KubernetesPod) {
        let (name, entry) = Entry::of(pod);
        let mut pods = self.lock();
        if entry.version.is_some_and(|version| pods.heard >= Some(version)) {
            return;
        }
        pods.take_in(name, entry);
        drop(pods);
        self.tell();
    }

    /// Takes in a pod as it was heard to be.
    pub(super) fn heard(&self, pod: KubernetesPod) {
        let (name, entry) = Entry::of(pod);
        let mut pods = self.lock();
        pods.heard = entry.version.max(pods.heard);
        pods.take_in(name, entry);
        drop(pods);
        self.tell();
    }

    /// A pod was deleted by us, which will be heard of.
    pub(crate) fn removed(&self, name: &FullName, uid: &str) {
        let mut pods = self.lock();
        // Of one that is not known any more everything was heard.
        if pods.by_name.get(name).is_some_and(|known| known.uid == uid) {
            pods.by_name.remove(name);
            pods.gone.insert(uid.to_owned());
        }
        drop(pods);
        self.tell();
    }

    /// A pod was heard to be deleted.
    pub(super) fn deleted(&self, pod: &KubernetesPod) {
        let (name, uid) = identity(&pod.metadata);
        let mut pods = self.lock();
        pods.heard = version_of(&pod.metadata).max(pods.heard);
        pods.gone.remove(&uid);
        if pods.by_name.get(&name).is_some_and(|known| known.uid == uid) {
            pods.by_name.remove(&name);
        }
        drop(pods);
        self.tell();
    }

    /// Takes in all pods as of one version. What is known to be newer stays.
    pub(super) fn replace(&self, listed: Vec<KubernetesPod>, version: Option<u64>) {
        let mut pods = self.lock();
        let gone = std::mem::take(&mut pods.gone);
        let entries = listed.into_iter().map(Entry::of);
        let mut by_name: BTreeMap<FullName, Arc<Entry>> = entries
            .filter(|(_, entry)| !gone.contains(&entry.uid))
            .map(|(name, entry)| (name, Arc::new(entry)))
            .collect();
        for (name, known) in &pods.by_name {
            let same =
                by_name.get(name).filter(|it| it.uid == known.uid && it.version == known.version);
            if is_before(version, known.version) || same.is_some() {
                by_name.insert(name.clone(), known.clone());
            }
        }
        pods.by_name = by_name;
        pods.complete = true;
        pods.heard = version;
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
    use mainstay_plan::mirror::CONFIG_MIRROR_ANNOTATION;
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
        pods.deleted(&pod("1", 6));
        assert_eq!(known(&pods), Some(("2".into(), Some(7))));
        pods.replace(Vec::new(), Some(8));
        assert_eq!(known(&pods), None);
    }

    #[test]
    fn what_is_gone_is_remembered_until_it_is_heard_of() {
        let name = FullName { name: "a".into(), namespace: "b".into() };
        let pods = ApiPods::new();
        let gone = || pods.lock().gone.len();
        pods.replace(Vec::new(), Some(3));
        pods.put(pod("1", 4));
        pods.removed(&name, "1");
        assert_eq!(gone(), 1);
        pods.deleted(&pod("1", 5));
        assert_eq!(gone(), 0);
        // The answer to the deletion comes after what is heard of it.
        pods.put(pod("2", 6));
        pods.deleted(&pod("2", 7));
        pods.removed(&name, "2");
        assert_eq!(gone(), 0);
        // Another one has its name.
        pods.put(pod("3", 8));
        pods.removed(&name, "2");
        assert_eq!((gone(), known(&pods)), (0, Some(("3".into(), Some(8)))));
    }

    #[test]
    fn an_answer_that_comes_late_brings_nothing_back() {
        let pods = ApiPods::new();
        pods.replace(vec![pod("1", 3)], Some(3));
        pods.heard(pod("1", 5));
        pods.deleted(&pod("1", 6));
        pods.put(pod("1", 5));
        assert_eq!(known(&pods), None);
        pods.put(pod("2", 7));
        assert_eq!(known(&pods), Some(("2".into(), Some(7))));
    }

    #[test]
    fn mirrors_are_counted_and_told_apart() {
        let name = FullName { name: "a".into(), namespace: "b".into() };
        let pods = ApiPods::new();
        assert_eq!(pods.mirrors(), None);
        pods.replace(vec![pod("1", 4)], Some(4));
        assert_eq!((pods.mirrors(), pods.mirror(&name)), (Some(0), None));
        let mut mirror = pod("2", 5);
        let annotation = (CONFIG_MIRROR_ANNOTATION.to_owned(), "x".to_owned());
        mirror.metadata.annotations = Some([annotation].into());
        pods.put(mirror);
        assert_eq!((pods.mirrors(), pods.mirror(&name)), (Some(1), Some("2".into())));
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
