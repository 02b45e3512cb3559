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

use super::{ApiPods, CallError, CallErrorKind, Calls, LONGEST_AWAY, PATIENCE, Trouble};

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

/// Waits after a failure, or after what did not last.
async fn wait(trouble: &mut Trouble, error: Option<&CallError>, pods: &ApiPods) {
    if let Some(error) = error {
        pods.set_reachable(false);
        if trouble.is_news(error) {
            tracing::warn!(error = error.message, "cannot follow the pods of the API");
        }
    }
    tokio::time::sleep(trouble.count(LONGEST_AWAY)).await;
}

/// The API answered, which does not say that the next watch lasts.
fn answered(trouble: &mut Trouble, pods: &ApiPods) {
    if trouble.unsay() {
        tracing::info!("the API answers again");
    }
    pods.set_reachable(true);
}

/// Follows the pods of a node for ever.
pub(crate) async fn follow(calls: Calls, node: String, pods: Arc<ApiPods>) {
    let mut trouble = Trouble::default();
    loop {
        let mut version = match list(&calls, &node).await {
            Ok((listed, version)) => {
                answered(&mut trouble, &pods);
                pods.replace(listed, version.parse().ok());
                version
            }
            Err(error) => {
                wait(&mut trouble, Some(&error), &pods).await;
                continue;
            }
        };
        loop {
            let began = Instant::now();
            let ended = watch(&calls, &node, &pods, &mut version, &mut trouble).await;
            let good = began.elapsed() >= GOOD;
            if good {
                trouble.recount();
            }
            match ended {
                Ok(()) if good => {}
                // Not for nothing: what ends at once may do so again.
                Ok(()) => wait(&mut trouble, None, &pods).await,
                Err(error) if error.kind == CallErrorKind::Gone => {
                    wait(&mut trouble, None, &pods).await;
                    break;
                }
                Err(error) => wait(&mut trouble, Some(&error), &pods).await,
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
    answered(trouble, pods);
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
                pods.heard(pod);
            }
            WatchEvent::Deleted(pod) => {
                reached(&pod);
                pods.deleted(&pod);
            }
            WatchEvent::Bookmark(bookmark) => {
                version.clone_from(&bookmark.metadata.resource_version);
            }
            WatchEvent::Error(status) => return Err(CallError::of_status(asked, &status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;
    use crate::publish::api::fake::FakeApi;

    #[tokio::test(start_paused = true)]
    async fn watches_that_end_at_once_are_begun_more_and_more_rarely() {
        let api = FakeApi::new();
        api.end_watches();
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        let pods = Arc::new(ApiPods::new());
        tasks.spawn(follow(Calls::new(api.client()), "n1".to_owned(), pods));
        api.until(|api| api.watches() >= 5).await;
        // 100, 200, 400 and 800 milliseconds.
        assert_eq!(began.elapsed().as_millis() / 100, 15);
    }
}
