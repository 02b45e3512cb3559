//! How long a pod stays on a node that is away. Source:
//! `plugin/pkg/admission/defaulttolerationseconds`.

use mainstay_pod::scheduling::taints::{NO_EXECUTE, NOT_READY, UNREACHABLE};
use serde_json::{Value, json};

use crate::object::Object;

/// Seconds. Source: `defaultNotReadyTolerationSeconds`.
const SECONDS: i64 = 300;

/// Whether a pod is new or changed: whoever leaves them out gets them again.
pub(super) fn admit(pod: &mut Object) {
    let tolerations = pod.list_at(&["spec", "tolerations"]);
    let tolerates = |key: &str| {
        tolerations.iter().any(|toleration| {
            let text =
                |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
            (text("key") == key || text("key").is_empty())
                && matches!(text("effect"), "" | NO_EXECUTE)
        })
    };
    let missing: Vec<Value> = [NOT_READY, UNREACHABLE]
        .into_iter()
        .filter(|key| !tolerates(key))
        .map(|key| {
            json!({
                "key": key,
                "operator": "Exists",
                "effect": NO_EXECUTE,
                "tolerationSeconds": SECONDS,
            })
        })
        .collect();
    if missing.is_empty() {
        return;
    }
    let spec = pod.field_mut("spec");
    let list = spec.entry("tolerations").or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = list.as_array_mut() {
        list.extend(missing);
    }
}
