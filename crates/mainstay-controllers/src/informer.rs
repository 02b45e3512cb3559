//! The objects of one kind, as far as they have been heard of, and who is told of their changes.
//!
//! # Guarantees
//!
//! - Whoever asks to be told is told of what is there first, as new, and then of every change, in
//!   order; the store is as new as what is told.
//! - Of states that follow each other fast some may be left out; of ends none is.
//!
//! Objects are shared and have no `managedFields` and no `last-applied-configuration`, pods have nothing else
//! either that no controller reads ([`crate::pods::Pod`]), and what is followed for its metadata only has neither
//! labels nor annotations: they are for reading and are not to be written back as a whole.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_client::{CallError, Object, Partial, Sink};
use tokio::sync::watch;

use crate::outage::{Away, Outage};
use crate::queue::Queue;

/// What kubectl remembers on objects; half of their size, often.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Which object of a kind. Ordered by namespace, which is empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A change of an object: it is new without `old`, and gone without `new`.
pub(crate) struct Change<'a, K> {
    pub(crate) old: Option<&'a Arc<K>>,
    pub(crate) new: Option<&'a Arc<K>>,
}

/// One kind's objects.
pub(crate) struct Informer<K> {
    objects: RwLock<Objects<K>>,
    /// Held while they are told, so that everybody is told the same in the same order.
    handlers: Mutex<Handlers<K>>,
    complete: watch::Sender<bool>,
    /// The resource version up to which everything is in `objects`.
    reached: AtomicU64,
    away: Away,
    outage: Arc<Outage>,
}

struct Objects<K> {
    by_key: BTreeMap<ObjectKey, Arc<K>>,
    /// By the UID of their controller, which is empty for those that have none.
    by_controller: BTreeMap<String, BTreeSet<ObjectKey>>,
}

type Handler<K> = dyn Fn(&Change<'_, K>) + Send + Sync;

struct Handlers<K>(Vec<Weak<Handler<K>>>);

/// Somebody is told of changes for as long as this is there.
#[must_use]
pub(crate) struct Subscription(#[expect(dead_code, reason = "kept, not looked at")] Arc<dyn Keep>);

/// Anything that can be kept.
trait Keep: Send + Sync {}

impl<T: Send + Sync> Keep for T {}

// === impl ObjectKey ===

impl ObjectKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

// === impl Change ===

impl<K> Change<'_, K> {
    /// As it is, or was before it went.
    pub(crate) fn latest(&self) -> Option<&K> {
        self.new.or(self.old).map(|object| &**object)
    }

    /// As it was, and as it is.
    pub(crate) fn both(&self) -> impl Iterator<Item = &K> {
        self.old.into_iter().chain(self.new).map(|object| &**object)
    }
}

// === impl Informer ===

impl<K: Object + Send + Sync + 'static> Informer<K> {
    pub(crate) fn new(outage: Arc<Outage>) -> Self {
        let objects = Objects { by_key: BTreeMap::new(), by_controller: BTreeMap::new() };
        Self {
            objects: RwLock::new(objects),
            handlers: Mutex::new(Handlers(Vec::new())),
            complete: watch::Sender::new(false),
            reached: AtomicU64::new(0),
            away: Away::default(),
            outage,
        }
    }

    /// Waits until all objects that were there have been heard of.
    pub(crate) async fn complete(&self) {
        // The sender is ours.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// The resource version up to which everything has been heard of. Versions are numbers that go up,
    /// across all objects of a kind: `staging/src/k8s.io/client-go/util/consistency`.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Tells of every object and of every change. What is called may not take long, and asks no
    /// informer to be told of anything.
    pub(crate) fn on_change(
        &self,
        handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static,
    ) -> Subscription {
        let handler: Arc<Handler<K>> = Arc::new(handler);
        let mut handlers = self.handlers();
        for object in self.all() {
            handler(&Change { old: None, new: Some(&object) });
        }
        handlers.0.push(Arc::downgrade(&handler));
        Subscription(Arc::new(handler))
    }

    /// Puts the keys into a queue that a change is about.
    pub(crate) fn feed<Q, I>(
        &self,
        queue: &Arc<Queue<Q>>,
        keys: impl Fn(&Change<'_, K>) -> I + Send + Sync + 'static,
    ) -> Subscription
    where
        Q: Ord + Clone + Send + 'static,
        I: IntoIterator<Item = Q>,
    {
        let queue = queue.clone();
        self.on_change(move |change| keys(change).into_iter().for_each(|key| queue.add(key)))
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects().by_key.get(key).cloned()
    }

    /// All objects, by namespace and name.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.objects().by_key.values().cloned().collect()
    }

    /// The objects of a namespace, by name.
    pub(crate) fn of_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.objects();
        let from = ObjectKey::new(namespace, "");
        let range = objects.by_key.range(from..);
        let range = range.take_while(|(key, _)| key.namespace == namespace);
        range.map(|(_, object)| object.clone()).collect()
    }

    /// The objects of a namespace that nothing controls.
    pub(crate) fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.objects();
        let from = ObjectKey::new(namespace, "");
        let keys =
            objects.by_controller.get("").into_iter().flat_map(|keys| keys.range(from.clone()..));
        let keys = keys.take_while(|key| key.namespace == namespace);
        keys.filter_map(|key| objects.by_key.get(key).cloned()).collect()
    }

    /// The objects whose controller has this UID.
    pub(crate) fn of_controller(&self, uid: &str) -> Vec<Arc<K>> {
        let objects = self.objects();
        let keys = objects.by_controller.get(uid).into_iter().flatten();
        keys.filter_map(|key| objects.by_key.get(key).cloned()).collect()
    }

    fn objects(&self) -> RwLockReadGuard<'_, Objects<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn handlers(&self) -> MutexGuard<'_, Handlers<K>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts objects in, or takes them out, as of a version, and tells that. All are there before the
    /// first is told.
    fn set(&self, changes: Vec<(ObjectKey, Option<K>)>, version: Option<u64>) {
        let mut handlers = self.handlers();
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Vec::new();
        for (key, new) in changes {
            let new = new.map(Arc::new);
            let old = objects.set(key, new.clone());
            let version = |object: &Arc<K>| object.meta().resource_version.clone();
            if old.as_ref().map(version) != new.as_ref().map(version) {
                changed.push((old, new));
            }
        }
        drop(objects);
        self.reached.fetch_max(version.unwrap_or(0), Ordering::Release);
        for (old, new) in changed {
            handlers.tell(old.as_ref(), new.as_ref());
        }
    }
}

impl<K: Object> Objects<K> {
    /// Answers what was there.
    fn set(&mut self, key: ObjectKey, new: Option<Arc<K>>) -> Option<Arc<K>> {
        let old = self.by_key.remove(&key);
        if let Some(old) = &old {
            let uid = controller_uid(old.meta());
            if let Some(keys) = self.by_controller.get_mut(uid) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_controller.remove(uid);
                }
            }
        }
        if let Some(new) = new {
            let uid = controller_uid(new.meta());
            match self.by_controller.get_mut(uid) {
                Some(keys) => drop(keys.insert(key.clone())),
                None => {
                    self.by_controller.insert(uid.to_owned(), BTreeSet::from([key.clone()]));
                }
            }
            self.by_key.insert(key, new);
        }
        old
    }
}

fn controller_uid(meta: &ObjectMeta) -> &str {
    crate::owner::controller(meta).map_or("", |owner| owner.uid.as_str())
}

impl<K: Object> Handlers<K> {
    fn tell(&mut self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        // One of the same name that is another one: both its end and its beginning are told.
        if let (Some(before), Some(after)) = (old, new)
            && before.meta().uid != after.meta().uid
        {
            self.tell(old, None);
            return self.tell(None, new);
        }
        self.0.retain(|handler| {
            let handler = handler.upgrade();
            if let Some(handler) = &handler {
                handler(&Change { old, new });
            }
            handler.is_some()
        });
    }
}

/// The resource version, if it is a number.
pub(crate) fn version_of(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_ref()?.parse().ok()
}

/// An object as it is kept: without what nobody reads, and without the room that reading leaves in lists.
fn kept<K: Object + Clone + 'static>(mut object: K) -> K {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
    let whole: &mut dyn Any = &mut object;
    if let Some(Partial { metadata }) = whole.downcast_mut() {
        // Garbage collection goes by who owns what.
        (metadata.labels, metadata.annotations) = (None, None);
    }
    object.clone()
}

impl<K: Object + Clone + Send + Sync + 'static> Sink<K> for Informer<K> {
    fn replace(&self, listed: Vec<K>, version: &str) {
        let mut gone: BTreeSet<ObjectKey> = self.objects().by_key.keys().cloned().collect();
        let mut changes = Vec::with_capacity(listed.len());
        for object in listed {
            let key = ObjectKey::of(object.meta());
            gone.remove(&key);
            changes.push((key, Some(kept(object))));
        }
        changes.extend(gone.into_iter().map(|key| (key, None)));
        self.set(changes, version.parse().ok());
        self.complete.send_replace(true);
    }

    fn heard(&self, object: K) {
        let (key, version) = (ObjectKey::of(object.meta()), version_of(object.meta()));
        self.set(vec![(key, Some(kept(object)))], version);
    }

    fn deleted(&self, object: K) {
        let version = version_of(object.meta());
        self.set(vec![(ObjectKey::of(object.meta()), None)], version);
    }

    fn answered(&self, how: Result<(), &CallError>) {
        self.away.answered(how, &self.outage);
    }
}

#[cfg(test)]
mod tests;
