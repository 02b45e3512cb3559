//! Following a collection: list, then watch, then again from where it ended.

use std::time::Duration;

use kube::core::WatchEvent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::calls::{PARTIAL, PARTIAL_LIST};
use crate::lines::event;
use crate::{CallError, CallErrorKind, Calls, LONGEST_AWAY, Object, PATIENCE, wait_after};

/// How many objects are asked for at once.
const CHUNK: u32 = 250;

/// A watch that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(1);

/// What is followed.
#[derive(Clone, Debug)]
pub struct Collection {
    /// Where it is, such as `/api/v1/pods`.
    pub path: String,
    /// What is asked for of it: a query without a `?`, such as `fieldSelector=spec.nodeName%3Dn1`; all
    /// when it is empty.
    pub query: String,
    /// Whether the objects' metadata is enough, as with [`Partial`](crate::Partial).
    pub metadata_only: bool,
    /// How long one watch lasts: one that is wedged is found out by then.
    pub lasting: Duration,
}

/// What hears of a collection's objects. Nothing that it does may take long.
pub trait Sink<K> {
    /// These are all of them, as of a version.
    fn replace(&self, listed: Vec<K>, version: &str);

    /// One is new, or has changed.
    fn heard(&self, object: K);

    /// One is gone; this is how it was.
    fn deleted(&self, object: K);

    /// The API answered, or did not.
    fn answered(&self, how: Result<(), &CallError>);
}

#[derive(Deserialize)]
struct List<K> {
    metadata: ListMeta,
    // Go writes an empty list as null now and then.
    #[serde(default = "Option::default")]
    items: Option<Vec<K>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// One round of watching.
struct Round<'a, K, S> {
    calls: &'a Calls,
    collection: &'a Collection,
    sink: &'a S,
    failures: u32,
    kind: std::marker::PhantomData<K>,
}

/// Follows a collection for ever.
pub async fn follow<K, S>(calls: &Calls, collection: &Collection, sink: &S)
where
    K: DeserializeOwned + Clone + Object + 'static,
    S: Sink<K>,
{
    let kind = std::marker::PhantomData::<K>;
    let mut round = Round { calls, collection, sink, failures: 0, kind };
    loop {
        let mut version = match round.list().await {
            Ok((listed, version)) => {
                sink.answered(Ok(()));
                sink.replace(listed, &version);
                version
            }
            Err(error) => {
                round.wait(Some(&error)).await;
                continue;
            }
        };
        loop {
            let began = Instant::now();
            let ended = round.watch(&mut version).await;
            let good = began.elapsed() >= GOOD;
            if good {
                round.failures = 0;
            }
            match ended {
                Ok(()) if good => {}
                // Not for nothing: what ends at once may do so again.
                Ok(()) => round.wait(None).await,
                Err(error) if error.kind == CallErrorKind::Gone => {
                    round.wait(None).await;
                    break;
                }
                Err(error) => round.wait(Some(&error)).await,
            }
        }
    }
}

impl<K, S> Round<'_, K, S>
where
    K: DeserializeOwned + Clone + Object + 'static,
    S: Sink<K>,
{
    /// Waits after a failure, or after what did not last.
    async fn wait(&mut self, error: Option<&CallError>) {
        if let Some(error) = error {
            self.sink.answered(Err(error));
        }
        self.failures += 1;
        tokio::time::sleep(wait_after(self.failures, LONGEST_AWAY)).await;
    }

    /// All objects, and the version that they are of.
    async fn list(&self) -> Result<(Vec<K>, String), CallError> {
        let Collection { path, query, metadata_only, .. } = self.collection;
        let accept = metadata_only.then_some(PARTIAL_LIST);
        let mut objects = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!("{path}?limit={CHUNK}&{query}{next}");
            let list: List<K> = self.calls.get_as(path.trim_end_matches('&'), accept).await?;
            objects.extend(list.items.into_iter().flatten());
            match list.metadata.next.filter(|token| !token.is_empty()) {
                // Opaque, and of an alphabet that a query takes, but for what is replaced.
                Some(token) => {
                    let token = token.replace('+', "%2B").replace('=', "%3D").replace('&', "%26");
                    next = format!("&continue={token}");
                }
                None => return Ok((objects, list.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    /// Takes in what happens until the watch ends.
    async fn watch(&self, version: &mut String) -> Result<(), CallError> {
        let Collection { path, query, metadata_only, lasting } = self.collection;
        let asked = format!("watching {path}");
        let accept = metadata_only.then_some(PARTIAL);
        let seconds = lasting.as_secs();
        let path = format!(
            "{path}?watch=true&allowWatchBookmarks=true&resourceVersion={version}\
             &timeoutSeconds={seconds}&{query}"
        );
        let mut lines = self.calls.watch(path.trim_end_matches('&'), accept, &asked).await?;
        self.sink.answered(Ok(()));
        let end = Instant::now() + *lasting + PATIENCE;
        loop {
            let Ok(line) = timeout_at(end, lines.next(&asked)).await else { return Ok(()) };
            let Some(line) = line? else { return Ok(()) };
            let Some(event) = event(&asked, &line)? else { continue };
            let mut reached = |object: &K| {
                if let Some(reached) = &object.meta().resource_version {
                    version.clone_from(reached);
                }
            };
            match event {
                WatchEvent::<K>::Added(object) | WatchEvent::Modified(object) => {
                    reached(&object);
                    self.sink.heard(object);
                }
                WatchEvent::Deleted(object) => {
                    reached(&object);
                    self.sink.deleted(object);
                }
                WatchEvent::Bookmark(bookmark) => {
                    version.clone_from(&bookmark.metadata.resource_version);
                }
                WatchEvent::Error(status) => return Err(CallError::of_status(&asked, &status)),
            }
        }
    }
}
