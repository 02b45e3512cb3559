//! Readiness gates: conditions that others write in a pod's status, and without which it is not ready.
//!
//! A worker knows nothing of what an API holds, so a pod with gates is not ready by its word. What is
//! told an API is completed from what it holds.
//!
//! Source: `GeneratePodReadyCondition` in `pkg/kubelet/status/generate.go`.

use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};

/// Why a pod whose containers are ready is not.
const NOT_READY: &str = "ReadinessGatesNotReady";

/// The conditions that a pod's gates name, as they are held.
pub(crate) fn held<'a>(
    spec: &'a PodSpec,
    held: &'a PodStatus,
) -> impl Iterator<Item = &'a PodCondition> {
    let named = |condition: &&PodCondition| {
        let mut gates = spec.readiness_gates.iter().flatten();
        gates.any(|gate| gate.condition_type == condition.type_)
    };
    held.conditions.iter().flatten().filter(named)
}

/// Says whether a pod with gates is ready, from what its containers and the gates' conditions are in its
/// own status. It was ready when the last of them was; `earlier` is what was told before.
pub(crate) fn judge(spec: &PodSpec, status: &mut PodStatus, earlier: &PodStatus) {
    let gates = spec.readiness_gates.as_deref().unwrap_or_default();
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let find = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let Some(containers) = find("ContainersReady").filter(|_| !gates.is_empty()) else { return };
    let mut ready = PodCondition { type_: "Ready".to_owned(), ..containers.clone() };
    let mut refusals = Vec::new();
    if containers.status == "True" {
        for gate in gates {
            let kind = &gate.condition_type;
            match find(kind) {
                None => refusals.push(format!(
                    "corresponding condition of pod readiness gate {kind:?} does not exist."
                )),
                Some(condition) => {
                    ready.last_transition_time = match (
                        ready.last_transition_time.take(),
                        condition.last_transition_time.clone(),
                    ) {
                        (Some(a), Some(b)) => Some(if a.0 < b.0 { b } else { a }),
                        (a, b) => a.or(b),
                    };
                    if condition.status != "True" {
                        let is = &condition.status;
                        refusals.push(format!(
                            "the status of pod readiness gate {kind:?} is not \"True\", but {is}"
                        ));
                    }
                }
            }
        }
    }
    if !refusals.is_empty() {
        ready.status = "False".to_owned();
        ready.reason = Some(NOT_READY.to_owned());
        ready.message = Some(refusals.join(", "));
    }
    let mut same = earlier.conditions.iter().flatten().filter(|it| it.type_ == "Ready");
    if let Some(same) = same.next().filter(|it| it.status == ready.status) {
        ready.last_transition_time =
            same.last_transition_time.clone().or(ready.last_transition_time);
    }
    let known = status.conditions.iter_mut().flatten().find(|it| it.type_ == "Ready");
    if let Some(known) = known {
        *known = ready;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(conditions: &Value) -> PodStatus {
        serde_json::from_value(json!({ "conditions": conditions })).unwrap()
    }

    /// One condition, since that second.
    fn condition(kind: &str, status: &str, second: u32) -> Value {
        let since = format!("2026-01-01T00:00:{second:02}Z");
        json!({"type": kind, "status": status, "lastTransitionTime": since})
    }

    #[track_caller]
    fn check(conditions: &[Value], earlier: &[Value], expected: [&str; 3]) {
        let gates = json!([{"conditionType": "x/a"}, {"conditionType": "b"}]);
        let spec = json!({"containers": [], "readinessGates": gates});
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let mut all = vec![condition("Ready", "False", 9)];
        all.extend_from_slice(conditions);
        let mut status = status(&json!(all));
        judge(&spec, &mut status, &self::status(&json!(earlier)));
        let ready = status.conditions.unwrap().remove(0);
        let since = ready.last_transition_time.unwrap().0.strftime("%S").to_string();
        let message = ready.message.unwrap_or_default();
        assert_eq!([ready.status, message, since], expected.map(str::to_owned));
    }

    #[test]
    fn a_pod_is_ready_when_its_gates_are() {
        let open = |kind| condition(kind, "True", 5);
        check(&[open("ContainersReady"), open("x/a"), open("b")], &[], ["True", "", "05"]);
        let late = condition("b", "True", 7);
        check(&[open("ContainersReady"), open("x/a"), late.clone()], &[], ["True", "", "07"]);
        let told = condition("Ready", "True", 6);
        check(&[open("ContainersReady"), open("x/a"), late], &[told], ["True", "", "06"]);
    }

    #[test]
    fn a_gate_that_is_missing_or_closed_is_named() {
        let open = |kind| condition(kind, "True", 5);
        let missing = "corresponding condition of pod readiness gate \"b\" does not exist.";
        check(&[open("ContainersReady"), open("x/a")], &[], ["False", missing, "05"]);
        let closed = "the status of pod readiness gate \"x/a\" is not \"True\", but Unknown, \
                      corresponding condition of pod readiness gate \"b\" does not exist.";
        let unknown = condition("x/a", "Unknown", 6);
        check(&[open("ContainersReady"), unknown], &[], ["False", closed, "06"]);
        // What its containers lack comes first.
        let containers = json!({
            "type": "ContainersReady", "status": "False", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:03Z",
        });
        check(&[containers, open("x/a"), open("b")], &[], ["False", "m", "03"]);
    }
}
