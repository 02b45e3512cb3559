//! The ConfigMaps and Secrets that pods refer to.
//!
//! # Flow
//!
//! There are two shelves: one for static pods, filled with what lies beside their manifests, and one for
//! pods of an API, filled by [`api::keep`], which follows each object that one of them refers to. Whoever
//! works for a pod follows what it refers to and hears when one of it changes.
//!
//! # Guarantees
//!
//! - What is in an object is in memory once, however many pods refer to it.
//! - Static pods are never given objects of an API, nor pods of an API those of the disk.
//! - While the API is away, what was known counts.
//! - What was not found beside manifests is missing only once all of them have been read.

pub(crate) mod api;
pub(crate) mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstay_plan::references::{self, Known, Referenced};
use mainstay_pod::{Object, ObjectName, Pod};
use tokio::sync::watch;

/// Both shelves.
#[derive(Default)]
pub(crate) struct Objects {
    /// What lies beside manifests.
    pub(crate) manifests: Arc<Shelf>,
    /// What an API has.
    pub(crate) api: Arc<Shelf>,
}

/// Objects of one source, and who refers to them.
#[derive(Default)]
pub(crate) struct Shelf {
    state: Mutex<State>,
    /// Changes when other objects are referred to than before.
    wanted: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<ObjectName, Known>,
    /// What is to be said of all others: that they are awaited, until the shelf is filled at once.
    others: Known,
    followers: BTreeMap<u64, Follower>,
    next: u64,
}

struct Follower {
    names: BTreeSet<ObjectName>,
    seen: watch::Sender<Arc<Referenced>>,
}

/// What one pod refers to, kept up to date for as long as this is there.
pub(crate) struct Following {
    shelf: Arc<Shelf>,
    id: u64,
    seen: watch::Receiver<Arc<Referenced>>,
}

// === impl Objects ===

impl Objects {
    /// Follows what a pod refers to; `None` if that is nothing.
    pub(crate) fn follow(&self, pod: &Pod) -> Option<Following> {
        let names = references::of(pod);
        let shelf = if pod.source().is_static() { &self.manifests } else { &self.api };
        (!names.is_empty()).then(|| shelf.follow(names))
    }
}

// === impl Shelf ===

impl Shelf {
    fn follow(self: &Arc<Self>, names: BTreeSet<ObjectName>) -> Following {
        let mut state = self.lock();
        let more = names.iter().any(|name| !state.is_wanted(name));
        let (seen, receiver) = watch::channel(Arc::new(state.look(&names)));
        let id = state.next;
        state.next += 1;
        state.followers.insert(id, Follower { names, seen });
        drop(state);
        self.wanted.send_if_modified(|count| {
            *count += u64::from(more);
            more
        });
        Following { shelf: self.clone(), id, seen: receiver }
    }

    /// The objects that somebody refers to.
    fn names(&self) -> BTreeSet<ObjectName> {
        let state = self.lock();
        state.followers.values().flat_map(|it| &it.names).cloned().collect()
    }

    /// Changes when other objects are referred to than before.
    fn wanted(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }

    /// Takes in all objects that were found, and why there may be `more`; `None` if there are none.
    pub(crate) fn replace(&self, all: BTreeMap<ObjectName, Arc<Object>>, more: Option<String>) {
        let mut state = self.lock();
        state.others = more.map_or(Known::Missing, |why| Known::Unreadable(why.into()));
        let all = all.into_iter().map(|(name, object)| (name, Known::Found(object)));
        state.known = all.collect();
        state.tell(|_| true);
    }

    /// Takes in what is known of one object, if it is still referred to.
    fn put(&self, name: &ObjectName, known: Known) {
        let mut state = self.lock();
        // The same again would be in memory twice.
        let news = state.known.get(name) != Some(&known);
        if news && state.is_wanted(name) {
            state.known.insert(name.clone(), known);
            state.tell(|names| names.contains(name));
        }
    }

    /// An object cannot be read now. What was known of it counts.
    fn unreadable(&self, name: &ObjectName, reason: &str) {
        let known = self.lock().known.get(name).cloned();
        if !matches!(known, Some(Known::Found(_) | Known::Missing)) {
            self.put(name, Known::Unreadable(reason.into()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether somebody refers to an object.
    fn is_wanted(&self, name: &ObjectName) -> bool {
        self.followers.values().any(|it| it.names.contains(name))
    }

    fn look(&self, names: &BTreeSet<ObjectName>) -> Referenced {
        let known = |name: &ObjectName| self.known.get(name).unwrap_or(&self.others).clone();
        Referenced(names.iter().map(|name| (name.clone(), known(name))).collect())
    }

    /// Tells those followers for whom it is news.
    fn tell(&self, concerns: impl Fn(&BTreeSet<ObjectName>) -> bool) {
        for follower in self.followers.values().filter(|it| concerns(&it.names)) {
            let now = self.look(&follower.names);
            follower.seen.send_if_modified(|seen| {
                let news = **seen != now;
                if news {
                    *seen = Arc::new(now);
                }
                news
            });
        }
    }
}

// === impl Following ===

impl Following {
    /// What is known now.
    pub(crate) fn now(&self) -> Arc<Referenced> {
        self.seen.borrow().clone()
    }

    /// Resolves when something changed since it was asked last, or since the beginning. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // The sender is on the shelf for as long as this is there.
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when of each object something is known.
    pub(crate) async fn known(&mut self) {
        // As above.
        let _ = self.seen.wait_for(|referenced| !referenced.is_awaited()).await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut state = self.shelf.lock();
        let Some(Follower { mut names, .. }) = state.followers.remove(&self.id) else { return };
        names.retain(|name| !state.is_wanted(name));
        if state.others == Known::Awaited {
            for name in &names {
                state.known.remove(name);
            }
        }
        drop(state);
        self.shelf.wanted.send_if_modified(|count| {
            *count += u64::from(!names.is_empty());
            !names.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
