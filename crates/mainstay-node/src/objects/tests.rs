use mainstay_pod::{ObjectKind, ObjectValue};
use mainstay_testkit::pods::pod;
use serde_json::json;
use tokio::task::JoinSet;

use super::*;
use crate::publish::api::calls;
use crate::publish::api::fake::{FakeApi, Mood};

fn name(name: &str) -> ObjectName {
    ObjectName { kind: ObjectKind::ConfigMap, namespace: "ns".into(), name: name.into() }
}

fn object(value: &str) -> Arc<Object> {
    let values = [("k".to_owned(), ObjectValue::Text(value.into()))].into();
    Arc::new(Object { values, ..Object::default() })
}

fn known(following: &Following, object: &str) -> String {
    match &following.now().0[&name(object)] {
        Known::Awaited => "awaited".to_owned(),
        Known::Missing => "missing".to_owned(),
        Known::Unreadable(reason) => format!("unreadable: {reason}"),
        Known::Found(object) => String::from_utf8_lossy(object.values["k"].as_bytes()).into_owned(),
    }
}

#[test]
fn followers_hear_of_what_they_refer_to_and_of_nothing_else() {
    let objects = Objects::default();
    let refers = |map: &str| {
        pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: ns}}\nspec:\n  containers:\n  \
             - {{name: c, image: i, envFrom: [{{configMapRef: {{name: {map}}}}}]}}\n"
        ))
    };
    let mut following = objects.follow(&refers("a")).unwrap();
    let mut other = objects.follow(&refers("b")).unwrap();
    assert_eq!(known(&following, "a"), "awaited");
    let shelf = &objects.manifests;
    shelf.replace([(name("a"), object("1"))].into(), Some("no b.yaml".into()));
    let unread = "unreadable: no b.yaml";
    assert_eq!((known(&following, "a"), known(&other, "b")), ("1".into(), unread.into()));
    other.seen.mark_unchanged();
    // Nothing of it is forgotten with the last that refers to it.
    drop(objects.follow(&refers("a")).unwrap());
    shelf.replace([(name("a"), object("1"))].into(), None);
    assert_eq!((known(&following, "a"), known(&other, "b")), ("1".into(), "missing".into()));
    assert!(following.seen.has_changed().unwrap() && other.seen.has_changed().unwrap());
    following.seen.mark_unchanged();
    other.seen.mark_unchanged();
    // The same again is no news.
    shelf.replace([(name("a"), object("1")), (name("c"), object("3"))].into(), None);
    assert!(!following.seen.has_changed().unwrap() && !other.seen.has_changed().unwrap());
    shelf.replace([(name("a"), object("2"))].into(), None);
    assert!(following.seen.has_changed().unwrap() && !other.seen.has_changed().unwrap());
    assert_eq!(known(&following, "a"), "2");
    drop((following, other));
    assert!(shelf.names().is_empty());
}

/// The API may break at any time, and only what is referred to is asked for.
#[tokio::test(start_paused = true)]
async fn objects_of_an_api_are_followed_while_somebody_refers_to_them() {
    let api = FakeApi::new();
    let path = "/api/v1/namespaces/ns/configmaps/a";
    let put = |value: &str, more: serde_json::Value| {
        let mut object = json!({"metadata": {"name": "a"}, "data": {"k": value}});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        api.do_put(path, object);
    };
    let shelf = Arc::new(Shelf::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(api::keep(calls(api.client()), shelf.clone()));
    let mut following = shelf.follow([name("a")].into());
    following.known().await;
    assert_eq!(known(&following, "a"), "missing");
    following.seen.mark_unchanged();
    put("1", json!({}));
    following.changed().await;
    assert_eq!(known(&following, "a"), "1");
    // What was known counts.
    api.set_mood(Mood::Down);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(known(&following, "a"), "1");
    let second = shelf.follow([name("a")].into());
    assert_eq!(known(&second, "a"), "1");
    put("2", json!({}));
    api.set_mood(Mood::Well);
    following.changed().await;
    assert_eq!((known(&following, "a"), known(&second, "a")), ("2".into(), "2".into()));
    api.do_delete(path, 0);
    following.changed().await;
    assert_eq!(known(&following, "a"), "missing");
    // What never changes again is not watched.
    put("3", json!({"immutable": true}));
    following.changed().await;
    let watches = api.watches();
    api.compact();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!((known(&following, "a"), api.watches()), ("3".into(), watches));
    drop((following, second));
    assert!(shelf.names().is_empty());
    // And forgotten with the last that refers to it.
    assert_eq!(known(&shelf.follow([name("a")].into()), "a"), "awaited");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_says_why() {
    let api = FakeApi::new();
    api.set_mood(Mood::Down);
    let shelf = Arc::new(Shelf::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(api::keep(calls(api.client()), shelf.clone()));
    let mut following = shelf.follow([name("a")].into());
    following.known().await;
    assert_eq!(known(&following, "a"), "unreadable: down");
    api.set_mood(Mood::Well);
    following.changed().await;
    assert_eq!(known(&following, "a"), "missing");
}
