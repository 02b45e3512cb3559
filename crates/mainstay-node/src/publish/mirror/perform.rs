//! Carrying out one action on one mirror pod, and learning what came of it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use mainstay_plan::mirror::{Action, Held, object};
use mainstay_pod::FullName;
use mainstay_pod::identity::hash;
use serde_json::Value;

use super::{About, Looked};
use crate::publish::PodReport;
use crate::publish::api::{ApiPods, CallError, CallErrorKind, Calls, Deletion, pod_path};

/// One request to make.
pub(super) struct Request {
    pub(super) calls: Calls,
    pub(super) pods: Arc<ApiPods>,
    pub(super) node_name: String,
    pub(super) name: FullName,
    pub(super) action: Action,
    pub(super) looked: Looked,
}

/// What came of it.
pub(super) struct Work {
    pub(super) about: About,
    pub(super) result: Result<Option<Patched>, CallError>,
    /// The failure comes from what was known being old, and is nothing that people have to know.
    pub(super) stale: bool,
    /// A static pod whose name another pod has, by its UID.
    pub(super) taken: Option<(Arc<PodReport>, String)>,
}

/// A patch that was carried out.
pub(super) struct Patched {
    /// A hash of its text: it is kept for as long as the pod is there.
    hash: String,
    /// The version that came of it.
    version: Option<u64>,
}

impl Patched {
    fn new(patch: &Value, version: Option<u64>) -> Self {
        Self { hash: hash(&[&patch.to_string()]), version }
    }

    /// Whether it is this patch, and this version came of it.
    pub(super) fn is(&self, patch: &Value, version: Option<u64>) -> bool {
        self.version == version && self.hash == hash(&[&patch.to_string()])
    }
}

impl Work {
    pub(super) fn refused(&self) -> bool {
        self.result.as_ref().is_err_and(|error| error.kind == CallErrorKind::Refused)
    }
}

impl Request {
    pub(super) async fn perform(self) -> Work {
        let about = self.looked.about();
        let mut taken = None;
        let result = match &self.action {
            Action::Create => self.create(&mut taken).await.map(|()| None),
            Action::Delete { uid } => self.delete(uid, 0).await.map(|()| None),
            Action::Terminate { uid, seconds } => self.delete(uid, *seconds).await.map(|()| None),
            Action::PatchStatus { patch } => self.patch("status", patch).await.map(Some),
            Action::AddContainers { patch } => self.add_containers(patch).await.map(Some),
        };
        let creates = matches!(self.action, Action::Create);
        let kind = result.as_ref().err().map(|error| error.kind);
        let stale = match kind {
            Some(CallErrorKind::NotFound | CallErrorKind::Conflict) => !creates,
            Some(CallErrorKind::AlreadyExists) => taken.is_none(),
            Some(CallErrorKind::Gone | CallErrorKind::Refused | CallErrorKind::Away) | None => {
                false
            }
        };
        let taken = self.looked.report.clone().zip(taken);
        Work { about, result, stale, taken }
    }

    fn path(&self) -> String {
        pod_path(&self.name.namespace, &self.name.name)
    }

    async fn create(&self, taken: &mut Option<String>) -> Result<(), CallError> {
        let (Some(report), Some(node)) = (&self.looked.report, &self.looked.node) else {
            return Ok(());
        };
        let mirror = object(&report.pod, &self.node_name, node);
        let path = format!("/api/v1/namespaces/{}/pods", self.name.namespace);
        match self.calls.post(&path, &mirror).await {
            Ok(created) => {
                self.pods.put(created);
                Ok(())
            }
            Err(error) => {
                if error.kind == CallErrorKind::AlreadyExists {
                    *taken = self.look("").await;
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, uid: &str, grace: u32) -> Result<(), CallError> {
        let answer = match self
            .calls
            .delete(&self.path(), Deletion { uid, grace: Some(grace), ..Deletion::default() })
            .await
        {
            Ok(answer) => answer,
            Err(error) => {
                self.look_after(&error, uid).await;
                return Err(error);
            }
        };
        let left = serde_json::from_value::<KubernetesPod>(answer).ok();
        let left = left.filter(|pod| pod.metadata.uid.as_deref() == Some(uid));
        if grace > 0 {
            // Whatever else it answers, the watch tells.
            left.into_iter().for_each(|pod| self.pods.put(pod));
            return Ok(());
        }
        let has_finalizers = |pod: &KubernetesPod| {
            pod.metadata.finalizers.as_ref().is_some_and(|list| !list.is_empty())
        };
        let Some(kept) = left.filter(has_finalizers) else {
            self.pods.removed(&self.name, uid);
            return Ok(());
        };
        // It goes when whoever set them took them away; the watch tells.
        let held = self.looked.held.as_ref().map(|entry| &entry.held);
        let is_mirror = matches!(held, Some(Held::Mirror(_)));
        self.pods.put(kept);
        match is_mirror {
            false => Ok(()),
            true => Err(CallError::refused(
                "a mirror pod has finalizers, so that it cannot be made anew; remove them with \
                 `kubectl edit`"
                    .to_owned(),
            )),
        }
    }

    /// Nothing depends on it, so a server that takes none is not asked before something else has changed.
    async fn add_containers(&self, patch: &Value) -> Result<Patched, CallError> {
        match self.patch("ephemeralcontainers", patch).await {
            Err(error) if error.kind == CallErrorKind::Refused => {
                let pod = format_args!("{}/{}", self.name.namespace, self.name.name);
                let error = error.message;
                tracing::warn!(%pod, error, "a mirror does not get the containers of an earlier one");
                let version = self.looked.held.as_ref().and_then(|held| held.version);
                Ok(Patched::new(patch, version))
            }
            other => other,
        }
    }

    async fn patch(&self, subresource: &str, patch: &Value) -> Result<Patched, CallError> {
        let path = format!("{}/{subresource}", self.path());
        match self.calls.patch::<KubernetesPod>(&path, patch).await {
            Ok(patched) => {
                let version = patched.metadata.resource_version.as_ref();
                let version = version.and_then(|version| version.parse().ok());
                self.pods.put(patched);
                Ok(Patched::new(patch, version))
            }
            Err(error) => {
                let uid = self.looked.held.as_ref().map(|held| held.uid.clone());
                self.look_after(&error, &uid.unwrap_or_default()).await;
                Err(error)
            }
        }
    }

    /// After a request for a pod of this UID failed: looks whether it is there.
    async fn look_after(&self, error: &CallError, uid: &str) {
        match error.kind {
            CallErrorKind::NotFound => self.pods.removed(&self.name, uid),
            CallErrorKind::Conflict | CallErrorKind::Refused => drop(self.look(uid).await),
            CallErrorKind::AlreadyExists | CallErrorKind::Gone | CallErrorKind::Away => {}
        }
    }

    /// Reads the pod anew, after an answer that does not go with what was known of it. If something
    /// else comes of it, the next action is another one; else it is the same, later. Answers the UID
    /// of a pod that this node has nothing to do with.
    async fn look(&self, uid: &str) -> Option<String> {
        match self.calls.get::<KubernetesPod>(&self.path()).await {
            Ok(pod) => {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                if node != Some(&self.node_name) {
                    return pod.metadata.uid;
                }
                self.pods.put(pod);
            }
            Err(missing) if missing.kind == CallErrorKind::NotFound => {
                self.pods.removed(&self.name, uid);
            }
            // The watch tells.
            Err(_) => {}
        }
        None
    }
}
