//! Events against a small API.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::*;
use crate::publish::EventKind;
use crate::publish::api::calls;
use crate::publish::api::fake::{FakeApi, Mood};

struct World {
    api: FakeApi,
    events: Events,
    reachable: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl World {
    async fn new() -> Self {
        let api = FakeApi::new();
        let events = Events::default();
        let (reachable, reachable_seen) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(record(calls(api.client()), "n1".into(), events.clone(), reachable_seen));
        tokio::task::yield_now().await;
        Self { api, events, reachable, _tasks: tasks }
    }

    fn tell(&self, message: &str) {
        let about = About::Pod {
            namespace: "default".into(),
            name: "web-n1".into(),
            uid: "static".into(),
            field_path: None,
        };
        self.events.show(about, EventKind::Normal, "Pulled", message);
    }

    fn written(&self) -> Vec<Value> {
        self.api.list("/events/")
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_again_is_counted_and_what_was_forgotten_written_again() {
    let world = World::new().await;
    for _ in 0..3 {
        world.tell("done");
    }
    world.settle().await;
    let written = world.written();
    assert_eq!(written.len(), 1);
    assert_eq!(written[0]["count"], 3);
    assert_eq!(written[0]["involvedObject"]["uid"], "static");
    let name = written[0]["metadata"]["name"].as_str().unwrap();
    world.api.do_delete(&format!("/api/v1/namespaces/default/events/{name}"), 0);
    world.tell("done");
    world.settle().await;
    assert_eq!(world.written()[0]["count"], 4);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_away_gets_the_last_of_them() {
    let world = World::new().await;
    world.reachable.send_replace(false);
    world.api.set_mood(Mood::Down);
    // One is on its way already.
    for number in 0..2000 {
        world.events.tell_node(EventKind::Normal, "Starting", number.to_string());
        world.tell(&number.to_string());
    }
    world.settle().await;
    world.api.set_mood(Mood::Well);
    world.reachable.send_replace(true);
    world.settle().await;
    // Of each kind those that are not combined, and the one that stands for the rest.
    let written = world.written();
    assert_eq!(written.len(), 20, "{written:#?}");
    let last = |kind: &str| {
        let of_kind = written.iter().filter(|event| event["involvedObject"]["kind"] == kind);
        of_kind.filter(|event| event["message"].as_str().unwrap().starts_with("(comb")).count()
    };
    assert_eq!((last("Node"), last("Pod")), (1, 1));
}
