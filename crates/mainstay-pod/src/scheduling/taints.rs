//! Taints, and who tolerates them.
//!
//! Source: `helpers.go` and `staging/src/k8s.io/api/core/v1/toleration.go`.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Nothing is scheduled there, but what is there stays.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Nothing is scheduled there if there is another place.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Nothing is scheduled there and nothing stays.
pub const NO_EXECUTE: &str = "NoExecute";
/// The key of the taint of a node on which nothing is to be scheduled.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The key of the taint of a node that says that it is not ready, or has not said anything yet.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The key of the taint of a node that is not heard of.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The first taint with one of the effects that nothing tolerates.
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    let mut taints = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    taints.find(|taint| !is_tolerated(taint, tolerations))
}

/// Whether one of them tolerates the taint.
pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// Source: `Toleration.ToleratesTaint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let any_or = |text: &Option<String>, value: &str| {
        text.as_deref().is_none_or(|text| text.is_empty() || text == value)
    };
    let (ours, theirs) = (toleration.value.as_deref(), taint.value.as_deref());
    let (ours, theirs) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = |holds: fn(&i64, &i64) -> bool| match (number(theirs), number(ours)) {
        (Some(theirs), Some(ours)) => holds(&theirs, &ours),
        _ => false,
    };
    any_or(&toleration.effect, &taint.effect)
        && any_or(&toleration.key, &taint.key)
        && match toleration.operator.as_deref().unwrap_or_default() {
            "" | "Equal" => ours == theirs,
            "Exists" => true,
            "Lt" => compared(i64::lt),
            "Gt" => compared(i64::gt),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        serde_json::from_value(json!({"key": key, "value": value, "effect": effect})).unwrap()
    }

    #[test]
    fn tolerations_are_kubernetes() {
        let rows = [
            (json!({}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "b", "operator": "Exists"}), false),
            (json!({"key": "a", "value": "5"}), true),
            (json!({"key": "a", "value": "5", "effect": "NoExecute"}), true),
            (json!({"key": "a", "operator": "Equal", "value": "6"}), false),
            (json!({"key": "a", "operator": "Lt", "value": "6"}), true),
            (json!({"key": "a", "operator": "Gt", "value": "6"}), false),
            (json!({"key": "a", "operator": "Gt", "value": "x"}), false),
            (json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}), false),
            (json!({"key": "a", "operator": "Unknown"}), false),
        ];
        for (toleration, expected) in rows {
            let held = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&held, &taint("a", "5", NO_EXECUTE)), expected, "{toleration}");
        }
    }

    #[test]
    fn the_first_taint_of_those_effects_counts() {
        let taints = [
            taint("p", "", PREFER_NO_SCHEDULE),
            taint("s", "", NO_SCHEDULE),
            taint("x", "", NO_EXECUTE),
        ];
        let s = serde_json::from_value(json!([{"key": "s", "operator": "Exists"}])).unwrap();
        let tolerations: [Vec<Toleration>; 2] = [Vec::new(), s];
        let found = tolerations.map(|tolerations| {
            let taint = untolerated(&taints, &tolerations, &[NO_SCHEDULE, NO_EXECUTE]);
            taint.map(|taint| taint.key.as_str())
        });
        assert_eq!(found, [Some("s"), Some("x")]);
    }
}
