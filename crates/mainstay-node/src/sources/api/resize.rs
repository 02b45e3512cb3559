//! Allocating other resources to pods that run.
//!
//! Source: `retryPendingResizes` and `handlePodResourcesResize` in
//! `pkg/kubelet/allocation/allocation_manager.go`. A kubelet judges pods that wait when something has gone, or
//! takes less; here, whenever anything has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use mainstay_plan::admission::{admit, admit_under};
use mainstay_plan::resize::{self, Pending, Request};
use mainstay_pod::{FullName, Pod};

use super::{ApiSource, Decided, key_of};
use crate::publish::api::{CallError, Entry};
use crate::publish::{EventKind, about};

/// How long pods wait at most until they are judged again. Source: `retryDelay`.
pub(super) const RETRY: Duration = Duration::from_secs(180);

/// A pod as an API has it with the resources that it is allocated, and with those that it is to have if they
/// are others.
pub(super) fn allocated(pod: Pod, known: &Pod) -> (Arc<Pod>, Option<Arc<Pod>>) {
    match resize::is_same(&pod, known) {
        true => (Arc::new(pod), None),
        false => (Arc::new(pod.with_resources_of(known)), Some(Arc::new(pod))),
    }
}

impl ApiSource {
    /// Allocates to pods the resources that they are to have, as far as they fit.
    pub(super) async fn allocate(
        &self,
        all: &BTreeMap<FullName, Arc<Entry>>,
        decided: &mut BTreeMap<String, Decided>,
    ) -> Result<(), CallError> {
        for known in decided.values_mut().filter(|known| known.over) {
            (known.wanted, known.pending) = (None, None);
        }
        let mut queue: Vec<String> = {
            let waiting = decided.iter().filter_map(|(uid, it)| Some((uid, it.request()?)));
            let mut waiting: Vec<(&String, Request<'_>)> = waiting.collect();
            waiting.sort_by(|(_, one), (_, other)| one.before(other));
            waiting.into_iter().map(|(uid, _)| uid.clone()).collect()
        };
        // Whoever is to be deleted needs no more.
        let held = |uid: &str| all.values().find(|entry| entry.uid == uid)?.own();
        queue.retain(|uid| held(uid).is_some_and(|it| it.metadata.deletion_timestamp.is_none()));
        if queue.is_empty() {
            return Ok(());
        }
        let node: Node = self.calls.get(&format!("/api/v1/nodes/{}", self.node_name)).await?;
        for uid in queue {
            let Some(wanted) = decided.get(&uid).and_then(|it| it.wanted.clone()) else { continue };
            let key = key_of(&wanted);
            let others = self.others(decided);
            let others = others.iter().filter(|(other, _)| **other != key).map(|(_, pod)| &**pod);
            let fits = admit_under(*self.pressure.borrow(), &wanted)
                .and_then(|()| admit(&wanted, &node, &self.kernel, others));
            let Some(known) = decided.get_mut(&uid) else { continue };
            match fits {
                Ok(()) => {
                    self.tell_resize(&wanted, EventKind::Normal, "ResizeStarted", "started", None);
                    (known.wanted, known.pending) = (None, None);
                    known.pod = Ok(wanted);
                }
                Err(rejection) => {
                    if known.defer(&wanted, rejection.message.clone()) {
                        let error = Some(&*rejection.message);
                        let kind = EventKind::Warning;
                        self.tell_resize(&wanted, kind, "ResizeDeferred", "Deferred", error);
                    }
                }
            }
        }
        Ok(())
    }

    fn tell_resize(
        &self,
        pod: &Pod,
        kind: EventKind,
        reason: &'static str,
        what: &str,
        error: Option<&str>,
    ) {
        let generation = pod.metadata().generation.unwrap_or(0);
        let message = resize::message(what, pod, generation, error);
        self.events.announce(&key_of(pod), about(pod, None), kind, reason, message);
    }
}

impl Decided {
    fn request(&self) -> Option<Request<'_>> {
        let (allocated, wanted) = (self.pod.as_ref().ok()?, self.wanted.as_ref()?);
        Some(Request { allocated, wanted, since: self.pending.as_ref().map(|it| it.since) })
    }

    /// Lets a pod wait. Whether that is news.
    fn defer(&mut self, wanted: &Pod, message: String) -> bool {
        let generation = wanted.metadata().generation.unwrap_or(0);
        let known = self.pending.as_ref();
        let is_news = known.is_none_or(|known| known.generation != generation);
        let since = known.map_or_else(Timestamp::now, |known| known.since);
        self.pending = Some(Arc::new(Pending { message, generation, since }));
        is_news
    }
}
