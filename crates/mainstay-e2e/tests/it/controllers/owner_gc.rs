//! What is owned goes with its owners.

use serde_json::{Value, json};

use super::cluster::{Cluster, owner_reference};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> String {
    format!("{MAPS}/{name}")
}

/// Waits until everything that was to be done before has been done: what is made last goes last.
async fn settle(cluster: &Cluster) {
    let owner = cluster.config_map("settle-owner", &[]).await;
    cluster.config_map("settle", &[&owner]).await;
    cluster.delete(&map("settle-owner"), "Background").await;
    cluster.until_gone(&map("settle")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owned_goes_after_its_owners() {
    let cluster = Cluster::new().await;
    let owner = cluster.config_map("owner", &[]).await;
    let other = cluster.config_map("other", &[]).await;
    let child = cluster.config_map("child", &[&owner]).await;
    cluster.config_map("grandchild", &[&child]).await;
    cluster.config_map("shared", &[&owner, &other]).await;
    cluster.delete(&map("owner"), "Background").await;
    cluster.until_gone(&map("grandchild")).await;
    // It stays for the sake of the other one.
    let only_other = json!([owner_reference(&other)]);
    let is_released =
        |map: Option<&Value>| map.unwrap()["metadata"]["ownerReferences"] == only_other;
    cluster.until(&map("shared"), is_released).await;
    cluster.delete(&map("other"), "Background").await;
    cluster.until_gone(&map("shared")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_goes_after_what_it_owns() {
    let cluster = Cluster::new().await;
    let owner = cluster.config_map("owner", &[]).await;
    let child = cluster.config_map("child", &[&owner]).await;
    cluster.config_map("grandchild", &[&child]).await;
    // Somebody holds it.
    let held = json!({ "metadata": { "finalizers": ["test/held"] } });
    cluster.merge(&map("grandchild"), held).await;
    cluster.delete(&map("owner"), "Foreground").await;
    let ends = |map: Option<&Value>| map.unwrap()["metadata"]["deletionTimestamp"].is_string();
    cluster.until(&map("grandchild"), ends).await;
    settle(&cluster).await;
    for name in ["owner", "child"] {
        let waits = cluster.get(&map(name)).await.unwrap();
        assert_eq!(waits["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    }
    cluster.merge(&map("grandchild"), json!({ "metadata": { "finalizers": null } })).await;
    cluster.until_gone(&map("owner")).await;
    assert!(cluster.get(&map("child")).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_own_each_other_go_too() {
    let cluster = Cluster::new().await;
    let one = cluster.config_map("one", &[]).await;
    let two = cluster.config_map("two", &[&one]).await;
    let owners = json!({ "metadata": { "ownerReferences": [owner_reference(&two)] } });
    cluster.merge(&map("one"), owners).await;
    cluster.delete(&map("one"), "Foreground").await;
    cluster.until_gone(&map("one")).await;
    cluster.until_gone(&map("two")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owned_can_stay() {
    let cluster = Cluster::new().await;
    let owner = cluster.config_map("owner", &[]).await;
    cluster.config_map("child", &[&owner]).await;
    cluster.delete(&map("owner"), "Orphan").await;
    cluster.until_gone(&map("owner")).await;
    let child = cluster.get(&map("child")).await.unwrap();
    assert_eq!(child["metadata"]["ownerReferences"], Value::Null);
    settle(&cluster).await;
    assert!(cluster.get(&map("child")).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_not_there_is_none() {
    let mut cluster = Cluster::without_controllers().await;
    let owner = cluster.config_map("owner", &[]).await;
    cluster.config_map("orphan", &[&owner]).await;
    // It went while nobody looked, and there is another one of its name.
    cluster.delete(&map("owner"), "Background").await;
    cluster.config_map("owner", &[]).await;
    let mut misnamed = cluster.config_map("right", &[]).await;
    misnamed["metadata"]["name"] = "wrong".into();
    cluster.config_map("misnamed", &[&misnamed]).await;
    let of_kind = |kind: &str| json!({ "kind": kind, "metadata": { "name": "x", "uid": "no" } });
    cluster.config_map("foreign", &[&of_kind("Widget")]).await;
    cluster.config_map("node-less", &[&of_kind("Node")]).await;
    cluster.start_controllers();
    for name in ["orphan", "misnamed", "node-less"] {
        cluster.until_gone(&map(name)).await;
    }
    settle(&cluster).await;
    // Nobody knows whether there is such an owner.
    assert!(cluster.get(&map("foreign")).await.is_some());
    assert!(cluster.get(&map("right")).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_goes_with_its_node_and_not_with_another_of_that_name() {
    const NODES: &str = "/api/v1/nodes";
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let cluster = Cluster::new().await;
    let mirror = |name: &str, node: &Value| {
        let mut owner = owner_reference(node);
        (owner["kind"], owner["controller"]) = ("Node".into(), true.into());
        json!({
            "metadata": {
                "name": name, "ownerReferences": [owner],
                "annotations": { "kubernetes.io/config.mirror": "1" },
            },
            "spec": { "nodeName": "n1", "containers": [{ "name": "main", "image": "x" }] },
        })
    };
    let old = cluster.create(NODES, json!({ "metadata": { "name": "n1" } })).await;
    cluster.create(PODS, mirror("old", &old)).await;
    cluster.delete(&format!("{NODES}/n1"), "Background").await;
    let new = cluster.create(NODES, json!({ "metadata": { "name": "n1" } })).await;
    cluster.create(PODS, mirror("new", &new)).await;
    cluster.until(&format!("{PODS}/old"), ends_or_is_gone).await;
    settle(&cluster).await;
    assert!(!ends_or_is_gone(cluster.get(&format!("{PODS}/new")).await.as_ref()));
}

fn ends_or_is_gone(object: Option<&Value>) -> bool {
    object.is_none_or(|it| it["metadata"]["deletionTimestamp"].is_string())
}
