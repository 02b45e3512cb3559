//! What the control socket says, as JSON. Also what `mainstay status -o json` prints.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use mainstay_cri::RuntimeCondition;
use mainstay_plan::pod::Waiting;
use serde::{Deserialize, Serialize};

use crate::publish::{Board, EventKind, Events, PodEntry, PodReport};
use crate::sources::merge::Note;

/// The whole answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether an agent says this; without one, it is what can be seen from outside.
    pub agent: bool,
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// All pods, by namespace and name.
    pub pods: Vec<Pod>,
    /// What there is to say about manifests.
    pub manifests: Vec<Manifest>,
    /// Files that are not read, and directories that cannot be looked at.
    pub sources: Vec<Source>,
    /// How the container runtime and its network are.
    pub runtime: Vec<Condition>,
}

/// One thing that has to be so for pods to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `RuntimeReady`, `NetworkReady` or another.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: bool,
    /// What there is to say about it, with the remedy.
    pub message: String,
}

/// One pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its full name.
    pub name: String,
    /// Its version.
    pub uid: String,
    /// The manifest that it comes from.
    pub manifest: Option<String>,
    /// One word: a phase, `Terminating`, or why it does not run.
    pub state: String,
    /// Why it is not as it should be, in a sentence.
    pub problem: Option<String>,
    /// The last thing that was not as it should be, if all is well now.
    pub warning: Option<String>,
    /// How many containers are ready.
    pub ready: usize,
    /// How many there are.
    pub containers: usize,
    /// How often containers were started again.
    pub restarts: i32,
    /// Its status as the Kubernetes API has it.
    pub status: PodStatus,
    /// What happened to it lately.
    pub events: Vec<Event>,
}

/// One manifest with something to say about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Its path.
    pub path: String,
    /// One line for each thing, with its place.
    pub notes: Vec<String>,
}

/// One directory with something to say about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Its path.
    pub path: String,
    /// Why it cannot be looked at.
    pub error: Option<String>,
    /// Files in it that are not read.
    pub ignored: Vec<String>,
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// How often.
    pub count: u32,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
}

// === impl Status ===

impl Status {
    pub(crate) fn of(node: &str, board: &Board, events: &Events) -> Self {
        let pods = board.pods.values().filter_map(|entry| {
            let report = entry.report.as_ref()?;
            Some(Pod::of(report, entry, events))
        });
        let notes = &board.notes;
        let manifests = notes.files.iter().map(|(path, notes)| Manifest {
            path: path.display().to_string(),
            notes: notes.iter().map(describe).collect(),
        });
        let ignored = notes.ignored.iter().filter(|(_, names)| !names.is_empty());
        let mut sources: Vec<Source> = ignored
            .map(|(path, names)| Source {
                path: path.display().to_string(),
                error: None,
                ignored: names.iter().cloned().collect(),
            })
            .collect();
        sources.extend(notes.unreadable.iter().map(|(path, error)| Source {
            path: path.display().to_string(),
            error: Some(error.clone()),
            ignored: Vec::new(),
        }));
        Self {
            agent: true,
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pods: pods.collect(),
            manifests: manifests.collect(),
            sources,
            runtime: board.runtime.iter().map(condition).collect(),
        }
    }
}

fn condition(condition: &RuntimeCondition) -> Condition {
    Condition {
        kind: condition.kind.clone(),
        status: condition.status,
        message: condition.message.clone(),
    }
}

fn describe(note: &Note) -> String {
    match note {
        Note::Diagnostic(diagnostic) => diagnostic.to_string(),
        Note::Unreadable(error) => format!("cannot be read: {error}"),
        Note::Shadowed { pod, by } => {
            let (namespace, name, by) = (&pod.namespace, &pod.name, by.display());
            format!("pod {namespace}/{name} is taken from {by}; remove one of the two")
        }
    }
}

// === impl Pod ===

impl Pod {
    fn of(report: &PodReport, entry: &PodEntry, events: &Events) -> Self {
        let containers = report.status.container_statuses.as_deref().unwrap_or_default();
        let told = events.of(&report.key);
        let (state, mut problem) = judge(report, entry, containers);
        let last = told.last().filter(|event| problem.is_none() && event.reason == "Pulling");
        if state == "ContainerCreating" {
            problem = last.map(|event| event.message.clone());
        }
        let warning = told.iter().rfind(|event| event.kind == EventKind::Warning);
        let warning = warning
            .filter(|_| problem.is_none())
            .map(|event| format!("{} {}: {}", event.last, event.reason, event.message));
        let event = |event: crate::publish::Event| Event {
            kind: event.kind.as_str().to_owned(),
            reason: event.reason.to_owned(),
            message: event.message,
            count: event.count,
            first: event.first,
            last: event.last,
        };
        Self {
            namespace: report.key.namespace.clone(),
            name: report.key.name.clone(),
            uid: report.pod.uid().to_owned(),
            manifest: report.manifest.as_ref().map(|it| it.path.display().to_string()),
            state,
            problem,
            warning,
            ready: containers.iter().filter(|container| container.ready).count(),
            containers: report.pod.spec().containers.len(),
            restarts: containers.iter().map(|container| container.restart_count).sum(),
            status: report.status.clone(),
            events: told.into_iter().map(event).collect(),
        }
    }
}

/// One word and one sentence, as `kubectl get pod` and a colleague would say it.
fn judge(
    report: &PodReport,
    entry: &PodEntry,
    containers: &[ContainerStatus],
) -> (String, Option<String>) {
    let phase = report.status.phase.clone().unwrap_or_default();
    let invalid = report.manifest.as_ref().and_then(|manifest| manifest.invalid.as_ref());
    let invalid = invalid.and_then(|errors| errors.first()).map(|error| {
        format!("its manifest is not valid any more, and the last good version is kept: {error}")
    });
    if entry.leaving {
        return ("Terminating".to_owned(), None);
    }
    if let Some(Waiting::Predecessor { uid }) = &report.waiting {
        let problem = format!("it waits for its predecessor ({uid}) to end");
        return ("Pending".to_owned(), Some(problem));
    }
    let waiting = containers.iter().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone()?;
        let message = waiting.message.as_ref().map(|text| format!("{}: {text}", container.name));
        Some((reason, message))
    });
    match waiting {
        Some((reason, message)) => (reason, message.or(invalid)),
        None => {
            let state = match phase.as_str() {
                "Succeeded" => "Completed".to_owned(),
                "Failed" => report.status.reason.clone().unwrap_or_else(|| "Error".to_owned()),
                _ => phase,
            };
            (state, report.status.message.clone().or(invalid))
        }
    }
}
