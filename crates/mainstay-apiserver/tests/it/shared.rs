//! A server whose store others write to as well, and which sees that late.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use mainstay_store::{
    Durability, Entry, ListOptions, Page, Revision, Store, StoreError, WatchItem, Write,
};
use serde_json::json;

use crate::common::{Server, server_over};

/// Gives some keys as they were, until it catches up.
struct Late {
    store: Arc<dyn Store>,
    held: Mutex<BTreeMap<String, Entry>>,
}

impl Late {
    /// What happens to a key from now on is not seen.
    async fn hold(&self, key: &str) {
        let entry = self.store.get(key).await.unwrap().0.unwrap();
        self.held.lock().unwrap().insert(key.to_owned(), entry);
    }

    fn is_held(&self) -> bool {
        !self.held.lock().unwrap().is_empty()
    }
}

#[async_trait]
impl Store for Late {
    async fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), StoreError> {
        let held = self.held.lock().unwrap().get(key).cloned();
        match held {
            Some(entry) => Ok((Some(entry.clone()), entry.revision)),
            None => self.store.get(key).await,
        }
    }

    async fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError> {
        self.store.list(prefix, options).await
    }

    async fn commit(
        &self,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<Revision, StoreError> {
        self.store.commit(writes, durability).await
    }

    async fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<BoxStream<'static, WatchItem>, StoreError> {
        self.store.watch(prefix, after).await
    }

    async fn catch_up(&self) -> Result<Revision, StoreError> {
        self.held.lock().unwrap().clear();
        self.store.catch_up().await
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn lets_go(&self) -> bool {
        self.store.lets_go()
    }

    fn known(&self) -> Range<Revision> {
        self.store.known()
    }
}

async fn late() -> (Server, Arc<Late>) {
    let mut late = None;
    let server = server_over(|store| {
        let it = Arc::new(Late { store, held: Mutex::default() });
        late.insert(it).clone()
    });
    (server.await, late.unwrap())
}

#[tokio::test]
async fn a_change_that_looks_like_none_is_made() {
    let (server, store) = late().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |value: &str| json!({"metadata": {"name": "m"}, "data": {"a": value}});
    assert_eq!(server.ask("POST", maps, Some(&map("1"))).await.code, 201);
    store.hold("configmaps/default/m").await;
    let path = format!("{maps}/m");
    let others = server.ask("PUT", &path, Some(&map("2"))).await;
    assert_eq!(others.code, 200, "{others:?}");
    // As far as has been seen, it is so already.
    assert!(store.is_held());
    let back = server.ask("PUT", &path, Some(&map("1"))).await;
    assert_eq!((back.code, &back.body["data"]["a"]), (200, &"1".into()), "{back:?}");
    let there = server.ask("GET", &path, None).await;
    assert_eq!(there.body, back.body);
    let version = |body: &serde_json::Value| body["metadata"]["resourceVersion"].clone();
    assert_ne!(version(&there.body), version(&others.body));
    // What is so already is not written.
    let same = server.ask("PUT", &path, Some(&map("1"))).await;
    assert_eq!((same.code, same.body), (200, there.body));
}

#[tokio::test]
async fn a_change_of_what_is_gone_is_not_taken_for_none() {
    let (server, store) = late().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1"}});
    assert_eq!(server.ask("POST", maps, Some(&map)).await.code, 201);
    store.hold("configmaps/default/m").await;
    let path = format!("{maps}/m");
    assert_eq!(server.ask("DELETE", &path, None).await.code, 200);
    assert!(store.is_held());
    let change = json!({"data": {"a": "1"}});
    let patch = server.ask_as(
        mainstay_apiserver::User::master("admin"),
        "PATCH",
        &path,
        "application/merge-patch+json",
        Some(&change),
    );
    assert_eq!(patch.await.code, 404);
}

#[tokio::test]
async fn what_seems_to_go_already_is_deleted() {
    let (server, store) = late().await;
    let pods = "/api/v1/namespaces/default/pods";
    let path = format!("{pods}/a");
    let pod = json!({
        "metadata": {"name": "a"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}]},
    });
    assert_eq!(server.ask("POST", pods, Some(&pod)).await.code, 201);
    let going = server.ask("DELETE", &path, None).await;
    assert!(going.body["metadata"]["deletionTimestamp"].is_string(), "{going:?}");
    // It goes, and another one comes, which has not been seen.
    store.hold("pods/default/a").await;
    let now = json!({"gracePeriodSeconds": 0});
    assert_eq!(server.ask("DELETE", &path, Some(&now)).await.code, 200);
    let second = server.ask("POST", pods, Some(&pod)).await;
    assert_eq!(second.code, 201, "{second:?}");
    assert!(store.is_held());
    let going = server.ask("DELETE", &path, None).await;
    assert_eq!(going.code, 200, "{going:?}");
    let meta = &going.body["metadata"];
    assert_eq!(meta["uid"], second.body["metadata"]["uid"]);
    assert!(meta["deletionTimestamp"].is_string(), "{going:?}");
    assert_eq!(server.ask("GET", &path, None).await.body, going.body);
}
