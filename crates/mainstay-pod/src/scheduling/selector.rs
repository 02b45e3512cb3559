//! Label selectors.
//!
//! Source: `LabelSelectorAsSelector` in `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/helpers.go` and
//! `staging/src/k8s.io/apimachinery/pkg/labels/selector.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels, by their keys.
pub type Labels = BTreeMap<String, String>;

/// Which labels something has to have.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Selector {
    /// None selects nothing at all.
    requirements: Option<Vec<Requirement>>,
}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Selects nothing.
    pub const NOTHING: Self = Self { requirements: None };
    /// Selects everything.
    pub const EVERYTHING: Self = Self { requirements: Some(Vec::new()) };

    /// None selects nothing, an empty one everything; nothing also one with an operator that there is not.
    pub fn of(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::NOTHING };
        let mut all = Self::of_labels(selector.match_labels.iter().flatten());
        for expression in selector.match_expressions.iter().flatten() {
            let values = || expression.values.clone().unwrap_or_default();
            let operator = match expression.operator.as_str() {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return Self::NOTHING,
            };
            all.push(expression.key.clone(), operator);
        }
        all
    }

    /// Selects what has all these labels.
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut all = Self::EVERYTHING;
        for (key, value) in labels {
            all.push(key.clone(), Operator::In(vec![value.clone()]));
        }
        all
    }

    /// Selects of that only what has a label, too.
    #[must_use]
    pub fn and(mut self, key: &str, value: &str) -> Self {
        self.push(key.to_owned(), Operator::In(vec![value.to_owned()]));
        self
    }

    /// Selects of that only what does not have a label.
    #[must_use]
    pub fn and_not(mut self, key: &str, value: &str) -> Self {
        self.push(key.to_owned(), Operator::NotIn(vec![value.to_owned()]));
        self
    }

    /// Selects what both select.
    #[must_use]
    pub fn and_all(mut self, other: Self) -> Self {
        match (&mut self.requirements, other.requirements) {
            (Some(ours), Some(theirs)) => ours.extend(theirs),
            _ => self.requirements = None,
        }
        self
    }

    /// Whether it requires nothing: that of nothing does not, nor does that of everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.as_ref().is_none_or(Vec::is_empty)
    }

    /// Whether it selects what has these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        let Some(requirements) = &self.requirements else { return false };
        requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }

    fn push(&mut self, key: String, operator: Operator) {
        if let Some(requirements) = &mut self.requirements {
            requirements.push(Requirement { key, operator });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn labels() -> Labels {
        [("app", "web"), ("tier", "front")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn selector(value: Value) -> Selector {
        let selector: Option<LabelSelector> = serde_json::from_value(value).unwrap();
        Selector::of(selector.as_ref())
    }

    #[test]
    fn selectors_are_kubernetes() {
        let expression = |key: &str, operator: &str, values: &[&str]| {
            let expression = json!({"key": key, "operator": operator, "values": values});
            json!({"matchLabels": {"tier": "front"}, "matchExpressions": [expression]})
        };
        let rows = [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (expression("app", "In", &["db", "web"]), true),
            (expression("app", "In", &["db"]), false),
            (expression("app", "NotIn", &["web"]), false),
            (expression("x", "NotIn", &["web"]), true),
            (expression("app", "Exists", &[]), true),
            (expression("x", "Exists", &[]), false),
            (expression("x", "DoesNotExist", &[]), true),
            (expression("app", "DoesNotExist", &[]), false),
            (expression("app", "Like", &[]), false),
        ];
        for (text, expected) in rows {
            assert_eq!(selector(text.clone()).matches(&labels()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_added_narrows_it() {
        let web = selector(json!({"matchLabels": {"app": "web"}}));
        assert!(web.clone().and("tier", "front").matches(&labels()));
        assert!(!web.clone().and("tier", "back").matches(&labels()));
        assert!(!web.clone().and_not("tier", "front").matches(&labels()));
        assert!(!web.clone().and_all(Selector::NOTHING).matches(&labels()));
        assert!(!Selector::NOTHING.and("app", "web").matches(&labels()));
        assert!(web.clone().and_all(Selector::EVERYTHING).matches(&labels()));
        assert_eq!(
            [web, Selector::NOTHING, Selector::EVERYTHING].map(|it| it.is_empty()),
            [false, true, true]
        );
    }
}
