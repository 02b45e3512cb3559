//! What the status of a budget should be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{
    PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::DELETION_TIMEOUT;
use super::scale::Scales;
use crate::events::EventType;
use crate::owner::controller;
use crate::pods::{Pod, is_ready};

/// The condition. Source: `DisruptionAllowedCondition` in `staging/src/k8s.io/api/policy/v1/types.go`.
const ALLOWED: &str = "DisruptionAllowed";

/// What is to be written and told of a budget.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// None if it is as it should be.
    pub(super) status: Option<PodDisruptionBudgetStatus>,
    /// What is to be told of the budget: whether that is well, a reason and a message.
    pub(super) events: Vec<(EventType, &'static str, String)>,
    /// Pods whose eviction was granted and that are still there.
    pub(super) not_deleted: Vec<Arc<Pod>>,
    /// After what time it is to be decided anew if nothing happens before.
    pub(super) again: Option<Duration>,
}

/// How many pods there should be.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    pods: i64,
    healthy: i64,
    /// Whether some of the pods have no controller, and are not counted.
    unmanaged: bool,
}

/// Whether the number of healthy pods depends on the scale of the controllers.
pub(super) fn is_share(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// Decides about a budget by the pods that it covers and, if it [`is_share`], the scales of their
/// controllers. Source: `trySync`.
pub(super) fn decide(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scales: &Scales,
    now: Timestamp,
) -> Decision {
    let mut decision = Decision::default();
    if pods.is_empty() {
        let message = "No matching pods found".to_owned();
        decision.events.push((EventType::Normal, "NoPods", message));
    }
    let spec = budget.spec.as_ref();
    let before = budget.status.clone().unwrap_or_default();
    let status = match spec.map_or(Ok(Expected::default()), |spec| expected(spec, pods, scales)) {
        Ok(expected) => {
            if expected.unmanaged {
                let selector = spec.and_then(|spec| spec.selector.as_ref());
                let message = unmanaged(selector);
                decision.events.push((EventType::Warning, "UnmanagedPods", message));
            }
            let disrupted = disrupted(&before, pods, now, &mut decision);
            let healthy = healthy(pods, &disrupted);
            let generation = budget.metadata.generation;
            counted(&before, &expected, healthy, disrupted, generation, now)
        }
        Err(error) => {
            let message = format!("Failed to calculate the number of expected pods: {error}");
            decision.events.push((EventType::Warning, "CalculateExpectedPodCountFailed", message));
            failed(&before, error, now)
        }
    };
    decision.status = (status != filled(before)).then_some(status);
    decision
}

/// Source: `getExpectedPodCount`.
fn expected(
    spec: &PodDisruptionBudgetSpec,
    pods: &[Arc<Pod>],
    scales: &Scales,
) -> Result<Expected, String> {
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let (count, unmanaged) = scale(pods, scales)?;
            let healthy = (count - of(most, count)?).max(0);
            Ok(Expected { pods: count, healthy, unmanaged })
        }
        (None, Some(IntOrString::Int(fewest))) => {
            let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
            Ok(Expected { pods: count, healthy: i64::from(*fewest), unmanaged: false })
        }
        (None, Some(fewest)) => {
            let (count, unmanaged) = scale(pods, scales)?;
            Ok(Expected { pods: count, healthy: of(fewest, count)?, unmanaged })
        }
        (None, None) => Ok(Expected::default()),
    }
}

/// How many pods the controllers of these pods want, and whether some have none. Source:
/// `getExpectedScale`.
fn scale(pods: &[Arc<Pod>], scales: &Scales) -> Result<(i64, bool), String> {
    let mut controllers = BTreeMap::new();
    let mut unmanaged = false;
    for pod in pods {
        let Some(owner) = controller(&pod.metadata) else {
            unmanaged = true;
            continue;
        };
        let found = scales.get(&owner.uid).cloned().unwrap_or(Ok(None))?.ok_or_else(|| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            format!("found no controllers for pod {name:?}")
        })?;
        controllers.insert(found.uid, i64::from(found.replicas));
    }
    Ok((controllers.values().sum(), unmanaged))
}

/// A number, or a percentage of `whole`, rounded up. Source: `GetScaledValueFromIntOrPercent` in
/// `staging/src/k8s.io/apimachinery/pkg/util/intstr/intstr.go`.
fn of(value: &IntOrString, whole: i64) -> Result<i64, String> {
    match value {
        IntOrString::Int(number) => Ok((*number).into()),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<u16>().ok());
            let percent = percent.ok_or_else(|| {
                "invalid value for IntOrString: invalid type: string is not a percentage".to_owned()
            })?;
            Ok((whole.saturating_mul(percent.into()).saturating_add(99)) / 100)
        }
    }
}

/// The pods whose eviction was granted and that are not yet seen to be deleted. Source:
/// `buildDisruptedPodMap`.
fn disrupted(
    before: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
    decision: &mut Decision,
) -> BTreeMap<String, Time> {
    let mut disrupted = BTreeMap::new();
    let Some(known) = &before.disrupted_pods else { return disrupted };
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let Some((name, granted)) =
            pod.metadata.name.as_ref().and_then(|it| known.get_key_value(it))
        else {
            continue;
        };
        let until = granted.0.checked_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX);
        match Duration::try_from(until.duration_since(now)) {
            Ok(rest) => {
                decision.again = Some(decision.again.map_or(rest, |again| again.min(rest)));
                disrupted.insert(name.clone(), granted.clone());
            }
            // It is over.
            Err(_) => decision.not_deleted.push(pod.clone()),
        }
    }
    disrupted
}

/// How many pods are ready and stay. Source: `countHealthyPods`.
fn healthy(pods: &[Arc<Pod>], disrupted: &BTreeMap<String, Time>) -> i64 {
    let stays = |pod: &&Arc<Pod>| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pod.metadata.deletion_timestamp.is_none() && !disrupted.contains_key(name) && is_ready(pod)
    };
    i64::try_from(pods.iter().filter(stays).count()).unwrap_or(i64::MAX)
}

/// Source: `updatePdbStatus`.
fn counted(
    before: &PodDisruptionBudgetStatus,
    expected: &Expected,
    healthy: i64,
    disrupted: BTreeMap<String, Time>,
    generation: Option<i64>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let number = |number: i64| Some(i32::try_from(number).unwrap_or(i32::MAX));
    // With no pods expected nothing is allowed: it is not known what the first of them need.
    let allowed = match expected.pods {
        1.. => (healthy - expected.healthy).max(0),
        _ => 0,
    };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: number(healthy),
        desired_healthy: number(expected.healthy),
        expected_pods: number(expected.pods),
        disruptions_allowed: number(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: generation,
        conditions: before.conditions.clone(),
    };
    let (says, reason) = match allowed {
        0 => ("False", "InsufficientPods"),
        _ => ("True", "SufficientPods"),
    };
    set_condition(&mut status, says, reason, String::new(), now);
    status
}

/// Nothing is allowed as long as nothing can be counted. Source: `failSafe`.
fn failed(
    before: &PodDisruptionBudgetStatus,
    error: String,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let mut status = filled(before.clone());
    status.disruptions_allowed = Some(0);
    set_condition(&mut status, "False", "SyncFailed", error, now);
    status
}

/// With the numbers that the API wants to be there.
fn filled(mut status: PodDisruptionBudgetStatus) -> PodDisruptionBudgetStatus {
    for number in [
        &mut status.current_healthy,
        &mut status.desired_healthy,
        &mut status.expected_pods,
        &mut status.disruptions_allowed,
    ] {
        number.get_or_insert(0);
    }
    status.disrupted_pods = status.disrupted_pods.filter(|pods| !pods.is_empty());
    status
}

/// Source: `SetStatusCondition` in `staging/src/k8s.io/apimachinery/pkg/api/meta/conditions.go`.
fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    says: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let new = Condition {
        type_: ALLOWED.to_owned(),
        status: says.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: Time(now),
        observed_generation: status.observed_generation,
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == ALLOWED) {
        Some(known) if known.status == new.status => {
            let last_transition_time = known.last_transition_time.clone();
            *known = Condition { last_transition_time, ..new };
        }
        Some(known) => *known = new,
        None => conditions.push(new),
    }
}

/// The message for a selector that picks pods without controllers.
fn unmanaged(selector: Option<&LabelSelector>) -> String {
    let mut text = String::from("nil");
    if let Some(selector) = selector {
        "&LabelSelector{MatchLabels:map[string]string{".clone_into(&mut text);
        // Writing to a string does not fail.
        for (key, value) in selector.match_labels.iter().flatten() {
            let _ = write!(text, "{key}: {value},");
        }
        text.push_str("},MatchExpressions:[]LabelSelectorRequirement{");
        for it in selector.match_expressions.iter().flatten() {
            let (key, operator) = (&it.key, &it.operator);
            let values = it.values.as_deref().unwrap_or_default().join(" ");
            let _ = write!(
                text,
                "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},"
            );
        }
        text.push_str("},}");
    }
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {text}) were found to be unmanaged. As \
         a result, the status of the PDB cannot be calculated correctly, which may result in \
         undefined behavior. To account for these pods please set \".spec.minAvailable\" field of \
         the PDB to an integer value."
    )
}
