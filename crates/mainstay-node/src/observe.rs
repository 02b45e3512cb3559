//! What the runtime has: one picture for each pod, kept up by events, by the results of our own
//! actions, and by looking at everything now and then.
//!
//! # Flow
//!
//! Whoever learns that something changed asks for a fresh picture of the sandbox at hand
//! ([`Observer::refresh`]); [`follow`] does so for the runtime's events and, as a safety net, for
//! everything every [`RELIST`]. Each pod's picture is on a `watch` channel of its own, so that
//! only its own worker wakes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use mainstay_cri::{
    ContainerEventKind, ErrorKind, PodSandboxFilter, PodSandboxStatus, Result, Runtime, SandboxId,
};
use mainstay_plan::exclusive::Exclusive;
use mainstay_plan::labels;
use mainstay_plan::pod::{PodKey, SeenPod, SeenSandbox, SourceKind};
use mainstay_plan::termination_message::places;
use mainstay_plan::translate::NodeFacts;
use tokio::sync::watch;

use crate::volumes::termination_message;

/// How often everything is listed anew. Events and results of actions come at once; this is for
/// what they missed.
const RELIST: Duration = Duration::from_secs(30);

/// How soon a runtime is asked again that is away.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps the pictures.
pub(crate) struct Observer {
    runtime: Arc<dyn Runtime>,
    /// The runtime's name, from the first look on.
    name: OnceLock<String>,
    facts: NodeFacts,
    pods: Mutex<BTreeMap<PodKey, watch::Sender<Arc<SeenPod>>>>,
    /// Whether everything has been looked at once.
    looked: watch::Sender<bool>,
    /// Told when a pod appears that nobody has asked for yet.
    appeared: watch::Sender<u64>,
    /// Told when something may be free that pods wait for.
    freed: watch::Sender<u64>,
    /// One look after the other, so that an older one never comes in later. Whatever happens is
    /// followed by an event and a look that began after it.
    looking: tokio::sync::Mutex<()>,
}

impl Observer {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, facts: NodeFacts) -> Self {
        Self {
            runtime,
            name: OnceLock::new(),
            facts,
            pods: Mutex::default(),
            looked: watch::Sender::new(false),
            appeared: watch::Sender::new(0),
            freed: watch::Sender::new(0),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// A pod's picture, now and later. One that the runtime does not have is empty.
    pub(crate) fn subscribe(&self, key: &PodKey) -> watch::Receiver<Arc<SeenPod>> {
        let mut pods = self.lock();
        pods.entry(key.clone()).or_insert_with(|| watch::Sender::new(Arc::default())).subscribe()
    }

    /// Forgets a pod that nobody works for any more and of which the runtime has nothing.
    pub(crate) fn forget(&self, key: &PodKey) {
        let mut pods = self.lock();
        if pods.get(key).is_some_and(|pod| pod.borrow().sandboxes.is_empty() && pod.is_closed()) {
            pods.remove(key);
        }
    }

    /// Whether the runtime has something of this version of a pod.
    pub(crate) fn has(&self, key: &PodKey, uid: &str) -> bool {
        let pods = self.lock();
        let seen = pods.get(key);
        seen.is_some_and(|seen| seen.borrow().sandboxes.iter().any(|it| it.uid == uid))
    }

    /// All pods of which the runtime has something.
    pub(crate) fn keys(&self) -> BTreeSet<PodKey> {
        let pods = self.lock();
        let some = |(key, pod): (&PodKey, &watch::Sender<Arc<SeenPod>>)| {
            (!pod.borrow().sandboxes.is_empty()).then(|| key.clone())
        };
        pods.iter().filter_map(some).collect()
    }

    /// The runtime's name, such as `mainstay`; nothing before it has been looked at.
    pub(crate) fn runtime_name(&self) -> &str {
        self.name.get().map_or("", String::as_str)
    }

    /// Resolves when everything has been looked at once: until then it is not known what runs.
    pub(crate) async fn looked(&self) {
        // The sender is ours.
        let _ = self.looked.subscribe().wait_for(|looked| *looked).await;
    }

    /// Changes when a pod appears.
    pub(crate) fn appeared(&self) -> watch::Receiver<u64> {
        self.appeared.subscribe()
    }

    /// What pods have for themselves of which something may still run.
    pub(crate) fn exclusives(&self) -> Vec<(PodKey, Exclusive)> {
        let pods = self.lock();
        let mut all = Vec::new();
        for (key, pod) in &*pods {
            let seen = pod.borrow();
            let alive = seen.sandboxes.iter().filter(|sandbox| keeps_others_out(sandbox));
            all.extend(alive.map(|sandbox| (key.clone(), sandbox.exclusive.clone())));
        }
        all
    }

    /// How long what runs has at most to end.
    pub(crate) fn longest_grace(&self) -> Duration {
        let pods = self.lock();
        let longest = |pod: &watch::Sender<Arc<SeenPod>>| {
            let seen = pod.borrow();
            let alive = seen.sandboxes.iter().filter(|sandbox| sandbox.is_alive());
            alive.map(|sandbox| sandbox.grace).max()
        };
        pods.values().filter_map(longest).max().unwrap_or_default()
    }

    /// Changes when something may be free that pods wait for.
    pub(crate) fn freed(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }

    /// Tells those that wait for what others have to look again.
    pub(crate) fn tell_of_freed(&self) {
        self.freed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PodKey, watch::Sender<Arc<SeenPod>>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at one sandbox.
    pub(crate) async fn refresh(&self, id: &SandboxId) -> Result<()> {
        let _turn = self.looking.lock().await;
        match self.runtime.pod_sandbox_status(id).await {
            Ok(status) => {
                if let Some(key) = key_of(&status) {
                    let mut sandbox = SeenSandbox::from_status(&status);
                    if let Some(longest) = self.facts.longest_wait {
                        sandbox.bound_waits(longest);
                    }
                    self.add_termination_messages(&key, &status, &mut sandbox).await;
                    self.put(&key, sandbox);
                }
                Ok(())
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.drop(id);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What there is of a pod.
    pub(crate) fn seen(&self, key: &PodKey) -> Arc<SeenPod> {
        self.lock().get(key).map(|pod| pod.borrow().clone()).unwrap_or_default()
    }

    /// Looks for what containers left to say that have ended. Each is asked once: it says nothing more.
    async fn add_termination_messages(
        &self,
        key: &PodKey,
        status: &PodSandboxStatus,
        sandbox: &mut SeenSandbox,
    ) {
        let known = self.seen(key);
        let all = || known.sandboxes.iter().flat_map(|sandbox| &sandbox.containers);
        for (container, status) in sandbox.containers.iter_mut().zip(&status.containers) {
            let known = all().find(|known| known.id == container.id);
            container.termination_message = known.and_then(|it| it.termination_message.clone());
            if container.termination_message.is_some() {
                continue;
            }
            let Some(places) = places(&self.facts, &sandbox.uid, status) else { continue };
            let reading = tokio::task::spawn_blocking(move || termination_message::read(&places));
            match reading.await {
                Ok(message) => container.termination_message = Some(message),
                Err(error) => {
                    tracing::error!(pod = %key, %error, "cannot read a termination message");
                }
            }
        }
    }

    /// Looks at everything.
    pub(crate) async fn relist(&self) -> Result<()> {
        if self.name.get().is_none() {
            let version = self.runtime.version().await?;
            // Two may look at the same time, and hear the same.
            let _ = self.name.set(version.runtime_name);
        }
        let listed = self.runtime.list_pod_sandboxes(&PodSandboxFilter::default()).await?;
        let present: BTreeSet<&SandboxId> = listed.iter().map(|sandbox| &sandbox.id).collect();
        let known: Vec<SandboxId> = {
            let pods = self.lock();
            let sandboxes = pods.values().flat_map(|pod| pod.borrow().sandboxes.clone());
            sandboxes.map(|sandbox| sandbox.id).collect()
        };
        for id in known.iter().filter(|id| !present.contains(id)) {
            // Made after the list was, or gone: looking at it tells.
            self.refresh(id).await?;
        }
        for sandbox in &listed {
            self.refresh(&sandbox.id).await?;
        }
        self.looked.send_replace(true);
        Ok(())
    }

    fn put(&self, key: &PodKey, sandbox: SeenSandbox) {
        let mut pods = self.lock();
        let pod = pods.entry(key.clone()).or_insert_with(|| watch::Sender::new(Arc::default()));
        let appeared = pod.borrow().sandboxes.is_empty();
        let mut freed = false;
        pod.send_if_modified(|seen| {
            let mut sandboxes = seen.sandboxes.clone();
            match sandboxes.iter_mut().find(|known| known.id == sandbox.id) {
                Some(known) if *known == sandbox => return false,
                Some(known) => {
                    freed = keeps_others_out(known) && !keeps_others_out(&sandbox);
                    *known = sandbox;
                }
                None => sandboxes.push(sandbox),
            }
            // Of one version the attempts count up; clocks may go back.
            sandboxes.sort_by_key(|it| std::cmp::Reverse((it.attempt, it.created_at)));
            *seen = Arc::new(SeenPod { sandboxes });
            true
        });
        drop(pods);
        if freed {
            self.tell_of_freed();
        }
        if appeared {
            self.appeared.send_modify(|count| *count += 1);
        }
    }

    fn drop(&self, id: &SandboxId) {
        let mut freed = false;
        for pod in self.lock().values() {
            pod.send_if_modified(|seen| {
                let without = |sandbox: &&SeenSandbox| sandbox.id != *id;
                let Some(gone) = seen.sandboxes.iter().find(|it| it.id == *id) else {
                    return false;
                };
                freed |= keeps_others_out(gone);
                let sandboxes = seen.sandboxes.iter().filter(without).cloned().collect();
                *seen = Arc::new(SeenPod { sandboxes });
                true
            });
        }
        if freed {
            self.tell_of_freed();
        }
    }
}

/// Whether a sandbox keeps something from others.
fn keeps_others_out(sandbox: &SeenSandbox) -> bool {
    !sandbox.exclusive.is_empty() && sandbox.is_alive()
}

/// Whose sandbox it is; `None` if it is not one of ours.
fn key_of(status: &PodSandboxStatus) -> Option<PodKey> {
    let sandbox = &status.sandbox;
    let source = match sandbox.labels.get(labels::SOURCE)?.as_str() {
        "http" => SourceKind::Http,
        "api" => SourceKind::Api,
        _ => SourceKind::File,
    };
    Some(PodKey {
        source,
        namespace: sandbox.metadata.namespace.clone(),
        name: sandbox.metadata.name.clone(),
    })
}

/// Follows the runtime's events for ever, once it has been looked at.
pub(crate) async fn follow(observer: Arc<Observer>) {
    let mut events = observer.runtime.events();
    let mut told = false;
    while let Err(error) = observer.relist().await {
        if !told {
            let error = error.chain();
            tracing::error!(
                error,
                "cannot ask the runtime what runs; no pod is started before it answers"
            );
            told = true;
        }
        tokio::time::sleep(AGAIN).await;
    }
    let mut relist = tokio::time::interval(RELIST);
    // The first tick is at once, and everything has been listed already.
    relist.tick().await;
    loop {
        let result = tokio::select! {
            // Cancel-safe: a stream's `next` holds nothing.
            event = events.next() => match event {
                Some(event) if event.kind == ContainerEventKind::Lagged => observer.relist().await,
                Some(event) => observer.refresh(&event.sandbox).await,
                // The runtime is gone; asking for events anew brings it back if it comes back.
                None => {
                    tokio::time::sleep(AGAIN).await;
                    events = observer.runtime.events();
                    observer.relist().await
                }
            },
            // Cancel-safe per docs on `Interval::tick`.
            _ = relist.tick() => observer.relist().await,
        };
        if let Err(error) = result {
            tracing::warn!(error = error.chain(), "cannot look at what the runtime has");
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_testkit::contract::Sample;
    use mainstay_testkit::runtime::FakeRuntime;

    use super::*;

    #[tokio::test]
    async fn a_container_that_has_ended_is_asked_once_what_it_has_to_say() {
        let root = tempfile::tempdir().unwrap();
        let facts = NodeFacts {
            name: "n1".into(),
            pods_directory: root.path().join("pods"),
            log_directory: root.path().join("log"),
            cgroup_root: "/cg".into(),
            machine_memory: 1 << 30,
            allocatable: Default::default(),
            seccomp_directory: root.path().join("seccomp"),
            longest_wait: Some(Duration::from_secs(30)),
            ..NodeFacts::default()
        };
        let runtime = FakeRuntime::default();
        let mut sample = Sample::new("t", root.path());
        sample.sandbox.labels.insert(labels::SOURCE.into(), "file".into());
        let mut config = sample.container("main");
        let path = "/dev/termination-log".to_owned();
        config.annotations.insert(labels::TERMINATION_MESSAGE_PATH.into(), path);
        let backoff = "160s 2026-11-29T12:00:00Z".to_owned();
        config.annotations.insert(labels::BACKOFF.into(), backoff);
        let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
        let created = runtime.create_container(&sandbox, &config, &sample.sandbox).await;
        let id = created.unwrap();
        let file = facts.termination_message_file(&sample.sandbox.metadata.uid, "main", 0);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();

        let observer = Observer::new(Arc::new(runtime.clone()), facts);
        let said = async |text: &str| {
            std::fs::write(&file, text).unwrap();
            observer.relist().await.unwrap();
            let key = observer.keys().into_iter().next().unwrap();
            let seen = observer.subscribe(&key).borrow().clone();
            seen.sandboxes[0].containers[0].termination_message.clone()
        };
        assert_eq!(said("not yet").await, None);
        runtime.start_container(&id).await.unwrap();
        assert_eq!(said("not yet").await, None);
        runtime.exit(&id, 1);
        assert_eq!(said("bye").await.as_deref(), Some("bye"));
        // What was written down to be waited for is no longer than what is allowed now.
        let seen = observer.seen(&observer.keys().into_iter().next().unwrap());
        let waits = seen.sandboxes[0].containers[0].backoff.map(|it| it.wait);
        assert_eq!(waits, Some(Duration::from_secs(30)));
        assert_eq!(said("later").await.as_deref(), Some("bye"));
    }
}
