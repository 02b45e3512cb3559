//! Carrying out actions. No choices are made here: what to do comes from the plan, what it is made
//! of from `mainstay_plan::translate` and its neighbours.

mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodStatus};
use mainstay_cri::{
    ContainerId, ContainerState, Error, ErrorKind, Images, NETWORK_NOT_READY, PodSandboxConfig,
    Runtime, START_ERROR, SandboxId,
};
use mainstay_linux::cgroup::Hierarchies;
use mainstay_plan::admission::{Rejection, admit_static};
use mainstay_plan::dns::{self, ClusterDns, PodDns};
use mainstay_plan::downward::Surroundings;
use mainstay_plan::lifecycle;
use mainstay_plan::pod::{
    Action, ContainerPlan, Finished, Goal, PodKey, RunGoal, SeenPod, StopReason,
};
use mainstay_plan::references::{Referenced, SourceError};
use mainstay_plan::resize::Requirements;
use mainstay_plan::status::NodeAddresses;
use mainstay_plan::tokens;
use mainstay_plan::translate::{self, EnvFile, Given, NodeFacts};
use mainstay_pod::Pod;
use mainstay_pod::api::unsupported_in;
use tokio::sync::{Semaphore, watch};

use super::evictions::Evictions;
use super::pulls::Pulls;
use crate::agent::AgentConfig;
use crate::dns as host_dns;
use crate::exclusive::Exclusives;
use crate::ledger::{Ledger, Record};
use crate::logs;
use crate::objects::Objects;
use crate::objects::services::Services;
use crate::observe::Observer;
use crate::publish::node::architecture;
use crate::publish::{self, EventKind, Events, PodNetwork, about, about_seen};
use crate::sources::merge::key_of;
use crate::tokens::Tokens;
use crate::users::Users;
use crate::volumes::nfs::{self, NfsError};
use crate::volumes::{self, VolumeError};

/// How many pods may be in the middle of being started. More than the processors there are would
/// only make each of them slower.
const STARTS_PER_PROCESSOR: usize = 4;

/// What actions are carried out with.
pub(crate) struct Performer {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) exclusives: Exclusives,
    pub(crate) facts: NodeFacts,
    /// What the node says of itself.
    labels: BTreeMap<String, String>,
    /// The host's resolver settings.
    pub(crate) resolv_conf: PathBuf,
    /// The network of pods, if this node makes it.
    pod_network: Option<Arc<dyn PodNetwork>>,
    pub(crate) addresses: watch::Receiver<NodeAddresses>,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) ledger: Ledger,
    pub(crate) events: Events,
    pub(crate) objects: Objects,
    pub(crate) services: Arc<Services>,
    /// The pods of an earlier agent, by UID: they run on, whatever cannot be asked.
    inherited: BTreeSet<String>,
    tokens: Tokens,
    users: Users,
    starts: Semaphore,
    pub(super) pulls: Pulls,
    /// The last status of each pod, for the record of its end.
    statuses: Mutex<BTreeMap<PodKey, Arc<PodStatus>>>,
    /// What the ledger has of each pod.
    records: Mutex<BTreeMap<PodKey, Record>>,
    /// Those that took too much, and whether the disk is short.
    pub(super) evictions: watch::Sender<Evictions>,
}

/// What came of an action.
#[derive(Debug)]
pub(super) enum Done {
    /// Nothing but the fact.
    AsAsked,
    /// A container has been started.
    Started {
        id: ContainerId,
        /// Whether something is to be done in it now.
        has_hook: bool,
    },
    /// The image of a container of this version can be run under this name.
    Image { version: String, image: String },
    /// The volumes of the pod show what they are made of.
    Volumes {
        /// Whether some of them may not.
        left: bool,
        /// When they have to be made anew, since something in them expires.
        renew_at: Option<Timestamp>,
    },
    /// This end has been written down.
    Finished(Finished),
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
    /// When another pod has let go of what this one needs; and every ten seconds, since there may be more of it by
    /// itself.
    WhenFreed,
}

impl PerformError {
    pub(super) fn new(reason: &'static str, error: &Error) -> Self {
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

    /// The event about it: what it is called, and what it says. Source: `pkg/kubelet/events/event.go`.
    pub(super) fn event(&self) -> (&'static str, String) {
        let reason = match self.reason {
            // What a hook says may be a secret.
            "PostStartHookError" => {
                return ("FailedPostStartHook", "PostStartHook failed".to_owned());
            }
            "ErrImagePull"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "CreateContainerError"
            | "RunContainerError"
            | "CreateContainerConfigError" => "Failed",
            other => other,
        };
        (reason, self.message.clone())
    }

    /// Something that the pod is made of cannot be had.
    fn source(reason: &'static str, error: &SourceError) -> Self {
        let retry = match error {
            SourceError::NotFound(_)
            | SourceError::NoKey { .. }
            | SourceError::NoItem { .. }
            | SourceError::NotText { .. } => Retry::WhenChanged,
            SourceError::Awaited(_)
            | SourceError::Unreadable { .. }
            | SourceError::EnvFile(_)
            | SourceError::NoToken(_) => Retry::Soon,
            SourceError::Unknown(_) | SourceError::Path(_) => Retry::Backoff,
        };
        Self { reason, message: error.to_string(), retry }
    }

    /// The pod cannot be asked for as it stands.
    fn refused(reason: &'static str, error: &dyn fmt::Display) -> Self {
        Self { reason, message: error.to_string(), retry: Retry::Backoff }
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
            exclusives: Exclusives::new(observer.clone()),
            observer,
            facts: config.facts.clone(),
            labels: config.node.labels(&config.facts.name, architecture()),
            resolv_conf: config.resolv_conf.clone(),
            pod_network: config.pod_network.clone(),
            addresses,
            hierarchies,
            ledger,
            events: Events::default(),
            objects: Objects::default(),
            services: Arc::default(),
            inherited: records.values().map(|record| record.pod.uid().to_owned()).collect(),
            tokens: Tokens::new(
                config.api.as_ref().map(|it| publish::api::calls(it.client.clone())),
            ),
            users: Users::new(&config.facts.pods_directory),
            pulls: Pulls::new(config.pulls),
            starts: Semaphore::new(processors * STARTS_PER_PROCESSOR),
            statuses: Mutex::default(),
            records: Mutex::new(records),
            evictions: watch::Sender::default(),
        }
    }

    /// Why the node does not take a static pod. One of an API is judged where it comes from.
    pub(super) fn rejection(&self, pod: &Pod) -> Option<Rejection> {
        if !pod.source().is_static() {
            return None;
        }
        admit_static(pod, &self.labels, &self.facts.kernel).err()
    }

    pub(super) fn node_addresses(&self) -> NodeAddresses {
        self.addresses.borrow().clone()
    }

    pub(super) fn remember_status(&self, key: &PodKey, status: &Arc<PodStatus>) {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.insert(key.clone(), status.clone());
    }

    /// Carries out one action, and looks at what came of it.
    pub(super) async fn perform(
        self: Arc<Self>,
        key: PodKey,
        goal: Goal,
        seen: SeenPod,
        action: Action,
    ) -> Result<Done, PerformError> {
        match (action, &goal) {
            (Action::Prepare { .. }, Goal::Run(run)) => self.prepare(run, &seen).await,
            (Action::UpdateVolumes, Goal::Run(run)) => self.update_volumes(run).await,
            (Action::Resize(resize), Goal::Run(run)) => self.resize(run, &resize).await,
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
                self.record_finished(run, at).await?;
                let uid = run.pod.uid().to_owned();
                Ok(Done::Finished(Finished { uid, incarnation: run.incarnation }))
            }
            (Action::PostStart { id, container }, Goal::Run(run)) => {
                self.post_start(&key, run, &seen, &id, &container).await
            }
            (Action::PreStop { id, hook, grace, why }, goal) => {
                self.show_stop(&key, goal, &seen, &id, why);
                self.pre_stop(&key, goal, &seen, &id, &hook, grace).await;
                Ok(Done::AsAsked)
            }
            (Action::StopContainer { id, grace, why }, goal) => {
                if let Some(why) = why {
                    self.show_stop(&key, goal, &seen, &id, why);
                }
                let stopped = self.runtime.stop_container(&id, grace).await;
                self.look_at(&seen, &id).await;
                done("FailedKillPod", stopped)
            }
            (Action::RemoveContainer { id }, _) => {
                let removed = self.runtime.remove_container(&id).await;
                self.look_at(&seen, &id).await;
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
                | Action::UpdateVolumes
                | Action::Resize(_)
                | Action::EnsureImage { .. }
                | Action::RunSandbox { .. }
                | Action::StartContainer { .. }
                | Action::PostStart { .. }
                | Action::RecordFinished { .. },
                Goal::Stop { .. } | Goal::Gone,
            ) => Ok(Done::AsAsked),
        }
    }

    async fn prepare(
        self: &Arc<Self>,
        run: &RunGoal,
        seen: &SeenPod,
    ) -> Result<Done, PerformError> {
        let runs = seen.sandboxes.iter().any(|it| it.ready && it.uid == run.pod.uid());
        // What is in force stays so until it is its turn.
        let is_limited = runs && self.resizing(run).is_some();
        let (performer, pod) = (self.clone(), run.pod.clone());
        let (objects, node) = (self.referenced(&pod).await, self.node_addresses());
        let (tokens, renew_at) = self.tokens.of(&pod).await;
        let prepared = blocking(move || {
            let around = performer.surroundings(&node, &[], &objects, &tokens);
            volumes::prepare(
                &pod,
                &performer.facts,
                &performer.hierarchies,
                &around,
                (runs, is_limited),
            )
        });
        let left = prepared.await?;
        if !is_limited {
            self.note_resizing(run, |resizing| resizing.pod = Requirements::of_pod(&run.pod));
        }
        nfs::mount_all(&run.pod, &self.facts)
            .await
            .map_err(|error| of_server("FailedMount", &error))?;
        Ok(Done::Volumes { left, renew_at })
    }

    async fn update_volumes(self: &Arc<Self>, run: &RunGoal) -> Result<Done, PerformError> {
        let (performer, pod) = (self.clone(), run.pod.clone());
        let (objects, node) = (self.referenced(&pod).await, self.node_addresses());
        let (tokens, renew_at) = self.tokens.of(&pod).await;
        let updated = blocking(move || {
            let around = performer.surroundings(&node, &[], &objects, &tokens);
            volumes::update(&pod, &performer.facts, &around)
        });
        updated.await?;
        Ok(Done::Volumes { left: false, renew_at })
    }

    /// What is known of the objects that a pod refers to.
    pub(super) async fn referenced(&self, pod: &Pod) -> Arc<Referenced> {
        /// Source: `objectCache.Get` in `pkg/kubelet/util/manager/watch_based_manager.go`.
        const PATIENCE: Duration = Duration::from_secs(1);
        let Some(mut following) = self.objects.follow(pod) else { return Arc::default() };
        // What is not known by then is said to be so.
        let _ = tokio::time::timeout(PATIENCE, following.known()).await;
        following.now()
    }

    fn surroundings<'a>(
        &self,
        node: &'a NodeAddresses,
        pod_ips: &'a [IpAddr],
        objects: &'a Referenced,
        tokens: &'a tokens::Tokens,
    ) -> Surroundings<'a> {
        Surroundings { allocatable: self.facts.allocatable, node, pod_ips, objects, tokens }
    }

    async fn clean_up(self: &Arc<Self>, uid: String) -> Result<Done, PerformError> {
        let performer = self.clone();
        self.tokens.forget(&uid);
        let unmounted = nfs::unmount_all(&uid, &self.facts).await;
        unmounted.map_err(|error| of_server("FailedKillPod", &error))?;
        blocking(move || volumes::clean_up(&uid, &performer.facts, &performer.hierarchies)).await?;
        Ok(Done::AsAsked)
    }

    /// What the sandbox is made from, and what of its DNS was left out.
    fn sandbox_config(
        &self,
        run: &RunGoal,
        attempt: u32,
        cluster_dns: &ClusterDns,
    ) -> Result<(PodSandboxConfig, Vec<String>), PerformError> {
        let cgroup = volumes::cgroup(&run.pod, &self.facts, &self.hierarchies);
        let source = run.pod.source();
        let host = host_dns::of_host(&self.resolv_conf, !run.pod.is_host_network());
        let PodDns { config: dns, omitted } = dns::of_pod(&run.pod, host, cluster_dns);
        translate::sandbox(run, source, attempt, &self.facts, dns, &cgroup)
            .map(|config| (config, omitted))
            .map_err(|error| PerformError::refused("FailedCreatePodSandBox", &error))
    }

    /// What stands for the cluster's DNS: that of the configuration, or else the node's own, where its pods have
    /// their names.
    async fn cluster_dns(&self, pod: &Pod) -> ClusterDns {
        let configured = || self.facts.cluster_dns.clone();
        let (Some(domain), Some(network)) = (&self.facts.pod_domain, &self.pod_network) else {
            return configured();
        };
        if !dns::is_in_cluster(pod) {
            return configured();
        }
        match network.resolvers().await {
            Ok(servers) if servers.is_empty() => configured(),
            Ok(servers) => ClusterDns { servers, domain: domain.clone() },
            Err(error) => {
                let message = format!(
                    "pod: \"{}\". It does not find other pods by their names: {}. Falling back to \
                     \"Default\" policy.",
                    pod.long_name(),
                    error.chain()
                );
                let (key, about) = (key_of(pod), about(pod, None));
                // Source: `GetPodDNS` in `pkg/kubelet/network/dns/dns.go`.
                self.events.announce(&key, about, EventKind::Warning, "MissingClusterDNS", message);
                configured()
            }
        }
    }

    /// Tells of servers that the pod names and will not reach.
    async fn tell_of_shadowed(&self, pod: &Pod) {
        let Some(network) = &self.pod_network else { return };
        let own = pod.spec().dns_config.as_ref().and_then(|dns| dns.nameservers.as_deref());
        for server in own.unwrap_or_default() {
            let Ok(address) = server.parse() else { continue };
            let Some(holder) = network.shadowed(address).await else { continue };
            let message = format!(
                "nameserver {server} of dnsConfig is the node's own resolver for pods, and not {holder}, \
                 which listens there too; name another address of the node"
            );
            let (key, about) = (key_of(pod), about(pod, None));
            self.events.announce(&key, about, EventKind::Warning, "DNSConfigForming", message);
        }
    }

    async fn run_sandbox(&self, run: &RunGoal, attempt: u32) -> Result<Done, PerformError> {
        let _turn = self.starts.acquire().await;
        let key = key_of(&run.pod);
        let making = self.exclusives.claim(&key, &run.pod).map_err(|conflict| PerformError {
            reason: "FailedCreatePodSandBox",
            message: conflict.to_string(),
            retry: Retry::WhenFreed,
        })?;
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.events.show(about(&run.pod, None), EventKind::Normal, "SandboxChanged", message);
        }
        let cluster_dns = self.cluster_dns(&run.pod).await;
        let (config, omitted) = self.sandbox_config(run, attempt, &cluster_dns)?;
        for message in omitted {
            let about = about(&run.pod, None);
            self.events.announce(&key, about, EventKind::Warning, "DNSConfigForming", message);
        }
        self.tell_of_shadowed(&run.pod).await;
        let made = match run.pod.spec().host_users {
            Some(false) => self.users.run_pod_sandbox(&*self.runtime, config).await,
            _ => self.runtime.run_pod_sandbox(&config).await,
        };
        let id = made.map_err(|error| {
            let unready = error.message.starts_with(NETWORK_NOT_READY);
            let reason = if unready { "NetworkNotReady" } else { "FailedCreatePodSandBox" };
            PerformError::new(reason, &error)
        })?;
        self.refresh(&id).await;
        making.made();
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
        let current = seen.sandboxes.iter().find(|it| it.id == *sandbox);
        let addresses = current.map(|it| it.ips.clone()).unwrap_or_default();
        if mounts_nfs(&run.pod, container) {
            // Before others have to wait for it.
            let envs = self.environment(run, container, &addresses).await?;
            let looked = nfs::look(&run.pod, container, &envs, &self.facts).await;
            looked.map_err(|error| of_server("CreateContainerConfigError", &error))?;
        }
        let _turn = self.starts.acquire().await;
        let refused =
            |error: &dyn fmt::Display| PerformError::refused("CreateContainerConfigError", error);
        let added = run.pod.spec().ephemeral_containers.iter().flatten();
        for added in added.filter(|it| it.name == plan.name) {
            unsupported_in(added).map_err(|error| refused(&error))?;
            let admitted = self.facts.kernel.admit_added(added);
            admitted.map_err(|rejection| refused(&rejection.message))?;
        }
        let target =
            translate::target(&run.pod, &plan.name, seen).map_err(|error| refused(&error))?;
        let user = self.image(&plan.image).await?.map(|image| image.user).unwrap_or_default();
        translate::verify_non_root(&run.pod, container, &user).map_err(|error| refused(&error))?;
        let attempt = current.map_or(0, |it| it.attempt);
        let envs = self.environment(run, container, &addresses).await?;
        let logs = self.unnumbered(run, seen, plan);
        let (performer, pod) = (self.clone(), run.pod.clone());
        let (name, planned) = (plan.name.clone(), plan.restart_count);
        let (mounting, known) = (container.clone(), envs.clone());
        let made = blocking(move || {
            volumes::write_hosts(&pod, &performer.facts, &addresses)?;
            let number = logs.map_or(planned, |logs| logs::runs(&logs));
            volumes::forget_runs(&pod, &name, number, &performer.facts)?;
            volumes::make_termination_message(&pod, &name, number, &performer.facts)?;
            volumes::make_host_paths(&pod, &mounting)?;
            volumes::make_sub_paths(&pod, &mounting, &known, &performer.facts)?;
            Ok(number)
        });
        let restart_count = made.await?;
        let plan = &ContainerPlan { restart_count, ..plan.clone() };
        let config = translate::container(&run.pod, container, plan, &self.facts, envs, target)
            .map_err(|error| refused(&error))?;
        // Whoever needs it here has no names to give.
        let cluster_dns = &self.facts.cluster_dns;
        let (sandbox_config, _) = self.sandbox_config(run, attempt, cluster_dns)?;
        self.note_container(run, &plan.name).await;
        let created = self.runtime.create_container(sandbox, &config, &sandbox_config).await;
        let id = match created {
            Ok(id) => id,
            Err(error) => {
                self.refresh(sandbox).await;
                return Err(PerformError::new("CreateContainerError", &error));
            }
        };
        self.show(run, &plan.name, "Created", "Container created".to_owned());
        // Both, so that one that runs has its link whatever becomes of this agent.
        let (started, ()) = tokio::join!(
            self.runtime.start_container(&id),
            self.link_log(&run.pod, &plan.name, &id, &config.log_path)
        );
        self.refresh(sandbox).await;
        match started {
            Ok(()) => {
                let name = &plan.name;
                self.show(run, name, "Started", "Container started".to_owned());
                let message = format!("Container started: {name}");
                self.events.tell(&key_of(&run.pod), EventKind::Normal, "Started", message);
                Ok(Done::Started { id, has_hook: lifecycle::post_start(container).is_some() })
            }
            Err(error) => {
                if !self.is_start_error(&id).await {
                    // It never ran and does not say why, so this is no end of it to go by.
                    return Err(PerformError::new("RunContainerError", &error));
                }
                // The container is there, ended, and says why; what follows is its restart policy.
                let message = format!("Error: {}", error.chain());
                let (key, about) = (key_of(&run.pod), about(&run.pod, Some(&plan.name)));
                self.events.announce(&key, about, EventKind::Warning, "Failed", message);
                Ok(Done::AsAsked)
            }
        }
    }

    /// Makes the link by which others find a container's log. Nothing here needs it.
    async fn link_log(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        container: &str,
        id: &ContainerId,
        log: &str,
    ) {
        let (performer, pod) = (self.clone(), pod.clone());
        let (container, id, log) = (container.to_owned(), id.clone(), log.to_owned());
        let linked = blocking(move || {
            let (facts, named) = (&performer.facts, (pod.name(), pod.namespace()));
            let log = facts.pod_log_directory(named.1, named.0, pod.uid()).join(log);
            logs::link(&facts.log_directory, named, (&container, &id.0), &log)
                .map_err(|source| VolumeError::File { step: "link to", path: log, source })
        });
        if let Err(error) = linked.await {
            tracing::warn!(error = error.message, "whoever collects logs misses one");
        }
    }

    /// The variables of a container of a goal's pod, whose sandbox has these addresses.
    async fn environment(
        self: &Arc<Self>,
        run: &RunGoal,
        container: &Container,
        pod_ips: &[IpAddr],
    ) -> Result<Vec<(String, String)>, PerformError> {
        let (objects, node) = (self.referenced(&run.pod).await, self.node_addresses());
        let none = tokens::Tokens::new();
        let around = self.surroundings(&node, pod_ips, &objects, &none);
        let given = self.given(&run.pod, container).await?;
        translate::environment(&run.pod, container, &around, &given)
            .map_err(|error| PerformError::source("CreateContainerConfigError", &error))
    }

    /// What variables of a container tell of services, and what is in the files of volumes for them.
    async fn given(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        container: &Container,
    ) -> Result<Given, PerformError> {
        let Some(services) = self.services.variables(pod, self.inherited.contains(pod.uid())).await
        else {
            // In the kubelet's words.
            let message = "services have not yet been read at least once, cannot construct envvars"
                .to_owned();
            let reason = "CreateContainerConfigError";
            return Err(PerformError { reason, message, retry: Retry::Soon });
        };
        let files = translate::env_files(container);
        if files.is_empty() {
            return Ok(Given { services, ..Given::default() });
        }
        let (performer, pod) = (self.clone(), pod.clone());
        let read = move || {
            let read = |file: EnvFile| {
                let content = volumes::read_env_file(&pod, &file, &performer.facts);
                (file, content)
            };
            Ok(files.into_iter().map(read).collect())
        };
        Ok(Given { services, files: blocking(read).await? })
    }

    /// Shows what went well with a container of a goal's pod.
    fn show(&self, run: &RunGoal, container: &str, reason: &'static str, message: String) {
        self.events.show(about(&run.pod, Some(container)), EventKind::Normal, reason, message);
    }

    /// Shows that a container is being stopped, of whatever version of the pod.
    fn show_stop(
        &self,
        key: &PodKey,
        goal: &Goal,
        seen: &SeenPod,
        id: &ContainerId,
        why: StopReason,
    ) {
        let told = match why {
            StopReason::PodEnds => None,
            StopReason::Unhealthy { message } => Some(message),
            // The whole of what a kubelet says.
            StopReason::PostStartFailed => Some("FailedPostStartHook".to_owned()),
            StopReason::RestartAll => Some("killing".to_owned()),
            StopReason::Resized { container } => {
                Some(format!("Container {container} resize requires restart"))
            }
        };
        if let Some(message) = &told {
            self.events.tell(key, EventKind::Normal, "Killing", message.clone());
        }
        let Some(sandbox) = seen.sandbox_of(id) else { return };
        let Some(container) = sandbox.containers.iter().find(|it| it.id == *id) else { return };
        let about = about_seen(key, goal, sandbox, &container.name);
        let message = told.unwrap_or_else(|| format!("Stopping container {}", container.name));
        self.events.show(about, EventKind::Normal, "Killing", message);
    }

    /// The logs of a container of which nothing else is left, as after the machine restarted: they
    /// say what number is next.
    fn unnumbered(&self, run: &RunGoal, seen: &SeenPod, plan: &ContainerPlan) -> Option<PathBuf> {
        let pod = &run.pod;
        let own = seen.sandboxes.iter().filter(|sandbox| sandbox.uid == pod.uid());
        let mut known = own.flat_map(|sandbox| &sandbox.containers);
        let logs = self.facts.pod_log_directory(pod.namespace(), pod.name(), pod.uid());
        (!known.any(|it| it.name == plan.name)).then(|| logs.join(&plan.name))
    }

    async fn is_start_error(&self, id: &ContainerId) -> bool {
        let status = self.runtime.container_status(id).await;
        let state = status.map(|status| status.state);
        matches!(state, Ok(ContainerState::Exited { reason, .. }) if reason == START_ERROR)
    }

    async fn record_finished(&self, run: &RunGoal, at: Timestamp) -> Result<(), PerformError> {
        let key = key_of(&run.pod);
        let status = {
            let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
            statuses.get(&key).cloned().unwrap_or_default()
        };
        self.amend(run, |record| record.finished = Some((at, status)));
        self.ledger.flush().await.map_err(|error| PerformError {
            reason: "FailedRecord",
            message: mainstay_cri::chain(&error),
            retry: Retry::Soon,
        })
    }

    async fn refresh(&self, id: &SandboxId) {
        if let Err(error) = self.observer.refresh(id).await {
            tracing::warn!(sandbox = %id, error = error.chain(), "cannot look at a sandbox");
        }
    }

    /// Looks at a container, and at what it is in.
    async fn look_at(&self, seen: &SeenPod, id: &ContainerId) {
        if let Some(sandbox) = seen.sandbox_of(id) {
            self.refresh(&sandbox.id).await;
        }
    }
}

fn done(reason: &'static str, result: mainstay_cri::Result<()>) -> Result<Done, PerformError> {
    result.map(|()| Done::AsAsked).map_err(|error| PerformError::new(reason, &error))
}

pub(super) fn container<'a>(run: &'a RunGoal, name: &str) -> Option<&'a Container> {
    run.pod.container(name).map(|(_, container)| container)
}

fn mounts_nfs(pod: &Pod, container: &Container) -> bool {
    let mut mounts = container.volume_mounts.iter().flatten();
    mounts.any(|mount| pod.volume(&mount.name).is_some_and(nfs::is_nfs))
}

/// A server's directory is not as it should be.
fn of_server(reason: &'static str, error: &NfsError) -> PerformError {
    PerformError { reason, message: error.to_string(), retry: Retry::Soon }
}

/// Runs file work where it may take its time.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, PerformError> {
    let failed = |error: VolumeError| {
        let message = mainstay_cri::chain(&error);
        match error {
            VolumeError::Source { why, .. } => {
                PerformError { message, ..PerformError::source("FailedMount", &why) }
            }
            VolumeError::SubPath { .. } => {
                let reason = "CreateContainerConfigError";
                PerformError { reason, message, retry: Retry::Backoff }
            }
            VolumeError::File { .. }
            | VolumeError::HostPath { .. }
            | VolumeError::EmptyDir { .. }
            | VolumeError::Projected { .. }
            | VolumeError::Cgroup(_)
            | VolumeError::Resize(_) => {
                PerformError { reason: "FailedMount", message, retry: Retry::Soon }
            }
        }
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(failed),
        Err(error) => Err(PerformError::panicked(&error)),
    }
}
