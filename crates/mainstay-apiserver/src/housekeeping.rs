//! What goes by itself: events whose time is over, and what is in namespaces that are being deleted.
//!
//! Source: `--event-ttl` of kube-apiserver and `pkg/controller/namespace`.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use mainstay_store::{ListOptions, StoreError};
use serde_json::{Value, json};

use crate::kinds;
use crate::object::Object;
use crate::request::DeleteOptions;
use crate::server::{ApiServer, Inner};
use crate::status::Result;
use crate::storage;

/// How long an event is kept after it was told last. Source: the default of `--event-ttl`.
pub(crate) const EVENT_TTL: Duration = Duration::from_secs(3600);

/// How often old events are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How often a namespace is looked into that does not get empty.
const EMPTY_INTERVAL: Duration = Duration::from_millis(500);

/// How long a namespace has been going before it is emptied, where other servers may put something into it:
/// until then they know, too, that it goes. Source: `namespaceDeletionGracePeriod` in
/// `pkg/controller/namespace/namespace_controller.go`.
const EMPTY_AFTER: Duration = Duration::from_secs(5);

impl ApiServer {
    /// Lets go what has to go, for ever. One server does it for all that share a store.
    pub async fn keep_house(&self) {
        let events = async {
            if !self.0.storage.store.lets_go() {
                self.0.sweep_events().await;
            }
        };
        tokio::join!(events, self.0.empty_namespaces());
    }

    /// Whether other servers may write to the same store.
    pub fn is_shared(&self) -> bool {
        self.0.storage.store.is_shared()
    }
}

impl Inner {
    async fn sweep_events(&self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            interval.tick().await;
            if let Err(error) = self.sweep(Timestamp::now()).await {
                tracing::warn!("cannot let old events go: {}", error.message);
            }
        }
    }

    async fn sweep(&self, now: Timestamp) -> Result<()> {
        let events = &kinds::EVENTS;
        let page = self.storage.page(events, "", &ListOptions::default()).await?;
        let user = self.system_user();
        let now_options =
            DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        for entry in &page.entries {
            let event = storage::decode(events, &entry.value, entry.revision)?;
            if is_over(&event, now) {
                // One that was told again meanwhile is there again with its next telling.
                let (namespace, name) = (event.namespace(), event.name());
                let deleted = self.delete(&user, events, namespace, name, &now_options).await;
                if let Err(error) = deleted
                    && error.reason != "NotFound"
                {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Empties namespaces as soon as they are being deleted.
    async fn empty_namespaces(&self) {
        loop {
            if let Err(error) = self.empty_until_change().await {
                tracing::warn!("cannot empty a namespace: {}", error.message);
                tokio::time::sleep(SWEEP_INTERVAL).await;
            }
        }
    }

    /// Empties namespaces until none is being deleted, and then waits until one changes.
    async fn empty_until_change(&self) -> Result<()> {
        let store = &self.storage.store;
        // What changes while they are looked at is waited for in vain by nobody.
        let (_, before) = store.get("").await?;
        if self.empty_terminating().await? {
            tokio::time::sleep(EMPTY_INTERVAL).await;
            return Ok(());
        }
        let mut changes = match store.watch(&kinds::NAMESPACES.prefix(""), before).await {
            Ok(changes) => changes,
            Err(error) => return unless_compacted(error),
        };
        changes.next().await.transpose().map_or_else(unless_compacted, |_| Ok(()))
    }

    /// Whether there is a namespace that is not empty yet.
    async fn empty_terminating(&self) -> Result<bool> {
        let mut left = false;
        // What others have put there has to be seen before a namespace is let go.
        self.storage.store.catch_up().await?;
        for namespace in self.storage.all(&kinds::NAMESPACES, "").await? {
            if !namespace.is_terminating() {
                continue;
            }
            let waits = self.storage.store.is_shared() && !is_known(&namespace, Timestamp::now());
            left |= waits || !self.empty(&namespace).await?;
        }
        Ok(left)
    }

    /// Deletes what is in a namespace, and lets it go when nothing is.
    async fn empty(&self, namespace: &Object) -> Result<bool> {
        let user = self.system_user();
        let name = namespace.name();
        let mut empty = true;
        for resource in kinds::ALL.iter().filter(|it| it.namespaced && it.allows("list")) {
            for object in self.storage.all(resource, name).await? {
                empty = false;
                if object.is_terminating() {
                    continue;
                }
                let options = DeleteOptions::default();
                match self.delete(&user, resource, name, object.name(), &options).await {
                    Err(error) if error.reason != "NotFound" => return Err(error),
                    _ => {}
                }
            }
        }
        if empty {
            self.finalize(name).await?;
        }
        Ok(empty)
    }

    /// Takes the server's own finalizer from a namespace, with which it goes unless others have theirs.
    async fn finalize(&self, name: &str) -> Result<()> {
        let user = self.system_user();
        let writer = crate::pipeline::Writer {
            user: &user,
            manager: crate::managed::Manager { name: "mainstay", applied: false },
            dry_run: false,
            now: Timestamp::now(),
        };
        let change = crate::pipeline::Change {
            resource: &kinds::NAMESPACES,
            namespace: "",
            name,
            subresource: "finalize",
            may_create: false,
        };
        let finalized = self.update(&change, &writer, |current| {
            let mut namespace = current.cloned().unwrap_or_default();
            let kept: Vec<Value> = namespace
                .list_at(&["spec", "finalizers"])
                .iter()
                .filter(|it| *it != "kubernetes")
                .cloned()
                .collect();
            namespace.0.insert("spec".into(), json!({ "finalizers": kept }));
            Ok(namespace)
        });
        match finalized.await {
            Err(error) if error.reason != "NotFound" => Err(error),
            _ => Ok(()),
        }
    }
}

/// What has been forgotten may have been a change of a namespace.
fn unless_compacted(error: StoreError) -> Result<()> {
    match error {
        StoreError::Compacted { .. } => Ok(()),
        other => Err(other.into()),
    }
}

/// Whether all servers have had the time to see that a namespace goes.
fn is_known(namespace: &Object, now: Timestamp) -> bool {
    let since = namespace.meta_str("deletionTimestamp").parse::<Timestamp>();
    since.is_ok_and(|since| {
        Duration::try_from(now.duration_since(since)).is_ok_and(|past| past >= EMPTY_AFTER)
    })
}

/// Whether an event's time is over.
fn is_over(event: &Object, now: Timestamp) -> bool {
    let times = [
        event.str_at(&["lastTimestamp"]),
        event.str_at(&["series", "lastObservedTime"]),
        event.str_at(&["eventTime"]),
        event.meta_str("creationTimestamp"),
    ];
    let last = times.iter().filter_map(|time| time.parse::<Timestamp>().ok()).max();
    let age = |last| Duration::try_from(now.duration_since(last)).unwrap_or_default();
    last.is_none_or(|last| age(last) > EVENT_TTL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_several_servers_is_emptied_when_all_know_that_it_goes() {
        let namespace = Object::from_json(json!({
            "metadata": {"name": "n", "deletionTimestamp": "2026-01-01T12:00:00Z"},
        }));
        for (now, expected) in [
            ("2026-01-01T11:59:00Z", false),
            ("2026-01-01T12:00:00Z", false),
            ("2026-01-01T12:00:04.999Z", false),
            ("2026-01-01T12:00:05Z", true),
            ("2026-01-02T12:00:00Z", true),
        ] {
            assert_eq!(is_known(&namespace, now.parse().unwrap()), expected, "{now}");
        }
    }

    #[test]
    fn an_event_lives_an_hour_after_it_was_told_last() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let event = |last: &str| {
            Object::from_json(json!({
                "metadata": {"name": "e", "creationTimestamp": "2026-01-01T01:00:00Z"},
                "lastTimestamp": last,
            }))
        };
        assert!(!is_over(&event("2026-01-01T11:00:00Z"), now));
        assert!(is_over(&event("2026-01-01T10:59:59Z"), now));
        assert!(is_over(&Object::default(), now));
        // A clock that was set back loses no event.
        assert!(!is_over(&event("2027-01-01T00:00:00Z"), now));
    }
}
