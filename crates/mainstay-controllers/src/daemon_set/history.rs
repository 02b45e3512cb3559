//! What a DaemonSet was like: a revision for each template that it had.
//!
//! Source: `constructHistory` and `cleanupHistory` in `pkg/controller/daemon/update.go`.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::owner;
use crate::pods::Pod;
use crate::template_hash::hash;

/// The label that pods and revisions of one template have. Source: `DefaultDaemonSetUniqueLabelKey`.
pub(super) const HASH: &str = "controller-revision-hash";

/// The revisions of a DaemonSet.
#[derive(Debug, PartialEq)]
pub(super) struct History {
    /// Those of the template as it is, the one that stays first. More than one there are only if
    /// somebody made them.
    pub(super) current: Vec<Arc<ControllerRevision>>,
    /// Those of other templates, the oldest first.
    pub(super) old: Vec<Arc<ControllerRevision>>,
    /// The number that the current one is to have at least.
    pub(super) number: i64,
}

impl History {
    pub(super) fn of(set: &DaemonSet, revisions: Vec<Arc<ControllerRevision>>) -> Self {
        let data = data(set);
        let is_current = |it: &Arc<ControllerRevision>| {
            it.data.as_ref().is_some_and(|RawExtension(raw)| *raw == data)
        };
        let (mut current, mut old): (Vec<_>, Vec<_>) = revisions.into_iter().partition(is_current);
        current.sort_by_key(|it| std::cmp::Reverse(it.revision));
        old.sort_by_key(|it| it.revision);
        let number = old.last().map_or(0, |last| last.revision) + 1;
        Self { current, old, number }
    }

    /// Those that are too many, and that no pod is of.
    pub(super) fn surplus<'a>(
        &self,
        set: &DaemonSet,
        pods: impl IntoIterator<Item = &'a Arc<Pod>>,
    ) -> Vec<Arc<ControllerRevision>> {
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let surplus = self.old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        if surplus == 0 {
            return Vec::new();
        }
        let live: BTreeSet<&str> =
            pods.into_iter().filter_map(|pod| label(&pod.metadata)).collect();
        let unused =
            self.old.iter().filter(|it| !label(&it.metadata).is_some_and(|it| live.contains(it)));
        unused.take(surplus).cloned().collect()
    }
}

/// The hash that an object is labelled with.
pub(super) fn label(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(HASH).map(String::as_str)
}

/// The revision of the template as it is.
pub(super) fn revision(set: &DaemonSet, number: i64) -> ControllerRevision {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash(&template, collisions);
    let name = set.metadata.name.clone().unwrap_or_default();
    let mut labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert(HASH.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            // Such as why it was changed.
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![owner::reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data(set))),
        revision: number,
    }
}

/// The patch that gives a DaemonSet its template again. Source: `getPatch`.
pub(super) fn data(set: &DaemonSet) -> Value {
    let template = set.spec.as_ref().map(|spec| &spec.template);
    // It has string keys and no values that JSON lacks.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}
