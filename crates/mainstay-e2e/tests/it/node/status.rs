//! What `mainstay status -o json` prints, as scripts read it.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use serde::Deserialize;

/// The whole of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) agent: bool,
    pub(crate) node: String,
    pub(crate) pods: Vec<Pod>,
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) sources: Vec<Source>,
    pub(crate) runtime: Vec<Condition>,
}

/// One pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) manifest: Option<String>,
    pub(crate) state: String,
    pub(crate) problem: Option<String>,
    pub(crate) warning: Option<String>,
    pub(crate) ready: usize,
    pub(crate) containers: usize,
    pub(crate) restarts: i32,
    pub(crate) status: PodStatus,
    pub(crate) events: Vec<Event>,
}

/// What there is to say about one manifest.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) path: String,
    pub(crate) notes: Vec<Note>,
}

/// One thing about a manifest.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Note {
    pub(crate) message: String,
}

/// What there is to say about one directory.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) error: Option<String>,
    pub(crate) ignored: Vec<String>,
}

/// What has to be so for pods to run.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: bool,
    pub(crate) message: String,
}

/// Something that happened.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) count: u32,
}

impl Status {
    /// A pod of the namespace `default`, by the name that its manifest gives it.
    pub(crate) fn pod(&self, name: &str) -> Option<&Pod> {
        let full = format!("{name}-{}", self.node);
        self.pods.iter().find(|pod| pod.namespace == "default" && pod.name == full)
    }

    /// The state of a pod; empty when there is no such pod.
    pub(crate) fn state(&self, name: &str) -> &str {
        self.pod(name).map_or("", |pod| &pod.state)
    }

    /// What is said about the manifest of this file name, a line each.
    pub(crate) fn notes(&self, file: &str) -> String {
        let end = format!("/{file}");
        let found = self.manifests.iter().find(|manifest| manifest.path.ends_with(&end));
        let notes = found.iter().flat_map(|manifest| &manifest.notes);
        notes.map(|note| note.message.as_str()).collect::<Vec<_>>().join("\n")
    }
}

impl Pod {
    /// Whether all of it runs.
    pub(crate) fn runs(&self) -> bool {
        self.state == "Running" && self.ready == self.containers
    }

    /// A condition of this type; panics when there is none.
    pub(crate) fn condition(&self, kind: &str) -> &PodCondition {
        let mut all = self.status.conditions.iter().flatten();
        all.find(|condition| condition.type_ == kind).unwrap()
    }

    /// A container's status; panics when there is none.
    pub(crate) fn container(&self, name: &str) -> &ContainerStatus {
        let mut all = self.status.container_statuses.iter().flatten();
        all.find(|container| container.name == name).unwrap()
    }

    /// The status of what runs before the others; panics when there is none.
    pub(crate) fn init(&self, name: &str) -> &ContainerStatus {
        let mut all = self.status.init_container_statuses.iter().flatten();
        all.find(|container| container.name == name).unwrap()
    }

    /// The status of a container of either kind; panics when there is none.
    pub(crate) fn any(&self, name: &str) -> &ContainerStatus {
        let init = self.status.init_container_statuses.iter().flatten();
        let mut all = init.chain(self.status.container_statuses.iter().flatten());
        all.find(|container| container.name == name).unwrap()
    }

    /// What tells the container `main` from the one that replaces it.
    pub(crate) fn id(&self) -> &str {
        self.container("main").container_id.as_deref().unwrap()
    }

    /// The events with this reason.
    pub(crate) fn events(&self, reason: &str) -> Vec<&Event> {
        self.events.iter().filter(|event| event.reason == reason).collect()
    }
}
