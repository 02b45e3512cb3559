//! What controllers of pods have to know of them.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerStatus, Pod as KubernetesPod, PodCondition, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::{Metadata, Resource};
use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::scheduler::Demand;

/// The longest name of a pod.
const LONGEST_NAME: usize = 253;

/// What says how dear a pod is, of those that a ReplicaSet has too many of.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Conditions by which a kubelet explains another one.
const UNREAD_CONDITIONS: [&str; 3] =
    ["PodReadyToStartContainers", "Initialized", "ContainersReady"];

/// The condition of a pod that is to be disrupted.
pub(crate) const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// A pod as controllers know it: without what none of them reads, and with what its annotations say, and its
/// containers ask for, instead of them. A container takes 2 KiB.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(from = "KubernetesPod")]
pub(crate) struct Pod {
    /// Without annotations and containers.
    stripped: KubernetesPod,
    /// What the scheduler has to know of its containers.
    pub(crate) demand: Demand,
    /// Those of its init containers that run on beside the others.
    pub(crate) sidecars: Box<[String]>,
    /// It mirrors a static pod.
    pub(crate) is_mirror: bool,
    /// How dear it is, of those that a ReplicaSet has too many of.
    pub(crate) deletion_cost: i32,
}

impl From<KubernetesPod> for Pod {
    fn from(mut pod: KubernetesPod) -> Self {
        let demand = Demand::of(&pod);
        let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let sidecars = init.filter(|it| it.restart_policy.as_deref() == Some("Always"));
        let sidecars = sidecars.map(|it| it.name.clone()).collect();
        let annotations = pod.metadata.annotations.take().unwrap_or_default();
        let is_mirror = annotations.contains_key(CONFIG_MIRROR_ANNOTATION);
        let deletion_cost = annotations.get(DELETION_COST).and_then(|cost| cost.parse().ok());
        strip(&mut pod);
        let deletion_cost = deletion_cost.unwrap_or_default();
        Self { stripped: pod, demand, sidecars, is_mirror, deletion_cost }
    }
}

impl Deref for Pod {
    type Target = KubernetesPod;

    fn deref(&self) -> &KubernetesPod {
        &self.stripped
    }
}

impl DerefMut for Pod {
    fn deref_mut(&mut self) -> &mut KubernetesPod {
        &mut self.stripped
    }
}

impl Resource for Pod {
    const API_VERSION: &'static str = KubernetesPod::API_VERSION;
    const GROUP: &'static str = KubernetesPod::GROUP;
    const KIND: &'static str = KubernetesPod::KIND;
    const VERSION: &'static str = KubernetesPod::VERSION;
    const URL_PATH_SEGMENT: &'static str = KubernetesPod::URL_PATH_SEGMENT;
    type Scope = <KubernetesPod as Resource>::Scope;
}

impl Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.stripped.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.stripped.metadata
    }
}

/// Takes away what no controller reads of a pod and what may be much, as it is kept of every pod there is.
///
/// What counts of its volumes is what it waits for or pulls, and of what its containers came to how often they were
/// started again.
fn strip(pod: &mut KubernetesPod) {
    if let Some(spec) = &mut pod.spec {
        (spec.containers, spec.init_containers) = (Vec::new(), None);
        let is_read = |it: &Volume| {
            it.persistent_volume_claim.is_some() || it.ephemeral.is_some() || it.image.is_some()
        };
        spec.volumes.iter_mut().for_each(|volumes| volumes.retain(is_read));
        spec.volumes.take_if(|volumes| volumes.is_empty());
        spec.ephemeral_containers = None;
        spec.security_context = None;
    }
    if let Some(status) = &mut pod.status {
        for statuses in [&mut status.init_container_statuses, &mut status.container_statuses] {
            let restarted = statuses.iter().flatten().filter(|it| it.restart_count != 0);
            let stripped = restarted.map(|it| ContainerStatus {
                name: it.name.clone(),
                restart_count: it.restart_count,
                ..ContainerStatus::default()
            });
            *statuses = Some(stripped.collect());
        }
        status.ephemeral_container_statuses = None;
        let of_kubelet = |it: &PodCondition| UNREAD_CONDITIONS.contains(&it.type_.as_str());
        status.conditions.iter_mut().for_each(|all| all.retain(|it| !of_kubelet(it)));
        (status.host_ip, status.host_ips) = (None, None);
        (status.pod_ip, status.pod_ips) = (None, None);
    }
}

/// The phase; empty before the API has set one.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The name of its node; empty when it has none.
pub(crate) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Whether it is over.
pub(crate) fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it runs, or will. Source: `IsPodActive` in `pkg/controller/controller_utils.go`.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_over(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether it is being deleted and not over yet. Source: `IsPodTerminating`, there.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_over(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// Since when it is ready; `None` when it is not.
pub(crate) fn ready_since(pod: &Pod) -> Option<Option<Timestamp>> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = |it: &&PodCondition| it.type_ == "Ready" && it.status == "True";
    let ready = conditions.into_iter().find(is_ready)?;
    Some(ready.last_transition_time.as_ref().map(|time| time.0))
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// When it has been ready for so many seconds, which may lie in the past; `None` when it is not ready.
/// Source: `IsPodAvailable` in `pkg/api/v1/pod/util.go`.
pub(crate) fn available_from(pod: &Pod, seconds: i32) -> Option<Timestamp> {
    let since = ready_since(pod)?;
    if seconds <= 0 {
        return Some(Timestamp::MIN);
    }
    since?.checked_add(jiff::SignedDuration::from_secs(seconds.into())).ok()
}

/// After what time the next of the pods that are ready will have been so for so many seconds.
pub(crate) fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Arc<Pod>>,
    seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    let times = pods.into_iter().filter_map(|pod| available_from(pod, seconds));
    let next = times.filter(|from| *from > now).min()?;
    // It is later than now.
    Duration::try_from(next.duration_since(now)).ok()
}

/// The condition of a pod that is to be disrupted, as a patch of its conditions has it: since when
/// does not change if it said so before. Source: `UpdatePodCondition` in `pkg/api/v1/pod/util.go`.
pub(crate) fn disruption_target(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Value {
    let mut condition = json!({
        "type": DISRUPTION_TARGET,
        "status": "True",
        "reason": reason,
        "message": message,
        "observedGeneration": pod.metadata.generation,
    });
    let mut known = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if !known.any(|it| it.type_ == DISRUPTION_TARGET && it.status == "True") {
        condition["lastTransitionTime"] = json!(Time(now));
    }
    condition
}

/// A pod of a template, which the API names. Source: `GetPodFromTemplate` in
/// `pkg/controller/controller_utils.go`.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    owner: &ObjectMeta,
    reference: OwnerReference,
) -> KubernetesPod {
    let of_template = template.metadata.as_ref();
    // What is too long is cut by the API.
    let mut prefix = owner.name.clone().unwrap_or_default();
    if prefix.len() < LONGEST_NAME {
        prefix.push('-');
    }
    KubernetesPod {
        metadata: ObjectMeta {
            generate_name: Some(prefix),
            namespace: owner.namespace.clone(),
            labels: of_template.and_then(|meta| meta.labels.clone()),
            annotations: of_template.and_then(|meta| meta.annotations.clone()),
            finalizers: of_template.and_then(|meta| meta.finalizers.clone()),
            owner_references: Some(vec![reference]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The labels of the pods of a template.
pub(crate) fn template_labels(template: Option<&PodTemplateSpec>) -> BTreeMap<String, String> {
    let meta = template.and_then(|template| template.metadata.as_ref());
    meta.and_then(|meta| meta.labels.clone()).unwrap_or_default()
}
