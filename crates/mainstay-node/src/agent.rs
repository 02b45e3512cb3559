//! Putting the agent's tasks together and letting them run.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay_cri::{Images, Runtime, RuntimeCondition};
use mainstay_linux::cgroup::Hierarchies;
use mainstay_plan::image_gc::Policy;
use mainstay_plan::node_status::{Machine, NodeSettings, UNREACHABLE};
use mainstay_plan::pod::{Goal, Memory, PodKey};
use mainstay_plan::pressure::{Pressure, Thresholds};
use mainstay_plan::status::NodeAddresses;
use mainstay_plan::translate::NodeFacts;
use mainstay_pod::{NodeName, Validation};
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::eviction::{Eviction, most_processes};
use crate::image_gc::ImageGc;
use crate::ledger::{Ledger, Record};
use crate::logs::{LogBounds, rotate_all};
use crate::node_api::{self, BoardHealth, BoardPods, NodeApi, NodeApiSettings, NodeAuth};
use crate::node_shutdown::{GracefulShutdown, NodeShutdown};
use crate::objects::{self, Shelf};
use crate::observe::{Observer, follow};
use crate::pods_group::{self, PodsGroup};
use crate::probe::{self, Counts, Line, Prober};
use crate::publish::api::ApiPods;
use crate::publish::object_mirrors::StaticObjects;
use crate::publish::{self, ApiAccess, Board, NodeTimes, PodNetwork, Shown};
use crate::qos;
use crate::sources::manifest_dir::{self, Batch, ManifestPaths};
use crate::sources::merge::{Goals, Merge, Note, Notes, Reading, Remembered};
use crate::sources::url::{self, ManifestUrl};
use crate::supervise::Supervisor;
use crate::worker::{Performer, PullLimits, Worker, WorkerGoal};
use crate::{AgentError, addresses, http, volumes};

/// How long the end of pods may take beyond their grace periods.
pub const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How long a new agent waits for the first look at every path with manifests, before it goes by
/// what it remembers of those that hang.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(10);

/// How often the runtime is asked how it is. A kubelet (`pkg/kubelet/kubelet.go`) asks every 5 s.
const RUNTIME_STATUS_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may say nothing. Source: `maxWaitForContainerRuntime` there.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked that did not answer. Source: `updateRuntimeUp` there.
const AWAY_INTERVAL: Duration = Duration::from_secs(5);

/// What an agent is made with.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The name that static pods' names end in.
    pub node_name: NodeName,
    /// Where manifests are.
    pub manifests: ManifestPaths,
    /// What to do about unknown and duplicate fields.
    pub validation: Validation,
    /// Where else manifests are; `manifests` has its name.
    pub manifest_url: Option<ManifestUrl>,
    /// Where the service manager has put the credentials of the agent's service, if it has.
    pub credentials_directory: Option<PathBuf>,
    /// How often manifests are looked at although nothing was heard of them.
    pub manifest_interval: Duration,
    /// Where what must survive the machine is.
    pub ledger_directory: PathBuf,
    /// The socket for `mainstay status` and its like.
    pub control_socket: PathBuf,
    /// What pods cannot know by themselves.
    pub facts: NodeFacts,
    /// The host's resolver settings, a file of the form of resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// The node's own addresses, the primary one first; with none the machine is asked.
    pub addresses: Vec<IpAddr>,
    /// Bounds for container logs.
    pub log_bounds: LogBounds,
    /// How often they are looked at. Source: `containerLogMonitorInterval`.
    pub log_interval: Duration,
    /// How many images are pulled, and how soon one after the other.
    pub pulls: PullLimits,
    /// Which parts of the node's own API there are.
    pub node_api: NodeApiSettings,
    /// From where on memory, disk or processes are short.
    pub eviction: Thresholds,
    /// When images are removed that nobody uses.
    pub image_gc: Policy,
    /// What the machine's owner has said of the node.
    pub node: Arc<NodeSettings>,
    /// How much the machine has of what pods take.
    pub machine: Machine,
    /// When something of the node is told to the API.
    pub node_times: NodeTimes,
    /// Whether the node registers itself. Source: `registerNode`.
    pub registers: bool,
    /// The control group above all pods.
    pub pods_group: Arc<dyn PodsGroup>,
    /// The Kubernetes API that this node belongs to; `None` without one. Pods of manifests run as
    /// they do whether it answers or not.
    pub api: Option<ApiAccess>,
    /// In which order pods end when the machine is shut down; `None` is in none.
    pub graceful_shutdown: Option<GracefulShutdown>,
    /// The network of pods across the API's nodes, if this node makes it.
    pub pod_network: Option<Arc<dyn PodNetwork>>,
}

/// The agent, with everything opened and nothing begun.
pub struct Agent {
    config: AgentConfig,
    performer: Arc<Performer>,
    records: BTreeMap<PodKey, Record>,
    listener: UnixListener,
    addresses: watch::Sender<NodeAddresses>,
    board: watch::Sender<Arc<Board>>,
    api_pods: Arc<ApiPods>,
    counts: Counts,
}

impl Agent {
    /// Opens what the agent needs. After this, nothing of its own can keep it from running.
    ///
    /// # Errors
    ///
    /// When the ledger or the control socket cannot be opened.
    pub fn open(
        config: AgentConfig,
        runtime: Arc<dyn Runtime>,
        images: Arc<dyn Images>,
    ) -> Result<Self, AgentError> {
        let (ledger, records) = Ledger::open(&config.ledger_directory)
            .map_err(|error| AgentError::new("open the ledger", &error))?;
        let hierarchies = Hierarchies::mounted()
            .map_err(|error| AgentError::new("find control groups", &error))?;
        let listener = http::listen(&config.control_socket)
            .map_err(|error| AgentError::new("listen for commands", &error))?;
        let observer = Arc::new(Observer::new(runtime.clone(), config.facts.clone()));
        let (addresses, addresses_seen) = watch::channel(addresses::now(&config.addresses));
        let performer = Arc::new(Performer::new(
            &config,
            runtime,
            images,
            observer,
            hierarchies,
            (ledger, records.clone()),
            addresses_seen,
        ));
        Ok(Self {
            config,
            performer,
            records,
            listener,
            addresses,
            board: watch::Sender::default(),
            api_pods: Arc::new(ApiPods::new()),
            counts: Counts::default(),
        })
    }

    /// The node's own API, which answers from this agent. To be served by whoever has a port for it.
    pub fn node_api(&self, auth: Arc<dyn NodeAuth>) -> NodeApi {
        let board = self.board.subscribe();
        NodeApi::new(node_api::Context {
            node_name: self.config.node_name.as_str().to_owned(),
            pods: Arc::new(BoardPods { board: board.clone(), api: self.api_pods.clone() }),
            runtime: self.performer.runtime.clone(),
            health: Arc::new(BoardHealth(board)),
            auth,
            probes: self.counts.clone(),
            settings: self.config.node_api.clone(),
            root_dir: self.performer.facts.pods_directory.clone(),
        })
    }

    /// Stops every pod, each with its own grace period, instead of running. What they have on disk
    /// stays.
    ///
    /// # Errors
    ///
    /// When the runtime cannot be asked what runs, or pods did not end in their time and
    /// [`STOP_PATIENCE`], which are named.
    pub async fn stop_pods(self) -> Result<(), AgentError> {
        let looked = self.performer.observer.relist().await;
        looked.map_err(|error| AgentError::new("ask the runtime what runs", &error))?;
        let (reports, _told) = mpsc::unbounded_channel();
        let (_changes, images) = watch::channel(0u64);
        let mut workers = JoinSet::new();
        let mut goals = Vec::new();
        let mut longest = Duration::ZERO;
        for key in self.performer.observer.keys() {
            let seen = self.performer.observer.subscribe(&key);
            let graces = seen.borrow().sandboxes.iter().map(|sandbox| sandbox.grace).max();
            longest = longest.max(graces.unwrap_or_default());
            let goal = WorkerGoal { goal: Goal::Gone, manifest: None, pending: None };
            let (sender, goal) = watch::channel(goal);
            goals.push(sender);
            // Nothing that ends is probed.
            let probes = Line::new(Prober::new().0, key.clone());
            let mut worker = Worker {
                key: key.clone(),
                goal,
                seen,
                images: images.clone(),
                memory: Memory::default(),
                status: None,
                invalid: None,
                performer: self.performer.clone(),
                probes,
                reports: reports.clone(),
                waits_for_others: false,
            };
            workers.spawn(async move { worker.run().await });
        }
        let follow = follow(self.performer.observer.clone());
        let ended = async { while workers.join_next().await.is_some() {} };
        tokio::select! {
            () = ended => {}
            () = follow => {}
            () = tokio::time::sleep(longest + STOP_PATIENCE) => {}
        }
        let left: Vec<String> =
            self.performer.observer.keys().iter().map(ToString::to_string).collect();
        if left.is_empty() {
            return Ok(());
        }
        let cause = format!("these are left: {}", left.join(", "));
        Err(AgentError { step: "stop all pods", cause })
    }

    /// Runs until `shutdown` resolves. Pods run on.
    ///
    /// # Errors
    ///
    /// When one of its tasks or threads cannot be started or ends before that: the agent, which
    /// would look at nothing or remember nothing from then on, has to be started again.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        let Self { config, performer, records, listener, addresses, board, api_pods, counts } =
            self;
        let mut tasks = JoinSet::new();
        let (reports, publications) = mpsc::unbounded_channel();
        let (notes, notes_seen) = watch::channel(Arc::new(Notes::default()));
        let (goals, goals_seen) = watch::channel(None);
        let (api_goals, api_goals_seen) = watch::channel(None);
        let board_seen = board.subscribe();
        let (requests, requested) = mpsc::channel(16);
        let (image_changes, images) = watch::channel(0u64);

        // Manifests: threads that look, a task that merges.
        let (batches, found) = mpsc::unbounded_channel();
        for path in config.manifests.paths.clone() {
            let (recursive, interval) = (config.manifests.recursive, config.manifest_interval);
            let of_path = records.values().filter(|it| {
                it.pod.source().is_static() && config.manifests.is_of(&path, &it.path)
            });
            let known = of_path.map(|it| (it.path.clone(), it.place.clone())).collect();
            let (sender, seen) = mpsc::unbounded_channel();
            std::thread::Builder::new()
                .name("manifests".into())
                .spawn(move || manifest_dir::watch(&path, recursive, interval, &known, &sender))
                .map_err(|error| AgentError::new("start looking at the manifests", &error))?;
            tasks.spawn(pass_on(seen, batches.clone()));
        }
        let reading = Reading {
            node_name: config.node_name.clone(),
            validation: config.validation,
            credentials: config.credentials_directory,
        };
        if let Some(url) = config.manifest_url {
            tasks.spawn(url::watch(url, batches.clone()));
        }
        let remembered = records.into_values().filter(|it| it.pod.source().is_static());
        let remembered =
            remembered.map(|it| Remembered { path: it.path, place: it.place, pod: it.pod });
        let merge = Merge::new(reading, config.manifests, remembered);
        let objects = performer.objects.manifests.clone();
        let (lying, lying_seen) = watch::channel(None);
        tasks.spawn(merge_all(merge, found, (objects, lying), goals, notes));

        // Pods: the observer, the supervisor with its workers.
        tasks.spawn(follow(performer.observer.clone()));
        let hosted = volumes::hosted(&performer.facts).unwrap_or_else(|error| {
            tracing::warn!(
                error = mainstay_cri::chain(&error),
                "cannot look for what is left of old pods"
            );
            Vec::new()
        });
        let (prober, hears) = Prober::new();
        let mut tls = mainstay_pki::unverified_client()
            .map_err(|error| AgentError::new("make TLS for probes", &error))?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let probing = probe::Context {
            runtime: performer.runtime.clone(),
            tls: Arc::new(tls),
            events: performer.events.clone(),
            counts,
            pods_directory: performer.facts.pods_directory.clone(),
        };
        tasks.spawn(probe::serve(probing, hears));
        let supervisor =
            Supervisor::new(performer.clone(), reports, images.clone(), hosted, prober);
        let observer = performer.observer.clone();
        tasks.spawn(async move {
            // Nothing is decided before it is known what runs.
            observer.looked().await;
            supervisor.run(goals_seen, api_goals_seen, requested).await;
        });
        tasks.spawn(tell_images(performer.images.clone(), image_changes));
        tasks.spawn(rotate_all(performer.runtime.clone(), config.log_bounds, config.log_interval));
        let (pressure, pressure_seen) = watch::channel(Pressure::default());
        let image_gc = Arc::new(ImageGc {
            performer: performer.clone(),
            board: board_seen.clone(),
            policy: config.image_gc,
            directory: config.ledger_directory.clone(),
            begun: Instant::now(),
            known: Mutex::default(),
        });
        tasks.spawn(image_gc.clone().run());
        let limits = config.node.allocation.limits(&config.machine, most_processes());
        let eviction = Eviction {
            performer: performer.clone(),
            board: board_seen.clone(),
            thresholds: match config.node.allocation.enforced {
                true => config.eviction.with_allocatable(),
                false => config.eviction,
            },
            limits_storage: config.node.allocation.has_storage,
            directory: config.ledger_directory.clone(),
            allocatable: limits.memory,
            pressure,
            images: image_gc,
            requests: requests.clone(),
        };
        tasks.spawn(eviction.run());
        let (shutting_down, goes_down) = watch::channel(false);
        // Where nobody listens, it never is.
        if let Some(graceful) = config.graceful_shutdown {
            let (performer, board) = (performer.clone(), board_seen.clone());
            let shutting_down = shutting_down.clone();
            let shutdown = NodeShutdown { performer, board, graceful, shutting_down };
            let watched = shutdown.watch();
            tasks.spawn(watched.map_err(|error| AgentError::new("listen to logind", &error))?);
        }
        if let Some(network) = config.pod_network.clone() {
            tasks.spawn(publish::network::tell_addresses(addresses.subscribe(), network));
        }
        tasks.spawn(addresses::keep(config.addresses, addresses));

        // People: the board and the socket.
        let (health, healths) = watch::channel(Vec::new());
        tasks.spawn(ask_runtime(performer.clone(), images.clone(), health));
        // Without an API nobody says anything of its pods, and what runs of them runs on.
        if let Some(access) = config.api {
            let calls = publish::api::calls(access.client.clone());
            tasks.spawn(objects::services::keep(calls.clone(), performer.services.clone()));
            tasks.spawn(objects::api::keep(calls, performer.objects.api.clone()));
            let shown = Shown {
                node_name: config.node_name.as_str().to_owned(),
                directory: config.ledger_directory,
                settings: config.node.clone(),
                times: config.node_times,
                registers: config.registers,
                pressure: pressure_seen,
                shutting_down: goes_down,
                image_changes: images,
                health: healths.clone(),
                board: board_seen.clone(),
                performer: performer.clone(),
                pods: api_pods,
                objects: lying_seen,
                network: config.pod_network,
                goals: api_goals.clone(),
            };
            publish::show(access, shown, &mut tasks);
        }
        let all = config.pods_group;
        tasks.spawn(qos::keep(performer.clone(), all.clone(), board_seen.clone()));
        tasks.spawn(pods_group::keep(all, limits, performer.events.clone()));
        tasks.spawn(publish::keep(publications, notes_seen, healths, board));
        let context = http::Context {
            node_name: config.node_name.as_str().to_owned(),
            board: board_seen,
            events: performer.events.clone(),
            requests,
        };
        tasks.spawn(http::serve(listener, context));

        let ledger = performer.ledger.clone();
        tasks.spawn(async move { ledger.ended().await });

        let told = until(shutdown, &mut tasks).await;
        // Workers stop where they are; the next agent goes on from what it finds.
        tasks.shutdown().await;
        let kept = performer.ledger.flush().await;
        told.and(kept.map_err(|error| AgentError::new("keep the ledger", &error)))
    }
}

/// Waits for `shutdown`. A task that ends before, in whatever way, is an error: none of them has an
/// end of its own, and what fed it or needed it stands still without a word.
async fn until(
    shutdown: impl Future<Output = ()>,
    tasks: &mut JoinSet<()>,
) -> Result<(), AgentError> {
    let cause = tokio::select! {
        () = shutdown => return Ok(()),
        // Cancel-safe per docs on `JoinSet::join_next`.
        Some(ended) = tasks.join_next() => match ended {
            Ok(()) => "one of the agent's tasks has ended".to_owned(),
            Err(error) => error.to_string(),
        },
    };
    Err(AgentError { step: "go on", cause })
}

/// Hands on what one thread finds out, and so ends with it.
async fn pass_on(mut seen: mpsc::UnboundedReceiver<Batch>, batches: mpsc::UnboundedSender<Batch>) {
    while let Some(batch) = seen.recv().await {
        if batches.send(batch).is_err() {
            return;
        }
    }
}

async fn merge_all(
    mut merge: Merge,
    mut found: mpsc::UnboundedReceiver<Batch>,
    (shelf, lying): (Arc<Shelf>, watch::Sender<Option<Arc<StaticObjects>>>),
    goals: watch::Sender<Option<Arc<Goals>>>,
    notes: watch::Sender<Arc<Notes>>,
) {
    let mut said = Notes::default();
    let patience = tokio::time::sleep(MANIFEST_PATIENCE);
    tokio::pin!(patience);
    loop {
        let now = merge.notes();
        if now != said {
            log_news(&said, &now);
            said = now.clone();
            notes.send_replace(Arc::new(now));
        }
        // After the notes, so that whoever sees pods can know what there is to say about them.
        if merge.is_ready() {
            // First what pods refer to, which is there then when they are started.
            let objects = merge.objects();
            let all = objects.iter().map(|(name, it)| (name.clone(), it.0.clone())).collect();
            let unread = merge.unread();
            let objects = StaticObjects { found: objects, is_all: unread.is_none() };
            shelf.replace(all, unread);
            lying.send_if_modified(|known| {
                let news = known.as_deref() != Some(&objects);
                if news {
                    *known = Some(Arc::new(objects));
                }
                news
            });
            // Receivers live as long as the agent.
            goals.send_replace(Some(Arc::new(merge.goals())));
        }
        tokio::select! {
            // Cancel-safe per docs on `UnboundedReceiver::recv`.
            batch = found.recv() => match batch {
                Some(batch) => merge.apply(batch, Timestamp::now()),
                None => return,
            },
            () = &mut patience, if !merge.is_ready() => merge.go_without(),
        }
    }
}

/// Logs what was not there before.
fn log_news(before: &Notes, now: &Notes) {
    for (path, error) in &now.unreadable {
        if before.unreadable.get(path) != Some(error) {
            tracing::warn!(path = %path.display(), error, "cannot look at the manifests; their pods run on");
        }
    }
    for path in before.unreadable.keys().filter(|path| !now.unreadable.contains_key(*path)) {
        tracing::info!(path = %path.display(), "the manifests can be looked at again");
    }
    for (directory, names) in &now.ignored {
        let known = before.ignored.get(directory);
        for name in names.iter().filter(|name| known.is_none_or(|known| !known.contains(*name))) {
            tracing::info!(directory = %directory.display(), name, "not a manifest by its name");
        }
    }
    for (path, notes) in &now.files {
        let known = before.files.get(path);
        for note in notes.iter().filter(|note| known.is_none_or(|known| !known.contains(note))) {
            let file = path.display();
            match note {
                Note::Diagnostic(diagnostic) => tracing::warn!("{diagnostic}"),
                Note::Unreadable(error) => tracing::warn!("{file}: cannot be read: {error}"),
                Note::Shadowed { pod, by } => {
                    let (namespace, name, by) = (&pod.namespace, &pod.name, by.display());
                    tracing::warn!(
                        "{file}: pod {namespace}/{name} is taken from {by}; remove one of the two"
                    );
                }
            }
        }
    }
}

/// Asks the runtime how it is, for ever.
async fn ask_runtime(
    performer: Arc<Performer>,
    mut images: watch::Receiver<u64>,
    health: watch::Sender<Vec<RuntimeCondition>>,
) {
    let mut interval = tokio::time::interval(RUNTIME_STATUS_INTERVAL);
    let mut is_away = false;
    loop {
        tokio::select! {
            // Cancel-safe per docs on `Interval::tick`.
            _ = interval.tick() => {}
            // That it is there again is told soon.
            () = tokio::time::sleep(AWAY_INTERVAL), if is_away => {}
            // Cancel-safe per docs on `watch::Receiver::changed`. Without a sender the agent ends.
            _ = images.changed() => {}
        }
        let status = timeout(RUNTIME_PATIENCE, performer.runtime.status()).await;
        is_away = !matches!(status, Ok(Ok(_)));
        let mut conditions = match status {
            Ok(Ok(status)) => status.conditions,
            Ok(Err(error)) => vec![unready("RuntimeReady", UNREACHABLE, error.chain())],
            Err(_) => {
                let seconds = RUNTIME_PATIENCE.as_secs();
                let message = format!("the container runtime has not answered for {seconds} s");
                vec![unready("RuntimeReady", UNREACHABLE, message)]
            }
        };
        let problems = performer.images.problems().await;
        if !problems.is_empty() {
            conditions.push(unready("ImagesReady", "Unusable", problems.join("; ")));
        }
        health.send_if_modified(|known| {
            conditions.iter().filter(|it| !known.contains(it)).for_each(log_condition);
            let changed = *known != conditions;
            *known = conditions;
            changed
        });
    }
}

fn unready(kind: &str, reason: &str, message: String) -> RuntimeCondition {
    RuntimeCondition { kind: kind.to_owned(), status: false, reason: reason.to_owned(), message }
}

fn log_condition(condition: &RuntimeCondition) {
    let (kind, message) = (&condition.kind, &condition.message);
    match (condition.status, message.is_empty()) {
        (true, true) => {}
        (true, false) => tracing::info!(kind, message, "the runtime"),
        (false, _) => tracing::warn!(kind, message, "the runtime is not as it should be"),
    }
}

/// Tells workers that images came or went.
async fn tell_images(images: Arc<dyn Images>, changes: watch::Sender<u64>) {
    let mut change = images.changed();
    loop {
        change.await;
        // What comes after this is told next; what came before it is seen by those who are told now.
        change = images.changed();
        changes.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::path::Path;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_path_that_hangs_is_not_waited_for_for_ever() {
        let node_name = NodeName::new("n1").unwrap();
        let (validation, credentials) = (Validation::Strict, None);
        let reading = Reading { node_name, validation, credentials };
        let manifests =
            ManifestPaths { paths: vec!["/hanging".into()], recursive: false, url: None };
        let (_batches, found) = mpsc::unbounded_channel();
        let (goals, mut goals_seen) = watch::channel(None);
        let (notes, notes_seen) = watch::channel(Arc::new(Notes::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(merge_all(
            Merge::new(reading, manifests, []),
            found,
            (Arc::default(), watch::Sender::default()),
            goals,
            notes,
        ));
        goals_seen.wait_for(Option::is_some).await.unwrap();
        assert!(notes_seen.borrow().unreadable.contains_key(Path::new("/hanging")));
    }

    #[tokio::test]
    async fn only_shutdown_ends_an_agent_in_order() {
        let mut tasks = JoinSet::new();
        tasks.spawn(pending());
        assert!(until(ready(()), &mut tasks).await.is_ok());
        tasks.spawn(ready(()));
        let error = until(pending(), &mut tasks).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot go on: one of the agent's tasks has ended");
        tasks.spawn(async { panic!("out of order") });
        let error = until(pending(), &mut tasks).await.unwrap_err().to_string();
        assert!(error.contains("panicked") && error.contains("out of order"), "{error}");
    }
}
