//! What holds for any objects.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{pod, pod_writer, stored};
use crate::managed::set::Set;
use crate::managed::{ApplyError, apply, update, walk};

/// A configuration of a Pod with a bit of everything: maps, sets, associative and atomic lists.
fn config() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-c]", "[xy]", 0..3);
    let finalizers = proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3).prop_shuffle();
    let names = proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3).prop_shuffle();
    let container = (proptest::option::of("[xy]"), proptest::collection::vec(1_i32..4, 0..3));
    let containers = (names, proptest::collection::vec(container, 3));
    let selector = proptest::option::of(proptest::collection::btree_map("[ab]", "[xy]", 1..3));
    (labels, finalizers, containers, selector, proptest::option::of(1_i64..3)).prop_map(
        |(labels, finalizers, (names, containers), selector, priority)| {
            let containers: Vec<Value> = names
                .into_iter()
                .zip(containers)
                .map(|(name, (image, mut ports))| {
                    ports.sort_unstable();
                    ports.dedup();
                    let ports: Vec<Value> =
                        ports.into_iter().map(|port| json!({"containerPort": port})).collect();
                    let mut container = json!({"name": name, "ports": ports});
                    if let Some(image) = image {
                        container["image"] = json!(image);
                    }
                    container
                })
                .collect();
            let mut pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers},
            });
            if let Some(selector) = selector {
                pod["spec"]["nodeSelector"] = json!(selector);
            }
            if let Some(priority) = priority {
                pod["spec"]["priority"] = json!(priority);
            }
            pod
        },
    )
}

fn applied(
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, ApplyError> {
    let applied = apply(live.cloned(), config, pod(), &pod_writer(manager), force)?;
    Ok(stored(applied, pod()))
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(first in config(), second in config()) {
        let live = applied(None, &first, "a", false).unwrap();
        let live = applied(Some(&live), &second, "b", true).unwrap();
        let again = applied(Some(&live), &second, "b", false).unwrap();
        prop_assert_eq!(again, live);
    }

    #[test]
    fn what_is_applied_is_there(first in config(), second in config()) {
        let live = applied(None, &first, "a", false).unwrap();
        let live = applied(Some(&live), &second, "b", true).unwrap();
        let wanted = walk::compare(&live, &stored(second, pod()), pod());
        prop_assert!(wanted.modified.is_empty(), "{:?}", wanted.modified);
        prop_assert!(wanted.added.is_empty(), "{:?}", wanted.added);
    }

    #[test]
    fn who_applies_nothing_leaves_nothing(config in config()) {
        let live = applied(None, &config, "a", false).unwrap();
        let nothing = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
        let left = applied(Some(&live), &nothing, "a", false).unwrap();
        prop_assert_eq!(left, stored(nothing, pod()));
    }

    #[test]
    fn order_follows_the_last_configuration(first in config(), second in config()) {
        let names = |pod: &Value| -> Vec<Value> {
            let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
            containers.into_iter().map(|container| container["name"].clone()).collect()
        };
        let live = applied(None, &first, "a", false).unwrap();
        let live = applied(Some(&live), &second, "b", true).unwrap();
        let wanted = names(&second);
        let mut there = names(&live);
        there.retain(|name| wanted.contains(name));
        prop_assert_eq!(there, wanted);
    }

    #[test]
    fn fields_are_read_as_they_were_written(config in config()) {
        let set = walk::field_set(&config, pod());
        prop_assert_eq!(Set::from_fields(&set.to_fields()), Ok(set));
    }

    #[test]
    fn an_update_leaves_nothing_that_is_not_there_held(first in config(), second in config()) {
        let live = applied(None, &first, "a", false).unwrap();
        let mut new = stored(second, pod());
        update(Some(live.clone()), &mut new, pod(), &pod_writer("b"));
        let paths = walk::compare(&live, &new, pod()).removed;
        for entry in new["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let held = Set::from_fields(&entry["fieldsV1"]).unwrap();
            prop_assert!(held.intersection(&paths).is_empty());
        }
    }

    #[test]
    fn no_fields_stop_the_reader(key in "[fkvi.]?:?[\\[\\]{}\":a0-9,]{0,12}") {
        let _ = Set::from_fields(&json!({ key: {} }));
    }
}
