use super::*;

/// Applies a patch of this module, as a server does.
pub(crate) fn apply(status: &Value, patch: &Value, keys: MergeKeys) -> Value {
    let mut status = status.as_object().cloned().unwrap_or_default();
    for (name, value) in patch.as_object().unwrap() {
        if name.starts_with('$') {
            continue;
        }
        let key = keys.iter().find(|(list, _)| list == name).map(|(_, key)| *key);
        if value.is_null() {
            status.remove(name);
        } else if let Some(key) = key {
            let mut list = status.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
            for change in value.as_array().unwrap() {
                let at = list.iter().position(|it| it[key] == change[key]);
                match (at, change.get("$patch")) {
                    (Some(at), Some(_)) => drop(list.remove(at)),
                    (None, Some(_)) => {}
                    (Some(at), None) => {
                        for (name, value) in change.as_object().unwrap() {
                            match value.is_null() {
                                true => drop(list[at].as_object_mut().unwrap().remove(name)),
                                false => list[at][name] = value.clone(),
                            }
                        }
                    }
                    (None, None) => list.push(change.clone()),
                }
            }
            if let Some(order) = patch.get(format!("$setElementOrder/{name}")) {
                let place = |item: &Value| {
                    order.as_array().unwrap().iter().position(|it| it[key] == item[key])
                };
                list.sort_by_key(place);
            }
            status.insert(name.clone(), list.into());
        } else {
            let items = value.as_array().cloned();
            let items = items.map(|items| {
                Value::from_iter(items.into_iter().filter(|it| it.get("$patch").is_none()))
            });
            status.insert(name.clone(), items.unwrap_or_else(|| value.clone()));
        }
    }
    Value::Object(status)
}

#[track_caller]
fn check(before: &Value, after: &Value, patch: &Value) {
    let made = of_status(before, after, POD_STATUS);
    assert_eq!(made.as_ref().unwrap_or(&Value::Null), patch);
    if let Some(made) = made {
        let applied = apply(before, &made, POD_STATUS);
        assert_eq!(of_status(&applied, after, POD_STATUS), None, "{applied}");
    }
}

#[test]
fn what_is_the_same_needs_no_patch() {
    check(&json!({}), &json!({}), &Value::Null);
    check(&json!({"phase": "Running"}), &json!({"phase": "Running", "message": ""}), &Value::Null);
    let written = json!({"containerStatuses": [{"name": "a", "imageID": "", "lastState": {}}]});
    let served = json!({"containerStatuses": [{"name": "a", "lastState": {}}]});
    check(&served, &written, &Value::Null);
}

#[test]
fn fields_are_set_and_removed() {
    check(
        &json!({"phase": "Pending", "message": "waits"}),
        &json!({"phase": "Running"}),
        &json!({"phase": "Running", "message": null}),
    );
}

#[test]
fn a_list_without_key_is_replaced() {
    check(
        &json!({"containerStatuses": [{"name": "a", "ready": false}, {"name": "b"}]}),
        &json!({"containerStatuses": [{"name": "a", "ready": true}]}),
        &json!({"containerStatuses": [{"name": "a", "ready": true}]}),
    );
}

#[test]
fn items_with_a_key_are_changed_one_by_one() {
    check(
        &json!({"conditions": [
            {"type": "Ready", "status": "False", "message": "no"},
            {"type": "Strange", "status": "True"},
            {"type": "Initialized", "status": "True"},
        ]}),
        &json!({"conditions": [
            {"type": "Initialized", "status": "True"},
            {"type": "Ready", "status": "True"},
            {"type": "New", "status": "True"},
        ]}),
        &json!({
            "$setElementOrder/conditions":
                [{"type": "Initialized"}, {"type": "Ready"}, {"type": "New"}],
            "conditions": [
                {"type": "Ready", "status": "True", "message": null},
                {"type": "New", "status": "True"},
                {"$patch": "delete", "type": "Strange"},
            ],
        }),
    );
}

#[test]
fn a_list_that_is_emptied_goes() {
    check(
        &json!({"podIPs": [{"ip": "10.0.0.1"}]}),
        &json!({"podIPs": []}),
        &json!({"podIPs": null}),
    );
}

#[test]
fn members_of_a_map_are_changed_one_by_one() {
    let before = json!({"capacity": {"cpu": "1", "memory": "1Ki", "hugepages-2Mi": "0"}});
    let after = json!({"capacity": {"cpu": "2", "memory": "1Ki"}});
    let patch = of_status(&before, &after, NODE_STATUS).unwrap();
    assert_eq!(patch, json!({"capacity": {"cpu": "2", "hugepages-2Mi": null}}));
}

#[test]
fn addresses_of_a_node_are_replaced() {
    let before = json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]});
    let after = json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}]});
    let patch = of_status(&before, &after, NODE_STATUS).unwrap();
    assert_eq!(
        patch,
        json!({"addresses": [
            {"type": "InternalIP", "address": "10.0.0.2"},
            {"$patch": "replace"},
        ]})
    );
}
