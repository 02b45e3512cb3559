//! What the control socket says, as JSON. Also what `mainstay status -o json` prints.

mod initializing;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use mainstay_cri::RuntimeCondition;
use mainstay_plan::pod::{PodKey, SeenPod, Waiting};
use mainstay_pod::Severity;
use serde::{Deserialize, Serialize};

use crate::publish::{Board, EventKind, Events, PodEntry, PodReport};
use crate::sources::merge;

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
    /// One for each thing.
    pub notes: Vec<Note>,
}

/// One thing about a manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// `error` when something that the manifest says does not count, else `warning`.
    pub severity: String,
    /// One line, with its place.
    pub message: String,
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
        let pods = board.pods.iter().map(|(key, entry)| match (&entry.report, &entry.leaving) {
            (Some(report), _) => Pod::of(report, entry, events),
            (None, seen) => Pod::leaving(key, seen.as_deref(), events),
        });
        let notes = &board.notes;
        let manifests = notes.files.iter().map(|(path, notes)| Manifest {
            path: path.display().to_string(),
            notes: notes.iter().map(Note::of).collect(),
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

// === impl Note ===

const ERROR: &str = "error";
const WARNING: &str = "warning";

impl Note {
    fn of(note: &merge::Note) -> Self {
        let (severity, message) = match note {
            merge::Note::Diagnostic(diagnostic) => {
                let severity = match diagnostic.severity {
                    Severity::Error => ERROR,
                    Severity::Warning => WARNING,
                };
                (severity, diagnostic.to_string())
            }
            merge::Note::Unreadable(error) => (ERROR, format!("cannot be read: {error}")),
            merge::Note::Shadowed { pod, by } => {
                let (namespace, name, by) = (&pod.namespace, &pod.name, by.display());
                let taken = format!("pod {namespace}/{name} is taken from {by}");
                (ERROR, format!("{taken}; remove one of the two"))
            }
        };
        Self { severity: severity.to_owned(), message }
    }

    /// Whether something that the manifest says does not count.
    pub fn is_error(&self) -> bool {
        self.severity == ERROR
    }
}

// === impl Pod ===

impl Pod {
    fn of(report: &PodReport, entry: &PodEntry, events: &Events) -> Self {
        let counted = initializing::counted(&report.pod, &report.status);
        let told = events.of(&report.key);
        let (state, mut problem) = judge(report, entry);
        let last = told.last().filter(|event| problem.is_none() && event.reason == "Pulling");
        if state == "ContainerCreating" {
            problem = last.map(|event| event.message.clone());
        }
        let warning = last_warning(&told).filter(|_| problem.is_none());
        Self {
            namespace: report.key.namespace.clone(),
            name: report.key.name.clone(),
            uid: report.pod.uid().to_owned(),
            manifest: report.manifest.as_ref().map(|it| it.path.display().to_string()),
            state,
            problem,
            warning,
            ready: counted.ready,
            containers: counted.containers,
            restarts: counted.restarts,
            status: (*report.status).clone(),
            events: told.into_iter().map(Event::of).collect(),
        }
    }

    /// A pod whose manifest is not known any more, as far as it is still there.
    fn leaving(key: &PodKey, seen: Option<&SeenPod>, events: &Events) -> Self {
        let sandbox = seen.and_then(|seen| seen.sandboxes.first());
        let containers = sandbox.map(|it| it.containers.as_slice()).unwrap_or_default();
        let running = containers.iter().filter(|container| !container.has_ended()).count();
        let told = events.of(key);
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: sandbox.map(|sandbox| sandbox.uid.clone()).unwrap_or_default(),
            state: TERMINATING.to_owned(),
            ready: running,
            containers: containers.len(),
            warning: last_warning(&told),
            events: told.into_iter().map(Event::of).collect(),
            ..Self::default()
        }
    }
}

// === impl Event ===

impl Event {
    fn of(event: crate::publish::Event) -> Self {
        Self {
            kind: event.kind.as_str().to_owned(),
            reason: event.reason.into_owned(),
            message: event.message,
            count: event.count,
            first: event.first,
            last: event.last,
        }
    }
}

fn last_warning(told: &[crate::publish::Event]) -> Option<String> {
    let warning = told.iter().rfind(|event| event.kind == EventKind::Warning);
    warning.map(|event| format!("{} {}: {}", event.last, event.reason, event.message))
}

/// The state of a pod that is being taken away.
const TERMINATING: &str = "Terminating";

/// One word and one sentence, as `kubectl get pod` and a colleague would say it.
fn judge(report: &PodReport, entry: &PodEntry) -> (String, Option<String>) {
    let containers = report.status.container_statuses.as_deref().unwrap_or_default();
    let phase = report.status.phase.clone().unwrap_or_default();
    let invalid = report.manifest.as_ref().and_then(|manifest| manifest.invalid.as_ref());
    let invalid = invalid.and_then(|errors| errors.first()).map(|error| {
        format!("its manifest is not valid any more, and the last good version is kept: {error}")
    });
    if entry.leaving.is_some() {
        return (TERMINATING.to_owned(), None);
    }
    if let Some(Waiting::Predecessor { uid }) = &report.waiting {
        let problem = format!("it waits for its predecessor ({uid}) to end");
        return ("Pending".to_owned(), Some(problem));
    }
    if let Some((state, problem)) = initializing::state(&report.pod, &report.status) {
        return (state, problem.or_else(|| report.status.message.clone()).or(invalid));
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
                "Failed" => {
                    let reason = report.status.reason.clone().or_else(|| failure(containers));
                    reason.unwrap_or_else(|| "Error".to_owned())
                }
                _ => phase,
            };
            (state, report.status.message.clone().or(invalid))
        }
    }
}

/// Why the first container that failed did.
fn failure(containers: &[ContainerStatus]) -> Option<String> {
    let ends =
        containers.iter().filter_map(|container| container.state.as_ref()?.terminated.as_ref());
    ends.filter(|end| end.exit_code != 0).find_map(|end| end.reason.clone())
}

#[cfg(test)]
mod tests;
