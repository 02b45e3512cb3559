//! The informers that all controllers share: of each kind one, from when it is asked for first.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use mainstay_client::{Calls, Collection, Object, Partial, follow};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::informer::{Informer, Subscription};
use crate::keep::keep;
use crate::outage::Outage;
use crate::pods::Pod;

/// How long one watch lasts. Source: `minWatchTimeout` of client-go's reflector.
const WATCH: Duration = Duration::from_secs(300);

/// A kind whose objects have metadata like all.
pub(crate) trait Kind:
    Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + Send + Sync + 'static
{
}

impl<K: Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + Send + Sync + 'static> Kind for K {}

/// All informers. They end with it.
pub(crate) struct Informers {
    /// Reads everything.
    calls: Calls,
    outage: Arc<Outage>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// By type and query.
    of_types: HashMap<(TypeId, String), Arc<dyn Any + Send + Sync>>,
    of_paths: HashMap<String, Arc<Informer<Partial>>>,
    tasks: JoinSet<()>,
}

/// The metadata of one kind's objects, of whatever informer has them.
pub(crate) trait MetadataOf: Send + Sync {
    /// Tells of what is there, and of every change, how the metadata were and how they are.
    fn on_metadata(&self, handler: Box<MetadataHandler>) -> Subscription;

    /// Waits until all objects that were there have been heard of.
    fn complete(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

pub(crate) type MetadataHandler = dyn Fn(Option<&ObjectMeta>, Option<&ObjectMeta>) + Send + Sync;

impl<K: Object + Send + Sync + 'static> MetadataOf for Informer<K> {
    fn on_metadata(&self, handler: Box<MetadataHandler>) -> Subscription {
        self.on_change(move |change| {
            handler(change.old.map(|it| it.meta()), change.new.map(|it| it.meta()));
        })
    }

    fn complete(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(Self::complete(self))
    }
}

impl Informers {
    pub(crate) fn new(calls: Calls) -> Self {
        Self { calls, outage: Arc::default(), running: Mutex::default() }
    }

    /// The informer of a kind.
    pub(crate) fn of<K: Kind>(&self) -> Arc<Informer<K>> {
        self.picked(String::new())
    }

    /// An informer of those objects of a kind that have this name, in all namespaces.
    pub(crate) fn named<K: Kind>(&self, name: &str) -> Arc<Informer<K>> {
        self.picked(format!("fieldSelector=metadata.name%3D{name}"))
    }

    /// An informer of the Secrets of a type, in all namespaces.
    pub(crate) fn secrets(&self, kind: &str) -> Arc<Informer<Secret>> {
        self.picked(format!("fieldSelector=type%3D{kind}"))
    }

    fn picked<K: Kind>(&self, query: String) -> Arc<Informer<K>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (TypeId::of::<K>(), query.clone());
        let known = running.of_types.get(&key).cloned();
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return known;
        }
        let informer: Arc<Informer<K>> = Arc::new(Informer::new(self.outage.clone()));
        running.of_types.insert(key, informer.clone());
        let path = collection_path::<K>();
        self.start(
            &mut running,
            &informer,
            Collection { path, query, metadata_only: false, lasting: WATCH },
        );
        informer
    }

    /// An informer of the metadata of what is at a path, such as `/apis/apps/v1/replicasets`.
    ///
    /// Kinds that controllers read as a whole are not followed twice: they stand in this table.
    pub(crate) fn metadata(&self, path: &str) -> Arc<dyn MetadataOf> {
        type Whole = (fn() -> String, fn(&Informers) -> Arc<dyn MetadataOf>);
        fn whole<K: Kind>() -> Whole {
            (collection_path::<K>, |informers| informers.of::<K>())
        }
        let whole = [
            whole::<CertificateSigningRequest>(),
            whole::<ControllerRevision>(),
            whole::<DaemonSet>(),
            whole::<Deployment>(),
            whole::<Lease>(),
            whole::<Namespace>(),
            whole::<Node>(),
            whole::<Pod>(),
            whole::<PodDisruptionBudget>(),
            whole::<ReplicaSet>(),
            whole::<Service>(),
            whole::<ServiceAccount>(),
        ];
        if let Some((_, informer)) = whole.iter().find(|(of, _)| of() == path) {
            return informer(self);
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = running.of_paths.get(path) {
            return known.clone();
        }
        let informer = Arc::new(Informer::new(self.outage.clone()));
        running.of_paths.insert(path.to_owned(), informer.clone());
        let (path, query) = (path.to_owned(), String::new());
        self.start(
            &mut running,
            &informer,
            Collection { path, query, metadata_only: true, lasting: WATCH },
        );
        informer
    }

    fn start<K>(&self, running: &mut Running, informer: &Arc<Informer<K>>, collection: Collection)
    where
        K: Object + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        let (calls, informer) = (self.calls.clone(), informer.clone());
        let name = collection.path.clone();
        running.tasks.spawn(keep(name, move || {
            let (calls, collection, informer) =
                (calls.clone(), collection.clone(), informer.clone());
            async move { follow(&calls, &collection, &*informer).await }
        }));
    }
}

/// Where all objects of a kind are.
fn collection_path<K: Resource>() -> String {
    format!("{}/{}", version_path(K::API_VERSION), K::URL_PATH_SEGMENT)
}

/// Where an object of a kind is.
pub(crate) fn path<K: Resource>(namespace: &str, name: &str) -> String {
    object_path(K::API_VERSION, K::URL_PATH_SEGMENT, namespace, name)
}

/// Where an object is, or where it is made if it has no name.
pub(crate) fn object_path(version: &str, plural: &str, namespace: &str, name: &str) -> String {
    let mut path = version_path(version);
    for part in [if namespace.is_empty() { "" } else { "namespaces" }, namespace, plural, name] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    path
}

/// Where a version of a group is, such as `/api/v1` and `/apis/apps/v1`.
pub(crate) fn version_path(version: &str) -> String {
    let root = if version.contains('/') { "apis" } else { "api" };
    format!("/{root}/{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_as_the_api_has_them() {
        assert_eq!(collection_path::<Pod>(), "/api/v1/pods");
        assert_eq!(collection_path::<ReplicaSet>(), "/apis/apps/v1/replicasets");
        assert_eq!(path::<Pod>("a", "b"), "/api/v1/namespaces/a/pods/b");
        assert_eq!(path::<Node>("", "n"), "/api/v1/nodes/n");
        assert_eq!(path::<DaemonSet>("a", ""), "/apis/apps/v1/namespaces/a/daemonsets");
    }
}
