//! Following an API's pods of this node: list, then watch, then again from where it ended.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use http::Request;
use k8s_openapi::api::core::v1::Pod as KubernetesPod;
use kube::core::WatchEvent;
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};

use super::{ApiPods, CallError, CallErrorKind, Calls, LONGEST_AWAY, PATIENCE, wait_after};

/// How long one watch lasts: one that is wedged is found out by then.
const WATCH: Duration = Duration::from_secs(120);

/// How many pods are asked for at once.
const CHUNK: u32 = 250;

/// A watch that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    items: Vec<KubernetesPod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// What stands in the way, said once.
#[derive(Default)]
struct Trouble {
    count: u32,
    said: Option<String>,
}

impl Trouble {
    async fn wait(&mut self, error: Option<&CallError>, pods: &ApiPods) {
        self.count += 1;
        if let Some(error) = error {
            pods.set_reachable(false);
            if self.said.as_ref() != Some(&error.message) {
                tracing::warn!(error = error.message, "cannot follow the pods of the API");
                self.said = Some(error.message.clone());
            }
        }
        tokio::time::sleep(wait_after(self.count, LONGEST_AWAY)).await;
    }

    fn end(&mut self, pods: &ApiPods) {
        if self.said.take().is_some() {
            tracing::info!("the API answers again");
        }
        pods.set_reachable(true);
    }
}

/// Follows the pods of a node for ever.
pub(crate) async fn follow(calls: Calls, node: String, pods: Arc<ApiPods>) {
    let mut trouble = Trouble::default();
    loop {
        let mut version = match list(&calls, &node).await {
            Ok((listed, version)) => {
                trouble.end(&pods);
                pods.replace(listed, version.parse().ok());
                version
            }
            Err(error) => {
                trouble.wait(Some(&error), &pods).await;
                continue;
            }
        };
        loop {
            let began = Instant::now();
            let ended = watch(&calls, &node, &pods, &mut version, &mut trouble).await;
            if began.elapsed() >= GOOD {
                trouble.count = 0;
            }
            match ended {
                Ok(()) if trouble.count == 0 => {}
                Ok(()) => trouble.wait(None, &pods).await,
                // Not for nothing: what ends at once may do so again.
                Err(error) if error.kind == CallErrorKind::Gone => {
                    trouble.wait(None, &pods).await;
                    break;
                }
                Err(error) => trouble.wait(Some(&error), &pods).await,
            }
        }
    }
}

/// All pods, and the version that they are of.
async fn list(calls: &Calls, node: &str) -> Result<(Vec<KubernetesPod>, String), CallError> {
    let mut pods = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&limit={CHUNK}{next}");
        let list: List = calls.get(&path).await?;
        pods.extend(list.items);
        match list.metadata.next.filter(|token| !token.is_empty()) {
            // Opaque, and of an alphabet that a query takes, but for what is replaced.
            Some(token) => {
                let token = token.replace('+', "%2B").replace('=', "%3D").replace('&', "%26");
                next = format!("&continue={token}");
            }
            None => return Ok((pods, list.metadata.resource_version.unwrap_or_default())),
        }
    }
}

/// Takes in what happens until the watch ends.
async fn watch(
    calls: &Calls,
    node: &str,
    pods: &ApiPods,
    version: &mut String,
    trouble: &mut Trouble,
) -> Result<(), CallError> {
    let asked = "watching the pods of this node";
    let seconds = WATCH.as_secs();
    let path = format!(
        "/api/v1/pods?watch=true&allowWatchBookmarks=true&fieldSelector=spec.nodeName%3D{node}\
         &resourceVersion={version}&timeoutSeconds={seconds}"
    );
    let request = Request::get(path).body(Vec::new()).map_err(|error| CallError {
        kind: CallErrorKind::Gone,
        message: format!("{asked}: {error}"),
    })?;
    let failed = |error: &kube::Error| CallError::of(asked, error);
    let events = timeout(PATIENCE, calls.client.request_events::<KubernetesPod>(request)).await;
    let events = events.map_err(|_| CallError::late(asked))?.map_err(|error| failed(&error))?;
    trouble.end(pods);
    let mut events = pin!(events);
    let end = Instant::now() + WATCH + PATIENCE;
    loop {
        let Ok(event) = timeout_at(end, events.try_next()).await else { return Ok(()) };
        let Some(event) = event.map_err(|error| failed(&error))? else { return Ok(()) };
        let mut reached = |pod: &KubernetesPod| {
            if let Some(reached) = &pod.metadata.resource_version {
                version.clone_from(reached);
            }
        };
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                reached(&pod);
                pods.put(pod);
            }
            WatchEvent::Deleted(pod) => {
                reached(&pod);
                pods.deleted(pod);
            }
            WatchEvent::Bookmark(bookmark) => {
                version.clone_from(&bookmark.metadata.resource_version);
            }
            WatchEvent::Error(status) => return Err(CallError::of_status(asked, &status)),
        }
    }
}
