//! `pods/eviction`: a delete that asks the disruption budgets first.
//!
//! Source: `pkg/registry/core/pod/storage/eviction.go`.

use http::StatusCode;
use mainstay_store::Expect;
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::decode;
use crate::kinds;
use crate::object::{self, Object};
use crate::request::{DeleteOptions, Query};
use crate::status::{self, ApiError, Cause, Details, Result};
use crate::storage::{Stored, WriteError};

/// How often a budget that others use too is asked again.
const ATTEMPTS: usize = 20;

/// Budgets remember so many evictions whose pods are still there. Source:
/// `MaxDisruptedPodSize`.
const MAX_DISRUPTED: usize = 2000;

/// Evicts a pod.
pub(crate) async fn create(call: &Call<'_>) -> Result<Answer> {
    let eviction = decode::body(call)?.object;
    let name = &call.info.name;
    if !eviction.name().is_empty() && eviction.name() != name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = eviction.0.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
    let mut options = DeleteOptions::parse(&Query::default(), Some(&options))?;
    options.dry_run |= call.info.query.dry_run();
    let pod = call.server.storage.get(call.resource, call.namespace(), name).await?;
    call.admit_part(&eviction).await?;
    if !is_free(&pod.object) {
        ask_budget(call, &pod.object, options.dry_run).await?;
        if !options.dry_run {
            mark(call, pod).await?;
        }
    }
    call.server.delete(call.user, call.resource, call.namespace(), name, &options).await?;
    Ok(Answer::json(status::created()).with_code(StatusCode::CREATED))
}

/// Whether a pod's end disrupts nothing. Source: `canIgnorePDB`.
fn is_free(pod: &Object) -> bool {
    matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed" | "Pending")
        || pod.is_terminating()
}

/// Asks the budget that the pod falls under, and takes one disruption out of it.
async fn ask_budget(call: &Call<'_>, pod: &Object, dry_run: bool) -> Result<()> {
    let budgets = &kinds::POD_DISRUPTION_BUDGETS;
    for _ in 0..ATTEMPTS {
        let all = call.server.storage.all(budgets, call.namespace()).await?;
        let mut matching = all.into_iter().filter(|budget| covers(budget, pod));
        let Some(budget) = matching.next() else { return Ok(()) };
        if matching.next().is_some() {
            let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                        does not support.";
            let mut error = ApiError::internal(text);
            text.clone_into(&mut error.message);
            error.details = None;
            return Err(error);
        }
        let ready = pod.list_at(&["status", "conditions"]).iter().any(|condition| {
            condition.get("type") == Some(&"Ready".into())
                && condition.get("status") == Some(&"True".into())
        });
        let healthy = budget.i64_at(&["status", "currentHealthy"]);
        let desired = budget.i64_at(&["status", "desiredHealthy"]);
        let always = budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
        if !ready && (always || healthy >= desired && desired > 0) {
            return Ok(());
        }
        let new = spend(&budget, pod.name(), jiff::Timestamp::now())?;
        if dry_run {
            return Ok(());
        }
        let revision = crate::verbs::list::revision(budget.resource_version())?;
        let expect = Expect::At(revision);
        let durability = mainstay_store::Durability::Synced;
        match call.server.storage.put(budgets, new, expect, durability).await {
            Ok(_) => return Ok(()),
            Err(WriteError::Conflict) => {}
            Err(WriteError::Other(error)) => return Err(error),
        }
    }
    Err(ApiError::too_many_requests("the disruption budget changes all the time", 10))
}

fn covers(budget: &Object, pod: &Object) -> bool {
    let Some(selector) = budget.at(&["spec", "selector"]) else { return false };
    crate::label_selector::matches(
        selector,
        pod.at(&["metadata", "labels"]).unwrap_or(&Value::Null),
    )
}

/// The budget with one disruption less. Source: `checkAndDecrement`.
fn spend(budget: &Object, pod: &str, now: jiff::Timestamp) -> Result<Object> {
    let name = budget.name();
    let refuse = |message: String, cause: String, after: u32| {
        let mut error = ApiError::too_many_requests(message, after);
        error.details = Some(Box::new(Details {
            causes: vec![Cause {
                reason: "DisruptionBudget".into(),
                message: cause,
                field: String::new(),
            }],
            retry_after: after,
            ..Details::default()
        }));
        Err(error)
    };
    if budget.i64_at(&["status", "observedGeneration"]) < budget.generation() {
        return refuse(
            "Cannot evict pod as it would violate the pod's disruption budget.".to_owned(),
            format!("The disruption budget {name} is still being processed by the server."),
            10,
        );
    }
    let allowed = budget.i64_at(&["status", "disruptionsAllowed"]);
    if allowed < 0 {
        return Err(ApiError::forbidden(
            &kinds::POD_DISRUPTION_BUDGETS,
            name,
            "pdb disruptions allowed is negative",
        ));
    }
    let disrupted = budget.at(&["status", "disruptedPods"]).and_then(Value::as_object);
    if disrupted.is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        return Err(ApiError::forbidden(
            &kinds::POD_DISRUPTION_BUDGETS,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let desired = budget.i64_at(&["status", "desiredHealthy"]);
        let healthy = budget.i64_at(&["status", "currentHealthy"]);
        return refuse(
            "Cannot evict pod as it would violate the pod's disruption budget.".to_owned(),
            format!(
                "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
            ),
            0,
        );
    }
    let mut new = budget.clone();
    let status = new.field_mut("status");
    status.insert("disruptionsAllowed".into(), (allowed - 1).into());
    let pods = object::object_of(status, "disruptedPods");
    pods.insert(pod.to_owned(), object::time(now).into());
    Ok(new)
}

/// Says on the pod why it goes.
async fn mark(call: &Call<'_>, pod: Stored) -> Result<()> {
    let mut object = pod.object;
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastProbeTime": null,
        "lastTransitionTime": object::time(jiff::Timestamp::now()),
    });
    object.set_condition(condition);
    let expect = Expect::At(pod.revision);
    let durability = mainstay_store::Durability::Lazy;
    match call.server.storage.put(call.resource, object, expect, durability).await {
        // Somebody else is at it; the condition is a courtesy.
        Ok(_) | Err(WriteError::Conflict) => Ok(()),
        Err(WriteError::Other(error)) => Err(error),
    }
}
