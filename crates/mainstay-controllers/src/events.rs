//! What controllers tell people.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::ObjectReference;
use mainstay_client::events::{Correlator, EventQueue, Occurrence, record};
use mainstay_client::{Calls, Object};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::keep::keep;

/// Whether all is well. Source: `EventTypeNormal` and `EventTypeWarning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Normal,
    Warning,
}

/// Where one controller tells what happened. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events(Arc<EventQueue<ObjectReference>>);

impl Events {
    /// What is told is written by a task.
    pub(crate) fn begin(calls: &Calls, component: &str, tasks: &mut JoinSet<()>) -> Self {
        let queue: Arc<EventQueue<ObjectReference>> = Arc::default();
        queue.open();
        let (calls, events, component) = (calls.clone(), queue.clone(), component.to_owned());
        tasks.spawn(keep("events", move || {
            let (calls, events, component) = (calls.clone(), events.clone(), component.clone());
            async move {
                let correlator = Correlator::new(&component, None);
                // There is nobody who knows better than a request.
                let (_reachable, seen) = watch::channel(true);
                record(&calls, correlator, &events, |about| about, seen).await;
            }
        }));
        Self(queue)
    }

    /// Tells that something happened to an object.
    pub(crate) fn tell<K: Resource + Object>(
        &self,
        about: &K,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let meta = about.meta();
        let about = ObjectReference {
            api_version: Some(K::API_VERSION.to_owned()),
            kind: Some(K::KIND.to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            ..ObjectReference::default()
        };
        self.0.push(|| Occurrence {
            about,
            warning: kind == EventType::Warning,
            reason: reason.to_owned(),
            message: message.into(),
            at: Timestamp::now(),
        });
    }
}
