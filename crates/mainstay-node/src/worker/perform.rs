//! Carrying out actions. No choices are made here: what to do comes from the plan, what it is made
//! of from `mainstay_plan::translate` and its neighbours.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodStatus};
use mainstay_cri::{
    Error, ErrorKind, Image, ImageSpec, Images, PodSandboxConfig, PullRequest, Runtime, SandboxId,
};
use mainstay_linux::cgroup::Hierarchies;
use mainstay_plan::image::{self, Decision, Presence, PullPolicy};
use mainstay_plan::pod::{Action, ContainerPlan, Goal, PodKey, RunGoal, SeenPod};
use mainstay_plan::resources;
use mainstay_plan::status::NodeAddresses;
use mainstay_plan::translate::{self, NodeFacts};
use tokio::sync::{Semaphore, watch};

use crate::agent::AgentConfig;
use crate::dns;
use crate::ledger::{Ledger, Record};
use crate::observe::Observer;
use crate::publish::{EventKind, Events};
use crate::sources::merge::key_of;
use crate::volumes::{self, VolumeError};

/// How many pods may be in the middle of being started. More than the processors there are would
/// only make each of them slower.
const STARTS_PER_PROCESSOR: usize = 4;

/// What actions are carried out with.
pub(crate) struct Performer {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) facts: NodeFacts,
    /// The host's resolver settings.
    pub(crate) resolv_conf: PathBuf,
    pub(crate) addresses: watch::Receiver<NodeAddresses>,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) ledger: Ledger,
    pub(crate) events: Events,
    starts: Semaphore,
    /// The last status of each pod, for the record of its end.
    statuses: Mutex<BTreeMap<PodKey, PodStatus>>,
    /// What the ledger has of each pod.
    records: Mutex<BTreeMap<PodKey, Record>>,
}

/// What came of an action.
#[derive(Debug)]
pub(super) enum Done {
    /// Nothing but the fact.
    AsAsked,
    /// The image of a container of this version can be run under this name.
    Image { version: String, image: String },
    /// The end of this version has been written down.
    Finished(String),
}

/// An action that failed.
#[derive(Debug)]
pub(super) struct PerformError {
    /// One word, as the kubelet says it.
    pub(super) reason: &'static str,
    /// The thing, the place and the remedy.
    pub(super) message: String,
    pub(super) retry: Retry,
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// After a second, then more and more rarely.
    Soon,
    /// After ten seconds, then more and more rarely.
    Backoff,
    /// When something changed that may help.
    WhenChanged,
}

impl PerformError {
    fn new(reason: &'static str, error: &Error) -> Self {
        let retry = match error.kind {
            ErrorKind::InvalidArgument | ErrorKind::Unimplemented => Retry::Backoff,
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::FailedPrecondition
            | ErrorKind::ResourceExhausted
            | ErrorKind::PermissionDenied
            | ErrorKind::Unavailable
            | ErrorKind::RegistryUnavailable
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Internal => Retry::Soon,
        };
        Self { reason, message: error.chain(), retry }
    }

    /// What the event about it is called. Source: `pkg/kubelet/events/event.go`.
    pub(super) fn event_reason(&self) -> &'static str {
        match self.reason {
            "ErrImagePull"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "CreateContainerError"
            | "CreateContainerConfigError" => "Failed",
            other => other,
        }
    }

    pub(super) fn panicked(error: &tokio::task::JoinError) -> Self {
        let message = format!("mainstay has a bug: {error}; the pod is tried again");
        Self { reason: "InternalError", message, retry: Retry::Backoff }
    }
}

impl Performer {
    pub(crate) fn new(
        config: &AgentConfig,
        runtime: Arc<dyn Runtime>,
        images: Arc<dyn Images>,
        observer: Arc<Observer>,
        hierarchies: Hierarchies,
        (ledger, records): (Ledger, BTreeMap<PodKey, Record>),
        addresses: watch::Receiver<NodeAddresses>,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            runtime,
            images,
            observer,
            facts: config.facts.clone(),
            resolv_conf: config.resolv_conf.clone(),
            addresses,
            hierarchies,
            ledger,
            events: Events::default(),
            starts: Semaphore::new(processors * STARTS_PER_PROCESSOR),
            statuses: Mutex::default(),
            records: Mutex::new(records),
        }
    }

    pub(super) fn node_addresses(&self) -> NodeAddresses {
        self.addresses.borrow().clone()
    }

    pub(super) fn remember_status(&self, key: &PodKey, status: &PodStatus) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.insert(key.clone(), status.clone());
    }

    /// Changes what the ledger has of a pod, if it has it.
    pub(crate) fn amend(&self, key: &PodKey, change: impl FnOnce(&mut Record)) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = records.get_mut(key) {
            change(record);
            self.ledger.put(key, record.clone());
        }
    }

    /// What the ledger has of a pod.
    pub(crate) fn record(&self, key: &PodKey) -> Option<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.get(key).cloned()
    }

    /// The pods that the ledger has.
    pub(crate) fn recorded(&self) -> Vec<PodKey> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.keys().cloned().collect()
    }

    /// Lets the ledger have a pod as it is accepted now.
    pub(crate) fn accept(&self, key: &PodKey, record: Record) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(key.clone(), record.clone());
        self.ledger.put(key, record);
    }

    /// Lets the ledger forget a pod.
    pub(crate) fn forget(&self, key: &PodKey) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.remove(key).is_some() {
            self.ledger.remove(key);
        }
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Carries out one action, and looks at what came of it.
    pub(super) async fn perform(
        self: Arc<Self>,
        goal: Goal,
        seen: SeenPod,
        action: Action,
    ) -> Result<Done, PerformError> {
        match (action, &goal) {
            (Action::Prepare { .. }, Goal::Run(run)) => self.prepare(run).await,
            (Action::EnsureImage { container }, Goal::Run(run)) => {
                self.ensure_image(run, &container).await
            }
            (Action::RunSandbox { attempt }, Goal::Run(run)) => {
                self.run_sandbox(run, attempt).await
            }
            (Action::StartContainer { sandbox, container }, Goal::Run(run)) => {
                self.start_container(run, &seen, &sandbox, &container).await
            }
            (Action::RecordFinished { at }, Goal::Run(run)) => {
                self.record_finished(run, at).await;
                Ok(Done::Finished(run.pod.uid().to_owned()))
            }
            (Action::StopContainer { id, grace }, _) => {
                let stopped = self.runtime.stop_container(&id, grace).await;
                self.look_at(&seen, |sandbox| {
                    sandbox.containers.iter().any(|container| container.id == id)
                })
                .await;
                done("FailedKillPod", stopped)
            }
            (Action::RemoveContainer { id }, _) => {
                let removed = self.runtime.remove_container(&id).await;
                self.look_at(&seen, |sandbox| {
                    sandbox.containers.iter().any(|container| container.id == id)
                })
                .await;
                done("FailedRemoveContainer", removed)
            }
            (Action::StopSandbox { id }, _) => {
                let stopped = self.runtime.stop_pod_sandbox(&id).await;
                self.refresh(&id).await;
                done("FailedKillPod", stopped)
            }
            (Action::RemoveSandbox { id }, _) => {
                let removed = self.runtime.remove_pod_sandbox(&id).await;
                self.refresh(&id).await;
                done("FailedRemovePodSandbox", removed)
            }
            (Action::CleanUp { uid }, _) => self.clean_up(uid).await,
            // The plan asks for these only with a goal to run.
            (
                Action::Prepare { .. }
                | Action::EnsureImage { .. }
                | Action::RunSandbox { .. }
                | Action::StartContainer { .. }
                | Action::RecordFinished { .. },
                Goal::Gone,
            ) => Ok(Done::AsAsked),
        }
    }

    async fn prepare(self: &Arc<Self>, run: &RunGoal) -> Result<Done, PerformError> {
        let (performer, pod) = (self.clone(), run.pod.clone());
        let prepared =
            blocking(move || volumes::prepare(&pod, &performer.facts, &performer.hierarchies));
        prepared.await?;
        Ok(Done::AsAsked)
    }

    async fn clean_up(self: &Arc<Self>, uid: String) -> Result<Done, PerformError> {
        let performer = self.clone();
        blocking(move || volumes::clean_up(&uid, &performer.facts, &performer.hierarchies)).await?;
        Ok(Done::AsAsked)
    }

    async fn ensure_image(&self, run: &RunGoal, name: &str) -> Result<Done, PerformError> {
        let Some(container) = container(run, name) else { return Ok(Done::AsAsked) };
        let image = container.image.clone().unwrap_or_default();
        let policy = pull_policy(run, container);
        let present = self.image(&image).await?;
        let presence = presence(present.as_ref());
        let ready = |image| Done::Image { version: run.pod.uid().to_owned(), image };
        match image::decide(policy, presence) {
            Decision::Use => Ok(ready(image)),
            Decision::Refuse => Err(PerformError {
                reason: "ErrImageNeverPull",
                message: format!(
                    "Container image {image:?} is not present with pull policy of Never; import it \
                     with `mainstay image import`"
                ),
                retry: Retry::WhenChanged,
            }),
            Decision::Pull { patience } => {
                let request = PullRequest { image: ImageSpec(image.clone()), patience };
                let key = key_of(&run.pod);
                let tell = |kind, reason, message| self.events.tell(&key, kind, reason, message);
                let pulling = format!("Pulling image {image:?}");
                tell(EventKind::Normal, "Pulling", pulling);
                let pulled = self.images.pull_image(&request).await;
                match pulled {
                    Ok(_) => {
                        let message = format!("Successfully pulled image {image:?}");
                        tell(EventKind::Normal, "Pulled", message);
                        Ok(ready(image))
                    }
                    Err(error) if image::use_after_failure(policy, presence, error.kind) => {
                        let message = format!(
                            "Using the present image {image:?}, since a newer one cannot be had: {}",
                            error.chain()
                        );
                        tell(EventKind::Warning, "ImageNotRefreshed", message);
                        Ok(ready(image))
                    }
                    Err(error) => Err(PerformError {
                        reason: "ErrImagePull",
                        message: error.chain(),
                        retry: Retry::Backoff,
                    }),
                }
            }
        }
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, PerformError> {
        let found = self.images.image_status(&ImageSpec(name.to_owned())).await;
        found.map_err(|error| PerformError::new("ImageInspectError", &error))
    }

    fn sandbox_config(&self, run: &RunGoal, attempt: u32) -> PodSandboxConfig {
        let cgroup = resources::cgroup(&self.facts.cgroup_root, &run.pod);
        let source = mainstay_plan::pod::SourceKind::File;
        let dns = dns::of_host(&self.resolv_conf, !run.pod.is_host_network());
        translate::sandbox(&run.pod, source, attempt, &self.facts, dns, &cgroup)
    }

    async fn run_sandbox(&self, run: &RunGoal, attempt: u32) -> Result<Done, PerformError> {
        let _turn = self.starts.acquire().await;
        let config = self.sandbox_config(run, attempt);
        let made = self.runtime.run_pod_sandbox(&config).await;
        let id = made.map_err(|error| PerformError::new("FailedCreatePodSandBox", &error))?;
        self.refresh(&id).await;
        Ok(Done::AsAsked)
    }

    async fn start_container(
        self: &Arc<Self>,
        run: &RunGoal,
        seen: &SeenPod,
        sandbox: &SandboxId,
        plan: &ContainerPlan,
    ) -> Result<Done, PerformError> {
        let Some(container) = container(run, &plan.name) else { return Ok(Done::AsAsked) };
        let _turn = self.starts.acquire().await;
        let refused = |message: String| PerformError {
            reason: "CreateContainerConfigError",
            message,
            retry: Retry::Backoff,
        };
        let user = self.image(&plan.image).await?.map(|image| image.user).unwrap_or_default();
        translate::verify_non_root(&run.pod, container, &user)
            .map_err(|error| refused(error.to_string()))?;
        let config = translate::container(&run.pod, container, plan, &self.facts)
            .map_err(|error| refused(format!("{error:?}")))?;
        let current = seen.sandboxes.iter().find(|it| it.id == *sandbox);
        let addresses = current.map(|it| it.ips.clone()).unwrap_or_default();
        let attempt = current.map_or(0, |it| it.attempt);
        let (performer, pod) = (self.clone(), run.pod.clone());
        blocking(move || volumes::write_hosts(&pod, &performer.facts, &addresses)).await?;

        let sandbox_config = self.sandbox_config(run, attempt);
        let created = self.runtime.create_container(sandbox, &config, &sandbox_config).await;
        let id = match created {
            Ok(id) => id,
            Err(error) => {
                self.refresh(sandbox).await;
                return Err(PerformError::new("CreateContainerError", &error));
            }
        };
        let started = self.runtime.start_container(&id).await;
        self.refresh(sandbox).await;
        match started {
            Ok(()) => {
                self.note_start(run);
                let name = &plan.name;
                let message = format!("Container started: {name}");
                self.events.tell(&key_of(&run.pod), EventKind::Normal, "Started", message);
                Ok(Done::AsAsked)
            }
            Err(error) => {
                // The container is there, ended, and says why; what follows is its restart policy.
                let message = format!("Error: {}", error.chain());
                self.events.tell(&key_of(&run.pod), EventKind::Warning, "Failed", message);
                Ok(Done::AsAsked)
            }
        }
    }

    /// What may run once only must not be forgotten to have run.
    fn note_start(&self, run: &RunGoal) {
        let key = key_of(&run.pod);
        let once = run.pod.restart_policy() == mainstay_pod::RestartPolicy::Never;
        if once && self.record(&key).is_some_and(|record| !record.started) {
            self.amend(&key, |record| record.started = true);
        }
    }

    async fn record_finished(&self, run: &RunGoal, at: Timestamp) {
        let key = key_of(&run.pod);
        let status = {
            let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
            statuses.get(&key).cloned().unwrap_or_default()
        };
        self.amend(&key, |record| record.finished = Some((at, status)));
        self.ledger.flush().await;
    }

    async fn refresh(&self, id: &SandboxId) {
        if let Err(error) = self.observer.refresh(id).await {
            tracing::warn!(sandbox = %id, error = error.chain(), "cannot look at a sandbox");
        }
    }

    async fn look_at(&self, seen: &SeenPod, is: impl Fn(&mainstay_plan::pod::SeenSandbox) -> bool) {
        if let Some(sandbox) = seen.sandboxes.iter().find(|sandbox| is(sandbox)) {
            self.refresh(&sandbox.id).await;
        }
    }
}

fn done(reason: &'static str, result: mainstay_cri::Result<()>) -> Result<Done, PerformError> {
    result.map(|()| Done::AsAsked).map_err(|error| PerformError::new(reason, &error))
}

fn container<'a>(run: &'a RunGoal, name: &str) -> Option<&'a Container> {
    run.pod.spec().containers.iter().find(|container| container.name == name)
}

fn pull_policy(run: &RunGoal, container: &Container) -> PullPolicy {
    let written = run.pod.has_written_pull_policy(&container.name);
    match container.image_pull_policy.as_deref() {
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if written => PullPolicy::Always,
        _ => PullPolicy::AlwaysByDefault,
    }
}

fn presence(image: Option<&Image>) -> Presence {
    match image {
        None => Presence::Missing,
        Some(image) if image.pinned => Presence::Provided,
        Some(_) => Presence::Present,
    }
}

/// Runs file work where it may take its time.
async fn blocking(
    work: impl FnOnce() -> Result<(), VolumeError> + Send + 'static,
) -> Result<(), PerformError> {
    let failed =
        |message: String| PerformError { reason: "FailedMount", message, retry: Retry::Soon };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(crate::chain(&error))),
        Err(error) => Err(PerformError::panicked(&error)),
    }
}
