//! Agents that are killed while their API is written to and watched.
//!
//! A write that was answered is there afterwards, or another one that came later. One that nobody
//! answered is there or not, at once or never. Those that are not waited for until they are on the
//! disk, of leases and of what is beside the specification, may be lost from the last one on, and
//! only those that no durable one came after.

mod watcher;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use hyper::Method;
use mainstay_e2e::api::{Api, Connection};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::http::free_port;
use crate::model::server;
use crate::node::{Node, wait_for};
use watcher::{Told, Watcher};
use writer::{Lazy, Write, Writer};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// How often the agent is killed.
const KILLS: usize = 12;
/// How many clients write what lasts.
const WRITERS: usize = 8;
/// How many watch it.
const WATCHERS: usize = 4;
/// The name of the object that ends what watchers are told.
const LAST: &str = "the-end";
/// How long nothing is done between two tries to connect.
const PAUSE: Duration = Duration::from_millis(2);
/// How long it may take until something comes that has to.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all clients know.
struct World {
    api: Api,
    /// How many agents there have been. It grows when one is dead and the next one is not yet there.
    agent: AtomicUsize,
    /// How many writes have been answered.
    answered: AtomicUsize,
    /// Says that it is enough.
    enough: AtomicUsize,
    /// By agent: the newest version of what lasts.
    durable: Mutex<BTreeMap<usize, u64>>,
}

/// A connection to one agent.
struct Session {
    connection: Connection,
    agent: usize,
}

#[test]
fn an_agent_that_is_killed_again_and_again_loses_no_write_and_no_event() {
    let Some(mut node) = Node::prepare() else { return };
    node.secure_port = free_port();
    node.launch();
    let kubeconfig = node.path("root/kubeconfig");
    assert!(wait_for(|| kubeconfig.exists().then_some(())).is_some(), "{}", node.log());
    let world = Arc::new(World {
        api: server::api(kubeconfig.as_os_str()),
        agent: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        enough: AtomicUsize::new(0),
        durable: Mutex::default(),
    });
    let clients = std::thread::spawn({
        let world = world.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(clients(world))
        }
    });
    let mut chance = Chance::new();
    let mut progress = |world: &World, least: u64| {
        let next = world.answered.load(Ordering::SeqCst)
            + usize::try_from(least + chance.below(least)).unwrap();
        // A client that has failed is asked why below.
        let _ = wait_for(|| {
            let there = world.answered.load(Ordering::SeqCst) >= next;
            (there || clients.is_finished()).then_some(())
        });
    };
    for _ in 0..KILLS {
        progress(&world, 60);
        node.kill();
        world.agent.fetch_add(1, Ordering::SeqCst);
        node.spawn();
    }
    progress(&world, 60);
    world.enough.store(1, Ordering::SeqCst);
    let result = clients.join().unwrap();
    if let Err(error) = result {
        panic!("{error:#}");
    }
    println!("{} writes were answered", world.answered.load(Ordering::SeqCst));
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

async fn clients(world: Arc<World>) -> anyhow::Result<()> {
    let from = world.connect().await.version(CONFIG_MAPS).await?;
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        watchers.spawn(Watcher::new(world.clone(), from).told());
    }
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        writers.spawn(Writer::new(world.clone(), format!("writer-{number}")).writes());
    }
    let mut lazy = JoinSet::new();
    lazy.spawn(Lazy::new(world.clone()).write());
    let mut writes = BTreeMap::new();
    while let Some(written) = writers.join_next().await {
        let (name, written) = written??;
        writes.insert(name, written);
    }
    while let Some(written) = lazy.join_next().await {
        written??;
    }
    let body = json!({ "metadata": { "name": LAST } });
    world.connect().await.done(Method::POST, CONFIG_MAPS, &body).await?;
    let there = world.connect().await.values().await?;
    for (name, writes) in &writes {
        writer::check(name, writes, there.get(name).copied())?;
    }
    let mut relisted = 0;
    while let Some(told) = watchers.join_next().await {
        let told: Told = told??;
        relisted += told.gaps.len();
        for (name, writes) in &writes {
            told.check(name, writes)?;
        }
    }
    println!("watchers had to list anew {relisted} times");
    Ok(())
}

// === impl World ===

impl World {
    /// Connects to an agent, of which it is known which one it is.
    async fn connect(&self) -> Session {
        loop {
            let agent = self.agent.load(Ordering::SeqCst);
            if let Ok(connection) = self.api.connect().await
                && self.agent.load(Ordering::SeqCst) == agent
                && let Ok((code, _)) =
                    connection.answer(Method::GET, "/readyz", "", Vec::new()).await
                && code.is_success()
            {
                return Session { connection, agent };
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn has_enough(&self) -> bool {
        self.enough.load(Ordering::SeqCst) == 1
    }

    /// Notes that a write was answered, and with which version.
    fn answered(&self, session: &Session, version: Option<u64>) {
        if let Some(version) = version {
            let mut durable = self.durable.lock().unwrap();
            let newest = durable.entry(session.agent).or_default();
            *newest = version.max(*newest);
        }
        self.answered.fetch_add(1, Ordering::SeqCst);
    }

    /// The newest version of what lasts that an agent before this one has answered.
    fn durable_before(&self, agent: usize) -> u64 {
        let durable = self.durable.lock().unwrap();
        durable.range(..agent).map(|(_, version)| *version).max().unwrap_or(0)
    }
}

// === impl Session ===

impl Session {
    /// What a request is answered with; `None` when nobody knows whether it was carried out.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Option<(u16, Value)> {
        let content_type = match method {
            Method::PATCH if path.contains("force=") => "application/apply-patch+yaml",
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let answer = self.connection.answer(method, path, content_type, body).await;
        let (code, body) = answer.ok()?;
        let body = serde_json::from_slice(&body).ok()?;
        // It may have been on its way when the server refused to wait any longer.
        (!code.is_server_error()).then_some((code.as_u16(), body))
    }

    async fn done(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.ask(method.clone(), path, body).await;
        let done = answer.as_ref().is_some_and(|(code, _)| (200..300).contains(code));
        ensure!(done, "{method} {path}: {answer:?}");
        Ok(answer.map(|(_, body)| body).unwrap_or_default())
    }

    /// The version of a list.
    async fn version(&self, path: &str) -> anyhow::Result<u64> {
        Ok(version(&self.done(Method::GET, path, &Value::Null).await?))
    }

    /// What was written last, by name, as far as it is there.
    async fn values(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let list = self.done(Method::GET, CONFIG_MAPS, &Value::Null).await?;
        let items = list["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(|item| Some((name(item), value(item)?))).collect())
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|it| it.parse().ok()).unwrap_or(0)
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// The number that a writer has put in an object.
fn value(object: &Value) -> Option<u64> {
    object["data"]["value"].as_str()?.parse().ok()
}
