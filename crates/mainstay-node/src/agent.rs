//! Putting the agent's tasks together and letting them run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mainstay_cri::{Images, Runtime};
use mainstay_linux::cgroup::Hierarchies;
use mainstay_plan::pod::PodKey;
use mainstay_plan::status::NodeAddresses;
use mainstay_plan::translate::NodeFacts;
use mainstay_pod::{NodeName, Validation};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::ledger::{Ledger, Record};
use crate::logs::{LogBounds, rotate_all};
use crate::observe::{Observer, follow};
use crate::publish::{self, Board, Events};
use crate::sources::manifest_dir::{self, Batch};
use crate::sources::merge::{Goals, Merge, Note, Notes, Reading, Remembered};
use crate::supervise::Supervisor;
use crate::worker::Performer;
use crate::{AgentError, http, volumes};

/// What an agent is made with.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The name that static pods' names end in.
    pub node_name: NodeName,
    /// Directories and files with manifests.
    pub manifest_paths: Vec<PathBuf>,
    /// What to do about unknown and duplicate fields.
    pub validation: Validation,
    /// How often manifests are looked at although nothing was heard of them.
    pub manifest_interval: Duration,
    /// Where what must survive the machine is.
    pub ledger_directory: PathBuf,
    /// The socket for `mainstay status` and its like.
    pub control_socket: PathBuf,
    /// What pods cannot know by themselves.
    pub facts: NodeFacts,
    /// The node's own addresses.
    pub addresses: NodeAddresses,
    /// Bounds for container logs.
    pub log_bounds: LogBounds,
}

/// The agent, with everything opened and nothing begun.
pub struct Agent {
    config: AgentConfig,
    performer: Arc<Performer>,
    records: BTreeMap<PodKey, Record>,
    listener: http::Listener,
}

impl Agent {
    /// Opens what the agent needs. After this, nothing of its own can keep it from running.
    ///
    /// # Errors
    ///
    /// When the ledger or the control socket cannot be opened, or the runtime cannot be asked what
    /// it has.
    pub async fn open(
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
        let observer = Arc::new(Observer::new(runtime.clone()));
        // Nothing is decided before it is known what runs.
        observer
            .relist()
            .await
            .map_err(|error| AgentError::new("ask the runtime what runs", &error))?;
        let performer = Arc::new(Performer::new(
            runtime,
            images,
            observer,
            config.facts.clone(),
            config.addresses.clone(),
            hierarchies,
            (ledger, records.clone()),
            Events::default(),
        ));
        Ok(Self { config, performer, records, listener })
    }

    /// Runs until `shutdown` resolves. Pods run on.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { config, performer, records, listener } = self;
        let mut tasks = JoinSet::new();
        let (reports, publications) = mpsc::unbounded_channel();
        let (notes, notes_seen) = watch::channel(Arc::new(Notes::default()));
        let (goals, goals_seen) = watch::channel(None);
        let (board, board_seen) = watch::channel(Arc::new(Board::default()));
        let (requests, requested) = mpsc::channel(16);
        let (chance, chances) = watch::channel(0u64);

        // Manifests: a thread that looks, a task that merges.
        let (batches, found) = mpsc::unbounded_channel();
        let (paths, interval) = (config.manifest_paths.clone(), config.manifest_interval);
        let looking = std::thread::Builder::new()
            .name("manifests".into())
            .spawn(move || manifest_dir::watch(&paths, interval, &batches));
        if let Err(error) = looking {
            tracing::error!(%error, "cannot start looking at the manifests; pods stay as they are");
        }
        let reading =
            Reading { node_name: config.node_name.clone(), validation: config.validation };
        let remembered = records.into_values();
        let remembered = remembered.map(|it| Remembered { path: it.path, pod: it.pod });
        let merge = Merge::new(reading, &config.manifest_paths, remembered);
        tasks.spawn(merge_all(merge, found, goals, notes));

        // Pods: the observer, the supervisor with its workers.
        tasks.spawn(follow(performer.observer.clone()));
        let hosted = volumes::hosted(&performer.facts).unwrap_or_else(|error| {
            tracing::warn!(
                error = crate::chain(&error),
                "cannot look for what is left of old pods"
            );
            Vec::new()
        });
        let supervisor = Supervisor::new(performer.clone(), reports, chances, hosted);
        tasks.spawn(supervisor.run(goals_seen, requested));
        tasks.spawn(tell_chances(performer.images.clone(), chance));
        tasks.spawn(rotate_all(performer.runtime.clone(), config.log_bounds));

        // People: the board and the socket.
        tasks.spawn(publish::keep(publications, notes_seen, board));
        let context = http::Context {
            node_name: config.node_name.as_str().to_owned(),
            board: board_seen,
            events: performer.events.clone(),
            requests,
        };
        tasks.spawn(http::serve(listener, context));

        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                // None of them ends by itself.
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "one of the agent's tasks panicked; the agent ends, \
                            so that it is started again; pods run on");
                        break;
                    }
                }
            }
        }
        // Workers stop where they are; the next agent goes on from what it finds.
        tasks.shutdown().await;
        performer.ledger.flush().await;
    }
}

async fn merge_all(
    mut merge: Merge,
    mut found: mpsc::UnboundedReceiver<Batch>,
    goals: watch::Sender<Option<Arc<Goals>>>,
    notes: watch::Sender<Arc<Notes>>,
) {
    let mut said = Notes::default();
    while let Some(batch) = found.recv().await {
        merge.apply(batch, Timestamp::now());
        if merge.is_ready() {
            // Receivers live as long as the agent.
            goals.send_replace(Some(Arc::new(merge.goals())));
        }
        let now = merge.notes();
        if now != said {
            log_news(&said, &now);
            said = now.clone();
            notes.send_replace(Arc::new(now));
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

/// Tells workers that something came that they may have missed.
async fn tell_chances(images: Arc<dyn Images>, chance: watch::Sender<u64>) {
    loop {
        images.changed().await;
        chance.send_modify(|count| *count += 1);
    }
}
