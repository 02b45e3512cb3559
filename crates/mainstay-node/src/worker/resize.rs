//! Letting a pod that runs have what it is allocated.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use mainstay_cri::PodSandboxFilter;
use mainstay_plan::labels;
use mainstay_plan::pod::{Key, RunGoal, SeenPod};
use mainstay_plan::resize::{self, Requirements, Resize, Resizing, Step};
use mainstay_plan::translate;

use super::Worker;
use super::perform::{Done, PerformError, Performer, Retry, blocking, container};
use crate::publish::{EventKind, about};
use crate::sources::merge::key_of;
use crate::volumes;

impl Worker {
    /// Takes in what is in force of a pod, and tells when that is all that it is allocated.
    pub(super) fn take_in_resize(&mut self, run: &RunGoal, seen: &SeenPod) {
        let resizing = self.performer.resizing(run);
        let since = |it: &Option<Arc<Resizing>>| it.as_ref().map(|it| (it.generation, it.since));
        if since(&self.memory.resizing) != since(&resizing) && !has_failed(resizing.as_deref()) {
            // What failed of an earlier allocation says nothing of this one.
            self.memory.failures.remove(&Key::Resize);
        }
        self.memory.resizing = resizing;
        let Some(resizing) = &self.memory.resizing else { return };
        // What is under way may be of an earlier allocation, and is noted when it is done.
        let moving = |key: &Key| matches!(key, Key::Resize | Key::Container(_) | Key::Host(_));
        if self.memory.in_flight.iter().any(moving) || !resizing.is_over(&run.pod, seen) {
            return;
        }
        let message = resize::message("completed", &run.pod, resizing.generation, None);
        self.performer.tell_resize(run, EventKind::Normal, "ResizeCompleted", message);
        self.performer.amend(run, |record| record.resizing = None);
        self.memory.resizing = None;
    }
}

impl Performer {
    /// What is in force of a goal's pod, if its allocation has changed.
    pub(super) fn resizing(&self, run: &RunGoal) -> Option<Arc<Resizing>> {
        self.with_record(&key_of(&run.pod), |record| {
            (record.pod.uid() == run.pod.uid()).then(|| record.resizing.clone()).flatten()
        })?
    }

    /// Notes what is in force of a goal's pod now, if its allocation has changed. Whether it has.
    pub(super) fn note_resizing(&self, run: &RunGoal, change: impl FnOnce(&mut Resizing)) -> bool {
        let mut is_noted = false;
        self.amend(run, |record| {
            if let Some(resizing) = &mut record.resizing {
                change(Arc::make_mut(resizing));
                is_noted = true;
            }
        });
        is_noted
    }

    /// Notes what a container is made with, before it is.
    pub(super) async fn note_container(&self, run: &RunGoal, name: &str) {
        let Some(container) = container(run, name) else { return };
        if self.resizing(run).is_none() {
            return;
        }
        let has = Requirements::of_container(&run.pod, container);
        let is_noted = self.note_resizing(run, |resizing| {
            if let Some(known) = resizing.containers.get_mut(name) {
                *known = has;
            }
        });
        if is_noted && let Err(error) = self.ledger.flush().await {
            // The agent is ending; the next one gives it to the container once more.
            tracing::debug!(%error, "it is not known what a container is made with");
        }
    }

    /// Notes that the last attempt to resize a pod has failed, and tells of it if that is news.
    pub(super) fn note_resize_error(&self, run: &RunGoal, error: &str) {
        let mut news = None;
        self.note_resizing(run, |resizing| {
            if resizing.fail(error.to_owned(), Timestamp::now()) {
                news = Some(resizing.generation);
            }
        });
        if let Some(generation) = news {
            let message = resize::message("error", &run.pod, generation, Some(error));
            self.tell_resize(run, EventKind::Warning, "ResizeError", message);
        }
    }

    fn tell_resize(&self, run: &RunGoal, kind: EventKind, reason: &'static str, message: String) {
        self.events.announce(&key_of(&run.pod), about(&run.pod, None), kind, reason, message);
    }

    /// Changes the control groups of a pod and of its containers, one after the other.
    pub(super) async fn resize(
        self: &Arc<Self>,
        run: &RunGoal,
        resize: &Resize,
    ) -> Result<Done, PerformError> {
        if resize.shrinks() {
            self.check_usage(run, resize).await?;
        }
        for step in resize.steps() {
            match step {
                Step::Pod(part) => {
                    let (performer, pod, to) = (self.clone(), run.pod.clone(), resize.to);
                    let changed = blocking(move || {
                        let Performer { facts, hierarchies, .. } = &*performer;
                        volumes::resize(&pod, facts, hierarchies, part, &to)
                    });
                    changed.await.map_err(|error| refused(error.message))?;
                }
                Step::Container(update, has) => {
                    let Some(container) = container(run, &update.container) else { continue };
                    let resources = translate::given(&has, &run.pod, container, &self.facts);
                    let updated = self.runtime.update_container_resources(&update.id, &resources);
                    updated.await.map_err(|error| refused(error.chain()))?;
                    self.note_resizing(run, |resizing| {
                        resizing.containers.insert(update.container.clone(), has);
                    });
                }
            }
        }
        // Containers are kept no more than their pod is.
        let (performer, pod) = (self.clone(), run.pod.clone());
        let kept =
            blocking(move || volumes::keep_memory(&pod, &performer.facts, &performer.hierarchies));
        kept.await.map_err(|error| refused(error.message))?;
        self.note_resizing(run, |resizing| resizing.pod = resize.to);
        Ok(Done::AsAsked)
    }

    /// Nothing is to have less memory than it uses.
    async fn check_usage(&self, run: &RunGoal, resize: &Resize) -> Result<(), PerformError> {
        let pod = &run.pod;
        let labels = BTreeMap::from([(labels::POD_UID.to_owned(), pod.uid().to_owned())]);
        let stats = self.runtime.list_pod_sandbox_stats(&PodSandboxFilter { labels }).await;
        let stats = stats.map_err(|error| {
            tracing::debug!(pod = pod.name(), error = error.chain(), "cannot tell its memory");
            refused(format!("unable to read memory usage for pod \"{}\"", pod.long_name()))
        })?;
        let usage = stats.first().and_then(|it| it.memory).map(|memory| memory.usage_bytes);
        let containers = stats.iter().flat_map(|it| &it.containers);
        let containers = containers
            .map(|it| (it.metadata.name.clone(), it.memory.map(|memory| memory.usage_bytes)));
        resize.check(usage, &containers.collect()).map_err(refused)
    }
}

fn has_failed(resizing: Option<&Resizing>) -> bool {
    resizing.is_some_and(|resizing| resizing.error.is_some())
}

fn refused(message: String) -> PerformError {
    PerformError { reason: "ResizeError", message, retry: Retry::Backoff }
}
