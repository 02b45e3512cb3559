//! Making and deleting the pods of an object.
//!
//! Source: `RealPodControl` and `slowStartBatch` in `pkg/controller`.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use mainstay_client::{CallError, Deletion, Object, Partial};

use crate::context::Context;
use crate::events::EventType;
use crate::informer::ObjectKey;
use crate::informers::{Kind, path};
use crate::pods::Pod;
use crate::written::Written;

/// How many pods are made or deleted in one go. Source: `BurstReplicas`.
pub(crate) const BURST: usize = 500;

/// How many requests are under way for one object.
const REQUESTS: usize = 64;

/// Makes and deletes pods for an object, and tells that of it.
pub(crate) struct PodControl<'a, K> {
    pub(crate) context: &'a Context,
    /// Where the versions of what is written are noted.
    pub(crate) written: &'a Written,
    pub(crate) owner: &'a K,
}

impl<K: Kind> PodControl<'_, K> {
    /// Makes so many pods: one, then two, then four, as long as all goes well.
    pub(crate) async fn create(
        &self,
        count: usize,
        pod: impl Fn(usize) -> KubernetesPod,
    ) -> Result<(), CallError> {
        let (mut made, mut batch) = (0, 1);
        while made < count {
            let size = batch.min(count - made);
            let numbers = made..made + size;
            let results = stream::iter(numbers).map(|number| self.create_one(pod(number)));
            let results: Vec<_> = results.buffer_unordered(REQUESTS).collect().await;
            results.into_iter().collect::<Result<(), CallError>>()?;
            made += size;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, pod: KubernetesPod) -> Result<(), CallError> {
        let key = ObjectKey::of(self.owner.meta());
        match self.context.calls.post::<Partial, _>(&path::<Pod>(&key.namespace, ""), &pod).await {
            Ok(made) => {
                self.written.note(&key, &made.metadata);
                let name = made.metadata.name.unwrap_or_default();
                self.tell(EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            // Whatever is made there would be refused.
            Err(error) if error.is_of_ending_namespace() => Ok(()),
            Err(error) => {
                let message = format!("Error creating: {}", error.answer);
                self.tell(EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    /// Deletes pods.
    pub(crate) async fn delete(&self, pods: Vec<Arc<Pod>>) -> Result<(), CallError> {
        let results = stream::iter(pods).map(|pod| self.delete_one(pod));
        let results: Vec<_> = results.buffer_unordered(REQUESTS).collect().await;
        results.into_iter().collect()
    }

    async fn delete_one(&self, pod: Arc<Pod>) -> Result<(), CallError> {
        let key = ObjectKey::of(&pod.metadata);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let (path, deletion) = (path::<Pod>(&key.namespace, &key.name), Deletion::of(uid));
        match self.context.calls.delete(&path, deletion).await {
            Ok(answer) => {
                if let Ok(answer) = serde_json::from_value::<Partial>(answer) {
                    self.written.note(&ObjectKey::of(self.owner.meta()), &answer.metadata);
                }
                let message = format!("Deleted pod: {}", key.name);
                self.tell(EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            // It is gone, and that is heard of.
            Err(error) if error.is_of_another() => Ok(()),
            Err(error) => {
                let message = format!("Error deleting: {}", error.answer);
                self.tell(EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    fn tell(&self, kind: EventType, reason: &str, message: String) {
        self.context.events.tell(self.owner, kind, reason, message);
    }
}
