//! Mirrors of static pods that come and go.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mainstay_linux::process::Pidfd;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Instance, PATIENCE, milliseconds};

/// Puts manifests where the agent looks for them, and takes them away again, one after the other. The
/// answer, in milliseconds: from the manifest to a mirror that shows `Running` (`running`), from its
/// removal to the mirror's (`removed`), and from the container's end to that (`gone`).
#[derive(Deserialize)]
pub(crate) struct Job {
    pods: Vec<StaticPod>,
    pause_ms: u64,
}

#[derive(Deserialize)]
struct StaticPod {
    /// The mirror's name.
    name: String,
    /// The manifest, beside the directory that is looked into.
    ready: PathBuf,
    /// Where it goes.
    placed: PathBuf,
    /// The command line of its only process.
    command: Vec<String>,
}

/// An event of the watch: when it came, whether the pod is gone, its name, its phase.
struct Seen {
    at: Instant,
    gone: bool,
    name: String,
    phase: String,
}

impl Job {
    pub(crate) async fn carry_out(self, api: &Instance) -> anyhow::Result<Value> {
        let connection = api.connect().await?;
        let (tell, mut seen) = mpsc::unbounded_channel();
        let watch = connection.watch("/api/v1/namespaces/default/pods?watch=true").await?;
        let watch = watch.each(|line| Ok(tell.send(Seen::read(Instant::now(), line)?)?));
        tokio::select! {
            // Cancel-safe: whichever ends first ends the other with all it has.
            result = self.rounds(&mut seen) => result,
            ended = watch => Err(ended),
        }
    }

    async fn rounds(&self, seen: &mut mpsc::UnboundedReceiver<Seen>) -> anyhow::Result<Value> {
        let pause = || tokio::time::sleep(Duration::from_millis(self.pause_ms));
        let (mut running, mut removed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for pod in &self.pods {
            pause().await;
            let start = Instant::now();
            std::fs::rename(&pod.ready, &pod.placed)
                .with_context(|| format!("cannot place {}", pod.placed.display()))?;
            let at = pod.wait(seen, |seen| seen.phase == "Running").await?;
            running.push(milliseconds(at.duration_since(start)));

            pause().await;
            let process = Pidfd::open(pod.process()?)?;
            let ended = tokio::task::spawn_blocking(move || {
                process.wait_until(Instant::now() + PATIENCE).map(|_| Instant::now())
            });
            let start = Instant::now();
            std::fs::remove_file(&pod.placed)
                .with_context(|| format!("cannot remove {}", pod.placed.display()))?;
            let at = pod.wait(seen, |seen| seen.gone).await?;
            let ended = ended.await?.context("a process cannot be waited for")?;
            removed.push(milliseconds(at.duration_since(start)));
            gone.push(milliseconds(at.saturating_duration_since(ended)));
        }
        Ok(json!({ "running": running, "removed": removed, "gone": gone }))
    }
}

impl StaticPod {
    /// Waits for an event of this pod: when it came.
    async fn wait(
        &self,
        events: &mut mpsc::UnboundedReceiver<Seen>,
        wanted: impl Fn(&Seen) -> bool,
    ) -> anyhow::Result<Instant> {
        loop {
            let seen = events.recv().await.context("nobody watches")?;
            if seen.name == self.name && wanted(&seen) {
                return Ok(seen.at);
            }
        }
    }

    /// The process of its container.
    fn process(&self) -> anyhow::Result<i32> {
        let wanted: String = self.command.iter().map(|word| format!("{word}\0")).collect();
        for entry in std::fs::read_dir("/proc").context("cannot list /proc")?.flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let line = std::fs::read(entry.path().join("cmdline"));
            if let Some(pid) = pid
                && line.is_ok_and(|line| line == wanted.as_bytes())
            {
                return Ok(pid);
            }
        }
        bail!("{} does not run, and its mirror says it does", self.name)
    }
}

impl Seen {
    fn read(at: Instant, event: &[u8]) -> anyhow::Result<Self> {
        let event: Value = serde_json::from_slice(event).context("an event is no JSON")?;
        let text = |pointer: &str| {
            event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        if event["type"] == "ERROR" {
            bail!("the watch has failed: {event}");
        }
        Ok(Self {
            at,
            gone: event["type"] == "DELETED",
            name: text("/object/metadata/name"),
            phase: text("/object/status/phase"),
        })
    }
}
