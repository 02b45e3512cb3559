//! `watch`: what happens to the objects of a list, from a version on.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/watch.go` and
//! `staging/src/k8s.io/apiserver/pkg/storage/cacher`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use jiff::Timestamp;
use mainstay_store::{Event, ListOptions, Revision, Store, StoreError, WatchItem};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::body::BoxError;
use crate::call::{Answer, Call};
use crate::kind::Resource;
use crate::object::{self, Object};
use crate::random;
use crate::request::{Accept, Shape};
use crate::selector::Selector;
use crate::status::{ApiError, Result};
use crate::storage;
use crate::table::{self, IncludeObject};
use crate::verbs::list;

/// How long a watch lasts that does not say so; up to twice as long. Source: `MinRequestTimeout`.
const DURATION: Duration = Duration::from_secs(1800);

/// How often a client is told how far the history has come.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How an event is written.
struct Writing {
    resource: &'static Resource,
    selector: Selector,
    accept: Accept,
    include: IncludeObject,
    /// Whether the columns of the table have been told.
    headed: bool,
}

/// A watch under way.
struct Watch {
    writing: Writing,
    /// What comes before anything else.
    first: VecDeque<Bytes>,
    events: BoxStream<'static, WatchItem>,
    end: Instant,
    bookmarks: Option<tokio::time::Interval>,
    /// How far everything has been told.
    store: Arc<dyn Store>,
    over: bool,
}

/// Answers a watch.
pub(crate) async fn watch(call: &Call<'_>) -> Result<Answer> {
    let (resource, query) = (call.resource, &call.info.query);
    let selector =
        Selector::parse(resource, query.get("labelSelector"), query.get("fieldSelector"))?;
    let selector = call.named(selector)?;
    let include = IncludeObject::parse(query.get("includeObject"));
    let mut writing =
        Writing { resource, selector, accept: call.accept.clone(), include, headed: false };
    let bookmarks = query.flag("allowWatchBookmarks");
    let initial = initial_events(call, bookmarks)?;
    let prefix = resource.prefix(call.namespace());
    let store = call.server.storage.store.clone();
    let mut first = VecDeque::new();
    let version = query.get("resourceVersion");
    let from = match version {
        "" | "0" => None,
        text => Some(list::revision(text)?),
    };
    if initial != Some(false) && from.is_some() {
        call.not_older_than_asked().await?;
    }
    let events = match from {
        Some(after) if initial != Some(true) => {
            match store.watch(&prefix, after).await {
                Ok(events) => events,
                // As upstream: the answer is a watch, which tells this.
                Err(error) => {
                    let line = line("ERROR", &ApiError::from(error).to_json());
                    return Ok(stream(VecDeque::from([line])));
                }
            }
        }
        _ => {
            let page = call
                .server
                .storage
                .page(resource, call.namespace(), &ListOptions::default())
                .await?;
            if initial != Some(false) {
                for entry in &page.entries {
                    let event = Event {
                        revision: entry.revision,
                        key: entry.key.clone(),
                        value: Some(entry.value.clone()),
                        previous: None,
                    };
                    writing.event(&event, &mut first)?;
                }
            }
            if initial == Some(true) {
                first.push_back(writing.bookmark(page.revision, true));
            }
            store.watch(&prefix, page.revision).await?
        }
    };
    let duration = match query.number("timeoutSeconds")? {
        Some(seconds @ 1..) => Duration::from_secs(seconds.unsigned_abs().min(24 * 3600)),
        _ => DURATION + DURATION.mul_f64(random::fraction()),
    };
    let watch = Watch {
        writing,
        first,
        events,
        end: Instant::now() + duration,
        bookmarks: bookmarks.then(|| {
            let first = Instant::now() + BOOKMARK_INTERVAL;
            tokio::time::interval_at(first, BOOKMARK_INTERVAL)
        }),
        store,
        over: false,
    };
    let frames = futures_util::stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(bytes)), watch))
    });
    Ok(Answer::stream("application/json", StreamBody::new(frames).boxed_unsync()))
}

/// `sendInitialEvents`, if it is given. Source: `ValidateListOptions`.
fn initial_events(call: &Call<'_>, bookmarks: bool) -> Result<Option<bool>> {
    let query = &call.info.query;
    if query.get("sendInitialEvents").is_empty() {
        return match query.get("resourceVersionMatch") {
            "" => Ok(None),
            _ => Err(ApiError::unprocessable(
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
                 resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
        };
    }
    if query.get("resourceVersionMatch") != "NotOlderThan" {
        return Err(ApiError::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
             sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    if !bookmarks {
        return Err(ApiError::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: allowWatchBookmarks: Forbidden: \
             sendInitialEvents requires setting allowWatchBookmarks to true",
        ));
    }
    Ok(Some(query.flag("sendInitialEvents")))
}

fn stream(lines: VecDeque<Bytes>) -> Answer {
    let frames = lines.into_iter().map(|line| Ok::<_, BoxError>(Frame::data(line)));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Answer::stream("application/json", body.boxed_unsync())
}

impl Watch {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.first.pop_front() {
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            let tick = async {
                match &mut self.bookmarks {
                    Some(interval) => interval.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // In this order, so that a bookmark does not tell of what has not been told yet.
                biased;
                () = tokio::time::sleep_until(self.end) => return None,
                // Cancel-safe per docs on `StreamExt::next`.
                item = self.events.next() => match item {
                    None => return None,
                    Some(Ok(events)) => self.tell(&events),
                    Some(Err(error)) => self.fail(error),
                },
                // Cancel-safe per docs on `Interval::tick`.
                _ = tick => self.mark().await,
            }
        }
    }

    /// Tells how far the history has come, after all that belongs to it.
    async fn mark(&mut self) {
        let Ok((_, revision)) = self.store.get("").await else { return };
        // What was committed until then is there to be told.
        while let Some(item) = tokio::task::unconstrained(self.events.next()).now_or_never() {
            match item {
                Some(Ok(events)) => self.tell(&events),
                Some(Err(error)) => return self.fail(error),
                None => return self.over = true,
            }
        }
        if !self.over {
            self.first.push_back(self.writing.bookmark(revision, false));
        }
    }

    /// The last thing that a watch tells.
    fn fail(&mut self, error: StoreError) {
        self.over = true;
        self.first.push_back(line("ERROR", &ApiError::from(error).to_json()));
    }

    fn tell(&mut self, events: &[Event]) {
        for event in events {
            if let Err(error) = self.writing.event(event, &mut self.first) {
                self.over = true;
                self.first.push_back(line("ERROR", &error.to_json()));
                return;
            }
        }
    }
}

impl Writing {
    /// Writes what an event means to this watch, if anything.
    fn event(&mut self, event: &Event, out: &mut VecDeque<Bytes>) -> Result<()> {
        let resource = self.resource;
        let raw = self.selector.is_empty()
            && self.accept.shape == Shape::Plain
            && !resource.strategy.converts();
        if raw {
            let (kind, value) = match (&event.previous, &event.value) {
                (None, Some(value)) => ("ADDED", value),
                (Some(_), Some(value)) => ("MODIFIED", value),
                (Some(previous), None) => ("DELETED", previous),
                (None, None) => return Ok(()),
            };
            let mut line = Vec::with_capacity(value.len() + 160);
            line.extend_from_slice(b"{\"type\":\"");
            line.extend_from_slice(kind.as_bytes());
            line.extend_from_slice(b"\",\"object\":");
            object::render(&mut line, resource, value, event.revision);
            line.extend_from_slice(b"}\n");
            out.push_back(line.into());
            return Ok(());
        }
        let picked = |value: &Option<Bytes>| -> Result<Option<Object>> {
            let Some(value) = value else { return Ok(None) };
            let object = storage::decode(resource, value, event.revision)?;
            Ok(self.selector.matches(resource, &object).then_some(object))
        };
        let (kind, object) = match (picked(&event.previous)?, picked(&event.value)?) {
            (None, Some(new)) => ("ADDED", new),
            (Some(_), Some(new)) => ("MODIFIED", new),
            (Some(old), None) => ("DELETED", old),
            (None, None) => return Ok(()),
        };
        let value = match self.accept.shape {
            Shape::Plain => object.to_value(resource),
            Shape::Partial => table::partial(&object, "v1"),
            Shape::Table(version) => {
                let list = json!({ "resourceVersion": object.resource_version() });
                let objects = std::slice::from_ref(&object);
                let now = Timestamp::now();
                let mut table = table::table(resource, version, &list, objects, self.include, now);
                // Told once.
                if std::mem::replace(&mut self.headed, true) {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
        };
        out.push_back(line(kind, &value));
        Ok(())
    }

    /// How far everything has been told.
    fn bookmark(&self, revision: Revision, initial_end: bool) -> Bytes {
        let mut meta =
            json!({ "resourceVersion": revision.0.to_string(), "creationTimestamp": null });
        if initial_end {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.accept.shape {
            Shape::Table(version) => json!({
                "kind": "Table",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": { "resourceVersion": revision.0.to_string() },
                "columnDefinitions": null,
                "rows": [],
            }),
            Shape::Partial => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
            }),
            Shape::Plain => json!({
                "kind": self.resource.kind,
                "apiVersion": self.resource.api_version(),
                "metadata": meta,
            }),
        };
        line("BOOKMARK", &object)
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({ "type": kind, "object": object })).into()
}
