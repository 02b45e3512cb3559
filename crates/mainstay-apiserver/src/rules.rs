//! What follows from the objects for who may do what, kept as the store changes.
//!
//! One task hears every commit in its order and applies it. So whatever becomes of the request that wrote a
//! role, the role counts, and of two writes the later one does.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use mainstay_store::{Event, ListOptions, Revision, Store};
use tokio::sync::watch;

use crate::authz::{self, Authorizer};
use crate::kind::Resource;
use crate::kinds;
use crate::status::Result;
use crate::storage;

/// How long after a failure of the store it is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Who may do what, as of some revision.
#[derive(Default)]
pub(crate) struct Rules {
    authorizer: RwLock<Authorizer>,
    /// How far the history has been applied.
    applied: watch::Sender<Revision>,
}

impl Rules {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Authorizer> {
        self.authorizer.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a commit counts.
    pub(crate) async fn reached(&self, revision: Revision) {
        // The task that tells lives as long as the server.
        drop(self.applied.subscribe().wait_for(|applied| *applied >= revision).await);
    }

    /// Learns what is there, and from when on what happens has to be applied.
    ///
    /// # Errors
    ///
    /// When the store does not work, or has an object that cannot be read.
    pub(crate) async fn learn(&self, store: &dyn Store) -> Result<Revision> {
        // What is committed between the lists is applied after them, once more for some.
        let (_, start) = store.get("").await?;
        let mut learned = Authorizer::default();
        for resource in resources() {
            let page = store.list(&resource.prefix(""), &ListOptions::default()).await?;
            for entry in &page.entries {
                let object = storage::decode(resource, &entry.value, entry.revision)?;
                learned.observe(resource.group, resource.plural, &object);
            }
        }
        *self.authorizer.write().unwrap_or_else(PoisonError::into_inner) = learned;
        self.applied.send_replace(start);
        Ok(start)
    }

    /// Applies what happens after what was learned, for ever.
    pub(crate) async fn follow(self: Arc<Self>, store: Arc<dyn Store>, learned: Revision) {
        let mut start = Ok(learned);
        loop {
            let heard = match start {
                Ok(start) => self.hear(&*store, start).await,
                Err(error) => Err(error),
            };
            if let Err(error) = heard {
                tracing::warn!("who may do what is learned anew: {}", error.message);
                tokio::time::sleep(PAUSE).await;
            }
            start = self.learn(&*store).await;
        }
    }

    /// Until the history has gone on without this task, or ends.
    async fn hear(&self, store: &dyn Store, start: Revision) -> Result<()> {
        let mut commits = store.watch("", start).await?;
        while let Some(events) = commits.next().await {
            let events = events?;
            self.apply(&events)?;
            if let Some(last) = events.last() {
                self.applied.send_replace(last.revision);
            }
        }
        Ok(())
    }

    fn apply(&self, events: &[Event]) -> Result<()> {
        for event in events {
            let Some(resource) = resources().find(|it| event.key.starts_with(&it.prefix("")))
            else {
                continue;
            };
            let Some(value) = event.value.as_ref().or(event.previous.as_ref()) else { continue };
            let object = storage::decode(resource, value, event.revision)?;
            let mut rules = self.authorizer.write().unwrap_or_else(PoisonError::into_inner);
            match event.value {
                Some(_) => rules.observe(resource.group, resource.plural, &object),
                None => {
                    let (namespace, name) = (object.namespace(), object.name());
                    rules.forget(resource.group, resource.plural, namespace, name);
                }
            }
        }
        Ok(())
    }
}

fn resources() -> impl Iterator<Item = &'static Resource> {
    kinds::ALL.iter().copied().filter(|it| matters(it))
}

/// Whether objects say something about who may do what: rules, and pods about what their nodes may see.
/// A write of one is answered when it counts.
pub(crate) fn matters(resource: &Resource) -> bool {
    resource.group == authz::rbac::GROUP || std::ptr::eq(resource, &kinds::PODS)
}
