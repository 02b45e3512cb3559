//! What is told of resizes. People search for these words.
//!
//! Source: `pkg/kubelet/events/resize.go`, `pkg/kubelet/status/status_manager.go`
//! (`updatedPodResizeCondition`), `pkg/kubelet/kubelet_pods.go` (`convertContainerStatusResources`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodCondition, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_pod::{Amounts, Pod, Quantity};

use super::{Pending, Requirements, Resizing};

const PENDING: &str = "PodResizePending";
const DEFERRED: &str = "Deferred";
const IN_PROGRESS: &str = "PodResizeInProgress";

/// Whether a condition is of the two here, which say themselves of which generation of the pod they are.
pub(crate) fn is_own(kind: &str) -> bool {
    [PENDING, IN_PROGRESS].contains(&kind)
}

/// The conditions of a pod that has not come to its end.
pub fn conditions(pending: Option<&Pending>, resizing: Option<&Resizing>) -> Vec<PodCondition> {
    let of = |kind: &str, generation, since| PodCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        last_probe_time: Some(Time(since)),
        last_transition_time: Some(Time(since)),
        observed_generation: Some(generation),
        ..PodCondition::default()
    };
    let pending = pending.map(|it| PodCondition {
        reason: Some(DEFERRED.to_owned()),
        message: Some(it.message.clone()),
        ..of(PENDING, it.generation, it.since)
    });
    let resizing = resizing.map(|it| PodCondition {
        reason: it.error.as_ref().map(|_| "Error".to_owned()),
        message: it.error.clone(),
        ..of(IN_PROGRESS, it.generation, it.since)
    });
    pending.into_iter().chain(resizing).collect()
}

/// Why a pod waits, as its status has it.
pub fn pending_of(status: &PodStatus) -> Option<Pending> {
    let mut conditions = status.conditions.iter().flatten();
    let condition =
        conditions.find(|it| it.type_ == PENDING && it.reason.as_deref() == Some(DEFERRED))?;
    Some(Pending {
        message: condition.message.clone().unwrap_or_default(),
        generation: condition.observed_generation?,
        since: condition.last_transition_time.as_ref()?.0,
    })
}

/// The message of an event about a resize of a pod, as `Pod resize started: {...}`.
pub fn message(what: &str, pod: &Pod, generation: i64, error: Option<&str>) -> String {
    // In the order of the fields as a kubelet has them.
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let list = |list: &[Container]| {
        let container = |it: &Container| {
            let resources = resources(it.resources.as_ref());
            format!("{{\"name\":{},\"resources\":{{{resources}}}}}", text(&it.name))
        };
        list.iter().map(container).collect::<Vec<_>>().join(",")
    };
    let mut fields = Vec::new();
    if let Some(init) = pod.spec().init_containers.as_ref().filter(|init| !init.is_empty()) {
        fields.push(format!("\"initContainers\":[{}]", list(init)));
    }
    fields.push(format!("\"containers\":[{}]", list(&pod.spec().containers)));
    fields.push(format!("\"generation\":{generation}"));
    if let Some(error) = error {
        fields.push(format!("\"error\":{}", text(error)));
    }
    format!("Pod resize {what}: {{{}}}", fields.join(","))
}

fn resources(resources: Option<&ResourceRequirements>) -> String {
    let Some(resources) = resources else { return String::new() };
    let lists = [("limits", &resources.limits), ("requests", &resources.requests)];
    let list = |(name, list): (&str, &Option<BTreeMap<String, QuantityText>>)| {
        let list = list.as_ref().filter(|list| !list.is_empty())?;
        Some(format!("\"{name}\":{}", serde_json::to_string(list).ok()?))
    };
    lists.into_iter().filter_map(list).collect::<Vec<_>>().join(",")
}

/// Requests and limits as a status shows them, of something that is allocated these and has those.
pub(crate) fn in_force(allocated: &mut ResourceRequirements, has: &Requirements) {
    let lists = [(&mut allocated.requests, has.requests), (&mut allocated.limits, has.limits)];
    for (list, Amounts { cpu_milli, memory_bytes, .. }) in lists {
        let Some(list) = list else { continue };
        // What there is none of yet is shown as it will be.
        let cpu = cpu_milli.filter(|milli| *milli != 0);
        let cpu = cpu.and_then(|milli| Quantity::parse(&format!("{milli}m")).ok());
        let memory = memory_bytes.filter(|bytes| *bytes != 0).map(Quantity::from_bytes);
        for (name, amount) in [("cpu", cpu), ("memory", memory)] {
            if let Some(amount) = amount {
                list.insert(name.to_owned(), QuantityText(amount.canonical()));
            }
        }
    }
}
