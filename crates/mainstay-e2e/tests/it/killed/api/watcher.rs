//! Clients that watch, and go on from where they are when the agent is killed.

use std::sync::Arc;

use anyhow::ensure;
use serde_json::Value;

use super::{CONFIG_MAPS, LAST, PATIENCE, World, Write, name, value, version};

/// A watcher of what lasts.
pub(super) struct Watcher {
    world: Arc<World>,
    told: Told,
}

/// All that a watcher was told.
#[derive(Default)]
pub(super) struct Told {
    /// The version that it goes on from.
    version: u64,
    events: Vec<Event>,
    /// What it was not told of, since it had to list anew: from after the first version until the
    /// second one.
    pub(super) gaps: Vec<(u64, u64)>,
}

struct Event {
    version: u64,
    name: String,
    /// `None` if it is gone.
    value: Option<u64>,
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn new(world: Arc<World>, from: u64) -> Self {
        Self { world, told: Told { version: from, ..Told::default() } }
    }

    /// All that it is told until the end.
    pub(super) async fn told(mut self) -> anyhow::Result<Told> {
        while !self.told.is_over() {
            let session = self.world.connect().await;
            let from = self.told.version;
            let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={from}");
            let Ok(mut watch) = session.connection.watch(&path).await else {
                self.list().await?;
                continue;
            };
            while !self.told.is_over() {
                let next = tokio::time::timeout(PATIENCE, watch.next()).await?;
                let Ok(Some(line)) = next else { break };
                let event: Value = serde_json::from_slice(&line)?;
                if event["type"] == "ERROR" {
                    ensure!(event["object"]["code"] == 410, "{event}");
                    self.list().await?;
                    break;
                }
                self.told.note(&event)?;
            }
        }
        Ok(self.told)
    }

    /// Begins anew, if it is told.
    async fn list(&mut self) -> anyhow::Result<()> {
        let session = self.world.connect().await;
        if let Ok(version) = session.version(CONFIG_MAPS).await {
            ensure!(version >= self.told.version, "{version} is before {}", self.told.version);
            self.told.gaps.push((self.told.version, version));
            self.told.version = version;
        }
        Ok(())
    }
}

// === impl Told ===

impl Told {
    fn is_over(&self) -> bool {
        self.events.last().is_some_and(|event| event.name == LAST)
    }

    fn note(&mut self, event: &Value) -> anyhow::Result<()> {
        let object = &event["object"];
        let version = version(object);
        ensure!(version > self.version, "after {} comes {event}", self.version);
        self.version = version;
        let value = value(object).filter(|_| event["type"] != "DELETED");
        self.events.push(Event { version, name: name(object), value });
        Ok(())
    }

    fn is_in_gap(&self, version: u64) -> bool {
        self.gaps.iter().any(|(after, until)| (*after + 1..=*until).contains(&version))
    }

    /// Checks what it was told of a name against what was written: all that was answered once, all
    /// else at most once, in order.
    pub(super) fn check(&self, name: &str, writes: &[Write]) -> anyhow::Result<()> {
        let mut events = self.events.iter().filter(|event| event.name == name).peekable();
        for write in writes {
            let told = match write {
                Write { value: None, .. } => events.next_if(|event| event.value.is_none()),
                Write { value, .. } => events.next_if(|event| event.value == *value),
            };
            let missed = match write.version {
                Some(version) if write.value.is_some() => {
                    let same = told.is_some_and(|event| event.version == version);
                    !same && !self.is_in_gap(version)
                }
                // Which version it was is not answered.
                Some(_) => told.is_none() && self.gaps.is_empty(),
                None => false,
            };
            ensure!(!missed, "{name}: a watcher was not told of {write:?}");
        }
        let more: Vec<_> = events.map(|event| (event.version, event.value)).collect();
        ensure!(more.is_empty(), "{name}: a watcher was told of what nobody wrote, {more:?}");
        Ok(())
    }
}
