//! The API's semantics, held against a model of them.

mod client;
mod generate;
mod kind;
mod object;
mod operation;
mod own;
pub(crate) mod server;
mod shared;
mod step;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use crate::chance::Chance;
use kind::KINDS;
use own::Own;
use server::Server;
use shared::{Log, Shared};
use watch::{Selector, Watcher};

/// Says how many operations there are, if not [`OPERATIONS`].
const COUNT: &str = "MAINSTAY_TEST_OPERATIONS";
const OPERATIONS: usize = 10_000;
const CLIENTS: usize = 16;
/// One of so many operations is in the namespace that all clients share.
const SHARED: u64 = 3;
/// How long it may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn sixteen_clients_are_answered_as_the_model_says() {
    let Some(server) = Server::start() else { return };
    let chance = Chance::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begin = Instant::now();
    let result = runtime.block_on(async {
        let run = run(&server, chance);
        tokio::time::timeout(PATIENCE, run).await.context("this takes too long")?
    });
    println!("{:?}", begin.elapsed());
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

async fn run(server: &Server, mut chance: Chance) -> anyhow::Result<()> {
    let connection = Arc::new(server.api.connect().await?);
    let run = chance.below(1_000_000);
    let mut namespaces: Vec<String> = (0..CLIENTS).map(|it| format!("model-{run}-{it}")).collect();
    let shared = format!("model-{run}-shared");
    namespaces.push(shared.clone());
    for namespace in &namespaces {
        server::make_namespace(&connection, namespace).await?;
    }
    let result = clients(server, &shared, &namespaces[..CLIENTS], &mut chance).await;
    if server.is_reference() {
        for namespace in &namespaces {
            server::remove_namespace(&connection, namespace).await?;
        }
    }
    result
}

async fn clients(
    server: &Server,
    namespace: &str,
    namespaces: &[String],
    chance: &mut Chance,
) -> anyhow::Result<()> {
    let log = Arc::new(Log::default());
    let count = std::env::var(COUNT).ok().and_then(|count| count.parse().ok());
    let count: usize = count.unwrap_or(OPERATIONS);
    let connection = Arc::new(server.api.connect().await?);
    let from = begin(&connection, namespace).await?;
    let mut watchers = JoinSet::new();
    for (at, kind) in KINDS.iter().enumerate() {
        for patience in [0, 13] {
            let (namespace, last) = (namespace.to_owned(), own::LAST.to_owned());
            let watcher =
                Watcher { kind, namespace, selector: Selector::All, from, patience, last };
            let connection = connection.clone();
            watchers.spawn(async move {
                Ok::<_, anyhow::Error>((at, watcher.events(connection).await?))
            });
        }
    }
    let mut clients = JoinSet::new();
    for (number, own) in namespaces.iter().enumerate() {
        let connection = Arc::new(server.api.connect().await?);
        let mut own = Own::new(connection.clone(), own.clone(), chance.fork());
        let mut shared = Shared {
            connection,
            namespace: namespace.to_owned(),
            log: log.clone(),
            chance: chance.fork(),
            known: BTreeMap::new(),
        };
        let mut chance = chance.fork();
        clients.spawn(async move {
            for operation in 0..count / CLIENTS {
                if chance.once_in(SHARED) { shared.act().await } else { own.act().await }
                    .with_context(|| format!("operation {operation} of client {number}"))?;
            }
            own.end().await.with_context(|| format!("the end of client {number}"))
        });
    }
    let mut failures = Vec::new();
    while let Some(result) = clients.join_next().await {
        failures.extend(result?.err());
    }
    for failure in &failures {
        println!("{failure:#}\n");
    }
    anyhow::ensure!(failures.is_empty(), "{} clients found differences", failures.len());
    for kind in KINDS {
        let last = generate::last(kind, own::LAST);
        client::ask(&connection, namespace, &last).await?;
    }
    let mut told = vec![Vec::new(); KINDS.len()];
    while let Some(events) = watchers.join_next().await {
        let (kind, events) = events??;
        if !told[kind].is_empty() {
            anyhow::ensure!(told[kind] == events, "two watchers were told different things");
        }
        told[kind] = events;
    }
    log.check(&told, server.is_reference())
}

/// The version that everything in a namespace is newer than.
async fn begin(connection: &mainstay_e2e::api::Connection, name: &str) -> anyhow::Result<u64> {
    let path = format!("/api/v1/namespaces/{name}/configmaps");
    let list = connection.done(hyper::Method::GET, &path, "", Vec::new()).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str();
    Ok(version.context("a list has no version")?.parse()?)
}
