//! Many watchers of one pod.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Instance, milliseconds};

/// Changes an annotation of a pod again and again. The answer: how many milliseconds each time
/// passed from the request to its answer (`written`), and to the last watcher's event (`last`).
#[derive(Deserialize)]
pub(crate) struct Job {
    /// The collection that the pod is in.
    path: String,
    name: String,
    watchers: usize,
    /// How many connections the watchers share.
    connections: usize,
    rounds: usize,
    pause_ms: u64,
}

/// What is changed: the number of the round is its value.
const KEY: &str = "bench-round";
/// How it stands in an event, before its value. What managed fields tell of it has none.
const ANNOTATION: &str = "\"bench-round\":\"";

/// What a watcher has been told of: of which round, 0 before the first, and when.
type Told = (usize, Instant);

impl Job {
    pub(crate) async fn carry_out(&self, api: &Instance) -> anyhow::Result<Value> {
        let mut connections = Vec::new();
        for _ in 0..self.connections.max(1) {
            connections.push(Arc::new(api.connect().await?));
        }
        let query = format!("watch=true&fieldSelector=metadata.name%3D{}", self.name);
        let path = format!("{}?{query}", self.path);
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut watchers = JoinSet::new();
        for number in 0..self.watchers {
            let connection = connections[number % connections.len()].clone();
            let (path, tell) = (path.clone(), tell.clone());
            watchers.spawn(async move {
                let watch = connection.watch(&path).await?;
                Err(watch.each(|line| Ok(tell.send((round(line)?, Instant::now()))?)).await)
            });
        }
        tokio::select! {
            // Cancel-safe: whichever ends first ends the other with all it has.
            result = self.rounds(api, &mut told) => result,
            Some(ended) = watchers.join_next() => ended?,
        }
    }

    async fn rounds(
        &self,
        api: &Instance,
        told: &mut mpsc::UnboundedReceiver<Told>,
    ) -> anyhow::Result<Value> {
        let connection = api.connect().await?;
        let path = format!("{}/{}", self.path, self.name);
        self.all(told, 0).await?;
        let (mut written, mut last) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            tokio::time::sleep(Duration::from_millis(self.pause_ms)).await;
            let patch = json!({ "metadata": { "annotations": { KEY: round.to_string() } } });
            let patch = serde_json::to_vec(&patch)?;
            let start = Instant::now();
            connection.done(Method::PATCH, &path, "application/merge-patch+json", patch).await?;
            written.push(milliseconds(start.elapsed()));
            last.push(milliseconds(self.all(told, round).await?.duration_since(start)));
        }
        Ok(json!({ "written": written, "last": last }))
    }

    /// Waits until all watchers have been told of a round: when the last one was.
    async fn all(
        &self,
        told: &mut mpsc::UnboundedReceiver<Told>,
        round: usize,
    ) -> anyhow::Result<Instant> {
        let mut last = None;
        for _ in 0..self.watchers {
            let (of, at) = told.recv().await.context("nobody watches")?;
            ensure!(of == round, "a watcher is told of round {of} in round {round}");
            last = last.max(Some(at));
        }
        last.context("there are no watchers")
    }
}

/// The round that an event tells of.
fn round(event: &[u8]) -> anyhow::Result<usize> {
    // Nothing is parsed: this is done for all watchers while the time runs.
    let event = std::str::from_utf8(event).context("an event is no text")?;
    let Some((_, value)) = event.split_once(ANNOTATION) else { return Ok(0) };
    let value = value.split('"').next().unwrap_or_default();
    value.parse().with_context(|| format!("this event is not understood: {event}"))
}
