//! A patch that is made from two objects makes the one from the other.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::strategic::merge;
use crate::types::{self, Shape, Type};

/// The two-way patch that kubectl would send.
fn diff(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    of: Option<&'static Type>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, new) in new {
        let field = of.and_then(|of| of.field(key));
        let shape = field.map(types::Field::shape);
        match (old.get(key), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                let of = if let Some(Shape::Object(of)) = shape { Some(of) } else { None };
                patch.insert(key.clone(), Value::Object(diff(old, new, of)));
            }
            (Some(Value::Array(old)), Value::Array(new))
                if field.is_some_and(|field| field.patch_strategy().merge) && !old.is_empty() =>
            {
                let merge_key = field.map_or("", types::Field::patch_merge_key);
                let item =
                    if let Some(Shape::List(item)) = shape { Some(item.shape()) } else { None };
                let of = if let Some(Shape::Object(of)) = item { Some(of) } else { None };
                diff_lists(&mut patch, key, old, new, merge_key, of);
            }
            (_, new) => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    patch
}

fn diff_lists(
    patch: &mut Map<String, Value>,
    field: &str,
    old: &[Value],
    new: &[Value],
    key: &str,
    of: Option<&'static Type>,
) {
    if key.is_empty() {
        let gone: Vec<Value> = old.iter().filter(|item| !new.contains(item)).cloned().collect();
        let added: Vec<Value> = new.iter().filter(|item| !old.contains(item)).cloned().collect();
        patch.insert(format!("$setElementOrder/{field}"), json!(new));
        patch.insert(format!("$deleteFromPrimitiveList/{field}"), json!(gone));
        if !added.is_empty() {
            patch.insert(field.to_owned(), json!(added));
        }
        return;
    }
    let find =
        |list: &[Value], item: &Value| list.iter().find(|other| other[key] == item[key]).cloned();
    let mut items = Vec::new();
    for item in new {
        match (find(old, item), item) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let mut part = diff(&old, new, of);
                if !part.is_empty() {
                    part.insert(key.to_owned(), item[key].clone());
                    items.push(Value::Object(part));
                }
            }
            _ => items.push(item.clone()),
        }
    }
    for item in old.iter().filter(|item| find(new, item).is_none()) {
        items.push(json!({key: item[key], "$patch": "delete"}));
    }
    let order: Vec<Value> = new.iter().map(|item| json!({key: item[key]})).collect();
    patch.insert(format!("$setElementOrder/{field}"), Value::Array(order));
    if !items.is_empty() {
        patch.insert(field.to_owned(), Value::Array(items));
    }
}

fn labels() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-c]", "[xy]", 0..3).prop_map(|map| json!(map))
}

/// Objects of one name each, in any order.
fn keyed(key: &'static str, item: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let names = proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4).prop_shuffle();
    (names, proptest::collection::vec(item, 4)).prop_map(move |(names, items)| {
        let with_name = |(name, mut item): (&str, Value)| {
            item[key] = json!(name);
            item
        };
        names.into_iter().zip(items).map(with_name).collect()
    })
}

fn container() -> impl Strategy<Value = Value> {
    let env = keyed("name", "[xy]".prop_map(|value| json!({ "value": value })));
    let mounts = keyed("mountPath", "[xy]".prop_map(|name| json!({ "name": name })));
    let args = proptest::collection::vec("[xy]", 0..3);
    (env, mounts, args, proptest::option::of("[xy]")).prop_map(|(env, mounts, args, image)| {
        let mut container = json!({"env": env, "volumeMounts": mounts, "args": args});
        if let Some(image) = image {
            container["image"] = json!(image);
        }
        container
    })
}

fn pod() -> impl Strategy<Value = Map<String, Value>> {
    let names = vec!["a", "b", "c", "d"];
    let finalizers = proptest::sample::subsequence(names, 0..=4).prop_shuffle();
    let selector = proptest::option::of(labels());
    (labels(), finalizers, keyed("name", container()), selector).prop_map(
        |(labels, finalizers, containers, selector)| {
            let mut pod = json!({
                "metadata": {"labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers, "tolerations": [{"key": "a"}]},
            });
            if let Some(selector) = selector {
                pod["spec"]["nodeSelector"] = selector;
            }
            pod.as_object().cloned().unwrap_or_default()
        },
    )
}

proptest! {
    #[test]
    fn a_diff_leads_from_one_object_to_the_other(old in pod(), new in pod()) {
        let of = types::of("", "v1", "Pod").unwrap();
        let patch = diff(&old, &new, Some(of));
        prop_assert_eq!(merge(json!(old), &mut json!(patch), of), Ok(json!(new)), "{:?}", patch);
    }

    #[test]
    fn merging_an_object_into_itself_changes_nothing(pod in pod()) {
        let of = types::of("", "v1", "Pod").unwrap();
        prop_assert_eq!(merge(json!(pod), &mut json!(pod), of), Ok(json!(pod)));
    }
}
