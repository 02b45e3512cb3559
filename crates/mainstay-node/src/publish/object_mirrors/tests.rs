//! The keeper against a small API.

use futures_util::FutureExt;
use mainstay_pod::ObjectValue;
use serde_json::json;

use super::*;
use crate::publish::About;
use crate::publish::api::calls;
use crate::publish::api::fake::{FakeApi, Mood};

const MAP: &str = "/api/v1/namespaces/default/configmaps/web.mainstay-n1";
const SECRET: &str = "/api/v1/namespaces/default/secrets/db.mainstay-n1";

struct World {
    api: FakeApi,
    objects: watch::Sender<Option<Arc<StaticObjects>>>,
    node: watch::Sender<Option<String>>,
    events: Events,
    _tasks: JoinSet<()>,
}

impl World {
    fn new(api: FakeApi) -> Self {
        let (objects, objects_seen) = watch::channel(None);
        let (node, node_seen) = watch::channel(Some("node-uid".to_owned()));
        let events = Events::default();
        events.queue().open();
        let mirrors = ObjectMirrors {
            calls: calls(api.client()),
            node_name: "n1".to_owned(),
            node: node_seen,
            objects: objects_seen,
            events: events.clone(),
        };
        let mut tasks = JoinSet::new();
        mirrors.keep(&mut tasks);
        Self { api, objects, node, events, _tasks: tasks }
    }

    /// These lie beside the manifests: kind, name, the value of `k`.
    fn lie(&self, objects: &[(ObjectKind, &str, &str)]) {
        self.lie_with(objects, true);
    }

    /// The same, and perhaps more.
    fn lie_with(&self, objects: &[(ObjectKind, &str, &str)], is_all: bool) {
        let object = |(kind, name, value): &(ObjectKind, &str, &str)| {
            let name = ObjectName {
                kind: *kind,
                namespace: "default".to_owned(),
                name: (*name).to_owned(),
            };
            let value = match kind {
                ObjectKind::ConfigMap => ObjectValue::Text((*value).into()),
                ObjectKind::Secret => ObjectValue::Bytes(value.as_bytes().into()),
            };
            let values = [("k".to_owned(), value)].into();
            (name, (Arc::new(Object { values, ..Object::default() }), "/m/f.yaml".into()))
        };
        let found = objects.iter().map(object).collect();
        self.objects.send_replace(Some(Arc::new(StaticObjects { found, is_all })));
    }

    async fn until(&self, path: &str, value: Option<&str>) {
        let shows = |api: &FakeApi| {
            let found = api.get(path);
            found.as_ref().map(|it| it["data"]["k"].as_str().unwrap()) == value
        };
        self.api.until(shows).await;
    }

    /// The messages of the node's events.
    fn said(&self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(it) = self.events.queue().next().now_or_never() {
            assert_eq!((&it.about, it.reason.as_str()), (&About::Node, "FailedMirror"));
            said.push(it.message);
        }
        said
    }
}

const WEB: (ObjectKind, &str, &str) = (ObjectKind::ConfigMap, "web", "1");

#[tokio::test(start_paused = true)]
async fn the_api_shows_what_lies_on_disk() {
    let world = World::new(FakeApi::new());
    world.lie(&[WEB, (ObjectKind::Secret, "db", "a")]);
    world.until(MAP, Some("1")).await;
    world.until(SECRET, Some("YQ==")).await;
    let first = world.api.get(MAP).unwrap()["metadata"]["uid"].clone();
    world.lie(&[(ObjectKind::ConfigMap, "web", "2")]);
    world.until(SECRET, None).await;
    world.until(MAP, Some("2")).await;
    assert_ne!(world.api.get(MAP).unwrap()["metadata"]["uid"], first);
    // Another Node owns another one.
    world.node.send_replace(Some("other-uid".to_owned()));
    let owner =
        |api: &FakeApi| api.get(MAP).map(|it| it["metadata"]["ownerReferences"][0]["uid"].clone());
    world.api.until(|api| owner(api) == Some("other-uid".into())).await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_deletes_is_back_and_what_an_earlier_agent_showed_goes() {
    let api = FakeApi::new();
    let mirror = |name: &str| {
        json!({"metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"mainstay.dev/config.node": "n1"},
            "annotations": {"mainstay.dev/config.path": "/m/old.yaml"},
        }, "data": {"k": "old"}})
    };
    let orphan = "/api/v1/namespaces/default/configmaps/old.mainstay-n1";
    // With the label, and nothing of ours nevertheless.
    let copy = "/api/v1/namespaces/default/configmaps/copy";
    api.do_put(orphan, mirror("old.mainstay-n1"));
    api.do_put(copy, mirror("copy"));
    let world = World::new(api);
    // Before it is known what lies on disk nothing is asked for.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
    // It may lie in what has not been read.
    world.lie_with(&[WEB], false);
    world.until(MAP, Some("1")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.until(orphan, Some("old")).await;
    world.lie(&[WEB]);
    world.until(orphan, None).await;
    world.until(MAP, Some("1")).await;
    world.api.do_delete(MAP, 0);
    world.until(MAP, Some("1")).await;
    let mut changed = world.api.get(MAP).unwrap();
    changed["metadata"]["annotations"]["kubernetes.io/config.hash"] = "other".into();
    changed["data"]["k"] = "other".into();
    world.api.do_put(MAP, changed);
    world.until(MAP, Some("1")).await;
    world.until(copy, Some("old")).await;
    assert_eq!(world.said(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_told_of_once_and_left_alone() {
    let api = FakeApi::new();
    let theirs = json!({"metadata": {"name": "web.mainstay-n1"}, "data": {"k": "theirs"}});
    api.do_put(MAP, theirs);
    let world = World::new(api);
    world.lie(&[WEB, (ObjectKind::Secret, "db", "a")]);
    world.until(SECRET, Some("YQ==")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let expected = "the API has another ConfigMap default/web.mainstay-n1, so that what lies beside the manifests is not \
                    shown; rename one of them, or `kubectl delete configmap web.mainstay-n1 -n default`";
    assert_eq!(world.said(), [expected]);
    world.until(MAP, Some("theirs")).await;
    world.api.do_delete(MAP, 0);
    world.until(MAP, Some("1")).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_away_is_right_again_when_it_is_back() {
    let world = World::new(FakeApi::new());
    world.lie(&[WEB]);
    world.until(MAP, Some("1")).await;
    world.api.set_mood(Mood::Down);
    world.lie(&[(ObjectKind::ConfigMap, "web", "2")]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.api.compact();
    world.api.set_mood(Mood::Well);
    world.until(MAP, Some("2")).await;
    assert_eq!(world.said(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_api_that_lets_nodes_have_none_is_left_alone() {
    let api = FakeApi::new();
    api.refuse(403, "Forbidden", "GET");
    let world = World::new(api);
    world.lie(&[WEB]);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
    assert_eq!(world.said(), Vec::<String>::new());
    world.api.relent();
    world.until(MAP, Some("1")).await;
}
