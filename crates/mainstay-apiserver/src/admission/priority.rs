//! The number of a priority class. Source: `plugin/pkg/admission/priority`.

use super::Attributes;
use crate::kinds;
use crate::object::Object;
use crate::server::Inner;
use crate::status::Result;

pub(super) async fn admit(
    server: &Inner,
    attributes: &Attributes<'_>,
    pod: &mut Object,
    old: Option<&Object>,
) -> Result<()> {
    if let Some(old) = old {
        keep(pod, old);
        return Ok(());
    }
    let classes = &kinds::PRIORITY_CLASSES;
    let name = pod.str_at(&["spec", "priorityClassName"]).to_owned();
    let class = if name.is_empty() {
        let all = server.storage.all(classes, "").await?;
        let defaults = all.into_iter().filter(|class| {
            class.at(&["globalDefault"]).and_then(serde_json::Value::as_bool) == Some(true)
        });
        defaults.min_by_key(|class| class.i64_at(&["value"]))
    } else {
        match server.storage.find(classes, "", &name).await? {
            Some(stored) => Some(stored.object),
            None => {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(attributes.forbidden(why));
            }
        }
    };
    let (value, policy) = match &class {
        Some(class) => (class.i64_at(&["value"]), class.str_at(&["preemptionPolicy"])),
        None => (0, "PreemptLowerPriority"),
    };
    let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy }.to_owned();
    let given = pod.at(&["spec", "priority"]).and_then(serde_json::Value::as_i64);
    if let Some(given) = given.filter(|given| *given != value) {
        return Err(attributes.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority \
             admission controller computed {value} from the given PriorityClass name"
        )));
    }
    let given = pod.str_at(&["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != policy {
        return Err(attributes.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
             priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    let name = class.as_ref().map(|class| class.name().to_owned());
    let spec = pod.field_mut("spec");
    if let Some(name) = name {
        spec.insert("priorityClassName".into(), name.into());
    }
    spec.insert("priority".into(), value.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

/// What was found out about the pod when it was new: whoever changes it may leave it out.
fn keep(pod: &mut Object, old: &Object) {
    for field in ["priority", "preemptionPolicy"] {
        if pod.at(&["spec", field]).is_none()
            && let Some(value) = old.at(&["spec", field])
        {
            pod.field_mut("spec").insert(field.into(), value.clone());
        }
    }
}
