//! Who owns what, as far as has been heard, and what has to be looked at when that changes.
//!
//! Source: `pkg/controller/garbagecollector/graph_builder.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::kinds::Resource;
use super::{FOREGROUND, ORPHAN};
use crate::informer::ObjectKey;

/// An object, as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) resource: Arc<Resource>,
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) ending: Ending,
}

/// How an object is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is not.
    No,
    /// It goes, and what it owns afterwards.
    Plain,
    /// It waits for what it owns to go.
    Foreground,
    /// It waits for what it owns to be nobody's.
    Orphan,
}

/// Something to do, by the UID of the object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// See whether it may stay.
    Check(String),
    /// Let go what it owns.
    Orphan(String),
}

/// What is to be done about an object, by the graph alone.
#[derive(Debug, PartialEq)]
pub(super) enum Ask<'a> {
    Nothing,
    /// Everything that it waited for is gone.
    Finish(&'a Seen),
    /// It waits for these; they are to be checked.
    Waits(Vec<&'a str>),
    /// Its owners have to be looked at where they are.
    Look(&'a Seen),
}

/// What an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dependents {
    None,
    Some,
    /// One of them at least waits for what it owns itself.
    Waiting,
}

/// All objects.
#[derive(Debug, Default)]
pub(super) struct Graph {
    objects: BTreeMap<String, Seen>,
    /// By the UID of the owner, which may not have been heard of.
    dependents: BTreeMap<String, BTreeSet<String>>,
}

// === impl Seen ===

impl Seen {
    pub(super) fn of(resource: &Arc<Resource>, meta: &ObjectMeta) -> Self {
        Self {
            resource: resource.clone(),
            key: ObjectKey::of(meta),
            uid: meta.uid.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            ending: Ending::of(meta),
        }
    }

    /// Whether a reference of an object in a namespace names this one rightly.
    fn is_named_by(&self, owner: &OwnerReference, namespace: &str) -> bool {
        self.key.name == owner.name
            && self.resource.kind == owner.kind
            && self.resource.api_version == owner.api_version
            && (self.key.namespace.is_empty() || self.key.namespace == namespace)
    }
}

impl Ending {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let has =
            |finalizer: &str| meta.finalizers.iter().flatten().any(|it| it.as_str() == finalizer);
        match meta.deletion_timestamp {
            None => Self::No,
            Some(_) if has(ORPHAN) => Self::Orphan,
            Some(_) if has(FOREGROUND) => Self::Foreground,
            Some(_) => Self::Plain,
        }
    }
}

fn blocks(owner: &OwnerReference) -> bool {
    owner.block_owner_deletion == Some(true)
}

// === impl Graph ===

impl Graph {
    pub(super) fn contains(&self, uid: &str) -> bool {
        self.objects.contains_key(uid)
    }

    /// Takes in how an object is.
    pub(super) fn set(&mut self, new: Seen) -> Vec<Task> {
        let mut tasks = Vec::new();
        let old = self.objects.remove(&new.uid);
        let before = old.as_ref().map_or(&[][..], |old| &old.owners);
        for owner in &new.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(new.uid.clone());
            let known = before.iter().find(|it| it.uid == owner.uid);
            if known == Some(owner) {
                continue;
            }
            let there = self.objects.get(&owner.uid);
            let solid = there.is_some_and(|there| {
                there.is_named_by(owner, &new.key.namespace) && there.ending != Ending::Foreground
            });
            if !solid {
                tasks.push(Task::Check(new.uid.clone()));
            }
            if known.is_some_and(blocks) && !blocks(owner) {
                tasks.push(Task::Check(owner.uid.clone()));
            }
        }
        for owner in before {
            if !new.owners.iter().any(|it| it.uid == owner.uid) {
                self.disown(&owner.uid, &new.uid, &mut tasks);
            }
        }
        let was = old.as_ref().map_or(Ending::No, |old| old.ending);
        match new.ending {
            Ending::Orphan if was != Ending::Orphan => tasks.push(Task::Orphan(new.uid.clone())),
            Ending::Foreground if was != Ending::Foreground => {
                tasks.extend(self.dependents(&new.uid).map(|it| Task::Check(it.uid.clone())));
                tasks.push(Task::Check(new.uid.clone()));
            }
            Ending::No | Ending::Plain | Ending::Orphan | Ending::Foreground => {}
        }
        if old.is_none() {
            // Those that came before their owner, and name it wrongly.
            let wrong = self.dependents(&new.uid).filter(|dependent| {
                let mut owners = dependent.owners.iter().filter(|owner| owner.uid == new.uid);
                owners.any(|owner| !new.is_named_by(owner, &dependent.key.namespace))
            });
            tasks.extend(wrong.map(|it| Task::Check(it.uid.clone())));
        }
        self.objects.insert(new.uid.clone(), new);
        tasks
    }

    /// Takes in that an object is gone.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Task> {
        let mut tasks: Vec<Task> =
            self.dependents(uid).map(|it| Task::Check(it.uid.clone())).collect();
        if let Some(old) = self.objects.remove(uid) {
            for owner in &old.owners {
                self.disown(&owner.uid, uid, &mut tasks);
            }
        }
        tasks
    }

    /// What is to be done about an object.
    pub(super) fn ask(&self, uid: &str) -> Ask<'_> {
        let Some(object) = self.objects.get(uid) else { return Ask::Nothing };
        match object.ending {
            Ending::Plain | Ending::Orphan => Ask::Nothing,
            Ending::Foreground => {
                let blocking: Vec<&Seen> = self
                    .dependents(uid)
                    .filter(|it| it.owners.iter().any(|owner| owner.uid == uid && blocks(owner)))
                    .collect();
                if blocking.is_empty() {
                    return Ask::Finish(object);
                }
                let open = blocking.iter().filter(|it| it.ending != Ending::Foreground);
                Ask::Waits(open.map(|it| it.uid.as_str()).collect())
            }
            Ending::No => {
                let solid = |owner: &OwnerReference| {
                    self.objects.get(&owner.uid).is_some_and(|there| {
                        there.is_named_by(owner, &object.key.namespace)
                            && there.ending != Ending::Foreground
                    })
                };
                // That an owner goes is heard of.
                if object.owners.iter().all(solid) { Ask::Nothing } else { Ask::Look(object) }
            }
        }
    }

    /// What an object owns, if it waits for that to be nobody's.
    pub(super) fn orphans(&self, uid: &str) -> Option<(&Seen, Vec<&Seen>)> {
        let owner = self.objects.get(uid).filter(|owner| owner.ending == Ending::Orphan)?;
        Some((owner, self.dependents(uid).collect()))
    }

    /// Whether an object owns any.
    pub(super) fn has_dependents(&self, uid: &str) -> Dependents {
        let mut has = Dependents::None;
        for dependent in self.dependents(uid) {
            if dependent.ending == Ending::Foreground {
                return Dependents::Waiting;
            }
            has = Dependents::Some;
        }
        has
    }

    fn dependents(&self, uid: &str) -> impl Iterator<Item = &Seen> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.objects.get(uid))
    }

    /// An owner has one less, for which it may have waited.
    fn disown(&mut self, owner: &str, uid: &str, tasks: &mut Vec<Task>) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(uid);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
        if self.objects.get(owner).is_some_and(|owner| owner.ending == Ending::Foreground) {
            tasks.push(Task::Check(owner.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests;
