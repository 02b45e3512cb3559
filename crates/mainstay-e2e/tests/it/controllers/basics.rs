//! What every namespace has.

use serde_json::json;

use super::cluster::{Cluster, ROOT_CA};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_namespace_has_an_account_and_the_authority() {
    let cluster = Cluster::new().await;
    cluster.create("/api/v1/namespaces", json!({ "metadata": { "name": "later" } })).await;
    for namespace in ["default", "kube-system", "later"] {
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        cluster.until(&account, |it| it.is_some()).await;
        cluster.delete(&account, "Background").await;
        cluster.until(&account, |it| it.is_some()).await;
        let map = format!("/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt");
        let is_right = |map: Option<&serde_json::Value>| {
            map.is_some_and(|map| map["data"] == json!({ "ca.crt": ROOT_CA }))
        };
        cluster.until(&map, is_right).await;
        cluster.merge(&map, json!({ "data": { "ca.crt": "other", "more": "" } })).await;
        cluster.until(&map, is_right).await;
        cluster.delete(&map, "Background").await;
        cluster.until(&map, is_right).await;
    }
}
