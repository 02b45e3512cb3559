//! The selectors that are written in objects. Source:
//! `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/helpers.go` (`LabelSelectorAsSelector`).

use serde_json::Value;

/// Whether a `LabelSelector` picks what has these labels; `null` if it has none. An empty one picks all.
pub(crate) fn matches(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let equal = selector.get("matchLabels").and_then(Value::as_object);
    let equal = equal.into_iter().flatten().all(|(key, value)| label(key) == value.as_str());
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    equal && expressions.into_iter().flatten().all(|expression| holds(expression, labels))
}

/// A selector as text: `a=b,c in (d,e),f,!g`, by the names of the keys. Source: `metav1.FormatLabelSelector`.
pub(crate) fn text(selector: &Value) -> String {
    let equal = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut parts: Vec<(&str, String)> = equal
        .map(|(key, value)| (key.as_str(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for expression in expressions.into_iter().flatten() {
        let part = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or_default();
        let key = part("key");
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        let mut values: Vec<&str> = values.filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push((
            key,
            match part("operator") {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "Exists" => key.to_owned(),
                _ => format!("!{key}"),
            },
        ));
    }
    parts.sort_by_key(|(key, _)| *key);
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

fn holds(expression: &Value, labels: &Value) -> bool {
    let text = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or_default();
    let label = labels.get(text("key")).and_then(Value::as_str);
    let values = expression.get("values").and_then(Value::as_array);
    let listed = || values.into_iter().flatten().any(|value| value.as_str() == label);
    match text("operator") {
        "In" => label.is_some() && listed(),
        "NotIn" => label.is_none() || !listed(),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        _ => false,
    }
}
