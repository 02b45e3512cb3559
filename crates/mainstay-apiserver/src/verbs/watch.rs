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
use crate::request::Shape;
use crate::selector::Selector;
use crate::status::{ApiError, Result};
use crate::storage;
use crate::table::{self, IncludeObject};
use crate::verbs::{list, options};

/// How long a watch lasts that does not say so; up to twice as long. Source: `MinRequestTimeout`.
const DURATION: Duration = Duration::from_secs(1800);

/// How often a client is told how far the history has come.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How an event is written.
struct Writing {
    resource: &'static Resource,
    selector: Selector,
    /// The only key that the selector picks, if it says so.
    only: Option<String>,
    /// Whether objects are written as they are stored.
    raw: bool,
    shape: Shape,
    include: IncludeObject,
    /// Whether the columns of the table have been told.
    headed: bool,
}

/// An object that a watch tells of.
enum Picked<'a> {
    /// As it is stored.
    Raw(&'a Bytes),
    /// Read.
    Object(Object),
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
    let mut selector = call.named(selector)?;
    let only = call.take_only_key(&mut selector);
    let prefix = only.clone().unwrap_or_else(|| resource.prefix(call.namespace()));
    let mut writing = Writing {
        resource,
        selector,
        only,
        raw: call.is_raw(),
        shape: call.accept.shape.clone(),
        include: call.include(),
        headed: false,
    };
    let bookmarks = query.flag("allowWatchBookmarks");
    let initial = initial_events(call, bookmarks)?;
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
                    let line = error_line(&error.into());
                    return Ok(stream(VecDeque::from([line])));
                }
            }
        }
        _ => {
            // Longer names begin with an only one too, and come after it.
            let limit = writing.only.as_ref().map(|_| 1);
            let options = ListOptions { limit, ..ListOptions::default() };
            let page = store.list(&prefix, &options).await?;
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

/// `sendInitialEvents`, if it is given.
fn initial_events(call: &Call<'_>, bookmarks: bool) -> Result<Option<bool>> {
    let query = &call.info.query;
    options::check_watch(query)?;
    if query.get("sendInitialEvents").is_empty() {
        return Ok(None);
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
        self.first.push_back(error_line(&error.into()));
    }

    fn tell(&mut self, events: &[Event]) {
        for event in events {
            if let Err(error) = self.writing.event(event, &mut self.first) {
                self.over = true;
                self.first.push_back(error_line(&error));
                return;
            }
        }
    }
}

impl Writing {
    /// Writes what an event means to this watch, if anything.
    fn event(&mut self, event: &Event, out: &mut VecDeque<Bytes>) -> Result<()> {
        if self.only.as_ref().is_some_and(|only| **only != *event.key) {
            return Ok(());
        }
        let (old, new) = (event.previous.as_ref(), event.value.as_ref());
        let picked = (self.pick(old, event.revision)?, self.pick(new, event.revision)?);
        let (kind, picked) = match picked {
            (None, Some(new)) => ("ADDED", new),
            (Some(_), Some(new)) => ("MODIFIED", new),
            (Some(old), None) => ("DELETED", old),
            (None, None) => return Ok(()),
        };
        let resource = self.resource;
        out.push_back(match picked {
            Picked::Raw(value) => line(kind, value.len() + 160, |out| {
                object::render(out, resource, value, event.revision);
            }),
            Picked::Object(object) => {
                let (include, now) = (self.include, Timestamp::now());
                let mut value = table::shaped(resource, &self.shape, include, object, now);
                // Told once.
                if matches!(self.shape, Shape::Table(_))
                    && std::mem::replace(&mut self.headed, true)
                {
                    value["columnDefinitions"] = Value::Null;
                }
                value_line(kind, &value)
            }
        });
        Ok(())
    }

    /// What there is to tell of a value; `None` if there is none, or the selector does not take it.
    fn pick<'a>(&self, value: Option<&'a Bytes>, revision: Revision) -> Result<Option<Picked<'a>>> {
        let Some(value) = value else { return Ok(None) };
        if self.raw && self.selector.is_empty() {
            return Ok(Some(Picked::Raw(value)));
        }
        let object = storage::decode(self.resource, value, revision)?;
        if !self.selector.matches(self.resource, &object) {
            return Ok(None);
        }
        Ok(Some(if self.raw { Picked::Raw(value) } else { Picked::Object(object) }))
    }

    /// How far everything has been told.
    fn bookmark(&self, revision: Revision, initial_end: bool) -> Bytes {
        let mut meta =
            json!({ "resourceVersion": revision.0.to_string(), "creationTimestamp": null });
        if initial_end {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.shape {
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
        value_line("BOOKMARK", &object)
    }
}

fn error_line(error: &ApiError) -> Bytes {
    value_line("ERROR", &error.to_json())
}

fn value_line(kind: &str, object: &Value) -> Bytes {
    line(kind, 1024, |out| {
        // Values have string keys only, and writing to memory does not fail.
        let _ = serde_json::to_writer(out, object);
    })
}

/// An event of about this size, in bytes.
fn line(kind: &str, size: usize, write_object: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut line = Vec::with_capacity(size);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    write_object(&mut line);
    line.extend_from_slice(b"}\n");
    line.into()
}
